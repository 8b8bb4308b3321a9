//! What the command was asked for.

use super::Result;
use std::path::PathBuf;

/// What to measure, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which device, counted from 0.
    pub device: usize,
    /// Tiny sizes, one launch and one repeat: shows that everything runs, and no more.
    pub quick: bool,
    /// Where each row goes as a line of JSON.
    pub json: Option<PathBuf>,
    /// Operations a second of the tensor cores, where its data sheet is to be the ceiling.
    pub tensor_peak: Option<f64>,
    /// The same in f32.
    pub single_peak: Option<f64>,
    /// Also times products by NVIDIA's cuBLASLt, which must be installed.
    pub cublas_lt: bool,
    /// Only kernels whose names contain one of these; all where there are none.
    pub words: Vec<String>,
}

impl Options {
    /// Reads `[--device N] [--quick] [--json FILE] [--tensor-tflops N] [--f32-tflops N] [--cublaslt]
    /// [WORD…]`.
    ///
    /// # Errors
    /// A flag that is not known, or one without its value.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Options::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--device" => options.device = value()?.parse()?,
                "--json" => options.json = Some(value()?.into()),
                "--cublaslt" => options.cublas_lt = true,
                "--tensor-tflops" => options.tensor_peak = Some(1e12 * value()?.parse::<f64>()?),
                "--f32-tflops" => options.single_peak = Some(1e12 * value()?.parse::<f64>()?),
                flag if flag.starts_with('-') => return Err(format!("no option {flag}").into()),
                word => options.words.push(word.into()),
            }
        }
        Ok(options)
    }

    /// Whether a kernel of this name is to be measured.
    pub(super) fn wants(&self, kernel: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| kernel.contains(word.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn flags_and_words() {
        let options = parse("--quick ssd --json rows.jsonl --tensor-tflops 989 norm").unwrap();
        assert!(options.quick && options.wants("rms_norm") && !options.wants("matmul"));
        assert_eq!(options.json, Some("rows.jsonl".into()));
        assert_eq!(options.tensor_peak, Some(989e12));
        assert!(!options.cublas_lt && parse("--cublaslt").unwrap().cublas_lt);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(parse("--jsno x").is_err() && parse("--json").is_err());
        assert!(parse("--device one").is_err());
    }
}
