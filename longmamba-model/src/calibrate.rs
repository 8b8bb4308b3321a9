//! Calibration: the unmodified model reads windows of its training length, the policy watches Δ.

use crate::backend::Backend;
use crate::model::Model;
use crate::session::SessionOptions;
use crate::{Error, Result};
use longmamba_core::policy::{Calibration, CalibrationSettings, ChannelBlock, Plan};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// `count` windows of `train_len` tokens, spread evenly over a text of `tokens` tokens from its first
/// token to its last.
///
/// # Errors
/// [`Error::Argument`] where the text is shorter than a window.
pub fn windows(tokens: usize, train_len: usize, count: usize) -> Result<Vec<Range<usize>>> {
    if train_len == 0 || count == 0 {
        return Err(Error::argument("calibration needs at least one window of at least one token"));
    }
    let Some(room) = tokens.checked_sub(train_len) else {
        return Err(Error::argument(format!(
            "the calibration text has {tokens} tokens, a window needs {train_len}"
        )));
    };
    let start = |i: usize| (room as u128 * i as u128 / (count - 1).max(1) as u128) as usize;
    Ok((0..count).map(|i| start(i)..start(i) + train_len).collect())
}

/// Runs the model over `windows` (each of the settings' `train_len` tokens) and makes a plan.
/// `progress` is called with the number of windows done.
///
/// # Errors
/// [`Error::Token`] for a token outside the vocabulary, [`Error::Core`] for a window of another length
/// or settings that no plan can have.
pub fn calibrate<B: Backend>(
    model: &Arc<Model<B>>,
    windows: &[&[u32]],
    settings: CalibrationSettings,
    theta: f64,
    progress: &mut dyn FnMut(usize),
) -> Result<Plan> {
    let config = model.config();
    let layers = config.recurrent_layers();
    let mut calibration = Calibration::new(settings.clone(), layers, config.mixer.channels())?;
    // The whole window is one chunk: the policy wants each layer's Δ in one piece.
    let options =
        SessionOptions { chunk_len: Some(settings.train_len()), ..SessionOptions::default() };
    let rates = (0..layers).map(|layer| model.rates(layer)).collect::<Result<Vec<_>>>()?;
    for (done, window) in windows.iter().enumerate() {
        if window.len() != settings.train_len() {
            return Err(Error::argument(format!(
                "calibration window {done} has {} tokens, the training length is {}",
                window.len(),
                settings.train_len()
            )));
        }
        let mut session = model.session(options.clone())?;
        session.prefill_observed(window, &mut |layer, delta| {
            let measure = |blocks: Vec<_>| blocks.into_par_iter().for_each(ChannelBlock::measure);
            Ok(calibration.add_blocks(layer, delta, rates[layer].decay(), measure)?)
        })?;
        progress(done + 1);
    }
    Ok(Plan::calibrated(calibration, model.fingerprint().clone(), theta)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_span_the_text() {
        assert_eq!(
            windows(1280, 256, 5).unwrap(),
            [0..256, 256..512, 512..768, 768..1024, 1024..1280]
        );
        assert_eq!(windows(300, 256, 1).unwrap(), vec![0..256; 1]);
        assert_eq!(windows(256, 256, 3).unwrap(), [0..256, 0..256, 0..256]);
        assert!(
            windows(255, 256, 1).is_err()
                && windows(10, 0, 1).is_err()
                && windows(10, 2, 0).is_err()
        );
    }
}
