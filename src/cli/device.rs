//! Where to compute and in which precision: `--device` and `--dtype`.

use std::str::FromStr;

use candle_core::Device;

use crate::{
    kernels::{Precision, cpu},
    model::Placement,
};

use super::UsageError;

/// Where to compute, for what computes in f32 alone.
#[derive(Clone, Debug, clap::Args)]
pub struct PlaceArgs {
    /// Where to compute: auto (a GPU if there is one and this binary has CUDA), cpu, cuda or cuda:N
    #[arg(help_heading = "Device", long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
}

#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArgs {
    #[command(flatten)]
    place: PlaceArgs,

    /// Precision of the encoders: f32, bf16, int8 (on the CPU), f16 (on a GPU), or auto: bf16 where the
    /// machine is faster in it, else f32. The head computes in f32, but for the bilinear's product on the CPU,
    /// which is bf16 where the encoders are bf16 or int8
    #[arg(
        help_heading = "Device",
        long,
        value_enum,
        default_value = "f32",
        value_name = "DTYPE"
    )]
    dtype: Dtype,
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
enum Dtype {
    Auto,
    F32,
    Bf16,
    F16,
    Int8,
}

impl Dtype {
    /// What it means on `device`. Errors where that does not compute so.
    fn precision(self, device: &Device) -> Result<Precision, UsageError> {
        match (self, device) {
            (Dtype::F32, _) => Ok(Precision::F32),
            (Dtype::Auto, Device::Cpu) if !cpu::selected().gains_by_bf16() => Ok(Precision::F32),
            (Dtype::Auto | Dtype::Bf16, _) => Ok(Precision::Bf16),
            (Dtype::F16, Device::Cpu) => Err(UsageError(
                "--dtype f16: the CPU does not compute in f16; use bf16, int8 or f32".into(),
            )),
            (Dtype::F16, _) => Ok(Precision::F16),
            (Dtype::Int8, Device::Cpu) => Ok(Precision::Int8),
            (Dtype::Int8, _) => Err(UsageError(
                "--dtype int8: a GPU does not compute in int8; use bf16, f16 or f32, or --device cpu".into(),
            )),
        }
    }
}

/// A device that has been opened, and what to call it.
#[derive(Clone)]
pub struct OpenDevice {
    pub placement: Placement,
    pub description: String,
    /// The kernels and their precision: all that the bits of a result depend on besides model and input.
    pub kernel: String,
}

/// A GPU that has been opened, in words.
struct Gpu {
    description: String,
    /// Results of two models of GPU differ by rounding.
    kernel: String,
}

impl DeviceArgs {
    /// Opens the device. A GPU that was asked for is used or the error says why not; nothing falls back.
    pub fn open(&self) -> anyhow::Result<OpenDevice> {
        self.place.open_in(self.dtype)
    }
}

impl PlaceArgs {
    /// Opens the device, as [`DeviceArgs::open`] does.
    pub fn open(&self) -> anyhow::Result<OpenDevice> {
        self.open_in(Dtype::F32)
    }

    fn open_in(&self, dtype: Dtype) -> anyhow::Result<OpenDevice> {
        cpu::check_selection().map_err(|e| UsageError(e.to_string()))?;
        let (device, gpu) = match self.device {
            DeviceChoice::Cpu => (Device::Cpu, None),
            DeviceChoice::Cuda(ordinal) => open_cuda(ordinal)?,
            DeviceChoice::Auto => match cuda_is_available() {
                true => open_cuda(0)?,
                false => (Device::Cpu, None),
            },
        };
        let precision = dtype.precision(&device)?;
        let (description, kernel) = match gpu {
            Some(gpu) => (gpu.description, format!("{}-{}", gpu.kernel, precision.name())),
            None => {
                let kernel = cpu::selected().name(precision);
                (format!("cpu, kernel {kernel}"), kernel)
            }
        };
        Ok(OpenDevice {
            placement: Placement { device, precision },
            description,
            kernel,
        })
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use anyhow::Context as _;
    use candle_core::Device;

    use super::Gpu;
    use crate::kernels::cuda::{chosen_algorithms, device, profile, refused_products, unusual_products};
    use crate::scoring::batches_cut_to;

    /// Whether there is a GPU to take. One that is there and cannot be used is worth a word.
    pub fn cuda_is_available() -> bool {
        let checked = device::check(0);
        if let Err(error) = &checked
            && !error.is_absence()
        {
            crate::cli::console::warn(&format!("--device auto: the GPU is not used: {error}"));
        }
        checked.is_ok()
    }

    pub(super) fn open_cuda(ordinal: usize) -> anyhow::Result<(Device, Option<Gpu>)> {
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
        let products = unusual_products().map_or(String::new(), |products| format!(", {products}"));
        let kernel = format!("cuda {}{products}", info.name);
        Ok((opened, Some(Gpu { description, kernel })))
    }

    pub fn tell_gpu_work() {
        if profile::enabled() {
            for total in profile::report() {
                crate::cli::note(&total.to_string());
            }
            for line in chosen_algorithms() {
                crate::cli::note(&line);
            }
        }
        let cut = batches_cut_to().map(|tokens| {
            format!("the GPU's memory ran out; since then batches of {tokens} tokens at most were computed")
        });
        for line in refused_products().into_iter().chain(cut) {
            match profile::enabled() {
                true => crate::cli::note(&line),
                false => crate::cli::console::detail(&line),
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod gpu {
    use candle_core::Device;

    use super::Gpu;
    use crate::cli::UsageError;

    pub fn cuda_is_available() -> bool {
        false
    }

    pub(super) fn open_cuda(_: usize) -> anyhow::Result<(Device, Option<Gpu>)> {
        Err(UsageError("--device cuda: built without CUDA; rebuild with --features cuda".into()).into())
    }

    pub fn tell_gpu_work() {}
}

use gpu::{cuda_is_available, open_cuda};

/// Prints where the GPU's time went, if `CRAG_CUDA_PROFILE` asks for it, and with `-v` which products were left to cuBLAS.
/// All networks have to be idle.
pub fn tell_gpu_work() {
    gpu::tell_gpu_work();
}
