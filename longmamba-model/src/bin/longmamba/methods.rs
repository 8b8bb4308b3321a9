use crate::failure::Outcome;
use crate::output::{Output, Table};
use clap::Args;
use longmamba_model::methods::ALL;
use serde_json::json;

/// List the methods that --method knows, with their settings
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  longmamba methods\n\n\
    A setting goes after the method's name: --method winsorize:low=5:high=95,decimamba:layers=12+24.")]
pub struct Methods {}

impl Methods {
    pub fn run(&self, output: &Output) -> Outcome {
        let all = ALL.iter().map(|m| json!({ "name": m.name, "about": m.about }));
        output.result(&json!({ "methods": all.collect::<Vec<_>>() }), || {
            let mut table = Table::new(2, ["method", "what it does"]);
            ALL.iter().for_each(|m| table.row([m.name, m.about]));
            table.text()
        })
    }
}
