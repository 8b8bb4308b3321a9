//! The driver's own copy, whose rate is the floor of every kernel that moves memory.

use crate::Work;
use crate::gpu::check::{close, read};
use crate::gpu::inputs::Numbers;
use crate::gpu::{Arithmetic, Case, Result};
use longmamba_cuda::{Buffer, Device};

pub(in crate::gpu) struct Copy {
    from: Buffer<f32>,
    to: Buffer<f32>,
}

const NUMBERS: Numbers = Numbers::unit(1);

impl Copy {
    pub(in crate::gpu) fn new(device: &Device, elements: usize) -> Result<Self> {
        Ok(Copy { from: NUMBERS.upload(device, elements)?, to: device.zeros(elements)? })
    }
}

impl Case for Copy {
    fn work(&self) -> Work {
        let bytes = 8.0 * self.from.len() as f64;
        Work { bytes, ..Work::default() }
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::None
    }

    fn sets(&self) -> usize {
        1
    }

    /// The first elements and the last.
    fn check(&mut self) -> Result<f64> {
        self.launch()?;
        let some = self.to.len().min(1024);
        for rows in [0..some, self.to.len() - some..self.to.len()] {
            let found = read(&self.to, rows.clone(), 1, 0..1)?;
            close("the copy", &found, &NUMBERS.range::<f32>(rows), 0.0)?;
        }
        Ok(0.0)
    }

    fn launch(&mut self) -> Result<()> {
        Ok(self.to.copy_from(&self.from, 0, self.from.len(), 0)?)
    }
}
