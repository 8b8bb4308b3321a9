//! The variables of the environment. By itself, because they are read once.

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, sys};
use cudarc::nvrtc::Ptx;

#[test]
fn the_device_is_as_the_environment_says() {
    for (name, value) in [
        ("LONGMAMBA_EMULATOR_SM", "75"),
        ("LONGMAMBA_EMULATOR_DEVICES", "2"),
        ("LONGMAMBA_EMULATOR_MEMORY", "1048576"),
        ("LONGMAMBA_EMULATOR_THREADS", "1"),
    ] {
        // SAFETY: the one test of this program has started no threads that read the environment.
        unsafe { std::env::set_var(name, value) };
    }
    longmamba_cuda_emulator::preload().expect("Cargo builds the library beside the tests");
    assert_eq!(CudaContext::device_count().expect("asks"), 2);
    let context = CudaContext::new(1).expect("the second device");
    assert_eq!(context.compute_capability().expect("asks"), (7, 5));
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    assert_eq!(context.attribute(attribute).expect("asks"), 64 << 10);
    let stream = context.default_stream();
    let half = stream.alloc_zeros::<u8>(600_000).expect("there is room");
    let error = stream.alloc_zeros::<u8>(600_000).map(|_| ()).expect_err("there is no more");
    assert_eq!(error.0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    drop(half);
    stream.alloc_zeros::<u8>(600_000).expect("there is room again");
    let module = context.load_module(Ptx::from_src(include_str!("ptx/basic.ptx"))).map(|_| ());
    assert_eq!(module.expect_err("is for sm_80").0, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    // The devices have memory of their own.
    let other = CudaContext::new(0).expect("the first device");
    let (free, total) = other.mem_get_info().expect("asks");
    assert_eq!(free, total);
}
