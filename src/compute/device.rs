//! The choice of devices and their backends. Knows nothing of models.

#[cfg(feature = "cuda")]
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device};

use super::backend::Backend;
use super::cpu::CpuBackend;
#[cfg(feature = "cuda")]
use super::gpu::{GpuBackend, gpu_number};
use super::reference::{ReferenceOperations, TensorBackend, named_tensors};
use super::threads::Threads;
use crate::model::ModelError;

/// The device setting of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first NVIDIA GPU if this build and this machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
    /// So many replicas on the CPU.
    Cpus(usize),
    /// NVIDIA GPUs by their numbers, a replica on each.
    Gpus(Vec<u32>),
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            other => Err(ModelError::Device(format!("expected auto, cpu or cuda, found {other:?}"))),
        }
    }
}

impl DeviceChoice {
    /// Whether it asks for a GPU, here or elsewhere.
    pub fn is_gpu(&self) -> bool {
        matches!(self, Self::Cuda | Self::Gpus(_))
    }

    /// The first device, checked as far as possible without using it.
    ///
    /// # Errors
    /// When a GPU is asked for and this build or this machine has none.
    pub fn resolve(&self) -> Result<Device, ModelError> {
        let asked = |problem: String| ModelError::Device(format!("cuda was asked for, but {problem}, or use cpu"));
        match self {
            Self::Cpu | Self::Cpus(_) => Ok(Device::flex()),
            Self::Cuda => cuda(0).map_err(asked),
            Self::Gpus(gpus) => cuda(gpus.first().copied().unwrap_or(0)).map_err(asked),
            // An unusable GPU is an error, not passed over.
            Self::Auto if has_gpu() => cuda(0).map_err(|problem| ModelError::Device(format!("{problem}, or use cpu"))),
            Self::Auto => Ok(Device::flex()),
        }
    }

    /// The device of each replica, as [`Self::resolve`]; at least one.
    ///
    /// # Errors
    /// As for [`Self::resolve`].
    pub fn resolve_all(&self) -> Result<Vec<Device>, ModelError> {
        match self {
            Self::Cpus(replicas) => Ok(vec![Device::flex(); (*replicas).max(1)]),
            Self::Gpus(gpus) if gpus.len() > 1 => {
                let asked =
                    |gpu: &u32| cuda(*gpu).map_err(|problem| ModelError::Device(format!("cuda:{gpu} was asked for, but {problem}")));
                gpus.iter().map(asked).collect()
            }
            _ => Ok(vec![self.resolve()?]),
        }
    }
}

/// Why no NVIDIA GPU can be used, and what to do; none if one can.
pub fn gpu_problem() -> Option<String> {
    cuda(0).err()
}

/// The backend of a device. The only place with this decision.
pub fn backend_for(device: &Device) -> Arc<dyn Backend> {
    if *device == Device::flex() {
        return Arc::new(CpuBackend::default());
    }
    #[cfg(feature = "cuda")]
    if gpu_number(device).is_some() {
        return Arc::new(GpuBackend::default());
    }
    Arc::new(TensorBackend::new(&ReferenceOperations))
}

/// The backend for training `model`: that of its device, or the reference if a trained parameter is
/// not f32.
pub fn training_backend_for(model: &impl Module) -> Arc<dyn Backend> {
    match training_device(model) {
        Some(device) => backend_for(&device),
        None => Arc::new(TensorBackend::new(&ReferenceOperations)),
    }
}

/// The backend for training `model` on so many replicas on the CPU.
///
/// # Errors
/// The model is not on the CPU, or not of f32; or the system gives no threads.
pub fn training_backend_on_replicas(model: &impl Module, replicas: usize) -> Result<Arc<dyn Backend>, ModelError> {
    if training_device(model) == Some(Device::flex()) {
        return Ok(Arc::new(CpuBackend::on_replicas(Threads::shares(replicas)?)));
    }
    let problem = format!("expected a model of f32 on the CPU to train on {replicas} replicas, found another; name one device");
    Err(ModelError::Device(problem))
}

/// The one device of a model of f32.
fn training_device(model: &impl Module) -> Option<Device> {
    let is_f32 = named_tensors::values(model).values().all(|weight| weight.dtype() == DType::F32);
    let devices = model.devices();
    devices.first().filter(|device| is_f32 && devices.iter().all(|other| other == *device)).cloned()
}

fn has_gpu() -> bool {
    #[cfg(feature = "cuda")]
    return driver_device_count().is_ok_and(|count| count > 0);
    #[cfg(not(feature = "cuda"))]
    false
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: u32) -> Result<Device, String> {
    Err("this build is without it; build with --features cuda".to_string())
}

/// Burn panics on a thread of its own where there is no driver, so the driver is asked first.
#[cfg(feature = "cuda")]
fn cuda(gpu: u32) -> Result<Device, String> {
    match driver_device_count() {
        Ok(0) => Err("the NVIDIA driver is installed but shows no GPU; check nvidia-smi".to_string()),
        Ok(count) if i64::from(gpu) >= i64::from(count) => {
            Err(format!("the NVIDIA driver shows {count} GPUs, the last of them cuda:{}; check nvidia-smi", count - 1))
        }
        Ok(_) => libdevice().map(|()| Device::cuda(gpu)),
        Err(problem) => Err(format!("no usable NVIDIA driver: {problem}; install it")),
    }
}

/// Checks for libdevice of a CUDA toolkit. cubecl needs it to compile its first kernel.
#[cfg(feature = "cuda")]
fn libdevice() -> Result<(), String> {
    const ROOTS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];
    const FOLDER: &str = "nvvm/libdevice";
    let named = std::env::var("CUDA_PATH").ok().map(PathBuf::from);
    let root = named.or_else(|| ROOTS.iter().map(PathBuf::from).find(|root| root.join(FOLDER).is_dir()));
    let root = root.unwrap_or_else(|| PathBuf::from(ROOTS[0]));
    let file = root.join(FOLDER).join("libdevice.10.bc");
    match file.is_file() {
        true => Ok(()),
        false => Err(format!("expected {} of a CUDA toolkit, found none; install one and set CUDA_PATH to its folder", file.display())),
    }
}

/// How many GPUs the driver shows, asked through its C interface.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
fn driver_device_count() -> Result<i32, String> {
    use std::ffi::c_int;

    let name = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
    // SAFETY: loading the driver runs its initialisers, as burn is about to do anyway; the two
    // functions have had these signatures since CUDA 2 (cuInit(unsigned), cuDeviceGetCount(int*)),
    // and `count` outlives the call.
    unsafe {
        let driver = libloading::Library::new(name).map_err(|error| error.to_string())?;
        let init = driver.get::<unsafe extern "C" fn(u32) -> c_int>(b"cuInit\0").map_err(|error| error.to_string())?;
        let get_count =
            driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount\0").map_err(|error| error.to_string())?;
        let (mut count, mut status) = (0, init(0));
        if status == 0 {
            status = get_count(&mut count);
        }
        // The library stays loaded: closing it under a running driver is not safe.
        std::mem::forget(driver);
        if status == 0 { Ok(count) } else { Err(format!("it reports error {status}")) }
    }
}
