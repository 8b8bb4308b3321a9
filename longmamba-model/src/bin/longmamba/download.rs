use crate::failure::Outcome;
use crate::output::Output;
use crate::progress::Bar;
use clap::Args;
use longmamba_model::hub;
use serde_json::json;

/// Download a model into the local Hugging Face cache
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  longmamba download state-spaces/mamba-130m-hf\n\n\
    A download that was cut short goes on where it stopped. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and \
    HF_TOKEN are heeded.")]
pub struct Download {
    /// ORG/NAME, or ORG/NAME@REVISION
    #[arg(value_name = "ID")]
    id: String,
}

impl Download {
    pub fn run(self, output: &Output) -> Outcome {
        let mut bar: Option<(String, Bar)> = None;
        let folder = hub::download_with(&self.id, &mut |progress| {
            if bar.as_ref().is_none_or(|(file, _)| file != progress.file) {
                let total = usize::try_from(progress.total).unwrap_or(usize::MAX);
                let next = Bar::new(output, progress.file, total, "bytes");
                bar = Some((progress.file.to_owned(), next));
            }
            if let Some((_, bar)) = &bar {
                bar.set(usize::try_from(progress.done).unwrap_or(usize::MAX));
            }
        })?;
        drop(bar);
        let json = json!({ "model": self.id, "folder": folder });
        output.result(&json, || format!("{}\n", folder.display()))
    }
}
