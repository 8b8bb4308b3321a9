//! Everything unsafe: asking for the driver, addresses, copies and launches.
//!
//! What makes it safe to call from the rest of the crate: an address can only be had from a buffer of the
//! device that is to use it, after its bounds were checked ([`Pointer`]); a kernel is only launched where the
//! size of its one argument, a struct, is what its PTX says; page-locked memory is waited for before it
//! changes; and all work is done in one stream, so that a buffer is freed after the last kernel that uses it.
//! A graph, which is done in that stream too, keeps its buffers.

mod cublas_lt;
mod staging;

pub(crate) use cublas_lt::{Blas, Operands, Plan, Shape, Type};
pub(crate) use staging::{Staging, upload_all, upload_pieces};

use crate::buffer::{Buffer, DeviceElement};
use crate::ptx::{Module, parameter_bytes};
use crate::{Device, Error, Result};
use cudarc::driver::sys;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaModule, CudaSlice, CudaStream, DevicePtr, result,
};
use cudarc::nvrtc::Ptx;
use std::any::Any;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// Whether the driver's library can be loaded. Without it every other call would panic.
pub(crate) fn driver_present() -> bool {
    // SAFETY: loads the driver's library, whose initialisers are sound to run.
    unsafe { sys::is_culib_present() }
}

/// The version of CUDA that the driver supports, as 1000 · major + 10 · minor.
pub(crate) fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the library is present (the caller asked), and `version` is valid for the write.
    let answer = unsafe { sys::cuDriverGetVersion(&mut version) };
    answer.result().map_err(Error::driver("tell its version"))?;
    Ok(version)
}

/// Leaves out the events that would order several streams.
pub(crate) fn use_one_stream(context: &CudaContext) {
    // SAFETY: a Device does all work in one stream and gives it away to nobody. The second one that it
    // opens for a capture never does any.
    unsafe { context.disable_event_tracking() };
}

/// The address of an element of a buffer, as kernels take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Pointer(u64);

impl Pointer {
    /// For an argument that is not there.
    pub(crate) const NULL: Pointer = Pointer(0);

    /// For work of `device`; `first` is at most the buffer's length.
    pub(crate) fn new<T: DeviceElement>(
        device: &Device,
        buffer: &Buffer<T>,
        first: usize,
    ) -> Result<Self> {
        // Another device, even of the same number, does its work in another stream.
        if !Arc::ptr_eq(&device.kernels, &buffer.device.kernels) {
            return Err(Error::OtherDevice);
        }
        device.kernels.keep(&buffer.slice);
        Ok(Pointer(address(&buffer.slice, device) + (first * size_of::<T>()) as u64))
    }
}

fn address<T>(slice: &CudaSlice<T>, device: &Device) -> u64 {
    let (pointer, _ordering) = slice.device_ptr(&device.stream);
    pointer
}

/// Blocks, threads to a block, and bytes of shared memory beside what the kernel declares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub blocks: [u32; 3],
    pub threads: [u32; 3],
    pub shared: u32,
}

impl Grid {
    pub(crate) fn line(blocks: usize, threads: u32) -> Self {
        Grid { blocks: [clip(blocks), 1, 1], threads: [threads, 1, 1], shared: 0 }
    }

    pub(crate) fn plane(x: usize, y: usize, threads: u32) -> Self {
        Grid { blocks: [clip(x), clip(y), 1], threads: [threads, 1, 1], shared: 0 }
    }

    pub(crate) fn shared(self, bytes: usize) -> Self {
        Grid { shared: clip(bytes), ..self }
    }
}

/// What does not fit is more than any device takes; the driver then refuses.
fn clip(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The kernels of a device, loaded when first used.
pub(crate) struct Kernels {
    context: Arc<CudaContext>,
    capability: (u32, u32),
    loaded: Mutex<Loaded>,
    /// The graph that is being captured.
    capture: Mutex<Option<Capture>>,
}

/// What goes on while a graph is captured.
struct Capture {
    /// Whose work is captured; that of other threads is done as ever.
    thread: ThreadId,
    /// Takes the work in place of the device's stream.
    stream: Arc<CudaStream>,
    kept: Kept,
    /// Kernels so far.
    launches: usize,
}

/// What a graph uses.
pub(crate) type Kept = Vec<Arc<dyn Any + Send + Sync>>;

/// Also after a panic elsewhere: what is behind these locks is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<Module, Arc<CudaModule>>,
    kernels: HashMap<&'static str, Arc<Kernel>>,
}

struct Kernel {
    function: CudaFunction,
    parameter_bytes: usize,
    /// Bytes of dynamic shared memory that the driver was told of.
    shared: Mutex<u32>,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("capability", &self.capability).finish_non_exhaustive()
    }
}

impl Kernels {
    pub(crate) fn new(context: Arc<CudaContext>, capability: (u32, u32)) -> Self {
        let (loaded, capture) = (Mutex::default(), Mutex::default());
        Kernels { context, capability, loaded, capture }
    }

    fn kernel(&self, module: Module, name: &'static str) -> Result<Arc<Kernel>> {
        let mut loaded = lock(&self.loaded);
        if let Some(kernel) = loaded.kernels.get(name) {
            return Ok(kernel.clone());
        }
        let text = module.text(self.capability);
        let cuda_module = match loaded.modules.get(&module) {
            Some(module) => module.clone(),
            None => {
                let load = Error::driver("load a kernel's PTX");
                let new = self.context.load_module(Ptx::from_src(text)).map_err(load)?;
                loaded.modules.insert(module, new.clone());
                new
            }
        };
        let Some(parameter_bytes) = parameter_bytes(text, name) else {
            return Err(Error::StaleKernel { kernel: name, expected: 0, actual: 0 });
        };
        let function = cuda_module.load_function(name).map_err(Error::driver("find a kernel"))?;
        let kernel = Arc::new(Kernel { function, parameter_bytes, shared: Mutex::new(48 << 10) });
        loaded.kernels.insert(name, kernel.clone());
        Ok(kernel)
    }

    /// Where this thread captures a graph: `buffer` lives as long as the graph.
    pub(crate) fn keep<T: Send + Sync + 'static>(&self, buffer: &Arc<T>) {
        if let Some(capture) = lock(&self.capture).as_mut()
            && capture.thread == std::thread::current().id()
        {
            capture.kept.push(buffer.clone());
        }
    }

    /// From here on what this thread gives to the device goes to `stream`. `false` where a capture is
    /// going on already.
    pub(crate) fn start_capture(&self, stream: &Arc<CudaStream>) -> bool {
        let mut capture = lock(&self.capture);
        if capture.is_some() {
            return false;
        }
        let thread = std::thread::current().id();
        *capture = Some(Capture { thread, stream: stream.clone(), kept: Vec::new(), launches: 0 });
        true
    }

    /// Ends that, and gives what was used and how many kernels were launched.
    pub(crate) fn stop_capture(&self) -> (Kept, usize) {
        let capture = lock(&self.capture).take();
        capture.map_or_else(Default::default, |capture| (capture.kept, capture.launches))
    }

    /// Counts a launch where this thread captures a graph.
    fn count_launch(&self) {
        if let Some(capture) = lock(&self.capture).as_mut()
            && capture.thread == std::thread::current().id()
        {
            capture.launches += 1;
        }
    }
}

/// A graph that can be sent to another thread.
pub(crate) struct Recorded(CudaGraph);

// SAFETY: the driver lets any thread use a graph, one at a time; all uses are through `&mut self`.
unsafe impl Send for Recorded {}
// SAFETY: nothing can be done through a shared reference.
unsafe impl Sync for Recorded {}

impl Recorded {
    pub(crate) fn new(graph: CudaGraph) -> Self {
        Recorded(graph)
    }

    /// Does the work, in the stream of `device`, from whose context the graph is.
    pub(crate) fn replay(&mut self, device: &Device) -> Result<()> {
        let fail = Error::driver("replay a graph");
        device.context.bind_to_thread().map_err(&fail)?;
        // SAFETY: the graph was instantiated in this context and lives through the call.
        let launched =
            unsafe { result::graph::launch(self.0.cu_graph_exec(), device.stream.cu_stream()) };
        launched.map_err(fail)
    }
}

impl Device {
    /// Whether this thread records a graph.
    pub(crate) fn is_capturing(&self) -> bool {
        let capture = lock(&self.kernels.capture);
        capture.as_ref().is_some_and(|c| c.thread == std::thread::current().id())
    }

    /// Where this thread's work goes.
    fn target(&self) -> Arc<CudaStream> {
        match &*lock(&self.kernels.capture) {
            Some(c) if c.thread == std::thread::current().id() => c.stream.clone(),
            _ => self.stream.clone(),
        }
    }

    /// Launches kernel `name`, whose one parameter is the struct `arguments`. Does nothing where there
    /// is no block.
    pub(crate) fn launch<A: bytemuck::Pod>(
        &self,
        module: Module,
        name: &'static str,
        grid: Grid,
        arguments: &A,
    ) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let kernel = self.kernels.kernel(module, name)?;
        if kernel.parameter_bytes != size_of::<A>() {
            let (expected, actual) = (kernel.parameter_bytes, size_of::<A>());
            return Err(Error::StaleKernel { kernel: name, expected, actual });
        }
        let mut shared = lock(&kernel.shared);
        if grid.shared > *shared {
            let attribute =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let set = kernel.function.set_attribute(attribute, grid.shared as i32);
            set.map_err(Error::driver("give a kernel its shared memory"))?;
            *shared = grid.shared;
        }
        drop(shared);
        self.kernels.count_launch();
        let fail = Error::driver("launch a kernel");
        self.context.bind_to_thread().map_err(&fail)?;
        let mut parameters = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
        let triple = |[x, y, z]: [u32; 3]| (x, y, z);
        // SAFETY: the function belongs to a module that lives as long as `self`. Its only parameter has
        // the size of `arguments`, which the driver copies before it returns. Addresses in it come from
        // Pointer, checked against their buffers by the typed function that built `arguments`; those
        // buffers are freed in this same stream, so after the kernel.
        let launched = unsafe {
            result::launch_kernel(
                kernel.function.cu_function(),
                triple(grid.blocks),
                triple(grid.threads),
                grid.shared,
                self.target().cu_stream(),
                &mut parameters,
            )
        };
        launched.map_err(fail)
    }
}

fn refuse_in_capture(device: &Device) -> Result<()> {
    match device.is_capturing() {
        true => Err(Error::NotRecordable { what: "a copy from the host" }),
        false => Ok(()),
    }
}

/// Copies from the host; `first + values.len()` is at most the buffer's length. Returns when `values`
/// may change again.
pub(crate) fn upload<T: DeviceElement>(
    buffer: &mut Buffer<T>,
    values: &[T],
    first: usize,
) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let device = &buffer.device;
    refuse_in_capture(device)?;
    let fail = Error::driver("copy to the device");
    device.context.bind_to_thread().map_err(&fail)?;
    let to = Pointer::new(device, buffer, first)?;
    // SAFETY: the range lies in the buffer (the caller's duty), and pageable host memory is staged by the
    // driver before the call returns.
    let copied = unsafe { result::memcpy_htod_async(to.0, values, device.target().cu_stream()) };
    copied.map_err(fail)
}

/// Copies within the device; both ranges lie in their buffers.
pub(crate) fn copy<T: DeviceElement>(
    from: &Buffer<T>,
    from_first: usize,
    to: &mut Buffer<T>,
    first: usize,
    len: usize,
) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let device = &to.device;
    let fail = Error::driver("copy on the device");
    device.context.bind_to_thread().map_err(&fail)?;
    let source = Pointer::new(device, from, from_first)?;
    let target = Pointer::new(device, to, first)?;
    let bytes = len * size_of::<T>();
    // SAFETY: both ranges lie in their buffers (the caller's duty), and these are two buffers, one of
    // which is borrowed mutably.
    let copied = unsafe {
        result::memcpy_dtod_async(target.0, source.0, bytes, device.target().cu_stream())
    };
    copied.map_err(fail)
}

/// Zeros for all elements.
pub(crate) fn clear<T: DeviceElement>(buffer: &mut Buffer<T>) -> Result<()> {
    let device = &buffer.device;
    let fail = Error::driver("clear memory");
    device.context.bind_to_thread().map_err(&fail)?;
    let to = Pointer::new(device, buffer, 0)?;
    let bytes = buffer.len() * size_of::<T>();
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: the range is the whole buffer.
    let cleared = unsafe { result::memset_d8_async(to.0, 0, bytes, device.target().cu_stream()) };
    cleared.map_err(fail)
}
