//! What a program sees after a kernel failed. By itself, because the context is lost for all.

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

#[test]
fn a_fault_loses_the_context_until_it_is_released() {
    longmamba_cuda_emulator::preload().expect("Cargo builds the library beside the tests");
    let faults = include_str!("ptx/faults.ptx");
    for (kernel, code) in [
        ("past_end", CUresult::CUDA_ERROR_ILLEGAL_ADDRESS),
        ("misaligned", CUresult::CUDA_ERROR_MISALIGNED_ADDRESS),
        ("missing_barrier", CUresult::CUDA_ERROR_LAUNCH_FAILED),
    ] {
        let context = CudaContext::new(0).expect("the emulated device, whole again");
        let stream = context.default_stream();
        let module = context.load_module(Ptx::from_src(faults)).expect("loads");
        let function = module.load_function(kernel).expect("is there");
        let mut y = stream.alloc_zeros::<f32>(64).expect("there is room");
        let (n, wrong) = (64_i32, 1_i32);
        let mut launch = stream.launch_builder(&function);
        launch.arg(&mut y);
        if kernel == "past_end" {
            launch.arg(&n);
        }
        launch.arg(&wrong);
        let blocks = if kernel == "past_end" { 2 } else { 1 };
        let shape =
            LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: what the kernel does wrong is what the emulator finds.
        let result = unsafe { launch.launch(shape) }.map(|_| ());
        assert_eq!(result.expect_err("fails").0, code);
        // Whatever comes next fails in the same way.
        assert_eq!(stream.synchronize().expect_err("lost").0, code);
        assert!(stream.clone_dtoh(&y).is_err());
        assert!(stream.alloc_zeros::<f32>(64).is_err());
    }
}
