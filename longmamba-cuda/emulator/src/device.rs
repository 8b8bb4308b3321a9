//! The device as a Rust type.

mod module;
mod params;

pub use module::Module;
pub use params::{Config, Launch, Params};

use crate::error::{LaunchError, LoadError, MemoryError};
use crate::exec::code::Kernel;
use crate::exec::launch::Context;
use crate::memory::global::Global;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Multiprocessors of the emulated device; of no consequence but in what it says of itself.
pub(crate) const PROCESSORS: u32 = 16;
/// The newest PTX that the emulated driver reads, major times ten plus minor.
pub(crate) const PTX_VERSION: u32 = 80;
/// Shared memory of a block without asking for more.
pub(crate) const SHARED_DEFAULT: u32 = 48 << 10;

/// An emulated device.
#[derive(Debug)]
pub struct Emulator {
    config: Config,
    memory: Arc<Mutex<Global>>,
    launches: AtomicU32,
}

/// A poisoned lock means that a test panicked elsewhere; the memory is still what it was.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Emulator {
    /// A device with empty memory.
    pub fn new(config: Config) -> Self {
        let memory = Arc::new(Mutex::new(Global::new(config.memory)));
        Self { config, memory, launches: AtomicU32::new(0) }
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reserves memory, full of ones. Returns its address.
    ///
    /// # Errors
    /// Where the device is full, or nothing is asked for.
    pub fn alloc(&self, size: u64) -> Result<u64, MemoryError> {
        lock(&self.memory).allocate(size, false)
    }

    /// Frees an allocation by the address of its first byte.
    ///
    /// # Errors
    /// Where no live allocation begins there.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        lock(&self.memory).free(address)
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// Where the range is not inside one live allocation.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        lock(&self.memory).read(address, into)
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// Where the range is not inside one live allocation.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        lock(&self.memory).write(address, from)
    }

    /// Copies within the device; the ranges may overlap.
    ///
    /// # Errors
    /// Where a range is not inside one live allocation.
    pub fn copy(&self, to: u64, from: u64, size: u64) -> Result<(), MemoryError> {
        lock(&self.memory).copy(to, from, size)
    }

    /// Writes a pattern `count` times.
    ///
    /// # Errors
    /// Where the range is not inside one live allocation.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        lock(&self.memory).fill(address, pattern, count)
    }

    /// Bytes free and bytes in all.
    pub fn memory(&self) -> (u64, u64) {
        let memory = lock(&self.memory);
        (memory.capacity - memory.used, memory.capacity)
    }

    /// First byte and size of the allocation that holds the address.
    ///
    /// # Errors
    /// Where there is none.
    pub fn allocation(&self, address: u64) -> Result<(u64, u64), MemoryError> {
        lock(&self.memory).find(address)
    }

    /// Makes a module ready to run, its variables with their initial values.
    ///
    /// # Errors
    /// Where the text is not PTX, or uses something that the emulator does not know, or is for a
    /// newer device or driver.
    pub fn load(&self, ptx: &str) -> Result<Module, LoadError> {
        Module::load(ptx, &self.config, &self.memory)
    }

    /// Runs a kernel to its end. Returns how many instructions its threads executed.
    ///
    /// # Errors
    /// Where the launch does not fit the kernel or the device, or the kernel did what it must not.
    pub fn launch(
        &self,
        module: &Module,
        kernel: &str,
        launch: &Launch,
        params: &Params,
    ) -> Result<u64, LaunchError> {
        let kernel =
            module.kernel(kernel).ok_or_else(|| LaunchError::NoKernel(kernel.to_owned()))?;
        self.run(&kernel, launch, params.bytes())
    }

    pub(crate) fn run(
        &self,
        kernel: &Kernel,
        launch: &Launch,
        params: &[u8],
    ) -> Result<u64, LaunchError> {
        self.check(kernel, launch)?;
        if params.len() as u64 != kernel.param_size {
            return Err(LaunchError::Params {
                kernel: kernel.name.clone(),
                given: params.len(),
                wanted: kernel.param_size as usize,
            });
        }
        let many = launch.grid.iter().any(|side| *side > 1);
        let context = Context {
            kernel,
            params: params
                .chunks(4)
                .map(|chunk| {
                    let mut bytes = [0; 4];
                    bytes[..chunk.len()].copy_from_slice(chunk);
                    u32::from_le_bytes(bytes)
                })
                .collect(),
            table: lock(&self.memory).table.clone(),
            launch: self.launches.fetch_add(1, Relaxed) + 1,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: u64::from(kernel.dynamic_shared) + u64::from(launch.shared),
            dynamic_shared: launch.shared,
            check_races: self.config.check_shared,
            check_blocks: self.config.check_blocks && many,
            meetings: (self.config.check_blocks && many && kernel.ordered).then(Default::default),
            limit: self.config.limit,
            atomics: Mutex::new(()),
        };
        let begun = std::time::Instant::now();
        let result = context.run(self.config.threads);
        if self.config.trace {
            eprintln!(
                "emulator: {} grid {:?} block {:?} shared {} -> {} in {:?}",
                kernel.name,
                launch.grid,
                launch.block,
                context.shared_bytes,
                match &result {
                    Ok(count) => format!("{count} thread instructions"),
                    Err(fault) => fault.to_string(),
                },
                begun.elapsed()
            );
        }
        Ok(result?)
    }

    fn check(&self, kernel: &Kernel, launch: &Launch) -> Result<(), LaunchError> {
        let bad = |what: String| LaunchError::Config { kernel: kernel.name.clone(), what };
        let threads: u64 = launch.block.iter().map(|side| u64::from(*side)).product();
        let [x, y, z] = launch.block;
        if x == 0 || y == 0 || z == 0 || x > 1024 || y > 1024 || z > 64 || threads > 1024 {
            return Err(bad(format!("blocks of {:?} threads", launch.block)));
        }
        let [x, y, z] = launch.grid;
        if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
            return Err(bad(format!("a grid of {:?} blocks", launch.grid)));
        }
        if kernel.max_threads.is_some_and(|most| threads > most.into()) {
            let most = kernel.max_threads.unwrap_or(0);
            return Err(bad(format!("blocks of {threads} threads, it is compiled for {most}")));
        }
        if kernel.required.is_some_and(|required| required != launch.block) {
            return Err(bad(format!("blocks of {:?} threads, it demands others", launch.block)));
        }
        let shared = u64::from(kernel.dynamic_shared) + u64::from(launch.shared);
        let most = self.config.shared_limit();
        if shared > most.into() {
            return Err(bad(format!("{shared} bytes of shared memory, the device has {most}")));
        }
        Ok(())
    }
}
