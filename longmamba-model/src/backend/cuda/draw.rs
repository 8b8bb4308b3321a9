//! Drawing a token where the logits are, so that nothing else of them is copied to the host.

use crate::Result;
use crate::sample::SampleOptions;
use longmamba_cuda::{Buffer, Device, NO_TOKEN, NOT_A_NUMBER, Rows, RowsMut, Sampling};

/// Room for a draw.
#[derive(Debug)]
pub(super) struct DrawScratch {
    /// The number that draws.
    uniform: Buffer<f64>,
    banned: Option<Banned>,
}

/// What is needed where tokens are banned.
#[derive(Debug)]
struct Banned {
    tokens: Vec<u32>,
    uploaded: Buffer<u32>,
    /// Of these the banned ones are taken: the session's own are still asked for.
    logits: Buffer<f32>,
}

impl DrawScratch {
    pub(super) fn new(device: &Device) -> Result<Self> {
        Ok(DrawScratch { uniform: device.zeros(1)?, banned: None })
    }

    /// Draws a token of one row, to the start of `tokens`, where the next step reads it. `None` where a logit
    /// is no number, or none can be drawn.
    pub(super) fn draw<'a>(
        &'a mut self,
        mut logits: Rows<'a, f32>,
        options: &SampleOptions,
        uniform: f64,
        tokens: &mut Buffer<u32>,
    ) -> Result<Option<u32>> {
        let device = logits.buffer.device().clone();
        let SampleOptions { temperature, top_k, top_p, min_p, ref banned, .. } = *options;
        let count = logits.width;
        if temperature > 0.0 {
            self.uniform.write(&[uniform], 0)?;
        }
        if !banned.is_empty() {
            let room = Banned::room(&mut self.banned, &device, banned, count)?;
            device.copy(1, logits, false, RowsMut::all(&mut room.logits, count))?;
            device.ban(1, RowsMut::all(&mut room.logits, count), &room.uploaded)?;
            logits = Rows::all(&room.logits, count);
        }
        let sampling = Sampling { temperature, top_k, top_p, min_p };
        device.sample(1, logits, count, sampling, &self.uniform, 0, tokens)?;
        let mut token = [0];
        tokens.read(0, &mut token)?;
        Ok(Some(token[0]).filter(|t| ![NOT_A_NUMBER, NO_TOKEN].contains(t)))
    }
}

impl Banned {
    /// What is in `place`, where it is of these tokens.
    fn room<'a>(
        place: &'a mut Option<Self>,
        device: &Device,
        tokens: &[u32],
        count: usize,
    ) -> Result<&'a mut Self> {
        let room = match place.take() {
            Some(room) if room.tokens == tokens && room.logits.len() == count => room,
            _ => Banned {
                tokens: tokens.to_vec(),
                uploaded: device.upload(tokens)?,
                logits: device.zeros(count)?,
            },
        };
        Ok(place.insert(room))
    }
}
