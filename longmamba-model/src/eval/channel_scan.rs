//! What the scan of a single channel read of a text: Δ as a method left it, B, C and A.

use crate::backend::Backend;
use crate::config::Config;
use crate::load::transposed;
use crate::methods::{Method, Rates, Reading, Scan, Selection};
use crate::model::Model;
use crate::session::SessionOptions;
use crate::{Error, Result};
use longmamba_core::policy::Fingerprint;
use std::sync::{Arc, Mutex, PoisonError};

/// A channel of a recurrent layer: one of `d_inner` in Mamba-1, a head in Mamba-2. Both count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The layer.
    pub layer: usize,
    /// The channel.
    pub channel: usize,
}

/// One channel's scan over a text.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelScan {
    /// Δ `[tokens]` after softplus; 0 where the method dropped the token.
    pub delta: Vec<f32>,
    /// B `[tokens, d_state]`; empty where it was not asked for.
    pub b: Vec<f32>,
    /// C `[tokens, d_state]`; empty where it was not asked for.
    pub c: Vec<f32>,
    /// States.
    pub d_state: usize,
    /// A, as the method has it: one for all states, or `[d_state]`.
    pub rates: Vec<f32>,
}

/// Reads `tokens` from a fresh state and gives the scan of each of `places`, in that order; B and C only
/// with `selects`. What comes back takes 4 bytes a token for Δ, and with `selects` 8 · `d_state` more.
///
/// Δ goes to the host and back in these layers, which moves later layers' by rounding.
///
/// # Errors
/// [`Error::Argument`] for a layer or channel that the model does not have, or a Δ, B or C that is not
/// finite; as [`Session::prefill`](crate::Session::prefill).
pub fn channel_scans<B: Backend>(
    model: &Arc<Model<B>>,
    tokens: &[u32],
    places: &[Place],
    selects: bool,
    options: &SessionOptions,
) -> Result<Vec<ChannelScan>> {
    let method = options.resolved()?;
    let empty = |&place: &Place| {
        check_place(model.config(), place)?;
        let rates = rates(model, method.as_deref(), place)?;
        let delta = vec![0.0; tokens.len()];
        Ok(ChannelScan { delta, b: Vec::new(), c: Vec::new(), d_state: 0, rates })
    };
    let scans = places.iter().map(empty).collect::<Result<Vec<_>>>()?;
    let seen = Seen { read: vec![0; places.len()], scans, kept: None };
    let watcher = Arc::new(Watcher {
        method,
        places: places.to_vec(),
        selects,
        total: tokens.len(),
        seen: Mutex::new(seen),
    });
    let options = SessionOptions { plan: None, method: Some(watcher.clone()), ..options.clone() };
    model.session(options)?.prefill(tokens)?;
    let mut seen = watcher.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let scans = std::mem::take(&mut seen.scans);
    for (scan, place) in scans.iter().zip(places) {
        scan.check(*place)?;
    }
    Ok(scans)
}

fn check_place(config: &Config, Place { layer, channel }: Place) -> Result<()> {
    for (what, index, count) in
        [("layer", layer, config.recurrent_layers()), ("channel", channel, config.mixer.channels())]
    {
        if index >= count {
            let why = format!(
                "there is no {what} {index}; the model has {count} {what}s that recur, counted from 0"
            );
            return Err(Error::argument(why));
        }
    }
    Ok(())
}

/// A of a channel, as the method has it.
fn rates<B: Backend>(
    model: &Model<B>,
    method: Option<&dyn Method>,
    Place { layer, channel }: Place,
) -> Result<Vec<f32>> {
    let own = || model.backend().read_vector(&model.mixer(layer)?.recurrence().a);
    let other = method.map_or(Ok(None), |m| m.rates(layer, &own))?;
    Ok(match (model.rates(layer)?, other) {
        (Rates::PerHead(a), None) | (Rates::PerHead(_), Some(a)) => vec![a[channel]],
        (Rates::PerState { a, d_state }, None) => a[channel * d_state..][..d_state].to_vec(),
        (Rates::PerState { d_state, .. }, Some(a)) => {
            // Devices have the states first.
            let channels = a.len() / d_state;
            transposed(&a, d_state, channels)[channel * d_state..][..d_state].to_vec()
        }
    })
}

impl ChannelScan {
    fn check(&self, Place { layer, channel }: Place) -> Result<()> {
        let width = self.d_state.max(1);
        for (name, values, width) in
            [("Δ", &self.delta, 1), ("B", &self.b, width), ("C", &self.c, width)]
        {
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::argument(format!(
                    "layer {layer}, channel {channel}: {name} of token {} is {}; the weights or the \
                     prompt drove the model out of range",
                    index / width,
                    values[index]
                )));
            }
        }
        Ok(())
    }

    /// The decay rate of a state.
    pub(super) fn rate(&self, state: usize) -> f64 {
        self.rates[state % self.rates.len()].into()
    }
}

/// A method that does what another does, and writes down what the scans then read.
#[derive(Debug)]
struct Watcher {
    method: Option<Arc<dyn Method>>,
    places: Vec<Place>,
    selects: bool,
    /// Tokens of the prompt.
    total: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// One a place.
    scans: Vec<ChannelScan>,
    /// Rows of each place so far.
    read: Vec<usize>,
    /// Which tokens the rows are, where the method cuts the prompt, which then is one chunk.
    kept: Option<Vec<usize>>,
}

impl Method for Watcher {
    fn name(&self) -> &'static str {
        self.method.as_ref().map_or("vanilla", |m| m.name())
    }

    fn check(&self, config: &Config, model: &Fingerprint) -> Result<()> {
        self.method.as_ref().map_or(Ok(()), |m| m.check(config, model))
    }

    fn needs_length(&self) -> bool {
        self.method.as_ref().is_some_and(|m| m.needs_length())
    }

    fn needs_whole(&self) -> bool {
        self.method.as_ref().is_some_and(|m| m.needs_whole())
    }

    fn rates(&self, layer: usize, own: crate::methods::Own<'_>) -> Result<Option<Vec<f32>>> {
        self.method.as_ref().map_or(Ok(None), |m| m.rates(layer, own))
    }

    fn thresholds(&self, layer: usize, total: usize, out: &mut [f32]) -> Result<()> {
        self.method.as_ref().map_or(Ok(()), |m| m.thresholds(layer, total, out))
    }

    fn rewrites(&self, layer: usize, reading: Reading) -> bool {
        let watched = matches!(reading, Reading::Prompt(_))
            && self.places.iter().any(|place| place.layer == layer);
        watched || self.method.as_ref().is_some_and(|m| m.rewrites(layer, reading))
    }

    fn rewrite(&self, layer: usize, scan: &Scan<'_>, delta: &mut [f32]) -> Result<()> {
        if let Some(method) = &self.method {
            if method.rewrites(layer, Reading::Prompt(self.total)) {
                method.rewrite(layer, scan, delta)?;
            } else {
                // What was rewritten goes past the thresholds.
                let mut least = vec![0.0; scan.channels];
                method.thresholds(layer, self.total, &mut least)?;
                for row in delta.chunks_exact_mut(scan.channels) {
                    for (delta, least) in row.iter_mut().zip(&least) {
                        if *delta <= *least {
                            *delta = 0.0;
                        }
                    }
                }
            }
        }
        let selection = match self.selects && self.places.iter().any(|p| p.layer == layer) {
            true => Some(scan.selection()?),
            false => None,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, place) in self.places.iter().enumerate() {
            if place.layer == layer {
                seen.add(index, place.channel, scan, delta, selection.as_ref());
            }
        }
        Ok(())
    }

    fn cuts(&self, layer: usize, total: usize) -> bool {
        self.method.as_ref().is_some_and(|m| m.cuts(layer, total))
    }

    fn keep(&self, layer: usize, rows: usize, delta: &[f32]) -> Vec<usize> {
        let all = || (0..rows).collect();
        let kept = self.method.as_ref().map_or_else(all, |m| m.keep(layer, rows, delta));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let token = |&row: &usize| seen.kept.as_ref().map_or(row, |kept| kept[row]);
        let tokens = kept.iter().map(token).collect();
        seen.kept = Some(tokens);
        kept
    }

    fn sure(&self, total: usize) -> usize {
        self.method.as_ref().map_or(total, |m| m.sure(total))
    }
}

impl Seen {
    /// The rows of a chunk.
    fn add(
        &mut self,
        place: usize,
        channel: usize,
        &Scan { rows, channels, .. }: &Scan<'_>,
        delta: &[f32],
        selection: Option<&Selection>,
    ) {
        let (scan, first) = (&mut self.scans[place], self.read[place]);
        for row in 0..rows {
            let token = self.kept.as_ref().map_or(first + row, |kept| kept[row]);
            scan.delta[token] = delta[row * channels + channel];
        }
        if let Some(Selection { b, c, groups, d_state, .. }) = selection {
            scan.d_state = *d_state;
            let group = channel / (channels / groups);
            for (to, from) in [(&mut scan.b, b), (&mut scan.c, c)] {
                to.resize(scan.delta.len() * d_state, 0.0);
                for row in 0..rows {
                    let token = self.kept.as_ref().map_or(first + row, |kept| kept[row]);
                    let values = &from[(row * groups + group) * d_state..][..*d_state];
                    to[token * d_state..][..*d_state].copy_from_slice(values);
                }
            }
        }
        self.read[place] += rows;
    }
}
