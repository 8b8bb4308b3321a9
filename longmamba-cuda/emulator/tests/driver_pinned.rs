//! Page-locked memory: its copies are made while the program goes on, which must wait for them. By itself,
//! because a mistake loses the context for all.

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaStream, DevicePtr, PinnedHostSlice, result};
use std::sync::Arc;

const LEN: usize = 1000;

fn pinned(context: &Arc<CudaContext>) -> PinnedHostSlice<u8> {
    // SAFETY: any bytes are numbers of 8 bits.
    unsafe { context.alloc_pinned_with_flags(LEN, 0) }.expect("there is memory")
}

/// Copies without waiting; the event of the memory itself is not recorded.
fn copy(stream: &Arc<CudaStream>, to: u64, from: &mut PinnedHostSlice<u8>) {
    let bytes = from.as_mut_slice().expect("nothing to wait for");
    // SAFETY: both have LEN bytes; whether the memory stays as it is, is what is tested.
    unsafe { result::memcpy_htod_async(to, bytes, stream.cu_stream()) }.expect("is put off");
}

#[test]
fn copies_are_made_when_they_are_waited_for() {
    longmamba_cuda_emulator::preload().expect("Cargo builds the library beside the tests");
    let context = CudaContext::new(0).expect("the emulated device");
    // SAFETY: what must be waited for is waited for below.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().expect("a stream");
    let device = stream.alloc_zeros::<u8>(LEN).expect("there is room");
    let address = device.device_ptr(&stream).0;
    let set = |pinned: &mut PinnedHostSlice<u8>, value| {
        pinned.as_mut_slice().expect("nothing to wait for").fill(value);
    };
    let [mut first, mut second] = [0; 2].map(|_| pinned(&context));

    // An event stands for what came before it, and for no more.
    set(&mut first, 1);
    set(&mut second, 2);
    copy(&stream, address, &mut first);
    let event = stream.record_event(None).expect("records");
    copy(&stream, address, &mut second);
    event.synchronize().expect("the first copy is done");
    set(&mut first, 3);
    // Other work of the stream comes after the copies, and this is waited for.
    assert_eq!(stream.clone_dtoh(&device).expect("copies back"), [2; LEN]);
    set(&mut second, 4);

    // What comes back is not there before it has been waited for.
    let into = first.as_mut_slice().expect("nothing to wait for");
    // SAFETY: both have LEN bytes.
    unsafe { result::memcpy_dtoh_async(into, address, stream.cu_stream()) }.expect("is put off");
    assert_eq!(first.as_slice().expect("nothing to wait for"), [3; LEN]);
    stream.synchronize().expect("works");
    assert_eq!(first.as_slice().expect("nothing to wait for"), [2; LEN]);

    // Freed before it was waited for: refused, and the memory is still there.
    copy(&stream, address, &mut second);
    let memory = second.as_mut_ptr().expect("nothing to wait for");
    // SAFETY: refused.
    let error = unsafe { result::free_host(memory.cast()) }.expect_err("is in use");
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_VALUE);
    stream.synchronize().expect("works");

    // Written before it was waited for.
    copy(&stream, address, &mut second);
    set(&mut second, 5);
    let error = stream.synchronize().expect_err("must be found");
    assert_eq!(error.0, CUresult::CUDA_ERROR_LAUNCH_FAILED);
    let after = stream.alloc_zeros::<u8>(1).map(drop).expect_err("the context is lost");
    assert_eq!(after.0, CUresult::CUDA_ERROR_LAUNCH_FAILED);
}
