//! How a device is made, and what a launch is given.

/// What the emulated device is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Compute capability as in `sm_80`.
    pub capability: u32,
    /// The CUDA that the driver supports, as 1000 · major + 10 · minor.
    pub driver: i32,
    /// Devices that the driver shows.
    pub devices: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the host's memory that can be page-locked.
    pub pinned: u64,
    /// Threads of the host that run blocks.
    pub threads: usize,
    /// Whether races in shared memory are errors.
    pub check_shared: bool,
    /// Whether races among blocks in global memory are errors.
    pub check_blocks: bool,
    /// Thread instructions of a block, after which it is taken for hanging.
    pub limit: u64,
    /// Whether each launch is written to stderr.
    pub trace: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capability: 80,
            driver: 12000,
            devices: 1,
            memory: 8 << 30,
            pinned: 8 << 30,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            check_shared: true,
            check_blocks: true,
            limit: 1 << 40,
            trace: false,
        }
    }
}

impl Config {
    /// The default, changed by the variables that the crate's documentation lists. A value that is
    /// no number is ignored.
    pub fn from_env() -> Self {
        fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
            let value = std::env::var(format!("LONGMAMBA_EMULATOR_{name}"));
            value.ok().and_then(|value| value.trim().parse().ok()).unwrap_or(default)
        }
        let default = Self::default();
        let races = std::env::var("LONGMAMBA_EMULATOR_RACES").unwrap_or_default();
        Self {
            capability: number("SM", default.capability),
            driver: number("DRIVER", default.driver),
            devices: number("DEVICES", default.devices),
            memory: number("MEMORY", default.memory),
            pinned: number("PINNED", default.pinned),
            threads: number("THREADS", default.threads).max(1),
            check_shared: races != "0",
            check_blocks: races != "0" && races != "shared",
            limit: number("LIMIT", default.limit),
            trace: number("TRACE", 0) != 0,
        }
    }

    /// Bytes of shared memory that a block may have at most.
    pub fn shared_limit(&self) -> u32 {
        match self.capability {
            75..80 => 64 << 10,
            80 | 87 => 163 << 10,
            86 | 89 => 99 << 10,
            90..120 => 227 << 10,
            120.. => 99 << 10,
            _ => 48 << 10,
        }
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Launch {
    /// A row of blocks, each a row of threads, without dynamic shared memory.
    pub fn linear(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0 }
    }

    /// The same with dynamic shared memory.
    pub fn shared(self, bytes: u32) -> Self {
        Self { shared: bytes, ..self }
    }
}

/// Arguments of a kernel, laid out as C does.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<u8>);

impl Params {
    /// No arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an argument, aligned to `align` bytes.
    pub fn raw(mut self, bytes: &[u8], align: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a pointer or another number of 64 bits.
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes(), 8)
    }

    /// Adds a number of 32 bits.
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes(), 4)
    }

    /// Adds a float.
    pub fn f32(self, value: f32) -> Self {
        self.raw(&value.to_le_bytes(), 4)
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
