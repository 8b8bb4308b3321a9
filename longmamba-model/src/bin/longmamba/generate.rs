use crate::args::{Method, ModelArg, PlanArgs};
use crate::device::{DeviceArg, on_device};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, count};
use crate::progress::Bar;
use clap::Args;
use longmamba_model::{
    Backend, GenerateOptions, Generated, SampleOptions, Sampler, Session, SessionOptions, Timing,
    Tokenizer, decode, prefill_file,
};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Continue a prompt of any length
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  longmamba generate builtin:mamba2-tiny --prompt '<K=b> and <K=' --max-new 1\n  \
    longmamba generate path/to/model --prompt-file book.txt --plan model.plan --max-new 100 \
    --temperature 0.8 --top-p 0.95\n\n\
    For models whose tokens are bytes a prompt file is never held in memory as a whole."
)]
pub struct Generate {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    prompt: Prompt,
    #[command(flatten)]
    plan: PlanArgs,
    /// One of those that `longmamba methods` lists [default: longmamba, where there is a plan]
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// Filter the new tokens too, which the paper's code does not
    #[arg(long)]
    filter_decode: bool,
    /// The most tokens to add
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true)]
    max_new: usize,
    /// Draw tokens instead of taking the most likely; higher is wilder
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw from the K most likely
    #[arg(long, value_name = "K", requires = "temperature", allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Draw from the fewest tokens that have this share together
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.0,
        requires = "temperature",
        allow_negative_numbers = true
    )]
    top_p: f32,
    /// Draw from the tokens with this share of the most likely one's probability
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        requires = "temperature",
        allow_negative_numbers = true
    )]
    min_p: f32,
    /// The same seed draws the same tokens
    #[arg(long, value_name = "N", default_value_t = 0, requires = "temperature")]
    seed: u64,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Prompt {
    /// The prompt
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A file with the prompt
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl Generate {
    pub fn run(self, output: &Output) -> Outcome {
        on_device!(self.device, |backend| self.on(backend, output))
    }

    fn on<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        let mut sampler = Sampler::new(SampleOptions {
            temperature: self.temperature.unwrap_or(0.0),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            banned: Vec::new(),
        })?;
        let loaded = self.model.load(backend)?;
        let tokenizer = loaded.tokenizer()?;
        // The last method that is possible is LongMamba, where there is a plan.
        let methods = self.plan.methods(self.method.as_slice(), &loaded)?;
        let Some((method, options)) = methods.into_iter().next_back() else { return Ok(()) };
        let options = SessionOptions { filter_decode: self.filter_decode, ..options };
        let mut session = loaded.model.session(options)?;
        let prompt = self.prompt.read(&mut session, &tokenizer, output)?;

        let mut stream = tokenizer.stream();
        let mut text = String::new();
        let mut failure = None;
        let mut show = |piece: &str| {
            if output.json {
                text.push_str(piece);
                Ok(())
            } else {
                output.print(piece)
            }
        };
        let until = GenerateOptions::new(&loaded.model, self.max_new);
        let (new, ended) = decode(&mut session, &mut sampler, &until, |token| {
            match stream.push(token).map_err(Failure::from).and_then(&mut show) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failure = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        show(stream.finish()?)?;
        if !output.json {
            output.print("\n")?;
            let memory = session.memory();
            let cache = match memory.attention {
                0 => String::new(),
                bytes => format!(", {}B of keys and values", count(bytes as f64)),
            };
            output.note(&format!(
                "{} prompt tokens at {:.0} tokens/s, {} new at {:.0} tokens/s, {}{cache}",
                prompt.tokens,
                prompt.per_second(),
                new.tokens,
                new.per_second(),
                method.name()
            ));
            return Ok(());
        }
        let Generated { prompt, new, ended } = Generated { prompt, new, ended };
        output.print_json(&json!({
            "model": loaded.name, "method": method, "text": text, "ended": ended,
            "prompt_tokens": prompt.tokens, "prefill_seconds": prompt.seconds,
            "prefill_tokens_per_second": prompt.per_second(),
            "new_tokens": new.tokens, "decode_seconds": new.seconds,
            "decode_tokens_per_second": new.per_second(),
            "state_bytes": session.memory(), "peak_memory_bytes": peak_memory_bytes(),
        }))
    }
}

impl Prompt {
    fn read<B: Backend>(
        &self,
        session: &mut Session<B>,
        tokenizer: &Tokenizer,
        output: &Output,
    ) -> Outcome<Timing> {
        let named = |path: &Path| {
            let path = path.display().to_string();
            move |e: longmamba_model::Error| match e.to_string() {
                why if why.contains(&path) => Failure::Input(why),
                why => Failure::Input(format!("{path}: {why}")),
            }
        };
        match &self.prompt_file {
            Some(path) if tokenizer.is_bytes() => {
                let size = std::fs::metadata(path).map_or(0, |m| m.len());
                let bar = Bar::new(output, "reading", usize::try_from(size).unwrap_or(0), "tokens");
                prefill_file(session, path, |done| bar.set(done)).map_err(named(path))
            }
            file => {
                let text = match file {
                    Some(path) => {
                        let text = std::fs::read(path);
                        text.map_err(|e| Failure::input(format!("{}: {e}", path.display())))?
                    }
                    None => self.prompt.clone().unwrap_or_default().into_bytes(),
                };
                let tokens = match file {
                    Some(path) => tokenizer.encode(&text).map_err(named(path))?,
                    None => tokenizer.encode(&text)?,
                };
                let start = Instant::now();
                session.prefill(&tokens)?;
                Ok(Timing::since(start, tokens.len()))
            }
        }
    }
}

/// The most memory that the process has had; known on Linux.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
