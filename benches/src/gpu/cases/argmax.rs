//! The most likely token.

use crate::Work;
use crate::gpu::inputs::Numbers;
use crate::gpu::sets::Sets;
use crate::gpu::{Arithmetic, Case, Entry, Options, Result};
use longmamba_cuda::{Buffer, Device, Rows};

pub(super) fn entries(options: &Options) -> Vec<Entry> {
    match options.quick {
        true => vec![entry("tiny", 2, 300)],
        false => vec![entry("mamba2-1.3b", 1, 50288), entry("mamba2-1.3b", 8, 50288)],
    }
}

fn entry(model: &str, rows: usize, vocab: usize) -> Entry {
    Entry {
        kernel: "argmax".into(),
        dtype: "f32".into(),
        shape: format!("{model}: {rows} × {vocab}"),
        make: Box::new(move |device, options| {
            Ok(vec![Box::new(Argmax::new(device, options, rows, vocab)?)])
        }),
    }
}

/// Many share the largest value: the first one counts.
const LOGITS: Numbers = Numbers::wide(1);

/// What a launch reads and writes.
struct Set {
    logits: Buffer<f32>,
    tokens: Buffer<u32>,
}

struct Argmax {
    rows: usize,
    vocab: usize,
    sets: Sets<Set>,
}

impl Argmax {
    fn new(device: &Device, options: &Options, rows: usize, vocab: usize) -> Result<Self> {
        let sets = Sets::new(options.quick, work(rows, vocab).bytes, || {
            Ok(Set { logits: LOGITS.upload(device, rows * vocab)?, tokens: device.zeros(rows)? })
        })?;
        Ok(Argmax { rows, vocab, sets })
    }
}

/// The logits once.
fn work(rows: usize, vocab: usize) -> Work {
    Work { bytes: 4.0 * (rows * vocab) as f64, ..Work::default() }
}

impl Case for Argmax {
    fn work(&self) -> Work {
        work(self.rows, self.vocab)
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::None
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    /// All rows.
    fn check(&mut self) -> Result<f64> {
        self.sets.rewind();
        self.launch()?;
        let found = self.sets.first().tokens.to_vec()?;
        for (row, found) in found.into_iter().enumerate() {
            let logits = LOGITS.block(row..row + 1, self.vocab, 0..self.vocab);
            let best = longmamba_model::most_likely(&logits)?.0;
            if found != best {
                let text = format!("WRONG: row {row} has token {found}, the CPU says {best}");
                return Err(text.into());
            }
        }
        Ok(0.0)
    }

    fn launch(&mut self) -> Result<()> {
        let (rows, vocab) = (self.rows, self.vocab);
        let Set { logits, tokens } = self.sets.turn();
        let device = logits.device().clone();
        Ok(device.argmax(rows, Rows::all(logits, vocab), vocab, tokens)?)
    }
}
