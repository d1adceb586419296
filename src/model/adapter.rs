//! A LoRA adapter on disk, as PEFT keeps it: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Unsupported settings of PEFT are refused by name, never ignored. Knows parameters by name and
//! shape, not the model they belong to.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use serde_json::{Map, Value, json};

use super::ModelError;
use super::files::read_json;
use super::parameters::{Parameter, transpose};
use super::weights::Weights;
use crate::disk;

/// The file of an adapter's configuration. A folder with it is an adapter.
pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// Settings of PEFT without an effect on the model here. Other unknown settings must be absent,
/// null, false or empty.
const HARMLESS: [&str; 9] = [
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "inference_mode",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
];

/// An adapter's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// How many numbers a token goes through: r.
    pub rank: usize,
    /// The low-rank term is multiplied by alpha / rank.
    pub alpha: f64,
    /// The share of a projection's inputs hidden from the term in each training step, at least 0
    /// and below 1.
    pub dropout: f64,
    /// The adapted projections: their name is one of these or ends in a dot and one of these.
    pub targets: Vec<String>,
}

impl AdapterConfig {
    /// The factor of the term.
    pub(crate) fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// Whether the projection of this name, as `model.layers.0.self_attn.q_proj`, gets a term.
    pub(crate) fn adapts(&self, projection: &str) -> bool {
        let ends = |target: &String| projection.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.targets.iter().any(ends)
    }

    /// The projection of a checkpoint's parameter, if the parameter is the weight of an adapted
    /// projection.
    pub(crate) fn adapted<'a>(&self, parameter: &'a Parameter) -> Option<&'a str> {
        parameter.projection().filter(|projection| self.adapts(projection))
    }

    /// The parameters of the weights file for these `parameters` of the base.
    pub(crate) fn parameters(&self, parameters: &[Parameter]) -> Vec<Parameter> {
        let factors = parameters.iter().filter_map(|parameter| {
            let projection = self.adapted(parameter)?;
            let [to, from] = parameter.shape[..] else { return None };
            let factor = |matrix: &str, shape| Parameter { name: key(projection, matrix), shape, transposed: true };
            Some([factor("lora_A", vec![self.rank, from]), factor("lora_B", vec![to, self.rank])])
        });
        factors.flatten().collect()
    }

    fn read(path: &Path) -> Result<Self, ModelError> {
        let invalid = |problem: String| ModelError::invalid(path, problem);
        let written = read_json(path)?;
        let Some(settings) = written.as_object() else { return Err(invalid("expected a JSON object".to_string())) };
        Self::from_settings(settings).map_err(invalid)
    }

    fn from_settings(settings: &Map<String, Value>) -> Result<Self, String> {
        let get = |key: &str| settings.get(key).unwrap_or(&Value::Null);
        let number = |key: &str| get(key).as_f64().ok_or_else(|| format!("{key} is {}, expected a number", get(key)));
        let expect = |key: &str, accepted: &[Value]| {
            if accepted.contains(get(key)) {
                Ok(())
            } else {
                let accepted: Vec<String> = accepted.iter().filter(|value| !value.is_null()).map(Value::to_string).collect();
                Err(format!("{key} is {}; supported: {}", get(key), accepted.join(", ")))
            }
        };
        expect("peft_type", &[json!("LORA")])?;
        expect("task_type", &[json!("CAUSAL_LM"), Value::Null])?;
        expect("bias", &[json!("none"), Value::Null])?;
        // Other initializations change the base's weights: the term no longer fits them.
        expect("init_lora_weights", &[json!(true), json!(false), json!("gaussian"), json!("orthogonal"), Value::Null])?;
        let known = ["peft_type", "task_type", "bias", "init_lora_weights", "r", "lora_alpha", "lora_dropout", "target_modules"];
        for (key, value) in settings.iter().filter(|(key, _)| !known.contains(&key.as_str()) && !HARMLESS.contains(&key.as_str())) {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(entries) => entries.is_empty(),
                _ => false,
            };
            if !off {
                return Err(format!("{key} is {value}, which is not supported; expected an adapter without it"));
            }
        }
        let rank = number("r")?;
        if rank < 1.0 || rank.fract() != 0.0 || rank > f64::from(u32::MAX) {
            return Err(format!("r is {rank}, expected a whole number of at least 1"));
        }
        let alpha = number("lora_alpha")?;
        let dropout = if get("lora_dropout").is_null() { 0.0 } else { number("lora_dropout")? };
        if !(0.0..1.0).contains(&dropout) {
            return Err(format!("lora_dropout is {dropout}, expected at least 0 and below 1"));
        }
        let names = get("target_modules").as_array().map(|names| names.iter().map(|name| name.as_str().map(str::to_string)).collect());
        match names {
            Some(Some(targets)) => Ok(Self { rank: rank as usize, alpha, dropout, targets }),
            _ => Err(format!("target_modules is {}, expected a list of names", get("target_modules"))),
        }
    }

    /// Writes `adapter_config.json`; `base` is where PEFT finds the base, if it is to find it by
    /// itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, folder: &Path, base: Option<&str>) -> Result<(), ModelError> {
        let mut targets = self.targets.clone();
        targets.sort();
        targets.dedup();
        // PEFT writes a whole alpha without a decimal point.
        let alpha = if self.alpha.fract() == 0.0 && self.alpha.abs() < 1e15 { json!(self.alpha as i64) } else { json!(self.alpha) };
        let settings = json!({
            "alpha_pattern": {}, "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "init_lora_weights": true, "lora_alpha": alpha, "lora_dropout": self.dropout, "modules_to_save": null, "peft_type": "LORA",
            "r": self.rank, "rank_pattern": {}, "target_modules": targets, "task_type": "CAUSAL_LM", "use_dora": false, "use_rslora": false,
        });
        let path = folder.join(CONFIG);
        disk::write(&path, format!("{settings:#}\n")).map_err(|source| ModelError::Write { path, source })
    }
}

/// The name of one of a projection's two matrices in the weights file.
pub(crate) fn key(projection: &str, matrix: &str) -> String {
    format!("base_model.model.{projection}.{matrix}.weight")
}

/// Where the base of the adapter in `folder` lies; `None` when `folder` is no adapter. Taken from
/// the working directory, or else from the folder that holds `folder`.
///
/// # Errors
/// When the adapter names no existing directory.
pub fn base_of(folder: &Path) -> Result<Option<PathBuf>, ModelError> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let settings = read_json(&path)?;
    let Some(base) = settings.get("base_model_name_or_path").and_then(Value::as_str) else {
        let problem =
            "names no base_model_name_or_path; an adapter of a run is made to be used elsewhere by `optune export policy --adapter`";
        return Err(ModelError::invalid(&path, problem));
    };
    let beside = folder.parent().map(|parent| parent.join(base));
    let found = [Some(PathBuf::from(base)), beside].into_iter().flatten().find(|path| path.is_dir());
    let problem = match found {
        // An adapter with itself as base is not followed without end.
        Some(found) if found.join(CONFIG).is_file() => "which is an adapter too; merge that one into its base first",
        Some(found) => return Ok(Some(found)),
        None => "expected a directory; download the base and name it there",
    };
    Err(ModelError::invalid(&path, format!("base_model_name_or_path is {base:?}, {problem}")))
}

/// The initial values of both matrices, row by row, `[in, rank]` and `[rank, out]`.
pub(crate) struct Factors {
    pub(crate) lora_a: Vec<f32>,
    pub(crate) lora_b: Vec<f32>,
}

impl Factors {
    /// As PEFT begins: A uniform between ±1/√in (Kaiming's with a = √5), B zero: the term adds
    /// nothing at first.
    pub(crate) fn sample(from: usize, to: usize, rank: usize, generator: &mut ChaCha8Rng) -> Self {
        let bound = (from as f64).sqrt().recip();
        let mut uniform = || (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        Self { lora_a: (0..from * rank).map(|_| (bound * (2.0 * uniform() - 1.0)) as f32).collect(), lora_b: vec![0.0; rank * to] }
    }
}

/// An adapter with its weights on disk.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) config: AdapterConfig,
    pub(crate) folder: PathBuf,
    weights: Weights,
}

impl Adapter {
    /// Opens the adapter in `folder` for a base with these `parameters`.
    ///
    /// # Errors
    /// A file that is missing, wrong, or does not fit the base.
    pub(crate) fn open(folder: &Path, parameters: &[Parameter]) -> Result<Self, ModelError> {
        let path = folder.join(CONFIG);
        let config = AdapterConfig::read(&path)?;
        let expected = config.parameters(parameters);
        if expected.is_empty() {
            let problem = format!("target_modules is {:?}, which are no projections of the base's", config.targets);
            return Err(ModelError::invalid(&path, problem));
        }
        let weights = Weights::open_file(&folder.join(WEIGHTS))?;
        weights.check(&expected, CONFIG)?;
        Ok(Self { config, folder: folder.to_path_buf(), weights })
    }

    /// The two matrices of one projection, as a model holds them.
    pub(crate) fn factors(&self, projection: &str, from: usize, to: usize) -> Result<Factors, ModelError> {
        let rank = self.config.rank;
        Ok(Factors {
            lora_a: transpose(&self.weights.read(&key(projection, "lora_A"))?, rank, from),
            lora_b: transpose(&self.weights.read(&key(projection, "lora_B"))?, to, rank),
        })
    }

    /// Adds the adapter's part to the `values` of a parameter of the base: scale · B · A, `[out,
    /// in]`.
    pub(crate) fn merge(&self, parameter: &Parameter, values: Vec<f32>) -> Result<Vec<f32>, ModelError> {
        let (Some(projection), [to, from]) = (self.config.adapted(parameter), &parameter.shape[..]) else { return Ok(values) };
        let matrix = |name: &str, shape: [usize; 2]| -> Result<Tensor<2>, ModelError> {
            Ok(Tensor::from_data(TensorData::new(self.weights.read(&key(projection, name))?, shape), &Device::flex()))
        };
        let (lora_a, lora_b) = (matrix("lora_A", [self.config.rank, *from])?, matrix("lora_B", [*to, self.config.rank])?);
        let delta = lora_b.matmul(lora_a).mul_scalar(self.config.scale());
        let merged = Tensor::<2>::from_data(TensorData::new(values, [*to, *from]), &Device::flex()) + delta;
        merged.try_into_vec_as::<f32>().map_err(|error| ModelError::Device(format!("cannot read {} back: {error}", parameter.name)))
    }
}
