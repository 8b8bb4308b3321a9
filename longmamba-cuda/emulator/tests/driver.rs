//! The emulator as a program sees it that knows only `cudarc`.

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// The driver is loaded once; each test has a context, the primary one, of the same device.
fn context() -> Arc<CudaContext> {
    longmamba_cuda_emulator::preload().expect("Cargo builds the library beside the tests");
    // SAFETY: nothing else is being loaded that could go wrong; this only opens the library.
    assert!(unsafe { sys::is_culib_present() });
    CudaContext::new(0).expect("the emulated device")
}

fn function(context: &Arc<CudaContext>, ptx: &str, name: &str) -> CudaFunction {
    let module = context.load_module(Ptx::from_src(ptx)).expect("loads");
    module.load_function(name).expect("the kernel is there")
}

fn rows(threads: u32, blocks: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 }
}

fn axpy(stream: &Arc<CudaStream>, f: &CudaFunction, a: f32, n: usize) -> Vec<f32> {
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let x = stream.clone_htod(&x).expect("copies");
    let mut y = stream.clone_htod(&vec![1.0_f32; n]).expect("copies");
    let n = n as i32;
    let mut launch = stream.launch_builder(f);
    launch.arg(&a).arg(&x).arg(&mut y).arg(&n);
    // SAFETY: the arguments are those of the kernel, which stays inside of them.
    unsafe { launch.launch(rows(128, 3)) }.expect("runs");
    stream.clone_dtoh(&y).expect("copies back")
}

#[test]
fn a_kernel_runs() {
    let context = context();
    let stream = context.default_stream();
    let f = function(&context, include_str!("ptx/basic.ptx"), "axpy");
    let y = axpy(&stream, &f, 2.0, 1000);
    assert!(y.iter().enumerate().all(|(i, y)| *y == 2.0 * i as f32 + 1.0));
}

#[test]
fn the_device_describes_itself() {
    let context = context();
    assert_eq!(CudaContext::device_count().expect("asks"), 1);
    assert_eq!(context.name().expect("asks"), "longmamba PTX emulator");
    assert_eq!(context.compute_capability().expect("asks"), (8, 0));
    let (free, total) = context.mem_get_info().expect("asks");
    assert!(free <= total && total == 8 << 30);
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    assert_eq!(context.attribute(attribute).expect("asks"), 163 << 10);
    assert!(CudaContext::new(1).is_err());
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Args {
    x: u64,
    y: u64,
    n: i32,
    scale: f32,
    tag: [u8; 3],
    shift: f64,
}

// SAFETY: a plain struct, laid out as the kernel's.
unsafe impl DeviceRepr for Args {}

#[test]
fn a_struct_by_value_and_dynamic_shared_memory() {
    use cudarc::driver::DevicePtr;
    let context = context();
    let stream = context.new_stream().expect("a stream");
    let f = function(&context, include_str!("ptx/basic.ptx"), "basic");
    let x = stream.clone_htod(&vec![0.5_f32; 200]).expect("copies");
    let y = stream.alloc_zeros::<f32>(200).expect("allocates");
    let args = Args {
        x: x.device_ptr(&stream).0,
        y: y.device_ptr(&stream).0,
        n: 200,
        scale: 0.25,
        tag: [1, 2, 3],
        shift: 3.5,
    };
    let mut shape = rows(128, 2);
    shape.shared_mem_bytes = 128 * 4;
    let mut launch = stream.launch_builder(&f);
    launch.arg(&args);
    // SAFETY: the struct is the kernel's one parameter and points at buffers of `n` floats.
    unsafe { launch.launch(shape) }.expect("runs");
    let y = stream.clone_dtoh(&y).expect("copies back");
    assert!(y.iter().all(|y| y.is_finite()));
    assert!(y.iter().skip(5).step_by(6).all(|y| *y == 0.5));
}

#[test]
fn more_shared_memory_must_be_asked_for() {
    let context = context();
    let stream = context.default_stream();
    let f = function(&context, include_str!("ptx/faults.ptx"), "past_shared");
    let mut y = stream.alloc_zeros::<f32>(64).expect("allocates");
    let wrong = 20_000_i32;
    let mut shape = rows(64, 1);
    shape.shared_mem_bytes = 100 << 10;
    let mut launch = |f: &CudaFunction| {
        let mut launch = stream.launch_builder(f);
        launch.arg(&mut y).arg(&wrong);
        // SAFETY: the arguments are those of the kernel.
        unsafe { launch.launch(shape) }.map(|_| ())
    };
    assert_eq!(launch(&f).map_err(|e| e.0), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    f.set_attribute(attribute, 100 << 10).expect("the device has as much");
    launch(&f).expect("now it runs");
    assert!(f.set_attribute(attribute, 200 << 10).is_err());
}

#[test]
fn a_captured_graph_is_replayed() {
    let context = context();
    // SAFETY: this test uses one stream, so there is nothing that events would have to order.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().expect("a stream");
    let f = function(&context, include_str!("ptx/basic.ptx"), "axpy");
    let x = stream.clone_htod(&[1.0_f32; 64]).expect("copies");
    let mut y = stream.alloc_zeros::<f32>(64).expect("allocates");
    let (mut a, n) = (2.0_f32, 64_i32);
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("begins");
    for _ in 0..3 {
        let mut launch = stream.launch_builder(&f);
        launch.arg(&a).arg(&x).arg(&mut y).arg(&n);
        // SAFETY: the arguments are those of the kernel, which stays inside of them.
        unsafe { launch.launch(rows(64, 1)) }.expect("is recorded");
    }
    a = 1000.0;
    let graph =
        stream.end_capture(sys::CUgraphInstantiate_flags(0)).expect("ends").expect("a graph");
    assert_eq!(a, 1000.0);
    // Nothing ran while capturing.
    assert_eq!(stream.clone_dtoh(&y).expect("copies back")[0], 0.0);
    for replay in 1..=4 {
        graph.launch().expect("runs");
        let y = stream.clone_dtoh(&y).expect("copies back");
        assert!(y.iter().all(|y| *y == 6.0 * replay as f32), "{y:?}");
    }
}

#[test]
fn waiting_inside_a_capture_is_refused() {
    let context = context();
    let stream = context.new_stream().expect("a stream");
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).expect("begins");
    let error = stream.synchronize().expect_err("a capture has nothing to wait for");
    assert_eq!(error.0, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    let ended = stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(|_| ());
    assert_eq!(
        ended.expect_err("the capture is broken").0,
        CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
    );
}

#[test]
fn events_and_pinned_memory() {
    let context = context();
    let stream = context.new_stream().expect("a stream");
    let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let before = stream.record_event(flags).expect("records");
    // SAFETY: written before it is read.
    let mut pinned = unsafe { context.alloc_pinned::<f32>(256) }.expect("allocates");
    pinned.as_mut_slice().expect("not in use").fill(3.0);
    let device = stream.clone_htod(&pinned).expect("copies");
    let after = stream.record_event(flags).expect("records");
    assert!(before.elapsed_ms(&after).expect("both were recorded") >= 0.0);
    assert_eq!(stream.clone_dtoh(&device).expect("copies back"), vec![3.0; 256]);
}

#[test]
fn modules_that_cannot_be_loaded() {
    let context = context();
    let load = |text: &str| context.load_module(Ptx::from_src(text)).map(|_| ()).map_err(|e| e.0);
    let head = |version: &str, target: &str| {
        format!(".version {version}\n.target {target}\n.address_size 64\n")
    };
    assert_eq!(load(&head("8.0", "sm_80")), Ok(()));
    assert_eq!(load(&head("8.0", "sm_90")), Err(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU));
    assert_eq!(load(&head("8.4", "sm_80")), Err(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION));
    assert_eq!(
        load(&(head("8.0", "sm_80") + ".visible .entry f() { frobnicate.u32; ret; }")),
        Err(CUresult::CUDA_ERROR_INVALID_PTX)
    );
    let too_much = context.default_stream().alloc_zeros::<u8>(9 << 30).map(|_| ());
    assert_eq!(too_much.expect_err("no room").0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
}

#[test]
fn a_capture_of_two_streams() {
    let context = context();
    // SAFETY: the events that order the streams are waited for below.
    unsafe { context.disable_event_tracking() };
    let (main, side) = (context.new_stream().expect("one"), context.new_stream().expect("two"));
    let f = function(&context, include_str!("ptx/basic.ptx"), "axpy");
    let x = main.clone_htod(&[1.0_f32; 64]).expect("copies");
    let mut y = main.alloc_zeros::<f32>(64).expect("allocates");
    let mut z = main.alloc_zeros::<f32>(64).expect("allocates");
    let (a, n) = (2.0_f32, 64_i32);
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    let flags = sys::CUgraphInstantiate_flags(0);
    let mut run = |join: bool| {
        main.begin_capture(mode).expect("begins");
        let fork = main.record_event(None).expect("records");
        side.wait(&fork).expect("joins the capture");
        for (stream, y) in [(&main, &mut y), (&side, &mut z)] {
            let mut launch = stream.launch_builder(&f);
            launch.arg(&a).arg(&x).arg(y).arg(&n);
            // SAFETY: the arguments are those of the kernel, which stays inside of them.
            unsafe { launch.launch(rows(64, 1)) }.expect("is recorded");
        }
        if join {
            let back = side.record_event(None).expect("records");
            main.wait(&back).expect("waits");
        }
        main.end_capture(flags)
    };
    let error = run(false).map(|_| ()).expect_err("the second stream was left alone");
    assert_eq!(error.0, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    let graph = run(true).expect("ends").expect("a graph");
    graph.launch().expect("runs");
    graph.launch().expect("runs");
    for buffer in [&y, &z] {
        assert_eq!(main.clone_dtoh(buffer).expect("copies back"), vec![4.0; 64]);
    }
}

#[test]
fn allocating_inside_a_capture_is_refused() {
    let context = context();
    let stream = context.new_stream().expect("a stream");
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    stream.begin_capture(mode).expect("begins");
    let error = stream.alloc_zeros::<f32>(64).map(|_| ()).expect_err("cannot be captured");
    assert_eq!(error.0, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert!(stream.end_capture(sys::CUgraphInstantiate_flags(0)).is_err());
}
