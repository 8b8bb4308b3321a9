use cudarc::driver::DriverError;

/// What can go wrong on a device.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no driver on this machine.
    #[error("no CUDA driver was found (libcuda.so.1); install NVIDIA's driver, or use the CPU")]
    NoDriver,
    /// There are fewer devices than the one asked for.
    #[error("there is no CUDA device {ordinal}: the driver knows {count}")]
    NoDevice {
        /// The device that was asked for, counted from 0.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The driver is too old for the kernels.
    #[error("the driver supports CUDA {}.{}, the kernels need {}.{}; update NVIDIA's driver", found / 1000, found % 1000 / 10, needed / 1000, needed % 1000 / 10)]
    OldDriver {
        /// What the driver supports, as 1000 · major + 10 · minor.
        found: i32,
        /// What the kernels need.
        needed: i32,
    },
    /// The device is older than any for which there are kernels.
    #[error("{name} has compute capability {}.{}, the kernels need 7.5", capability.0, capability.1)]
    OldDevice {
        /// The device's name.
        name: String,
        /// Major and minor.
        capability: (u32, u32),
    },
    /// A buffer of another [`Device`](crate::Device), be it one of the same number. Each does its work in
    /// an order of its own, so one could not know when the other is done with the buffer.
    #[error("the buffer is another Device's; what a call uses must be of one Device or its clones")]
    OtherDevice,
    /// The device's memory is full.
    #[error("the device is out of memory: {bytes} more bytes were asked for")]
    OutOfMemory {
        /// The size of the buffer that did not fit.
        bytes: usize,
    },
    /// A shape, value or range that does not fit.
    #[error(transparent)]
    Argument(#[from] longmamba_core::Error),
    /// A kernel that cannot work on such sizes.
    #[error("{kernel} supports {what} up to {limit}, this is {actual}")]
    Unsupported {
        /// Which kernel.
        kernel: &'static str,
        /// Of what there is too much.
        what: &'static str,
        /// The most that it supports.
        limit: usize,
        /// What was asked for.
        actual: usize,
    },
    /// The kernel in the PTX takes other arguments than the code that launches it gives.
    #[error("kernel {kernel} takes {expected} bytes of arguments, not {actual}: its PTX is stale")]
    StaleKernel {
        /// Which kernel.
        kernel: &'static str,
        /// What the PTX says; 0 where it has no such kernel.
        expected: usize,
        /// What was to be given.
        actual: usize,
    },
    /// Work that cannot be done again as it was recorded.
    #[error("{what} cannot be part of a recorded graph")]
    NotRecordable {
        /// What was to be recorded.
        what: &'static str,
    },
    /// Only one graph of a device can be recorded at a time.
    #[error("another thread is recording a graph on this device; record one after the other")]
    Capturing,
    /// cuBLASLt was asked for, and is not on this machine.
    #[error(
        "cuBLASLt cannot be loaded from {sought}: {reason}; install it (pip install nvidia-cublas-cu12, or NVIDIA's CUDA toolkit) and name its folder in LD_LIBRARY_PATH, or take products without it"
    )]
    NoCublasLt {
        /// The files that were looked for.
        sought: String,
        /// What the system's loader said.
        reason: String,
    },
    /// What cuBLASLt refuses.
    #[error("cuBLASLt failed to {doing}: status {status}")]
    CublasLt {
        /// What was being done.
        doing: &'static str,
        /// `cublasStatus_t`.
        status: i32,
    },
    /// Anything else that the driver refuses, in its words.
    #[error("the CUDA driver failed to {doing}: {name}")]
    Driver {
        /// What was being done.
        doing: &'static str,
        /// The driver's name for the error.
        name: String,
    },
}

impl Error {
    pub(crate) fn driver(doing: &'static str) -> impl Fn(DriverError) -> Error {
        move |error| {
            let name = match error.error_name() {
                Ok(name) => name.to_string_lossy().into_owned(),
                Err(_) => format!("error {}", error.0 as u32),
            };
            Error::Driver { doing, name }
        }
    }
}
