//! What is timed, the same for every engine written in Rust: arguments, tokens, rows. Only the standard
//! library, for the rivals under `benches/rivals/rust` compile this file, too.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Tokens of the prompt whose last logits are compared.
const ANSWER: usize = 64;

/// All engines read these tokens, which every vocabulary of the shapes has.
const TOKENS: u32 = 50277;

/// A language model with one sequence.
pub trait Engine {
    /// The next token that is read is the first of a new sequence.
    fn reset(&mut self) -> Result<()>;

    /// Reads a whole prompt. When it returns, the logits of its last token are there.
    fn prefill(&mut self, tokens: &[u32]) -> Result<()>;

    /// Reads one more token. When it returns, its logits are there.
    fn step(&mut self, token: u32) -> Result<()>;

    fn logits(&mut self) -> Result<Vec<f32>>;
}

/// What the command was asked for.
pub struct Options {
    /// Folder with config.json and model.safetensors.
    pub model: PathBuf,
    /// Of the weights' folder, as it is to be named in the rows.
    pub dtype: String,
    pub threads: usize,
    /// Lengths of prompts, from short to long.
    pub prefill: Vec<usize>,
    /// Tokens after a short prompt; 0: not timed.
    pub decode: usize,
    pub repeats: usize,
    /// Tokens that are read once before anything is timed.
    pub warm: usize,
    /// Tokens that go through the layers together, where an engine lets one choose.
    pub chunk: Option<usize>,
    /// Use the weights in their file, where an engine can.
    pub map: bool,
    /// In what numbers is computed, where an engine lets one choose.
    pub compute: Option<String>,
    /// Where the logits after the fixed prompt are written to, as raw f32.
    pub logits: Option<PathBuf>,
}

const HELP: &str = "\
One model, timed end to end: prompts of several lengths, and writing token by token.
Each figure is a line of JSON.

MODEL             folder with config.json and model.safetensors
--threads N       threads [1]
--prefill TOKENS  time a prompt of so many tokens; may be given several times
--decode TOKENS   time so many tokens after a short prompt
--repeats N       how often each figure is taken [1]
--warm TOKENS     a prompt of so many is read before anything is timed [64]
--chunk TOKENS    tokens that go through the layers together, where an engine lets one choose
--compute HOW     in what numbers is computed; ours: auto, whole (bf16 weights keep 16 bits), int8, int4
--map             use the weights in their file, where an engine can
--dtype NAME      the weights' type, as it is to be named in the rows [f32]
--logits FILE     write the logits after a fixed prompt of 64 tokens, as raw f32";

impl Options {
    /// What the arguments say; `None` where they ask for help.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Options {
            model: PathBuf::new(),
            dtype: "f32".into(),
            threads: 1,
            prefill: Vec::new(),
            decode: 0,
            repeats: 1,
            warm: ANSWER,
            chunk: None,
            map: false,
            compute: None,
            logits: None,
        };
        let mut models = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--dtype" => options.dtype = value()?,
                "--threads" => options.threads = at_least_one(&value()?)?,
                "--prefill" => options.prefill.push(at_least_one(&value()?)?),
                "--decode" => options.decode = at_least_one(&value()?)?,
                "--repeats" => options.repeats = at_least_one(&value()?)?,
                "--warm" => options.warm = at_least_one(&value()?)?,
                "--chunk" => options.chunk = Some(at_least_one(&value()?)?),
                "--map" => options.map = true,
                "--compute" => options.compute = Some(value()?),
                "--logits" => options.logits = Some(value()?.into()),
                "--help" | "-h" => return Ok(None),
                flag if flag.starts_with('-') => {
                    return Err(format!("no option {flag}; see --help").into());
                }
                _ => models.push(argument),
            }
        }
        let [model] = &models[..] else {
            return Err("give one folder with a model; see --help".into());
        };
        options.model = model.into();
        options.prefill.sort_unstable();
        Ok(Some(options))
    }
}

fn at_least_one(text: &str) -> Result<usize> {
    match text.parse()? {
        0 => Err("at least 1".into()),
        number => Ok(number),
    }
}

/// Loads, reads once to warm up, then prints a line of JSON for each cell.
pub fn run<E: Engine>(name: &str, load: impl FnOnce(&Options) -> Result<E>) -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{HELP}");
        return Ok(());
    };
    let mut engine = load(&options)?;
    if let Some(path) = &options.logits {
        engine.reset()?;
        engine.prefill(&prompt(ANSWER))?;
        let bytes: Vec<u8> = engine.logits()?.into_iter().flat_map(f32::to_le_bytes).collect();
        fs::write(path, bytes)?;
    }
    if options.decode == 0 && options.prefill.is_empty() {
        return Ok(());
    }
    engine.reset()?;
    engine.prefill(&prompt(options.warm))?;
    (0..8).try_for_each(|i| engine.step(token(options.warm + i)))?;
    if options.decode > 0 {
        engine.reset()?;
        engine.prefill(&prompt(ANSWER))?;
        for repeat in 0..options.repeats {
            let first = ANSWER + repeat * options.decode;
            let start = Instant::now();
            (first..first + options.decode).try_for_each(|i| engine.step(token(i)))?;
            row(name, &options, "decode", options.decode, start.elapsed().as_secs_f64());
        }
    }
    for &len in &options.prefill {
        let tokens = prompt(len);
        for _ in 0..options.repeats {
            engine.reset()?;
            let start = Instant::now();
            engine.prefill(&tokens)?;
            row(name, &options, "prefill", len, start.elapsed().as_secs_f64());
        }
    }
    match engine.logits()?.iter().all(|l| l.is_finite()) {
        true => Ok(()),
        false => Err("a logit is not finite".into()),
    }
}

/// Token `index` of the text that every engine reads.
fn token(index: usize) -> u32 {
    let index = (index % TOKENS as usize) as u32;
    (index * 7919 + 13) % TOKENS
}

fn prompt(len: usize) -> Vec<u32> {
    (0..len).map(token).collect()
}

fn row(engine: &str, options: &Options, kind: &str, tokens: usize, seconds: f64) {
    let Options { model, dtype, threads, .. } = options;
    let model = model.file_name().unwrap_or_default().display();
    let (rate, rss) = (tokens as f64 / seconds, peak_rss_kb());
    println!(
        "{{\"engine\": {engine:?}, \"model\": \"{model}\", \"dtype\": {dtype:?}, \
         \"threads\": {threads}, \"kind\": {kind:?}, \"tokens\": {tokens}, \
         \"seconds\": {seconds:.6}, \"tokens_per_s\": {rate:.3}, \"peak_rss_kb\": {rss}}}"
    );
}

/// The most memory that was resident, pages of mapped files included; 0 where the system does not say.
fn peak_rss_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
