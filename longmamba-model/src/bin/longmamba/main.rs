//! `longmamba`: run, calibrate and measure Mamba models on long contexts.
//!
//! Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 a comparison failed,
//! 2 wrong usage or bad input.

mod args;
mod attention;
mod calibrate;
mod channels;
mod convert;
mod decay;
mod demo;
mod device;
#[cfg(feature = "download")]
mod download;
mod failure;
mod figures;
mod generate;
mod import_plan;
mod inspect;
mod latency;
mod longbench;
mod methods;
mod output;
mod passkey;
mod plot;
mod ppl;
mod progress;
mod report;
mod ruler;
mod run_args;
mod score;
mod tune;
mod verify;

use clap::{Parser, Subcommand};
use failure::{Failure, Outcome};
use output::Output;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(
    name = "longmamba",
    version,
    about = "Mamba models on long contexts: run them, calibrate LongMamba for them, measure both",
    after_help = "Example:\n  longmamba demo\n\n\
        MODEL is a checkpoint's folder, one file of weights beside its config.json, an id in the local \
        Hugging Face cache such as state-spaces/mamba-130m-hf, or builtin:mamba2-tiny, or \
        builtin:mamba1-tiny.\nEach command's --help has an example of it."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output and threads")]
struct Common {
    /// Print one JSON object instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// No progress bars and no notes
    #[arg(long, global = true)]
    quiet: bool,
    /// Threads for all the work [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Calibrate(calibrate::Calibrate),
    Channels(channels::Channels),
    Attention(attention::Attention),
    Decay(decay::Decay),
    Generate(generate::Generate),
    Methods(methods::Methods),
    Tune(tune::Tune),
    Ppl(ppl::Ppl),
    Passkey(passkey::Passkey),
    #[command(name = "longbench")]
    LongBench(longbench::LongBenchCommand),
    Score(score::Score),
    Latency(latency::Latency),
    Plot(plot::Plot),
    Report(report::Report),
    Ruler(ruler::Ruler),
    Convert(convert::Convert),
    ImportPlan(import_plan::ImportPlan),
    #[cfg(feature = "download")]
    Download(download::Download),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here too. A closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Compared) => ExitCode::FAILURE,
        Err(Failure::Input(why)) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let Common { json, quiet, threads } = cli.common;
    let output = Output::new(json, quiet);
    // 0: one for each core.
    let threads = threads.map_or(0, usize::from);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Failure::input(format!("--threads: cannot start {threads} threads: {e}")))?;
    pool.install(|| match cli.command {
        Command::Demo(command) => command.run(&output),
        Command::Inspect(command) => command.run(&output),
        Command::Verify(command) => command.run(&output),
        Command::Calibrate(command) => command.run(&output),
        Command::Channels(command) => command.run(&output),
        Command::Attention(command) => command.run(&output),
        Command::Decay(command) => command.run(&output),
        Command::Generate(command) => command.run(&output),
        Command::Methods(command) => command.run(&output),
        Command::Tune(command) => command.run(&output),
        Command::Ppl(command) => command.run(&output),
        Command::Passkey(command) => command.run(&output),
        Command::LongBench(command) => command.run(&output),
        Command::Score(command) => command.run(&output),
        Command::Latency(command) => command.run(&output),
        Command::Plot(command) => command.run(&output),
        Command::Report(command) => command.run(&output),
        Command::Ruler(command) => command.run(&output),
        Command::Convert(command) => command.run(&output),
        Command::ImportPlan(command) => command.run(&output),
        #[cfg(feature = "download")]
        Command::Download(command) => command.run(&output),
    })
}
