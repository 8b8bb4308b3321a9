//! The kernels of a GPU, checked and timed.
//!
//! ```text
//! cargo run --release -p longmamba-benches --features cuda --bin gpu -- \
//!     [--device N] [--quick] [--json FILE] [--tensor-tflops N] [--f32-tflops N] [WORD…]
//! ```
//!
//! With words, only the kernels whose names contain one of them. `benches/gpu/README.md` says what the
//! columns mean.

use longmamba_benches::gpu::{Options, run};

fn main() -> std::process::ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
