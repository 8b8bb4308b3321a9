//! The kernels of a GPU on the shapes of real models: each checked against the CPU's, then timed, then held
//! against what the device can do, measured in the same run. `benches/gpu/README.md` says what the
//! columns mean.

mod cases;
mod ceilings;
mod check;
mod inputs;
mod options;
mod report;
mod sets;
mod timing;

pub use options::Options;

use crate::Work;
use ceilings::Ceilings;
use longmamba_cuda::Device;
use report::{Report, Row};
use timing::Effort;

/// Whatever stops a measurement, as it is printed.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a kernel can be limited by, apart from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    /// Nothing that is counted.
    None,
    /// Multiplications and additions in f32.
    Single,
    /// Products on tensor cores.
    Tensor,
}

/// A kernel with its inputs and outputs on the device.
trait Case {
    /// What tells it from the other cases of its entry; nothing for the first.
    fn variant(&self) -> &'static str {
        ""
    }
    /// What one launch does.
    fn work(&self) -> Work;
    /// Which operations `work` counts.
    fn arithmetic(&self) -> Arithmetic;
    /// How many launches go through inputs of their own before the first come again.
    fn sets(&self) -> usize;
    /// Whether it can be part of a graph.
    fn recordable(&self) -> bool {
        true
    }
    /// Compares the first launch's answer with the CPU's and gives the largest difference, relative to
    /// the largest value.
    fn check(&mut self) -> Result<f64>;
    /// Gives the kernel to the device once.
    fn launch(&mut self) -> Result<()>;
}

/// Cases that are timed in turn, so that they can be compared: a kernel, and the same with more to do.
struct Entry {
    kernel: String,
    dtype: String,
    shape: String,
    make: Make,
}

/// Uploads the inputs. One entry's are gone before the next one's come.
type Make = Box<dyn Fn(&Device, &Options) -> Result<Vec<Box<dyn Case>>>>;

/// Measures what `options` ask for and prints a table as it goes.
///
/// # Errors
/// Where there is no device, where its ceilings cannot be measured or a file cannot be written; and at the
/// end, where a kernel was wrong or could not be timed: those have a line of their own.
pub fn run(options: &Options) -> Result<()> {
    let device = Device::new(options.device)?;
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let mut report = Report::new(options)?;
    report.device(&device)?;
    let ceilings = Ceilings::measure(&device, options, effort)?;
    report.ceilings(&ceilings)?;
    let (mut measured, mut failed) = (0, 0);
    for entry in cases::all(options) {
        if !options.wants(&entry.kernel) {
            continue;
        }
        match measure(&device, &entry, options, effort, &ceilings) {
            Ok(rows) => {
                for row in &rows {
                    report.row(&entry, row)?;
                    measured += 1;
                }
            }
            Err(error) => {
                failed += 1;
                report.failure(&entry, &error.to_string())?;
            }
        }
    }
    report.end(measured, failed)?;
    match (measured, failed) {
        (0, 0) => Err("no kernel has such a name".into()),
        (_, 0) => Ok(()),
        _ => Err(format!("{failed} of the kernels were wrong or could not be timed").into()),
    }
}

/// The rows of an entry.
fn measure(
    device: &Device,
    entry: &Entry,
    options: &Options,
    effort: Effort,
    ceilings: &Ceilings,
) -> Result<Vec<Row>> {
    let mut cases = (entry.make)(device, options)?;
    let mut errors = Vec::new();
    for case in &mut cases {
        errors.push(case.check()?);
    }
    let launched = timing::launched(device, &mut cases, effort)?;
    let first = launched.first().ok_or("an entry without cases")?.clone();
    let mut rows = Vec::new();
    for ((mut case, times), error) in cases.into_iter().zip(launched).zip(errors) {
        let overhead = (!rows.is_empty()).then(|| times.more_than(&first));
        let replayed = timing::replayed(device, &mut *case, &times, effort)?;
        let (work, arithmetic) = (case.work(), case.arithmetic());
        rows.push(Row {
            variant: case.variant(),
            launched: times,
            replayed,
            floor: ceilings.floor(work, arithmetic),
            work,
            overhead,
            error,
        });
    }
    Ok(rows)
}
