//! A LoRA adapter on disk, as PEFT keeps it: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Its arithmetic is PEFT's. Knows parameters by name and shape, not the model they belong to.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use serde_json::Value;

use super::adapter_config::{AdapterConfig, CONFIG};
use super::adapter_modules::{self, AdaptedProjection, AdapterModules, LORA_A, LORA_B, MAGNITUDE};
use super::files::read_json;
use super::parameters::{Parameter, transpose};
use super::weights::Weights;
use super::{ModelError, hub_cache};

pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// A base that an adapter names by its name on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubBase {
    /// Organisation and name, with `/`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
}

/// The base of an adapter, as its configuration names it.
enum Base {
    Folder(PathBuf),
    Hub(HubBase),
}

/// Where the base of the adapter in `folder` lies; `None` when `folder` is no adapter. Taken from
/// the working directory, or else from the folder that holds `folder`, or else a model of the hub
/// in its cache.
///
/// # Errors
/// When the adapter names no existing directory and no model in the hub's cache.
pub fn base_of(folder: &Path) -> Result<Option<PathBuf>, ModelError> {
    let found = match named_base(folder)? {
        None => return Ok(None),
        Some(Base::Folder(found)) => found,
        Some(Base::Hub(base)) => match hub_cache::snapshot(&base.repo, &base.revision) {
            Some(found) => found,
            None => {
                let problem = "expected a directory, or a model of the hub; `optune run` fetches it from there";
                return Err(unusable(folder, &base.repo, problem));
            }
        },
    };
    // An adapter with itself as base is not followed without end.
    if found.join(CONFIG).is_file() {
        return Err(unusable(folder, &found.display().to_string(), "which is an adapter too; merge that one into its base first"));
    }
    Ok(Some(found))
}

/// The base of the adapter in `folder` if it is a model of the hub, in its cache or not; `None`
/// when the base is a directory, or `folder` is no adapter.
///
/// # Errors
/// When the adapter names no existing directory and nothing like a model of the hub.
pub fn hub_base_of(folder: &Path) -> Result<Option<HubBase>, ModelError> {
    Ok(match named_base(folder)? {
        Some(Base::Hub(base)) => Some(base),
        _ => None,
    })
}

fn named_base(folder: &Path) -> Result<Option<Base>, ModelError> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let settings = read_json(&path)?;
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let Some(base) = text("base_model_name_or_path") else {
        let problem =
            "names no base_model_name_or_path; an adapter of a run is made to be used elsewhere by `optune export policy --adapter`";
        return Err(ModelError::invalid(&path, problem));
    };
    let beside = folder.parent().map(|parent| parent.join(base));
    if let Some(found) = [Some(PathBuf::from(base)), beside].into_iter().flatten().find(|path| path.is_dir()) {
        return Ok(Some(Base::Folder(found)));
    }
    let repo = base.strip_prefix("hf://").unwrap_or(base);
    if !hub_cache::is_repo(repo) {
        return Err(unusable(folder, base, "expected a directory; download the base and name it there"));
    }
    let revision = text("revision").unwrap_or(hub_cache::MAIN);
    if !hub_cache::is_revision(revision) {
        return Err(ModelError::invalid(&path, format!("revision is {revision:?}, expected a branch, tag or commit")));
    }
    Ok(Some(Base::Hub(HubBase { repo: repo.to_string(), revision: revision.to_string() })))
}

fn unusable(folder: &Path, base: &str, problem: &str) -> ModelError {
    ModelError::invalid(&folder.join(CONFIG), format!("base_model_name_or_path is {base:?}, {problem}"))
}

/// The values of a projection's adapter.
pub(crate) struct Factors {
    /// `[in, rank]`, row by row.
    pub(crate) lora_a: Vec<f32>,
    /// `[rank, out]`, row by row.
    pub(crate) lora_b: Vec<f32>,
    /// `[out]`; `None` without DoRA.
    pub(crate) magnitude: Option<Vec<f32>>,
}

impl Factors {
    /// As PEFT begins: A uniform between ±1/√in (Kaiming's with a = √5), B zero, and each magnitude
    /// the norm of its output's weights: the term adds nothing at first. `weight` is the
    /// projection's, `[in, out]`, and given for magnitudes.
    pub(crate) fn sample(projection: &AdaptedProjection, weight: Option<&[f32]>, generator: &mut ChaCha8Rng) -> Self {
        let (rank, [from, to]) = (projection.rank, projection.dims);
        let bound = (from as f64).sqrt().recip();
        let mut uniform = || (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let magnitude = weight.map(|weight| {
            let mut squares = vec![0.0_f64; to];
            for row in weight.chunks_exact(to.max(1)) {
                squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) * f64::from(*value));
            }
            squares.into_iter().map(|sum| sum.sqrt() as f32).collect()
        });
        Self {
            lora_a: (0..from * rank).map(|_| (bound * (2.0 * uniform() - 1.0)) as f32).collect(),
            lora_b: vec![0.0; rank * to],
            magnitude,
        }
    }
}

/// An adapter with its weights on disk.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) config: AdapterConfig,
    pub(crate) modules: AdapterModules,
    pub(crate) folder: PathBuf,
    weights: Weights,
}

impl Adapter {
    /// Opens the adapter of `config` in `folder`, for its `modules` of a base.
    ///
    /// # Errors
    /// A file that is missing, wrong, or does not fit the base.
    pub(crate) fn open(folder: &Path, config: AdapterConfig, modules: AdapterModules) -> Result<Self, ModelError> {
        let weights = Weights::open_file(&folder.join(WEIGHTS))?;
        weights.check(&modules.parameters(), CONFIG)?;
        Ok(Self { config, modules, folder: folder.to_path_buf(), weights })
    }

    /// The values of one projection's adapter, as a model holds them.
    pub(crate) fn factors(&self, projection: &AdaptedProjection) -> Result<Factors, ModelError> {
        let (rank, [from, to]) = (projection.rank, projection.dims);
        Ok(Factors {
            lora_a: transpose(&self.read(projection, LORA_A)?, rank, from),
            lora_b: transpose(&self.read(projection, LORA_B)?, to, rank),
            magnitude: if self.modules.has_magnitudes { Some(self.read(projection, MAGNITUDE)?) } else { None },
        })
    }

    fn read(&self, projection: &AdaptedProjection, part: &str) -> Result<Vec<f32>, ModelError> {
        self.weights.read(&adapter_modules::key(&format!("{}.{part}", projection.name)))
    }

    /// The values of a parameter that the adapter replaces; `None` for others.
    pub(crate) fn saved(&self, parameter: &str) -> Result<Option<Vec<f32>>, ModelError> {
        if !self.modules.saves(parameter) {
            return Ok(None);
        }
        self.weights.read(&adapter_modules::key(parameter)).map(Some)
    }

    /// Adds the adapter's part to the `values` of a parameter of the base, `[out, in]`: W + scale ·
    /// B · A. With DoRA each output's row is scaled to its magnitude.
    pub(crate) fn merge(&self, parameter: &Parameter, values: Vec<f32>) -> Result<Vec<f32>, ModelError> {
        let Some(projection) = parameter.projection().and_then(|name| self.modules.projection(name)) else { return Ok(values) };
        let (rank, [from, to]) = (projection.rank, projection.dims);
        let matrix = |name: &str, shape: [usize; 2]| -> Result<Tensor<2>, ModelError> {
            Ok(Tensor::from_data(TensorData::new(self.read(projection, name)?, shape), &Device::flex()))
        };
        let delta = matrix(LORA_B, [to, rank])?.matmul(matrix(LORA_A, [rank, from])?).mul_scalar(projection.scale);
        let mut merged = Tensor::<2>::from_data(TensorData::new(values, [to, from]), &Device::flex()) + delta;
        if self.modules.has_magnitudes {
            let norms = merged.clone().square().sum_dim(1).sqrt();
            merged = merged * (matrix(MAGNITUDE, [to, 1])? / norms);
        }
        merged.try_into_vec_as::<f32>().map_err(|error| ModelError::Device(format!("cannot read {} back: {error}", parameter.name)))
    }
}
