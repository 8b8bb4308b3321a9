//! `tune --method longmamba`: θ, and with it which channels are global.

use super::Tune;
use crate::args::{Lengths, Loaded, Method};
use crate::calibrate::spread;
use crate::failure::{Failure, Outcome};
use crate::figures;
use crate::output::{Output, Table};
use crate::progress::Bar;
use crate::run_args::RunArgs;
use clap::Args;
use longmamba_model::calibrate::calibrate;
use longmamba_model::eval::perplexity::Windows;
use longmamba_model::eval::run::Settings;
use longmamba_model::methods::theta::{Choice, HeldOut, SearchOptions, Sweep, Trial};
use longmamba_model::policy::{CalibrationSettings, Gap, Plan};
use longmamba_model::{Backend, SessionOptions, write_plan};
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
#[command(next_help_heading = "For --method longmamba")]
pub struct ThetaArgs {
    /// Lengths of the windows that θ is measured on, beyond the training length; each counts alike
    #[arg(long, value_name = "N,...")]
    lengths: Option<Lengths>,
    /// The plan whose θ is chosen [default: the built-in one]
    #[arg(long, value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Calibrate anew with each of these clamps, in percent, and choose among all
    #[arg(
        long,
        value_name = "C,...",
        value_delimiter = ',',
        requires = "calibrate_text",
        allow_negative_numbers = true
    )]
    clamp: Vec<f64>,
    /// Texts to calibrate with; not those that θ is measured on
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "clamp")]
    calibrate_text: Vec<PathBuf>,
    /// How many θ are tried, at most, with each clamp [default: 24]
    #[arg(long, value_name = "N")]
    evaluations: Option<NonZeroUsize>,
    /// Leave a θ when it is worse than the best by that many nats on the mean, the windows that it has not
    /// read taken as equal [default: 0.1]
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    margin: Option<f64>,
    /// Also take a θ within 12 % of a score
    #[arg(long)]
    allow_cliff: bool,
    /// Draw nll against the number of global channels
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    plot: Option<PathBuf>,
    /// Keep every window that is done in this folder; the same command goes on where it was killed
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
}

impl ThetaArgs {
    /// Which of these flags are there.
    pub fn given(&self) -> [(&'static str, bool); 9] {
        [
            ("--lengths", self.lengths.is_some()),
            ("--plan", self.plan.is_some()),
            ("--clamp", !self.clamp.is_empty()),
            ("--calibrate-text", !self.calibrate_text.is_empty()),
            ("--evaluations", self.evaluations.is_some()),
            ("--margin", self.margin.is_some()),
            ("--allow-cliff", self.allow_cliff),
            ("--plot", self.plot.is_some()),
            ("--run", self.run.is_some()),
        ]
    }

    /// The plan as it is, or with each clamp.
    fn plans<B: Backend>(&self, loaded: &Loaded<B>, output: &Output) -> Outcome<Vec<Plan>> {
        let plan = loaded.plan(self.plan.as_deref())?.ok_or_else(|| {
            Failure::input("--plan is missing: make a plan with `longmamba calibrate`")
        })?;
        if self.clamp.is_empty() {
            return Ok(vec![plan]);
        }
        let texts = loaded.read_texts(&loaded.tokenizer()?, &self.calibrate_text)?;
        let train_len = plan.train_len();
        let windows = spread(&texts, &self.calibrate_text, train_len, plan.windows())?;
        let label = "calibrating";
        let bar = Bar::new(output, label, windows.len() * self.clamp.len(), "windows");
        let with_clamp = |(number, &clamp): (usize, &f64)| {
            let (aggregate, lengths) = (plan.aggregate(), plan.lengths().to_vec());
            let settings = CalibrationSettings::new(train_len, clamp, aggregate, lengths)
                .map_err(|e| Failure::input(format!("--clamp: {e}")))?;
            let mut done = |done| bar.set(number * windows.len() + done);
            let made = calibrate(&loaded.model, &windows, settings, plan.theta(), &mut done)?;
            Ok(made.with_min_total_len(plan.min_total_len()))
        };
        self.clamp.iter().enumerate().map(with_clamp).collect()
    }
}

impl Tune {
    pub(super) fn theta<B: Backend>(&self, backend: B, output: &Output) -> Outcome {
        let args = &self.theta;
        let Some(Lengths(lengths)) = &args.lengths else {
            return Err(Failure::input("--lengths is missing: how many tokens the windows have"));
        };
        let windows =
            |&length| Windows { length, windows: self.windows.get(), labels: self.labels };
        let lengths: Vec<Windows> = lengths.iter().map(windows).collect();
        if let Some(path) = &args.plot {
            figures::check_target("--plot", path)?;
        }
        let loaded = self.model.load(backend)?;
        let texts = loaded.read_texts(&loaded.tokenizer()?, &self.text)?;
        let held_out = HeldOut::new(&texts, &lengths, args.margin.unwrap_or(0.1))?;
        let plans = args.plans(&loaded, output)?;
        let longest = lengths.last().map_or(0, |w| w.length);
        let unfiltered = plans[0].train_len().max(plans[0].min_total_len().saturating_sub(1));
        if longest <= unfiltered {
            return Err(Failure::input(format!(
                "--lengths: up to {unfiltered} tokens the plan filters nothing, so that all θ are the same; \
                 give longer ones"
            )));
        }

        let session = |plan: Plan| SessionOptions {
            chunk_len: self.chunk,
            plan: Some(Arc::new(plan)),
            ..SessionOptions::default()
        };
        let method = Method::named(Method::LONGMAMBA);
        let methods: Vec<_> =
            plans.iter().map(|plan| (method.clone(), session(plan.clone()))).collect();
        let tokens: Vec<&[u32]> = texts.iter().map(|t| t.tokens.as_slice()).collect();
        let settings = Settings::new("theta", &loaded.model)
            .with("lengths", lengths.iter().map(|w| w.length).collect::<Vec<_>>())
            .with("windows", self.windows)
            .with("labels", self.labels);
        let run = RunArgs::whole(args.run.clone()).open_for_texts(settings, &methods, &tokens)?;

        let default = SearchOptions::default();
        let evaluations = args.evaluations.map_or(default.evaluations, NonZeroUsize::get);
        let options = SearchOptions { evaluations, allow_cliff: args.allow_cliff, ..default };
        let most = evaluations.saturating_mul(plans.len());
        let total = held_out.tokens().saturating_mul(most);
        let bar = Bar::new(output, "trying θ", total, "tokens");
        let mut sweep = Sweep::new();
        for (number, plan) in plans.iter().enumerate() {
            let scores = plan.layers().iter().flat_map(|layer| layer.log_scores.iter().copied());
            let gaps = Gap::all(scores);
            sweep.search(&gaps, plan.theta_report().global(), &options, |gap, best| {
                let name = format!("plan-{number}/global-{}", gap.global);
                let part = run.part(&name, held_out.windows())?;
                let session = session(plan.clone().with_theta(gap.theta())?);
                held_out.measure(part, &loaded.model, &session, best, &|n| bar.add(n))
            })?;
        }
        drop(bar);

        let found = Found { plans: &plans, sweep: &sweep, choice: sweep.choice(args.allow_cliff) };
        let json = json!({
            "evaluation": "theta", "method": "longmamba", "model": loaded.name,
            "labels": self.labels, "file": found.choice.chosen.map(|_| &self.out),
            "channels": plans[0].theta_report().channels,
            "chosen": found.choice.chosen.map(|trial| found.row(trial)),
            "passed_over": found.choice.passed_over.map(|trial| found.row(trial)),
            "why": found.passed_over(), "above_first": found.against_first().map(|(mean, _)| mean),
            "above_first_standard_error": found.against_first().map(|(_, error)| error),
            "rows": sweep.trials().iter().map(|trial| found.row(trial)).collect::<Vec<_>>(),
        });
        if let Some(trial) = found.choice.chosen {
            let plan = plans[trial.plan].clone().with_theta(trial.gap.theta())?;
            write_plan(&plan, &self.out)?;
        }
        run.write_result(&json)?;
        figures::plot(args.plot.as_deref(), &json, output)?;
        output.result(&json, || found.text(&self.out.display().to_string()))?;
        match found.choice.chosen {
            Some(_) => Ok(()),
            None => Err(Failure::input(
                "every θ that was tried is beside a cliff, no plan was written; --allow-cliff takes the best",
            )),
        }
    }
}

/// A sweep, to be told.
struct Found<'a> {
    plans: &'a [Plan],
    sweep: &'a Sweep,
    choice: Choice<'a>,
}

impl Found<'_> {
    fn chosen(&self, trial: &Trial) -> bool {
        self.choice.chosen.is_some_and(|chosen| std::ptr::eq(chosen, trial))
    }

    fn row(&self, trial: &Trial) -> Value {
        let Trial { plan, gap, score } = trial;
        json!({
            "clamp_percent": self.plans[*plan].clamp_percent(), "theta": gap.theta(),
            "global": gap.global, "nll": score.nll(), "windows": score.windows.len(),
            "stopped": score.stopped, "decades_to_nearest": gap.decades_to_nearest(),
            "near_cliff": gap.near_cliff(), "chosen": self.chosen(trial),
            "lengths": score.lengths(),
        })
    }

    /// Which better θ was not taken, and why.
    fn passed_over(&self) -> Option<String> {
        let Trial { gap, score, .. } = self.choice.passed_over?;
        let against = self.choice.chosen.map_or(String::new(), |chosen| {
            format!(", which is better than {:.4}", chosen.score.nll())
        });
        Some(format!(
            "passed over: θ = {:.3e} with {} global channels has nll {:.4}{against}, but lies beside a cliff: a \
             channel's score is within {:.1} % of it, and another window or clamp moves scores by 12 %; \
             --allow-cliff takes it",
            gap.theta(),
            gap.global,
            score.nll(),
            (10f64.powf(gap.decades_to_nearest()) - 1.0) * 100.0
        ))
    }

    /// By how much the chosen nll is above that of the first θ, the plan's.
    fn against_first(&self) -> Option<(f64, f64)> {
        let (chosen, first) = (self.choice.chosen?, self.sweep.trials().first()?);
        if self.chosen(first) { None } else { chosen.score.above(&first.score) }
    }

    /// What one classification further on either side was measured to cost.
    fn neighbours(&self, chosen: &Trial) -> String {
        let of_plan = || self.sweep.trials().iter().filter(|t| t.plan == chosen.plan);
        let fewer = of_plan().filter(|t| t.gap.global < chosen.gap.global);
        let more = of_plan().filter(|t| t.gap.global > chosen.gap.global);
        let nearest = [fewer.max_by_key(|t| t.gap.global), more.min_by_key(|t| t.gap.global)];
        let told = nearest.into_iter().flatten().map(|t| {
            let at_least = if t.score.stopped { " on the windows read" } else { "" };
            format!("{} global: {:.4}{at_least}", t.gap.global, t.score.nll())
        });
        told.collect::<Vec<_>>().join(", ")
    }

    fn text(&self, out: &str) -> String {
        let mut lengths: Vec<usize> =
            self.sweep.trials().iter().flat_map(|t| t.score.lengths()).map(|l| l.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let header = ["clamp %", "θ", "global"].map(str::to_owned).into_iter();
        let header = header.chain(lengths.iter().map(|length| format!("nll at {length}")));
        let last = ["mean", "windows", "nearest score", "note"].map(str::to_owned);
        let mut table = Table::new(0, header.chain(last));
        let mut trials: Vec<&Trial> = self.sweep.trials().iter().collect();
        trials.sort_by_key(|t| (t.plan, t.gap.global));
        for trial in trials {
            let (gap, score) = (&trial.gap, &trial.score);
            let found = score.lengths();
            let nll = |length: &usize| {
                let found = found.iter().find(|l| l.length == *length);
                found.map_or("–".into(), |l| format!("{:.4}", l.nll))
            };
            let notes = [
                (self.chosen(trial), "chosen"),
                (gap.near_cliff(), "beside a cliff"),
                (score.stopped, "stopped"),
            ];
            let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, n)| *n).collect();
            let mut row = vec![
                self.plans[trial.plan].clamp_percent().to_string(),
                format!("{:.3e}", gap.theta()),
                gap.global.to_string(),
            ];
            row.extend(lengths.iter().map(nll));
            row.extend([
                format!("{:.4}", score.nll()),
                score.windows.len().to_string(),
                match 10f64.powf(gap.decades_to_nearest()) {
                    far if far >= 1e3 => format!("× {far:.0e}"),
                    near => format!("× {near:.3}"),
                },
                notes.join(", "),
            ]);
            table.row(row);
        }
        let mut text = table.text();
        if let Some(chosen) = self.choice.chosen {
            text += &format!(
                "\n{out}: θ = {:.3e}, {} channels are global, nll {:.4}; next to it {}\n",
                chosen.gap.theta(),
                chosen.gap.global,
                chosen.score.nll(),
                self.neighbours(chosen)
            );
            if let Some((above, error)) = self.against_first() {
                text += &format!(
                    "against the classification of the plan's θ: {above:+.4} ± {error:.4} nats; {}\n",
                    if above.abs() > 2.0 * error {
                        "more than two standard errors"
                    } else {
                        "no more than chance: take more --windows"
                    }
                );
            }
            if chosen.gap.global == 0 {
                text += "with no global channel LongMamba does nothing\n";
            }
            if chosen.gap.near_cliff() {
                text +=
                    "THIS θ IS BESIDE A CLIFF, as --allow-cliff allows: see `longmamba channels`\n";
            }
        }
        text + &self.passed_over().map_or(String::new(), |why| why + "\n")
    }
}
