//! What the tests of the interpreter share.
#![allow(dead_code)]

pub mod ops;

use longmamba_cuda_emulator::{Config, Emulator, FaultKind, Launch, LaunchError, Module, Params};

/// A device with a module on it.
pub struct Device {
    pub emulator: Emulator,
    pub module: Module,
}

impl Device {
    pub fn new(ptx: &str) -> Self {
        Self::with(Config::default(), ptx)
    }

    pub fn with(config: Config, ptx: &str) -> Self {
        let emulator = Emulator::new(config);
        let module = emulator.load(ptx).expect("loads");
        Self { emulator, module }
    }

    pub fn upload(&self, bytes: &[u8]) -> u64 {
        let address = self.emulator.alloc(bytes.len() as u64).expect("there is room");
        self.emulator.write(address, bytes).expect("the range is inside");
        address
    }

    pub fn floats(&self, values: &[f32]) -> u64 {
        self.upload(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    }

    pub fn zeros(&self, bytes: usize) -> u64 {
        self.upload(&vec![0; bytes])
    }

    pub fn words(&self, address: u64, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; count * 4];
        self.emulator.read(address, &mut bytes).expect("the range is inside");
        bytes.chunks(4).map(|c| u32::from_le_bytes(c.try_into().expect("four"))).collect()
    }

    pub fn read_floats(&self, address: u64, count: usize) -> Vec<f32> {
        self.words(address, count).into_iter().map(f32::from_bits).collect()
    }

    pub fn run(&self, kernel: &str, launch: Launch, params: Params) -> Result<u64, LaunchError> {
        self.emulator.launch(&self.module, kernel, &launch, &params)
    }

    /// Runs what must fail, and returns how.
    pub fn fault(&self, kernel: &str, launch: Launch, params: Params) -> FaultKind {
        match self.run(kernel, launch, params) {
            Err(LaunchError::Fault(fault)) => {
                println!("{fault}");
                assert!(fault.line > 0 && fault.kernel == kernel, "{fault}");
                fault.kind
            }
            other => panic!("{kernel} did not fail: {other:?}"),
        }
    }
}
