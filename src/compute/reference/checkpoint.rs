//! A checkpoint: a folder in Hugging Face's layout, opened without its weights, then loaded, freshly initialised, or written.
//!
//! Knows nothing of training, nor of what a family's `config.json` means.

use std::convert::Infallible;
use std::f64::consts::TAU;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

use super::adapter::{self, Adapter};
use super::families;
use super::files;
use super::parameters::{self, Parameter};
use super::weights::Weights;
use super::{CausalLm, ChatTemplate, Dtype, GenerationConfig, Head, ModelConfig, ModelError, RewardModel, Tokenizer, weights_writer};
use crate::disk;

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// What tied logits are computed with.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// The one parameter of a reward head.
const SCORE: &str = "score.weight";
/// Copied as they are when a model is saved.
const COPIED: [&str; 9] = [
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
];

/// Everything in a checkpoint's folder but the weights themselves. What is wrong with it is found here, before anything heavy is done.
#[derive(Debug)]
pub struct Checkpoint {
    /// The model's shape.
    pub config: ModelConfig,
    /// What ends a response.
    pub generation: GenerationConfig,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to text; `None` when the checkpoint has no chat template.
    pub chat_template: Option<ChatTemplate>,
    pub(super) folder: PathBuf,
    config_json: Value,
    pub(super) parameters: Vec<Parameter>,
    weights: Option<Weights>,
    /// What is added to the weights.
    pub(super) adapter: Option<Adapter>,
    /// Where a fresh score head is drawn from; `None` when the checkpoint has its own, or none.
    score_seed: Option<u64>,
}

impl Checkpoint {
    /// Opens a folder with weights, or with an adapter that says where its base lies; configuration and tokenizer are then the base's.
    ///
    /// # Errors
    /// Names the file that is missing or wrong; compares the weights' names and shapes with `config.json`.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        if let Some(base) = adapter::base_of(folder)? {
            return Self::open(&base)?.with_adapter(folder);
        }
        let mut checkpoint = Self::open_blank(folder)?;
        let weights = Weights::open(folder)?;
        weights.check(&checkpoint.parameters, CONFIG)?;
        if checkpoint.config.head == Head::CausalLm && checkpoint.config.tie_word_embeddings {
            weights.check_tied(EMBEDDING)?;
        }
        checkpoint.weights = Some(weights);
        Ok(checkpoint)
    }

    /// Opens a folder of which only configuration and tokenizer count, to initialise a model from; of an adapter, those of its base.
    ///
    /// # Errors
    /// Names the file that is missing or wrong.
    pub fn open_blank(folder: &Path) -> Result<Self, ModelError> {
        if let Some(base) = adapter::base_of(folder)? {
            return Self::open_blank(&base);
        }
        let path = folder.join(CONFIG);
        let config_json = read_json(&path)?;
        let config = ModelConfig::from_json(&config_json).map_err(|problem| ModelError::invalid(&path, problem))?;
        let path = folder.join(GENERATION_CONFIG);
        let generation_json = if path.is_file() { Some(read_json(&path)?) } else { None };
        let generation = GenerationConfig::from_json(generation_json.as_ref(), &config);
        let generation = generation.map_err(|problem| ModelError::invalid(&path, problem))?;
        let path = folder.join(TOKENIZER);
        let tokenizer = Tokenizer::from_file(&path)?;
        if tokenizer.vocabulary_size() > config.vocab_size {
            let problem =
                format!("token ids reach {}, but vocab_size in {CONFIG} is {}", tokenizer.vocabulary_size() - 1, config.vocab_size);
            return Err(ModelError::invalid(&path, problem));
        }
        let parameters = list_parameters(&config);
        let chat_template = ChatTemplate::in_folder(folder)?;
        let folder = folder.to_path_buf();
        let (weights, adapter, score_seed) = (None, None, None);
        Ok(Self { config, generation, tokenizer, chat_template, folder, config_json, parameters, weights, adapter, score_seed })
    }

    /// This policy as the start of a reward model: the same transformer without its `lm_head`, under a score head that is drawn from
    /// `seed`, normal with mean 0 and standard deviation `initializer_range`. A checkpoint that is a reward model already stays as it is.
    ///
    /// `config.json` of what is saved names the family's `...ForSequenceClassification` with one label. Where it has no `pad_token_id`,
    /// it gets the tokenizer's, or else that of a token which never ends a text.
    #[must_use]
    pub fn with_reward_head(mut self, seed: u64) -> Self {
        if self.config.head == Head::Reward {
            return self;
        }
        self.config_json = families::with_reward_head(&self.config_json, self.padding_token());
        self.config.head = Head::Reward;
        self.parameters = list_parameters(&self.config);
        self.score_seed = Some(seed);
        self
    }

    /// The token to pad with: the tokenizer's, else the unknown one, the first of a text, or as a last resort the last.
    fn padding_token(&self) -> Option<i32> {
        let settings = read_json(&self.folder.join(TOKENIZER_CONFIG)).unwrap_or_default();
        let id_of = |name: &str| {
            let token = settings.get(name)?;
            self.tokenizer.token_id(token.as_str().or_else(|| token.get("content")?.as_str())?)
        };
        let known = id_of("pad_token").or_else(|| id_of("unk_token")).or(self.config.bos_token_id);
        known.or_else(|| self.config.eos_token_ids.first().copied())
    }

    /// This checkpoint with `adapter` in place of its own.
    pub(super) fn adapted(self, adapter: Adapter) -> Self {
        Self { adapter: Some(adapter), ..self }
    }

    /// The folder that was opened; of an adapter, its base's.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many numbers the model consists of.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// Reads a language model's weights, as f32 whatever their format on disk, an adapter's part merged in. A device with autodiff gives
    /// a model to train.
    ///
    /// # Errors
    /// When this is a reward model, was opened blank, or a file cannot be read any more.
    pub fn load(&self, device: &Device) -> Result<CausalLm, ModelError> {
        self.expect(Head::CausalLm)?;
        parameters::fill(CausalLm::unfilled(&self.config, device), device, &mut |parameter| self.parameter(&parameter.name))
    }

    /// Reads a reward model's weights, as [`Checkpoint::load`] does a language model's.
    ///
    /// # Errors
    /// When this is a language model, was opened blank, or a file cannot be read any more.
    pub fn load_reward_model(&self, device: &Device) -> Result<RewardModel, ModelError> {
        self.expect(Head::Reward)?;
        parameters::fill(RewardModel::unfilled(&self.config, device), device, &mut |parameter| self.parameter(&parameter.name))
    }

    /// That the model has this head.
    ///
    /// # Errors
    /// When it has the other one.
    pub fn expect(&self, head: Head) -> Result<(), ModelError> {
        if self.config.head == head {
            return Ok(());
        }
        let architectures = self.config_json.get("architectures").unwrap_or(&Value::Null);
        let problem =
            format!("expected {}, found {}: architectures is {architectures}", head.description(), self.config.head.description());
        Err(ModelError::invalid(&self.folder.join(CONFIG), problem))
    }

    /// The values of one parameter under its Hugging Face name, in the checkpoint's layout, as f32, an adapter's part merged in. All weights
    /// are read through here.
    ///
    /// # Errors
    /// When the checkpoint was opened blank, has no such parameter, or a file cannot be read any more.
    pub fn parameter(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let values = self.base_parameter(name)?;
        match self.adapter.as_ref().zip(self.parameters.iter().find(|parameter| parameter.name == name)) {
            Some((adapter, parameter)) => adapter.merge(parameter, values),
            None => Ok(values),
        }
    }

    /// The values of one parameter as they are without an adapter.
    pub(super) fn base_parameter(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let weights = self.weights.as_ref();
        let weights = weights.ok_or_else(|| ModelError::invalid(&self.folder, "opened without weights, nothing to load"))?;
        match self.score_seed {
            Some(seed) if name == SCORE => Ok(normal(&mut generator(seed), self.config.hidden_size, self.config.initializer_range)),
            _ => weights.read(name),
        }
    }

    /// A language model with fresh weights: norms are 1, biases 0, all else normal with mean 0 and standard deviation
    /// `initializer_range`, as Hugging Face initialises its models. The same seed gives the same weights.
    pub fn init(&self, device: &Device, seed: u64) -> CausalLm {
        let mut generator = generator(seed);
        let Ok(model) = parameters::fill(CausalLm::unfilled(&self.config, device), device, &mut |parameter| {
            let count = parameter.shape.iter().product();
            let deviation = self.config.initializer_range;
            Ok::<_, Infallible>(match parameter.name.rsplit_once('.') {
                Some((_, "bias")) => vec![0.0; count],
                Some((layer, _)) if layer.ends_with("norm") => vec![1.0; count],
                _ => normal(&mut generator, count, deviation),
            })
        });
        model
    }

    /// Writes `model` to `folder` with this checkpoint's configuration, tokenizer and chat template; other software loads it as it is.
    ///
    /// The bytes depend on the model and this checkpoint only. Weights are f32, so `config.json` says so; tied weights are written once.
    ///
    /// # Errors
    /// When the model is not of this checkpoint's shape, or a file cannot be read or written.
    pub fn save(&self, folder: &Path, model: &CausalLm) -> Result<(), ModelError> {
        self.write_model(folder, model)
    }

    /// Writes a reward model, as [`Checkpoint::save`] does a language model.
    ///
    /// # Errors
    /// When the model is not of this checkpoint's shape, or a file cannot be read or written.
    pub fn save_reward_model(&self, folder: &Path, model: &RewardModel) -> Result<(), ModelError> {
        self.write_model(folder, model)
    }

    fn write_model(&self, folder: &Path, model: &impl Module) -> Result<(), ModelError> {
        if parameters::list(model) != self.parameters {
            return Err(ModelError::invalid(&self.folder, "the model to be saved has other parameters than config.json describes"));
        }
        fs::create_dir_all(folder).map_err(|source| ModelError::Write { path: folder.to_path_buf(), source })?;
        weights_writer::write(folder, &self.parameters, Dtype::F32, u64::MAX, |sink| parameters::read(model, sink))?;
        self.write_settings(folder, Dtype::F32)
    }

    /// Writes everything but the weights, which are in `dtype`.
    pub(super) fn write_settings(&self, folder: &Path, dtype: Dtype) -> Result<(), ModelError> {
        self.write_companions(folder)?;
        let path = folder.join(CONFIG);
        let text = format!("{:#}\n", with_dtype(&self.config_json, dtype));
        disk::write(&path, text).map_err(|source| ModelError::Write { path, source })
    }

    /// Writes what stands beside weights or an adapter: tokenizer, chat template and what ends a response.
    pub(super) fn write_companions(&self, folder: &Path) -> Result<(), ModelError> {
        let failed = |path: PathBuf| move |source: io::Error| ModelError::Write { path, source };
        fs::create_dir_all(folder).map_err(failed(folder.to_path_buf()))?;
        for name in COPIED {
            // Not fs::copy: a read-only original must not make a read-only copy.
            let original = self.folder.join(name);
            if original.is_file() {
                let bytes = fs::read(&original).map_err(|source| ModelError::Read { path: original, source })?;
                disk::write(&folder.join(name), bytes).map_err(failed(folder.join(name)))?;
            }
        }
        Ok(())
    }
}

/// The parameters of a model of this shape; makes none of them.
fn list_parameters(config: &ModelConfig) -> Vec<Parameter> {
    let device = Device::flex();
    match config.head {
        Head::CausalLm => parameters::list(&CausalLm::unfilled(config, &device)),
        Head::Reward => parameters::list(&RewardModel::unfilled(config, &device)),
    }
}

pub(super) fn read_json(path: &Path) -> Result<Value, ModelError> {
    let text = files::read_text(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
    serde_json::from_str(&text).map_err(|error| ModelError::invalid(path, error))
}

/// `config.json` for weights in `dtype`: the setting is `dtype` in newer files and `torch_dtype` in older ones.
fn with_dtype(config: &Value, dtype: Dtype) -> Value {
    let mut config = config.clone();
    if let Some(settings) = config.as_object_mut() {
        for name in ["dtype", "torch_dtype"] {
            if settings.contains_key(name) || name == "torch_dtype" && !settings.contains_key("dtype") {
                settings.insert(name.to_string(), Value::from(dtype.in_config()));
            }
        }
    }
    config
}

fn generator(seed: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Normally distributed numbers, by Box and Muller's transform.
fn normal(generator: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut uniform = || (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 - u lies in (0, 1], so that its logarithm is finite.
        let radius = deviation * (-2.0 * (1.0 - uniform()).ln()).sqrt();
        let angle = TAU * uniform();
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}
