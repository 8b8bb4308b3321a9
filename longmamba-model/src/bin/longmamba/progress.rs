//! A progress bar on stderr, for whoever watches.

use crate::output::Output;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::time::Duration;

pub struct Bar(ProgressBar);

impl Bar {
    /// `total` tokens, windows or whatever `unit` says.
    pub fn new(output: &Output, label: &str, total: usize, unit: &'static str) -> Self {
        let target =
            if output.talk { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let rate = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that cannot be drawn is no reason to fail.
            let _ = write!(out, "{} {unit}/s", HumanCount(state.per_sec() as u64));
        };
        let template = "{msg} {wide_bar} {percent:>3} %  {rate}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", rate));
        }
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(bar)
    }

    pub fn add(&self, done: usize) {
        self.0.inc(done as u64);
    }

    /// What was done before: it does not count for the rate.
    pub fn skip(&self, done: usize) {
        self.add(done);
        self.0.reset_eta();
    }

    pub fn set_length(&self, total: usize) {
        self.0.set_length(total as u64);
    }

    pub fn set(&self, done: usize) {
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
