//! DeciMamba (arXiv 2406.14528): from some layer on, only the tokens whose Δ is large over all channels
//! go on, and all deeper layers see the shorter sequence.
//!
//! At the s-th deciding layer a prompt of S tokens becomes `max(min_len, min(S, L_base·βˢ))` tokens, those
//! of largest ‖Δ_t‖₂, Δ after softplus, as in the published code; the last ones are always kept. The
//! convolution, Δ, B and C of the deciding layer are those of the whole sequence. Tokens after the prompt
//! are all kept.
//!
//! It ranks all tokens of a prompt, so the prompt goes through as one chunk. Models with attention are
//! refused: the positions of their keys would no longer be those of the tokens.

use super::{Entry, Method};
use crate::config::Config;
use crate::{Error, Result};
use longmamba_core::policy::Fingerprint;
use std::sync::Arc;

/// DeciMamba's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct DeciMamba {
    /// The deciding layers, ascending.
    pub layers: Vec<usize>,
    /// L_base: how many tokens the first of them keeps.
    pub base: usize,
    /// β: by how much each further one keeps fewer.
    pub beta: f64,
    /// No layer keeps fewer.
    pub min_len: usize,
    /// How many tokens at the end are always kept, 1 at least: the labels of a perplexity and the token
    /// before them, or a question. The published code keeps the 100 labels (and predicts the first from
    /// whatever was kept before it), and none when it generates; ours needs the logits of the last token.
    pub last: usize,
}

/// In [`ALL`](super::ALL).
pub const ENTRY: Entry = Entry {
    name: "decimamba",
    about: "Layers from one on see the tokens with a large Δ only: layers=12:base=2000:beta=0.5:min=20:last=101",
    build: |settings, context| {
        let default = DeciMamba::new(context.config);
        Ok(Some(Arc::new(DeciMamba {
            layers: settings.take_list("layers", default.layers)?,
            base: settings.take("base", default.base)?,
            beta: settings.take("beta", default.beta)?,
            min_len: settings.take("min", default.min_len)?,
            last: settings.take("last", default.last)?,
        })))
    },
};

impl DeciMamba {
    /// The published settings: one deciding layer, 22 in a model of 64 layers and 12 in smaller ones (never
    /// beyond their middle); L_base is the training length, or 2000 where that is not known; β 0.5; at least
    /// 20 tokens, and the last 101.
    pub fn new(config: &Config) -> Self {
        let layers = config.layers.len();
        let deciding = if layers >= 64 { 22 } else { 12.min(layers / 2) };
        let base = config.train_len.unwrap_or(2000);
        DeciMamba { layers: vec![deciding], base, beta: 0.5, min_len: 20, last: 101 }
    }

    /// How many tokens deciding layer number `s` keeps of `len`, besides the last ones.
    fn count(&self, s: usize, len: usize) -> usize {
        // A saturating cast.
        let wanted = (self.base as f64 * self.beta.powf(s as f64)) as usize;
        wanted.min(len).max(self.min_len).min(len)
    }
}

impl Method for DeciMamba {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn check(&self, config: &Config, _: &Fingerprint) -> Result<()> {
        let refuse = |why: String| Err(Error::argument(format!("method decimamba: {why}")));
        if config.attention.is_some() {
            return refuse("the model has attention layers, which need every position".into());
        }
        let layers = config.recurrent_layers();
        if let Some(layer) = self.layers.iter().find(|&&l| l >= layers) {
            return refuse(format!("there is no layer {layer}, the model has {layers}"));
        }
        if self.layers.is_empty() || !self.layers.is_sorted_by(|a, b| a < b) {
            return refuse("the deciding layers must be strictly ascending, one at least".into());
        }
        if !(self.beta > 0.0 && self.beta <= 1.0) {
            return refuse(format!("beta is {}, must be above 0 and at most 1", self.beta));
        }
        match self.base.min(self.last) {
            0 => refuse("base and last must be at least 1".into()),
            _ => Ok(()),
        }
    }

    fn needs_whole(&self) -> bool {
        true
    }

    fn cuts(&self, layer: usize, total: usize) -> bool {
        self.layers.contains(&layer) && self.sure(total) < total
    }

    fn keep(&self, layer: usize, rows: usize, delta: &[f32]) -> Vec<usize> {
        let Some(s) = self.layers.iter().position(|&l| l == layer) else {
            return (0..rows).collect();
        };
        let before = rows.saturating_sub(self.last);
        let norm = |row: &[f32]| row.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>();
        let norms: Vec<f64> = delta.chunks(delta.len() / rows.max(1)).map(norm).collect();
        let mut order: Vec<usize> = (0..before).collect();
        // Of equals the earlier.
        order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
        order.truncate(self.count(s, before));
        order.sort_unstable();
        order.extend(before..rows);
        order
    }

    fn sure(&self, total: usize) -> usize {
        let before = total.saturating_sub(self.last);
        let fewest = (0..self.layers.len()).map(|s| self.count(s, before)).min();
        // Where each keeps all, none drops one.
        if fewest == Some(before) { total } else { self.last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(base: usize, beta: f64, min_len: usize, last: usize) -> DeciMamba {
        DeciMamba { layers: vec![1, 3], base, beta, min_len, last }
    }

    #[test]
    fn counts_are_those_of_the_paper() {
        let m = method(100, 0.5, 20, 10);
        assert_eq!([0, 1, 2, 3].map(|s| m.count(s, 1000)), [100, 50, 25, 20]);
        assert_eq!([0, 1].map(|s| m.count(s, 60)), [60, 50]);
        assert_eq!([0, 3].map(|s| m.count(s, 7)), [7, 7], "never more than there are");
    }

    #[test]
    fn the_largest_norms_and_the_last_stay_in_order() {
        // Norms 5, 1, 5, 13, 0, 0: two channels.
        let delta = [3.0, 4.0, 1.0, 0.0, 5.0, 0.0, 5.0, 12.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(method(2, 1.0, 1, 1).keep(1, 6, &delta), [0, 3, 5]);
        assert_eq!(method(3, 1.0, 1, 1).keep(3, 6, &delta), [0, 2, 3, 5]);
        assert_eq!(method(1, 1.0, 1, 3).keep(1, 6, &delta), [0, 3, 4, 5]);
        assert_eq!(method(9, 1.0, 1, 1).keep(1, 6, &delta), [0, 1, 2, 3, 4, 5]);
        assert_eq!(method(2, 1.0, 1, 9).keep(1, 6, &delta), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_sure_to_stay() {
        let m = method(100, 0.5, 20, 10);
        assert_eq!((m.sure(60), m.sure(61), m.sure(5)), (60, 10, 5));
        assert!(!m.cuts(1, 60) && m.cuts(1, 61) && !m.cuts(2, 61));
    }
}
