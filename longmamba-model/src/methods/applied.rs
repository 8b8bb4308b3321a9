//! A method on a device: what the layers read of it.

use super::{Method, Reading, Scan, Selection};
use crate::backend::{Activations, Backend, Columns, Recurrence};
use crate::model::{Model, Step};
use crate::{Error, Result};
use longmamba_core::AlignedVec;
use rayon::prelude::*;
use std::sync::Arc;

/// A method, made ready for a model. Clones share it.
#[derive(Debug)]
pub(crate) struct Applied<B: Backend> {
    method: Option<Arc<dyn Method>>,
    /// One a recurrent layer; empty without a method.
    layers: Arc<[Changes<B>]>,
}

/// What a method changes in a layer.
#[derive(Debug)]
struct Changes<B: Backend> {
    /// With another A.
    recurrence: Option<Recurrence<B>>,
    rewritten: Option<Rewritten<B>>,
}

/// How a scan takes Δ that a method has rewritten.
#[derive(Debug)]
struct Rewritten<B: Backend> {
    /// Without bias and limits: Δ has had them.
    recurrence: Recurrence<B>,
    /// Above 0 by so little that it drops what is 0, and nothing else.
    above_zero: B::Vector,
}

impl<B: Backend> Clone for Applied<B> {
    fn clone(&self) -> Self {
        Applied { method: self.method.clone(), layers: self.layers.clone() }
    }
}

/// Room for Δ that a method has rewritten, made when one first does.
#[derive(Debug)]
pub(crate) struct Room<B: Backend> {
    pub buffer: Option<B::Buffer>,
    /// Of a chunk.
    rows: usize,
}

impl<B: Backend> Room<B> {
    pub(crate) fn new(rows: usize) -> Self {
        Room { buffer: None, rows }
    }
}

/// What goes through softplus to a Δ of exactly 0, on every device.
const DROPPED: f32 = -1e4;

/// What goes through softplus to `delta`: ln(e^Δ − 1).
fn before_softplus(delta: f32) -> f32 {
    if delta <= 0.0 {
        return DROPPED;
    }
    let delta = f64::from(delta);
    (delta + (-(-delta).exp_m1()).ln()) as f32
}

/// `rows` rows of some columns, on the host.
pub(crate) fn read_rows<B: Backend>(
    backend: &B,
    rows: usize,
    columns: Columns<'_, B::Buffer>,
) -> Result<Vec<f32>> {
    let Columns { buffer, first, width, stride } = columns;
    let mut all = vec![0.0; rows.saturating_sub(1) * stride + width];
    backend.read(buffer, first, &mut all)?;
    Ok(all.chunks(stride).flat_map(|row| &row[..width]).copied().collect())
}

/// Moves the rows `kept` of a buffer with rows of `width` to its start.
pub(crate) fn keep_rows<B: Backend>(
    backend: &B,
    kept: &[usize],
    buffer: &mut B::Buffer,
    width: usize,
) -> Result<()> {
    let rows = kept.last().map_or(0, |last| last + 1);
    let all = read_rows(backend, rows, Columns::all(&*buffer, width))?;
    let some: Vec<f32> =
        kept.iter().flat_map(|row| &all[row * width..][..width]).copied().collect();
    write_rows(backend, &some, buffer, width)
}

/// Writes rows of `width` to the start of a buffer.
fn write_rows<B: Backend>(
    backend: &B,
    rows: &[f32],
    buffer: &mut B::Buffer,
    width: usize,
) -> Result<()> {
    let stride = B::Buffer::row_stride(width);
    if stride == width {
        return backend.write(rows, buffer);
    }
    let mut spread = vec![0.0; rows.len() / width * stride];
    for (row, to) in rows.chunks_exact(width).zip(spread.chunks_exact_mut(stride)) {
        to[..width].copy_from_slice(row);
    }
    backend.write(&spread, buffer)
}

impl<B: Backend> Applied<B> {
    pub(crate) fn new(model: &Model<B>, method: Option<Arc<dyn Method>>) -> Result<Self> {
        let layers = match &method {
            None => Vec::new(),
            Some(method) => (0..model.config().recurrent_layers())
                .map(|layer| Changes::new(model, &**method, layer))
                .collect::<Result<_>>()?,
        };
        Ok(Applied { method, layers: layers.into() })
    }

    pub(crate) fn method(&self) -> Option<&dyn Method> {
        self.method.as_deref()
    }

    /// Whether steps go through the host.
    pub(crate) fn rewrites_steps(&self) -> bool {
        let rewrites =
            |m: &dyn Method| (0..self.layers.len()).any(|layer| m.rewrites(layer, Reading::Step));
        self.method().is_some_and(rewrites)
    }

    /// Whether a layer's scan takes its own recurrence, and Δ as it is.
    pub(crate) fn leaves_scan(&self, layer: usize, reading: Reading) -> bool {
        let other = self.layers.get(layer).is_some_and(|l| l.recurrence.is_some());
        !other && !self.method().is_some_and(|m| m.rewrites(layer, reading))
    }

    /// The recurrence of a layer whose own is `own`.
    pub(crate) fn recurrence<'a>(
        &'a self,
        layer: usize,
        own: &'a Recurrence<B>,
    ) -> &'a Recurrence<B> {
        self.layers.get(layer).and_then(|l| l.recurrence.as_ref()).unwrap_or(own)
    }

    /// The same for Δ that was rewritten, and the thresholds that go with it.
    pub(crate) fn rewritten(&self, layer: usize) -> Option<(&Recurrence<B>, &B::Vector)> {
        let rewritten = self.layers.get(layer)?.rewritten.as_ref()?;
        Some((&rewritten.recurrence, &rewritten.above_zero))
    }

    /// Rewrites Δ of `rows` rows of `dt_raw`, to the start of `room`. Whether it did.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn rewrite(
        &self,
        backend: &B,
        layer: usize,
        reading: Reading,
        rows: usize,
        own: &Recurrence<B>,
        dt_raw: Columns<'_, B::Buffer>,
        selection: &dyn Fn() -> Result<Selection>,
        room: &mut Room<B>,
    ) -> Result<bool> {
        let Some(method) = self.method().filter(|m| m.rewrites(layer, reading)) else {
            return Ok(false);
        };
        let channels = dt_raw.width;
        let mut delta = vec![0.0; rows * channels];
        backend.delta(rows, dt_raw, own, &mut delta)?;
        method.rewrite(layer, &Scan { rows, channels, read: selection }, &mut delta)?;
        delta.par_iter_mut().with_min_len(1 << 12).for_each(|d| *d = before_softplus(*d));
        let out = match &mut room.buffer {
            Some(buffer) => buffer,
            None => {
                let stride = B::Buffer::row_stride(channels);
                room.buffer.insert(backend.buffer(room.rows * stride)?)
            }
        };
        write_rows(backend, &delta, out, channels)?;
        Ok(true)
    }
}

impl<B: Backend> Changes<B> {
    fn new(model: &Model<B>, method: &dyn Method, layer: usize) -> Result<Self> {
        let (backend, mixer) = (model.backend(), model.mixer(layer)?);
        let own = mixer.recurrence();
        let rates = method.rates(layer, &|| backend.read_vector(&own.a))?;
        let with = |a: Vec<f32>| {
            let a = backend.vector(AlignedVec::from_slice(&a))?;
            Ok::<_, Error>(Recurrence { a, ..own.clone() })
        };
        let recurrence = rates.map(with).transpose()?;
        let ever = [Reading::Prompt(usize::MAX), Reading::Step];
        let rewritten = match ever.into_iter().any(|reading| method.rewrites(layer, reading)) {
            true => {
                let channels = model.config().mixer.channels();
                let all = |value| backend.vector(AlignedVec::from_slice(&vec![value; channels]));
                let own = recurrence.as_ref().unwrap_or(own).clone();
                let recurrence =
                    Recurrence { dt_bias: all(0.0)?, dt_limits: Default::default(), ..own };
                Some(Rewritten { recurrence, above_zero: all(f32::MIN_POSITIVE)? })
            }
            false => None,
        };
        Ok(Changes { recurrence, rewritten })
    }
}

impl<B: Backend> Step<'_, B> {
    /// The rows that the method keeps from this layer on, where it drops some. `dt_raw` is the chunk's.
    pub(crate) fn kept(
        &self,
        layer: usize,
        own: &Recurrence<B>,
        dt_raw: Columns<'_, B::Buffer>,
    ) -> Result<Option<Vec<usize>>> {
        // Such a method has its prompt as a chunk of its own.
        let [segment] = *self.segments else { return Ok(None) };
        let sequence = &self.sequences[segment.sequence];
        let Reading::Prompt(total) = sequence.reading() else { return Ok(None) };
        let Some(method) = sequence.applied.method().filter(|m| m.cuts(layer, total)) else {
            return Ok(None);
        };
        let mut delta = vec![0.0; self.rows * dt_raw.width];
        self.backend.delta(self.rows, dt_raw, own, &mut delta)?;
        let kept = method.keep(layer, self.rows, &delta);
        Ok((kept.len() < self.rows).then_some(kept))
    }

    /// From here on the chunk has the rows `kept` only; all buffers that are read later have been cut.
    pub(crate) fn shorten(&mut self, kept: Vec<usize>) {
        let before = &mut self.work.kept;
        let original = |row| before.get(row).copied().unwrap_or(row);
        let kept: Vec<usize> = kept.into_iter().map(original).collect();
        self.rows = kept.len();
        self.segments[0].rows = kept.len();
        *before = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longmamba_core::oracle::softplus;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn softplus_gives_delta_back(exponent in -85.0f64..4.0) {
            let delta = exponent.exp() as f32;
            let back = softplus(before_softplus(delta).into());
            // x = ln Δ is rounded to f32, half an ULP of at most 85; 2⁻¹⁸ is that and a little.
            let error = (back / f64::from(delta) - 1.0).abs();
            prop_assert!(error <= 4e-6, "{delta} comes back as {back}");
        }
    }

    #[test]
    fn nothing_comes_back_as_nothing() {
        assert_eq!(softplus(before_softplus(0.0).into()), 0.0);
        assert_eq!(before_softplus(30.0), 30.0);
        assert!(before_softplus(f32::NAN).is_nan());
    }
}
