//! What several commands take: models, plans, methods, texts, lists.

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use clap::{Args, ValueEnum};
use longmamba_model::builtin::{self, Builtin};
use longmamba_model::methods::{self, Context, Scales};
use longmamba_model::policy::{Lookup, Plan};
use longmamba_model::{
    Backend, LoadOptions, Model, Placement, SessionOptions, Text, Tokenizer, hub, read_plan,
};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the names of built-in models begin with.
const BUILTIN: &str = "builtin:";

fn find_builtin(name: &str) -> Outcome<&'static Builtin> {
    builtin::find(name).ok_or_else(|| {
        let names: Vec<String> =
            builtin::all().iter().map(|b| format!("{BUILTIN}{}", b.name)).collect();
        Failure::input(format!(
            "{BUILTIN}{name}: no such built-in model; there are {}",
            names.join(" and ")
        ))
    })
}

#[derive(Debug, Args)]
pub struct ModelArg {
    /// A folder, a weights file beside its config.json, an id in the Hugging Face cache, or
    /// builtin:mamba2-tiny, builtin:mamba1-tiny
    #[arg(value_name = "MODEL")]
    model: String,
    /// Where the weights lie while they are used: `copy`, in memory on large pages, which decodes fastest; `map`, in
    /// the file, where processes share them; `fit`, the first where that takes at most half of the free memory.
    /// The default is `fit`, and `map` for weights that go to a GPU or into fewer bits
    #[arg(long)]
    placement: Option<PlacementArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlacementArg {
    Map,
    Copy,
    Fit,
}

impl From<PlacementArg> for Placement {
    fn from(argument: PlacementArg) -> Self {
        match argument {
            PlacementArg::Map => Placement::Map,
            PlacementArg::Copy => Placement::Copy,
            PlacementArg::Fit => Placement::Fit,
        }
    }
}

/// A model, and what belongs to it.
#[derive(Debug)]
pub struct Loaded<B: Backend> {
    pub model: Arc<Model<B>>,
    /// As it was given.
    pub name: String,
    builtin: Option<&'static Builtin>,
}

impl ModelArg {
    /// As if it stood on the command line.
    pub fn named(model: &str) -> Self {
        ModelArg { model: model.to_owned(), placement: None }
    }

    pub fn load<B: Backend>(&self, backend: B) -> Outcome<Loaded<B>> {
        let name = self.model.clone();
        if let Some(builtin) = name.strip_prefix(BUILTIN) {
            return Loaded::builtin(find_builtin(builtin)?, backend);
        }
        let path = hub::find(&name)?;
        let placement = self.placement.map(Placement::from);
        let options = LoadOptions { placement, ..LoadOptions::default() };
        let model = Model::load_with(&path, backend, options)?;
        Ok(Loaded { model, name, builtin: None })
    }
}

impl<B: Backend> Loaded<B> {
    pub fn builtin(builtin: &'static Builtin, backend: B) -> Outcome<Self> {
        let model = builtin.model_on(backend)?;
        Ok(Loaded { model, name: format!("{BUILTIN}{}", builtin.name), builtin: Some(builtin) })
    }

    pub fn tokenizer(&self) -> Outcome<Tokenizer> {
        let folder = self.folder().unwrap_or(Path::new(""));
        Ok(Tokenizer::for_model(self.model.config(), folder)?)
    }

    /// Where the config lies; built-in models have no folder.
    pub fn folder(&self) -> Option<&Path> {
        let path = self.model.path();
        let folder = if path.is_file() { path.parent()? } else { path };
        self.builtin.is_none().then_some(folder)
    }

    /// The plan of `--plan`, or the built-in one; it fits the model.
    pub fn plan(&self, file: Option<&Path>) -> Outcome<Option<Plan>> {
        let Some(path) = file else {
            return Ok(self.builtin.map(Builtin::plan).transpose()?);
        };
        let plan = read_plan(path)?;
        plan.check(self.model.fingerprint())
            .map_err(|e| Failure::input(format!("--plan {}: {e}", path.display())))?;
        Ok(Some(plan))
    }

    /// The text of each file in tokens.
    pub fn read_texts(&self, tokenizer: &Tokenizer, files: &[PathBuf]) -> Outcome<Vec<Text>> {
        let files = text_files(files)?;
        read_files(&files)?
            .iter()
            .zip(&files)
            .map(|(bytes, file)| {
                let text = tokenizer.encode_text(bytes);
                text.map_err(|e| Failure::input(format!("{}: {e}", file.display())))
            })
            .collect()
    }
}

/// The files as they are, and of a folder all `.txt` files in it, by name.
fn text_files(paths: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let fail = |e: std::io::Error| Failure::input(format!("{}: {e}", path.display()));
        let entries = std::fs::read_dir(path).map_err(fail)?.collect::<Result<Vec<_>, _>>();
        let mut texts: Vec<PathBuf> = entries.map_err(fail)?.iter().map(|e| e.path()).collect();
        texts.retain(|text| text.is_file() && text.extension().is_some_and(|e| e == "txt"));
        if texts.is_empty() {
            let path = path.display();
            return Err(Failure::input(format!("{path}: the folder has no .txt file in it")));
        }
        texts.sort_unstable();
        files.extend(texts);
    }
    Ok(files)
}

/// The bytes of each file, none of them empty.
fn read_files(files: &[PathBuf]) -> Outcome<Vec<Vec<u8>>> {
    let read = |file: &PathBuf| match std::fs::read(file) {
        Ok(bytes) if bytes.is_empty() => {
            Err(Failure::input(format!("{}: the text is empty", file.display())))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Failure::input(format!("{}: {error}", file.display()))),
    };
    files.iter().map(read).collect()
}

/// A method by name, with settings: `winsorize:low=5`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Method(String);

impl Method {
    pub const VANILLA: &str = "vanilla";
    pub const LONGMAMBA: &str = "longmamba";

    /// One of those above.
    pub fn named(name: &str) -> Self {
        Method(name.to_owned())
    }

    /// As it was given.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        methods::find(text).map_err(|e| e.to_string())?;
        Ok(Method(text.to_owned()))
    }
}

/// What methods are made from, and how prompts are read.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A calibrated plan [default for built-in models: their own]
    #[arg(long, value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Another θ than the plan's: channels with a score above it are global
    #[arg(long, value_name = "θ", allow_negative_numbers = true)]
    theta: Option<f64>,
    /// The thresholds are multiplied by it
    #[arg(long, value_name = "B", default_value_t = 1.0, allow_negative_numbers = true)]
    scale: f32,
    /// Factors that `longmamba tune` found, for mambaextend and modulation
    #[arg(long, value_name = "FILE", num_args = 1..)]
    method_file: Vec<PathBuf>,
    /// How thresholds are found for lengths that the plan does not have
    #[arg(long, value_enum, default_value = "interpolated")]
    lookup: LookupArg,
    /// Tokens that go through the layers together [default: 192 on the CPU, 512 with AMX or on a GPU]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    chunk: Option<usize>,
    /// How many tokens back attention layers see, which bounds their memory [default: all]
    #[arg(long, value_name = "W", value_parser = length)]
    window: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LookupArg {
    /// Between the two lengths around it
    Interpolated,
    /// The nearest length, as in the published code
    Nearest,
}

impl PlanArgs {
    /// The plan that was given, or the built-in one; it fits the model.
    pub fn plan<B: Backend>(&self, loaded: &Loaded<B>) -> Outcome<Option<Arc<Plan>>> {
        let plan = match loaded.plan(self.plan.as_deref())? {
            Some(plan) => plan,
            None if self.theta.is_some() => {
                return Err(Failure::input("--theta changes a plan; give one with --plan"));
            }
            None => return Ok(None),
        };
        let plan = match self.theta {
            Some(theta) => {
                plan.with_theta(theta).map_err(|e| Failure::input(format!("--theta: {e}")))?
            }
            None => plan,
        };
        Ok(Some(Arc::new(plan)))
    }

    /// What `tune` found, at most once for each method.
    fn scales(&self) -> Outcome<Vec<Scales>> {
        let mut all: Vec<Scales> = Vec::new();
        for path in &self.method_file {
            let scales = Scales::read(path)?;
            if all.iter().any(|other| other.scaled() == scales.scaled()) {
                let (path, name) = (path.display(), scales.scaled().method());
                return Err(Failure::input(format!(
                    "--method-file {path}: a second file for method {name}; give one of each"
                )));
            }
            all.push(scales);
        }
        Ok(all)
    }

    /// How sessions run with each of `methods`; without any, with the model as it is and, where there is a
    /// plan, with LongMamba.
    pub fn methods<B: Backend>(
        &self,
        methods: &[Method],
        loaded: &Loaded<B>,
    ) -> Outcome<Vec<(Method, SessionOptions)>> {
        let (plan, scales) = (self.plan(loaded)?, self.scales()?);
        let possible: Vec<Method> = [Method::VANILLA, Method::LONGMAMBA]
            .into_iter()
            .take(1 + usize::from(plan.is_some()))
            .map(Method::named)
            .collect();
        let context = Context {
            config: loaded.model.config(),
            plan,
            lookup: match self.lookup {
                LookupArg::Interpolated => Lookup::Interpolated,
                LookupArg::Nearest => Lookup::Nearest,
            },
            threshold_scale: self.scale,
            scales: &scales,
        };
        let options = |method: &Method| {
            let options = SessionOptions {
                chunk_len: self.chunk,
                threshold_scale: self.scale,
                method: methods::build(method.name(), &context)?,
                attention_window: self.window,
                ..SessionOptions::default()
            };
            // Finds what is wrong with them now.
            loaded.model.session(options.clone())?;
            Ok((method.clone(), options))
        };
        let methods = if methods.is_empty() { &possible } else { methods };
        methods.iter().map(options).collect()
    }
}

/// `2k,10k,500k`, strictly ascending.
#[derive(Clone, Debug)]
pub struct Lengths(pub Vec<usize>);

impl std::str::FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lengths = text.split(',').map(length).collect::<Result<Vec<_>, _>>()?;
        if let Some([a, b]) = lengths.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("lengths must be strictly ascending, but {b} follows {a}"));
        }
        Ok(Lengths(lengths))
    }
}

/// `500`, `2k` = 2,000 or `1M` = 1,000,000.
pub fn length(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1000),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let value = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n > 0);
    value.ok_or_else(|| format!("{text:?} is no length; write 500, 2k (2000) or 1M (1000000)"))
}

/// As many tokens of a file as the longest of `lengths`.
pub fn first_tokens<B: Backend>(
    loaded: &Loaded<B>,
    file: &Path,
    lengths: &Lengths,
) -> Outcome<Vec<u32>> {
    let longest = lengths.0.last().copied().unwrap_or(0);
    let texts = loaded.read_texts(&loaded.tokenizer()?, &[file.to_owned()])?;
    let mut tokens: Vec<u32> = texts.into_iter().flat_map(|text| text.tokens).collect();
    if tokens.len() < longest {
        return Err(Failure::input(format!(
            "--lengths: {longest} tokens were asked for, {} has {}",
            file.display(),
            tokens.len()
        )));
    }
    tokens.truncate(longest);
    Ok(tokens)
}

/// A share, 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok().filter(|v| (0.0..=1.0).contains(v));
    value.ok_or_else(|| format!("{text:?} is no number between 0 and 1"))
}

/// A built-in model's plan by name, or a plan file.
pub fn read_any_plan(name: &str) -> Outcome<Plan> {
    match name.strip_prefix(BUILTIN) {
        Some(builtin) => Ok(find_builtin(builtin)?.plan()?),
        None => Ok(read_plan(Path::new(name))?),
    }
}

/// Prose for a byte model: the files, or what the model itself writes.
pub fn prose<B: Backend>(
    loaded: &Loaded<B>,
    files: &[PathBuf],
    sampled_len: usize,
    seed: u64,
    output: &Output,
) -> Outcome<Vec<Vec<u8>>> {
    if !files.is_empty() {
        return read_files(&text_files(files)?);
    }
    let label = format!("{}: writing prose", loaded.name);
    let bar = crate::progress::Bar::new(output, &label, sampled_len, "bytes");
    let sampled =
        longmamba_model::eval::prose::sampled(&loaded.model, sampled_len, seed, &|n| bar.add(n))?;
    Ok(vec![sampled])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_checked() {
        let read = |text: &str| text.parse::<Lengths>().map(|l| l.0);
        assert_eq!(read("500,2k,10K,1M"), Ok(vec![500, 2000, 10_000, 1_000_000]));
        assert_eq!(read("7"), Ok(vec![7]));
        for (bad, why) in [
            ("2k,1k", "1000 follows 2000"),
            ("2k,2000", "ascending"),
            ("", "is no length"),
            ("0", "is no length"),
            ("1,,2", "is no length"),
            ("2x", "is no length"),
            ("-5", "is no length"),
            ("99999999999999999999k", "is no length"),
        ] {
            assert!(read(bad).is_err_and(|e| e.contains(why)), "{bad}");
        }
        assert!(share("1.01").is_err() && share("nan").is_err() && share("0.5") == Ok(0.5));
    }
}
