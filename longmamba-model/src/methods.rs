//! Training-free methods that let a model read far past its training length, behind one interface.
//!
//! All of them act before a layer's scan: they rewrite Δ, replace A, or drop tokens. A method is one
//! file against [`Method`] and one line in [`ALL`].
//!
//! | method | what it does | data | prompt in chunks |
//! |---|---|---|---|
//! | [`vanilla`] | nothing | – | yes |
//! | [`longmamba`](mod@longmamba) | drops tokens with a small Δ, in global channels | a plan | yes, announced |
//! | [`mamba_extend`] | scales Δ, a factor a layer | tuned on a text | yes |
//! | [`modulation`] | scales A, a factor a layer | tuned on a text | yes |
//! | [`winsorize`] | clips A to a range of percentiles, layer by layer | none | yes |
//! | [`decimamba`] | drops tokens with a small ‖Δ‖ from some layer on | none | no |
//! | [`lamb`] | drops tokens that the last ones pay no attention to, in global channels | a plan | no |
//!
//! A method that needs the whole prompt is given it as one chunk, whatever
//! [`chunk_len`](crate::SessionOptions::chunk_len) says: the memory for activations then grows with the
//! prompt, by the widths of a layer's buffers for each token.
//!
//! Where a method replaces A, the layers run as fast as before. Where it rewrites Δ, Δ goes to the host
//! and back in every chunk, which a GPU feels.

mod applied;
pub mod decimamba;
pub mod lamb;
pub mod longmamba;
pub mod mamba_extend;
pub mod modulation;
mod scales;
mod settings;
pub mod theta;
pub mod tune;
pub mod vanilla;
pub mod winsorize;

pub use crate::mixer::Rates;
pub(crate) use applied::{Applied, Room, keep_rows, read_rows};
pub use decimamba::DeciMamba;
pub use lamb::Lamb;
pub use longmamba::LongMamba;
pub use mamba_extend::MambaExtend;
pub use modulation::Modulation;
pub use scales::{Point, SCALES_VERSION, Scaled, Scales, Tuning};
pub use settings::Settings;
pub use winsorize::Winsorize;

use crate::config::Config;
use crate::{Error, Result};
use longmamba_core::policy::{Fingerprint, Lookup, Plan};
use std::fmt::Debug;
use std::sync::Arc;

/// What a session reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A prompt of so many tokens in all.
    Prompt(usize),
    /// A token after the prompt.
    Step,
}

/// A training-free method. Layers are the recurrent ones, counted from 0; a channel is one of `d_inner`
/// in Mamba-1 and a head in Mamba-2.
pub trait Method: Debug + Send + Sync {
    /// As on the command line.
    fn name(&self) -> &'static str;

    /// A text that two methods share only if they read alike; sessions are bound to it.
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    /// That it can be used with this model.
    ///
    /// # Errors
    /// [`Error`], saying why not.
    fn check(&self, config: &Config, model: &Fingerprint) -> Result<()>;

    /// Whether it must know the prompt's length before the first token.
    fn needs_length(&self) -> bool {
        self.needs_whole()
    }

    /// Whether the prompt must go through the layers as one chunk.
    fn needs_whole(&self) -> bool {
        false
    }

    /// The decay rates A of a layer, where they are not its `own`: all that it has, in any order, ≤ 0.
    ///
    /// # Errors
    /// [`Error`] of the device.
    fn rates(&self, layer: usize, own: Own<'_>) -> Result<Option<Vec<f32>>> {
        let _ = (layer, own);
        Ok(None)
    }

    /// Writes the thresholds `[channels]` of a layer for a prompt of `total` tokens: a token is dropped
    /// where Δ is not above. `out` comes as zeros, which drop nothing.
    ///
    /// # Errors
    /// [`Error`] where there are none for this layer.
    fn thresholds(&self, layer: usize, total: usize, out: &mut [f32]) -> Result<()> {
        let _ = (layer, total, out);
        Ok(())
    }

    /// Whether [`rewrite`](Self::rewrite) has something to do.
    fn rewrites(&self, layer: usize, reading: Reading) -> bool {
        let _ = (layer, reading);
        false
    }

    /// Rewrites Δ `[rows, channels]` of a chunk, after softplus; 0 drops a token from a channel.
    ///
    /// # Errors
    /// [`Error`] of the device.
    fn rewrite(&self, layer: usize, scan: &Scan<'_>, delta: &mut [f32]) -> Result<()> {
        let _ = (layer, scan, delta);
        Ok(())
    }

    /// Whether [`keep`](Self::keep) has something to do in a prompt of `total` tokens.
    fn cuts(&self, layer: usize, total: usize) -> bool {
        let _ = (layer, total);
        false
    }

    /// Which rows of Δ `[rows, channels]` this layer's scan and all deeper layers see, ascending. Not
    /// empty, and the last row is among them.
    fn keep(&self, layer: usize, rows: usize, delta: &[f32]) -> Vec<usize> {
        let _ = (layer, delta);
        (0..rows).collect()
    }

    /// How many tokens at the end of a prompt of `total` tokens all layers are sure to see.
    fn sure(&self, total: usize) -> usize {
        total
    }
}

/// Copies the decay rates of a layer to the host.
pub type Own<'a> = &'a dyn Fn() -> Result<Vec<f32>>;

/// What a method may look at when it rewrites Δ.
pub struct Scan<'a> {
    /// Tokens of the chunk.
    pub rows: usize,
    /// Channels.
    pub channels: usize,
    read: &'a dyn Fn() -> Result<Selection>,
}

impl Scan<'_> {
    /// B, C and A, copied to the host.
    ///
    /// # Errors
    /// [`Error`] of the device.
    pub fn selection(&self) -> Result<Selection> {
        (self.read)()
    }
}

/// What a scan reads beside x and Δ.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `[rows, groups, d_state]`.
    pub b: Vec<f32>,
    /// `[rows, groups, d_state]`.
    pub c: Vec<f32>,
    /// Groups of channels that share B and C; neighbours are in one group.
    pub groups: usize,
    /// States.
    pub d_state: usize,
    /// A.
    pub rates: Rates,
}

/// A method that was made; `None` is the model as it is.
pub type Built = Result<Option<Arc<dyn Method>>>;

/// A method's line in [`ALL`].
#[derive(Debug)]
pub struct Entry {
    /// As on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Makes it.
    pub build: fn(&mut Settings, &Context<'_>) -> Built,
}

/// Every method.
pub const ALL: &[Entry] = &[
    vanilla::ENTRY,
    longmamba::ENTRY,
    decimamba::ENTRY,
    mamba_extend::ENTRY,
    modulation::ENTRY,
    winsorize::ENTRY,
    lamb::ENTRY,
];

/// What methods may be made from, besides their settings.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The model's.
    pub config: &'a Config,
    /// LongMamba's plan, where there is one.
    pub plan: Option<Arc<Plan>>,
    /// How it is read between its lengths.
    pub lookup: Lookup,
    /// b: its thresholds are multiplied by it.
    pub threshold_scale: f32,
    /// What [`tune`] found, at most one for each method.
    pub scales: &'a [Scales],
}

impl Context<'_> {
    fn plan(&self, name: &str) -> Result<Arc<Plan>> {
        self.plan.clone().ok_or_else(|| {
            Error::argument(format!(
                "method {name} needs a plan; make one with `longmamba calibrate` and give it with --plan"
            ))
        })
    }

    fn scales(&self, scaled: Scaled) -> Result<Scales> {
        let found = self.scales.iter().find(|s| s.scaled() == scaled);
        found.cloned().ok_or_else(|| {
            let name = scaled.method();
            Error::argument(format!(
                "method {name} needs factors; find some with `longmamba tune --method {name}` and give \
                 them with --method-file"
            ))
        })
    }
}

/// The line of the method that `text` names, which may have settings.
///
/// # Errors
/// [`Error::Argument`] for a method that does not exist, or what is no list of settings.
pub fn find(text: &str) -> Result<&'static Entry> {
    let settings = Settings::parse(text)?;
    ALL.iter().find(|e| e.name == settings.method()).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|e| e.name).collect();
        let name = settings.method();
        Error::argument(format!("there is no method {name:?}; there are {}", names.join(", ")))
    })
}

/// Makes the method that `text` names, with settings: `decimamba:layers=12:base=2000`.
///
/// # Errors
/// [`Error::Argument`] for a method or a setting that does not exist, a value out of range, or where
/// what the method needs is missing.
pub fn build(text: &str, context: &Context<'_>) -> Built {
    let mut settings = Settings::parse(text)?;
    let entry = find(text)?;
    let method = (entry.build)(&mut settings, context)?;
    settings.finish()?;
    Ok(method)
}
