//! On what device a command works: `--device`.

#[cfg(feature = "cuda")]
use crate::failure::Failure;
use crate::failure::Outcome;
use clap::Args;
use longmamba_model::{CpuBackend, Quantization};
#[cfg(feature = "cuda")]
use longmamba_model::{CudaBackend, Precision};
use std::str::FromStr;

#[derive(Clone, Debug, Args)]
pub struct DeviceArg {
    /// cpu, cuda, or cuda:N for the device with number N
    #[arg(long = "device", value_name = "DEVICE", default_value = "cpu")]
    pub kind: Device,
    /// Compute in f32 also where weights have 16 bits; else activations are rounded to the weights' type where
    /// that is faster
    #[arg(long)]
    exact: bool,
    /// In how many bits linear maps are kept on the CPU. Each new token waits for fewer bytes from memory;
    /// answers get less exact, in 4 bits more than in 8. Plans stay those of the model
    #[arg(long, value_enum, default_value = "as-is")]
    weights: Weights,
    /// What takes the matrix products of long prompts on a GPU
    #[cfg(feature = "cuda")]
    #[arg(long, value_enum, default_value = "own")]
    matmul: Matmul,
}

#[cfg(feature = "cuda")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Matmul {
    /// The kernels of this program
    Own,
    /// NVIDIA's cuBLASLt, which must be installed
    Cublaslt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Weights {
    /// As they are in the file, in place
    AsIs,
    /// 8 bits and a scale for each 32: 8.5 bits a weight
    Int8,
    /// 4 bits and a scale for each 32: 4.5 bits a weight
    Int4,
}

impl DeviceArg {
    /// The same with `--exact`, for what is compared with a reference.
    pub fn exactly(&self) -> Self {
        DeviceArg { exact: true, ..self.clone() }
    }

    pub fn cpu(&self) -> Outcome<CpuBackend> {
        #[cfg(feature = "cuda")]
        if self.matmul == Matmul::Cublaslt {
            return Err(Failure::input("--matmul cublaslt is for --device cuda"));
        }
        let backend = CpuBackend::new(None)?;
        let backend = match self.weights {
            Weights::AsIs => backend,
            Weights::Int8 => backend.quantized(Quantization::Int8),
            Weights::Int4 => backend.quantized(Quantization::Int4),
        };
        Ok(if self.exact { backend.exact() } else { backend })
    }

    #[cfg(feature = "cuda")]
    pub fn cuda(&self, number: usize) -> Outcome<CudaBackend> {
        if self.weights != Weights::AsIs {
            return Err(Failure::input("--weights int8 and int4 are for --device cpu"));
        }
        let backend = match self.exact {
            true => CudaBackend::with_precision(number, Precision::Exact)?,
            false => CudaBackend::new(number)?,
        };
        match self.matmul {
            Matmul::Own => Ok(backend),
            Matmul::Cublaslt => Ok(backend.with_cublas_lt()?),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "0")) {
            ("cpu", "0") if text == "cpu" => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            ("cuda", number) => {
                let number = number.parse();
                number.map(Device::Cuda).map_err(|_| format!("{text:?} has no device number"))
            }
            #[cfg(not(feature = "cuda"))]
            ("cuda", _) => Err("this longmamba was built without the feature cuda".into()),
            _ => Err(format!("{text:?} is no device; there are cpu, cuda and cuda:N")),
        }
    }
}

/// Runs `$work` with `$backend`, whatever its type, for the device of a [`DeviceArg`].
macro_rules! on_device {
    ($device:expr, |$backend:ident| $work:expr) => {
        match $device.kind {
            $crate::device::Device::Cpu => {
                let $backend = $device.cpu()?;
                $work
            }
            #[cfg(feature = "cuda")]
            $crate::device::Device::Cuda(number) => {
                let $backend = $device.cuda(number)?;
                $work
            }
        }
    };
}

pub(crate) use on_device;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        assert_eq!("cpu".parse(), Ok(Device::Cpu));
        for bad in ["", "gpu", "cpu:0", "cpu:1"] {
            assert!(bad.parse::<Device>().is_err_and(|e| e.contains("is no device")), "{bad}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn cuda_devices_have_numbers() {
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(Device::Cuda(3)));
        assert!("cuda:x".parse::<Device>().is_err_and(|e| e.contains("no device number")));
    }
}
