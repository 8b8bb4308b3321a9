use crate::args::ModelArg;
use crate::failure::Outcome;
use crate::output::{Output, check_writable};
use clap::{Args, ValueEnum};
use longmamba_model::policy::Aggregate;
use longmamba_model::{CpuBackend, ImportSettings, import_plan, write_plan};
use serde_json::json;
use std::path::PathBuf;

/// Make a plan of the calibration tables that LongMamba's authors publish
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  longmamba import-plan path/to/mamba2-1.3b_max --model path/to/mamba2-1.3b \
    --out mamba2-1.3b.plan\n\n\
    FOLDER holds delta_t-thre/ and tA_prod/ with a .pt file a layer. The tables do not say how they were \
    made; the flags' defaults are what the paper and its code have for the family."
)]
pub struct ImportPlan {
    /// The folder with delta_t-thre and tA_prod
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The model that the tables were made from
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The plan file to write
    #[arg(long, value_name = "PLAN")]
    out: PathBuf,
    /// The length of the windows [default: 2000; Zamba2: 4000]
    #[arg(long, value_name = "L")]
    train_len: Option<usize>,
    /// Channels with a score above it are global [default: 0.05; Zamba2: 1e-5]
    #[arg(long, value_name = "θ", allow_negative_numbers = true)]
    theta: Option<f64>,
    /// The share of the largest Δ that was clamped, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, allow_negative_numbers = true)]
    clamp: f64,
    /// How the windows were combined
    #[arg(long, value_enum, default_value = "max")]
    aggregate: AggregateArg,
    /// The number of windows
    #[arg(long, value_name = "N", default_value_t = 5)]
    windows: usize,
    /// Shorter prompts are not filtered [default: 3000; Zamba2: 5001]
    #[arg(long, value_name = "N")]
    min_length: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AggregateArg {
    Max,
    Avg,
}

impl ImportPlan {
    pub fn run(self, output: &Output) -> Outcome {
        check_writable("--out", &self.out)?;
        let loaded = ModelArg::named(&self.model).load(CpuBackend::new(None)?)?;
        let zamba = loaded.model.config().shared.is_some();
        let (train_len, theta, min_len) =
            if zamba { (4000, 1e-5, 5001) } else { (2000, 5e-2, 3000) };
        let settings = ImportSettings {
            train_len: self.train_len.unwrap_or(train_len),
            clamp_percent: self.clamp,
            aggregate: match self.aggregate {
                AggregateArg::Max => Aggregate::Max,
                AggregateArg::Avg => Aggregate::Average,
            },
            windows: self.windows,
            theta: self.theta.unwrap_or(theta),
            min_total_len: self.min_length.unwrap_or(min_len),
        };
        let plan = import_plan(&self.folder, loaded.model.fingerprint().clone(), &settings)?;
        write_plan(&plan, &self.out)?;
        let report = plan.theta_report();
        let json = json!({
            "model": loaded.name, "plan": self.out, "train_len": settings.train_len,
            "theta": settings.theta, "lengths": plan.lengths(), "channels": report.channels,
            "global": report.global(), "near_cliff": report.near_cliff,
        });
        output.result(&json, || {
            format!(
                "{}: {} of {} channels are global at θ = {:e}\n",
                self.out.display(),
                report.global(),
                report.channels,
                settings.theta
            )
        })
    }
}
