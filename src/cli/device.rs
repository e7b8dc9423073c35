//! Where to compute and in which precision: `--device` and `--dtype`.

use std::str::FromStr;

use candle_core::{DType, Device};

use crate::{
    kernels::cpu,
    model::{DualEncoder, Placement},
};

use super::UsageError;

#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArgs {
    /// Where to compute: auto (a GPU if there is one and this binary has CUDA), cpu, cuda or cuda:N
    #[arg(long, env = "CRAG_DEVICE", default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,

    /// Precision of the encoders: f32; on a GPU also bf16 or f16. The head always computes in f32
    #[arg(long, value_enum, default_value = "f32", value_name = "DTYPE")]
    dtype: Precision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(DeviceChoice::Auto),
            ("cpu", _) => Ok(DeviceChoice::Cpu),
            ("cuda", _) => Ok(DeviceChoice::Cuda(0)),
            (_, Some(Ok(ordinal))) => Ok(DeviceChoice::Cuda(ordinal)),
            _ => Err("expected auto, cpu, cuda or cuda:N".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Precision {
    F32,
    Bf16,
    F16,
}

/// A device that has been opened, and what to call it.
pub struct OpenDevice {
    pub placement: Placement,
    pub description: String,
}

impl DeviceArgs {
    /// Opens the device. A GPU that was asked for is used or the error says why not; nothing falls back.
    pub fn open(&self) -> anyhow::Result<OpenDevice> {
        cpu::check_selection().map_err(|e| UsageError(e.to_string()))?;
        let dtype = match self.dtype {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        };
        let (device, description) = match self.device {
            DeviceChoice::Cpu => (Device::Cpu, cpu_description()),
            DeviceChoice::Cuda(ordinal) => open_cuda(ordinal)?,
            DeviceChoice::Auto => match cuda_is_available() {
                true => open_cuda(0)?,
                false => (Device::Cpu, cpu_description()),
            },
        };
        if device.is_cpu() && dtype != DType::F32 {
            let message = format!(
                "--dtype {}: the CPU computes in f32; leave it out, or use a GPU",
                dtype.as_str()
            );
            return Err(UsageError(message).into());
        }
        Ok(OpenDevice {
            placement: Placement { device, dtype },
            description,
        })
    }
}

fn cpu_description() -> String {
    format!("cpu, kernel {}", cpu::selected().name())
}

#[cfg(feature = "cuda")]
mod gpu {
    use anyhow::Context as _;
    use candle_core::Device;

    use crate::kernels::cuda::{device, profile};

    pub fn cuda_is_available() -> bool {
        device::is_available()
    }

    pub fn open_cuda(ordinal: usize) -> anyhow::Result<(Device, String)> {
        let opened = device::open(ordinal).with_context(|| format!("--device cuda:{ordinal}"))?;
        let info = device::describe(&opened).with_context(|| format!("--device cuda:{ordinal}"))?;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let description = format!(
            "cuda:{ordinal}, {}, {:.1} of {:.1} GiB free, compute capability {}.{}, driver for CUDA {}.{}",
            info.name,
            gib(info.memory_free),
            gib(info.memory_total),
            info.compute_capability.0,
            info.compute_capability.1,
            info.driver_version.0,
            info.driver_version.1
        );
        Ok((opened, description))
    }

    pub fn print_profile() {
        if profile::enabled() {
            for total in profile::report() {
                eprintln!("crag: {total}");
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod gpu {
    use candle_core::Device;

    use crate::cli::UsageError;

    pub fn cuda_is_available() -> bool {
        false
    }

    pub fn open_cuda(_: usize) -> anyhow::Result<(Device, String)> {
        Err(UsageError("--device cuda: built without CUDA; rebuild with --features cuda".into()).into())
    }

    pub fn print_profile() {}
}

use gpu::{cuda_is_available, open_cuda};

/// Prints where the GPU's time went, if `CRAG_CUDA_PROFILE` asks for it. The network has to be idle.
pub fn print_profile(_: &DualEncoder) {
    gpu::print_profile();
}
