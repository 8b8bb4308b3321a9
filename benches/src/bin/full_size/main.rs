//! Models of published shapes with random weights: written to disk in bf16, loaded through the memory
//! map, timed, on the CPU or on a GPU.
//!
//! ```text
//! cargo run --release -p longmamba-benches --bin full_size -- FOLDER [SHAPE…]
//! cargo run --release -p longmamba-benches --features cuda --bin full_size -- FOLDER [SHAPE…] \
//!     --device cuda --prompt 512 --prompt 2048 --steps 128 --chunk 2048 --repeats 5 --filter
//! ```
//!
//! FOLDER gets a checkpoint of each shape (up to 5.6 GB), which is removed again after its turn unless
//! `--keep` is given. `--filter` also reads each prompt with LongMamba's filter on, in turn with the plain
//! model, and says how much longer that takes. `--json FILE` writes each row as a line of JSON.

mod measure;
mod options;
mod plan;
mod weights;

use clap::Parser;
use longmamba_model::CpuBackend;
use longmamba_model::limits::{Effort, Limits};
use measure::{Row, measure};
use options::{Device, Options};
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let options = Options::parse();
    let mut json = options.json.as_ref().map(File::create).transpose()?;
    println!("{}", Row::HEADER);
    for (name, config) in weights::all() {
        if !options.wants(name) {
            continue;
        }
        let path = options.folder.join(name);
        weights::write(&path, config)?;
        let rows = on_device(&options, name, &path);
        if !options.keep {
            std::fs::remove_dir_all(&path)?;
        }
        for row in rows? {
            println!("{row}");
            if let Some(json) = &mut json {
                writeln!(json, "{}", row.json())?;
            }
        }
    }
    Ok(())
}

/// The rows of a model on the device that is asked for.
fn on_device(options: &Options, name: &str, path: &Path) -> Result<Vec<Row>> {
    match options.device {
        Device::Cpu if options.profile => {
            let backend = CpuBackend::new(None)?.profiled();
            let rows = measure(options, name, path, &backend)?;
            let limits = Limits::measure(Effort::FULL);
            println!("{}", backend.profile().map_or(String::new(), |p| p.table(&limits)));
            Ok(rows)
        }
        Device::Cpu => measure(options, name, path, &CpuBackend::new(None)?),
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => {
            measure(options, name, path, &longmamba_model::CudaBackend::new(number)?)
        }
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => Err("this program was built without the feature cuda".into()),
    }
}
