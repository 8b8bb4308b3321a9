//! A prompt in, new tokens out.

use crate::backend::Backend;
use crate::model::Model;
use crate::sample::Sampler;
use crate::session::Session;
use crate::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// When a generation ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateOptions {
    /// The most tokens that are drawn.
    pub max_new: usize,
    /// Tokens that end it; they are not given out.
    pub stop: Vec<u32>,
}

impl GenerateOptions {
    /// At most `max_new` tokens; what ends a text for this model ends it earlier.
    pub fn new<B: Backend>(model: &Model<B>, max_new: usize) -> Self {
        GenerateOptions { max_new, stop: model.config().eos_tokens.clone() }
    }
}

/// How many tokens took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Timing {
    /// Tokens.
    pub tokens: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Timing {
    /// Tokens that were done since `start`.
    pub fn since(start: Instant, tokens: usize) -> Self {
        Timing { tokens, seconds: start.elapsed().as_secs_f64() }
    }

    /// Tokens a second; 0 where there were none.
    pub fn per_second(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.tokens as f64 / self.seconds.max(1e-9) }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// `max_new` tokens were drawn.
    MaxNew,
    /// A stop token was drawn.
    Stop,
    /// The callback said so.
    Caller,
}

/// What a generation did.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Generated {
    /// Reading the prompt.
    pub prompt: Timing,
    /// Drawing the new tokens.
    pub new: Timing,
    /// Why it ended.
    pub ended: Ended,
}

/// Reads a prompt and continues it; `on_token` is called with every new token.
///
/// ```no_run
/// # fn run(model: std::sync::Arc<longmamba_model::Model>) -> longmamba_model::Result<()> {
/// use longmamba_model::{GenerateOptions, SampleOptions, Sampler, SessionOptions, generate};
/// let mut session = model.session(SessionOptions::default())?;
/// let mut greedy = Sampler::new(SampleOptions::default())?;
/// let mut tokens = Vec::new();
/// generate(&mut session, &[72, 105], &mut greedy, &GenerateOptions::new(&model, 20), |token| {
///     tokens.push(token);
///     std::ops::ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Session::prefill`] and [`Sampler::sample`].
pub fn generate<B: Backend>(
    session: &mut Session<B>,
    prompt: &[u32],
    sampler: &mut Sampler,
    options: &GenerateOptions,
    on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<Generated> {
    let start = Instant::now();
    session.prefill(prompt)?;
    let prompt = Timing::since(start, prompt.len());
    let (new, ended) = decode(session, sampler, options, on_token)?;
    Ok(Generated { prompt, new, ended })
}

/// Continues what the session has read. The last token given out has not been read itself.
///
/// Tokens are drawn where the logits are: of a step on a GPU nothing but the token comes to the host.
///
/// # Errors
/// [`Error::EmptyPrompt`] where the session has read nothing; as [`Session::step`] and
/// [`Sampler::sample`].
pub fn decode<B: Backend>(
    session: &mut Session<B>,
    sampler: &mut Sampler,
    options: &GenerateOptions,
    on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<(Timing, Ended)> {
    if session.position() == 0 {
        return Err(Error::EmptyPrompt);
    }
    let start = Instant::now();
    let result = draw(session, sampler, options, on_token);
    // Whoever has the session next may ask for them, also after an error.
    let fetched = session.fetch_logits();
    let (drawn, ended) = result?;
    fetched?;
    Ok((Timing::since(start, drawn), ended))
}

/// How many tokens were drawn, and why no more. The logits of the steps stay on the device.
fn draw<B: Backend>(
    session: &mut Session<B>,
    sampler: &mut Sampler,
    options: &GenerateOptions,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<(usize, Ended)> {
    let mut last = None;
    for drawn in 0..options.max_new {
        let token = match last {
            None => sampler.sample(session.logits())?,
            Some(token) => session.step_and_sample(token, sampler)?,
        };
        if options.stop.contains(&token) {
            return Ok((drawn, Ended::Stop));
        }
        if on_token(token).is_break() {
            return Ok((drawn + 1, Ended::Caller));
        }
        last = Some(token);
    }
    Ok((options.max_new, Ended::MaxNew))
}

/// Bytes of a prompt file that are in memory at a time.
const BLOCK: usize = 1 << 16;

/// Reads a whole file as the prompt of a byte model, block by block: the memory does not depend on
/// the file's size (unless the session's method looks at the whole prompt at once), which is taken from the file system before the first byte is read. `progress` is
/// called with the number of bytes read so far.
///
/// # Errors
/// [`Error::Io`]; [`Error::EmptyPrompt`] for an empty file; [`Error::Malformed`] for a file that
/// became shorter meanwhile or is none; as [`Session::prefill`].
pub fn prefill_file<B: Backend>(
    session: &mut Session<B>,
    path: &Path,
    mut progress: impl FnMut(usize),
) -> Result<Timing> {
    let start = Instant::now();
    let mut file = File::open(path).map_err(Error::io(path))?;
    let meta = file.metadata().map_err(Error::io(path))?;
    if !meta.is_file() {
        return Err(Error::malformed(
            path,
            "not a regular file, so its size is not known beforehand",
        ));
    }
    let total = usize::try_from(meta.len())
        .map_err(|_| Error::malformed(path, "more bytes than this machine can count"))?;
    session.prefill_of(total)?;
    let whole = session.looks_at_whole_prompt();
    let mut block = vec![0; if whole { total } else { BLOCK.min(total) }];
    let mut tokens = Vec::with_capacity(block.len());
    let mut done = 0;
    while done < total {
        let room = block.len().min(total - done);
        let read = match whole {
            true => file.read_exact(&mut block).map(|()| total),
            false => file.read(&mut block[..room]),
        };
        let read = read.map_err(Error::io(path))?;
        if read == 0 {
            return Err(Error::malformed(path, format!("ended after {done} of {total} bytes")));
        }
        tokens.clear();
        tokens.extend(block[..read].iter().map(|&b| u32::from(b)));
        session.prefill(&tokens)?;
        done += read;
        progress(done);
    }
    Ok(Timing::since(start, total))
}
