//! A device: its context, its stream, and the kernels that have been loaded.

use crate::buffer::{Buffer, DeviceElement};
use crate::graph::Counters;
use crate::launch::{Kernels, Staging};
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaStream, DriverError};
use std::sync::Arc;

/// The oldest driver that loads the PTX of this crate: CUDA 12.0.
const DRIVER: i32 = 12000;

/// A CUDA device. Clones share it; all its work goes to one stream, in order.
#[derive(Clone, Debug)]
pub struct Device {
    pub(crate) context: Arc<CudaContext>,
    pub(crate) stream: Arc<CudaStream>,
    pub(crate) kernels: Arc<Kernels>,
    pub(crate) staging: Arc<Staging>,
    pub(crate) graphs: Arc<Counters>,
    name: Arc<str>,
    capability: (u32, u32),
    multiprocessors: u32,
}

impl Device {
    /// How many devices there are.
    ///
    /// # Errors
    /// [`Error::NoDriver`], [`Error::OldDriver`].
    pub fn count() -> Result<usize> {
        if !crate::launch::driver_present() {
            return Err(Error::NoDriver);
        }
        let found = crate::launch::driver_version()?;
        if found < DRIVER {
            return Err(Error::OldDriver { found, needed: DRIVER });
        }
        match CudaContext::device_count() {
            Ok(count) => Ok(count.max(0) as usize),
            Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
            Err(error) => Err(Error::driver("count the devices")(error)),
        }
    }

    /// Device `ordinal`, counted from 0.
    ///
    /// # Errors
    /// As [`Device::count`], and [`Error::NoDevice`], [`Error::OldDevice`], [`Error::Driver`].
    pub fn new(ordinal: usize) -> Result<Self> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(Error::NoDevice { ordinal, count });
        }
        let open = Error::driver("open the device");
        let context = CudaContext::new(ordinal).map_err(&open)?;
        let name = context.name().map_err(&open)?;
        let (major, minor) = context.compute_capability().map_err(&open)?;
        let capability = (major.max(0) as u32, minor.max(0) as u32);
        if capability < (7, 5) {
            return Err(Error::OldDevice { name, capability });
        }
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(attribute).map_err(&open)?.max(1) as u32;
        crate::launch::use_one_stream(&context);
        let stream = context.new_stream().map_err(&open)?;
        let kernels = Arc::new(Kernels::new(context.clone(), capability));
        let name = name.into();
        let (staging, graphs) = (Arc::default(), Arc::default());
        Ok(Device { context, stream, kernels, staging, graphs, name, capability, multiprocessors })
    }

    /// The device's name, as the driver gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compute capability, major and minor.
    pub fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// How many streaming multiprocessors there are.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Bytes of memory: free, and in all.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context.mem_get_info().map_err(Error::driver("ask for the free memory"))
    }

    /// Waits until all work that was given to the device is done.
    ///
    /// # Errors
    /// [`Error::Driver`] where some of that work failed.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(Error::driver("finish its work"))
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Driver`].
    pub fn zeros<T: DeviceElement>(&self, len: usize) -> Result<Buffer<T>> {
        Buffer::zeros(self, len)
    }

    /// A copy of `values`: from 1 MiB on through 32 MiB of page-locked memory, where the system grants that,
    /// which stay taken until [`Device::free_staging`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Driver`].
    pub fn upload<T: DeviceElement>(&self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = Buffer::zeros(self, values.len())?;
        crate::launch::upload_all(&mut buffer, values)?;
        Ok(buffer)
    }

    /// Gives back the page-locked memory that large buffers and weights were uploaded through, once the copies
    /// under way are done. The next large upload takes it again.
    pub fn free_staging(&self) {
        self.staging.free();
    }
}
