//! A checkpoint: a folder in Hugging Face's layout, opened without its weights.
//!
//! `compute::reference` loads, initializes and saves models. Knows nothing of tensors, nor of the
//! families' `config.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::adapter::{self, Adapter};
use super::end_tokens::EndTokens;
use super::families;
use super::files::{self, read_json};
use super::initialization::{generator, normal};
use super::parameters::{self, EMBEDDING, LM_HEAD, Parameter};
use super::tokenizer_settings::{SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, TokenizerSettings};
use super::weights::Weights;
use super::{ChatTemplate, Dtype, GenerationConfig, Head, ModelConfig, ModelError, Tokenizer};
use crate::disk;

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
/// The one parameter of a reward head.
const SCORE: &str = "score.weight";
/// A tokenizer with more tokens beyond the vocabulary than one in so many is another model's.
/// Fewer are usual, as an added `[PAD]`: only a text that has them is an error.
const BEYOND_SHARE: usize = 16;
/// Copied as they are when a model is saved.
const COPIED: [&str; 9] = [
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    "tokenizer.model",
    SPECIAL_TOKENS_MAP,
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
];

/// Everything in a checkpoint's folder but the weights themselves. Errors are found here, before
/// any heavy work.
#[derive(Debug)]
pub struct Checkpoint {
    /// The model's shape.
    pub config: ModelConfig,
    /// The end tokens.
    pub generation: GenerationConfig,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to text; `None` when the checkpoint has no chat template.
    pub chat_template: Option<ChatTemplate>,
    pub(super) ends: EndTokens,
    pub(super) tokenizer_settings: TokenizerSettings,
    /// The text of the padding token to save; `None` keeps the one of the files.
    padding: Option<String>,
    pub(crate) folder: PathBuf,
    pub(super) config_json: Value,
    pub(crate) parameters: Vec<Parameter>,
    weights: Option<Weights>,
    /// The adapter to merge into the weights.
    pub(crate) adapter: Option<Adapter>,
    /// Where a fresh score head is drawn from; `None` when the checkpoint has its own, or none.
    score_seed: Option<u64>,
}

impl Checkpoint {
    /// Opens a folder with weights, or an adapter that names its base. Configuration and tokenizer
    /// of an adapter are the base's.
    ///
    /// # Errors
    /// A file that is missing or wrong. The weights' names and shapes must fit `config.json`.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        if let Some(base) = adapter::base_of(folder)? {
            return Self::open(&base)?.with_adapter(folder);
        }
        let mut checkpoint = Self::open_blank(folder)?;
        let mut weights = Weights::open(folder)?;
        if families::has_images(&read_json(&folder.join(CONFIG))?) {
            weights.take_language_model()?;
        }
        weights.rename(&checkpoint.parameters);
        if let Some(experts) = &checkpoint.config.experts {
            weights.name_experts(experts, checkpoint.config.hidden_size, CONFIG)?;
        }
        if checkpoint.config.head == Head::CausalLm && checkpoint.config.tie_word_embeddings {
            weights.tie(EMBEDDING)?;
        }
        weights.check(&checkpoint.parameters, CONFIG)?;
        checkpoint.weights = Some(weights);
        Ok(checkpoint)
    }

    /// Opens a folder of which only configuration and tokenizer count, to initialise a model from;
    /// of an adapter, those of its base.
    ///
    /// # Errors
    /// A file that is missing or wrong.
    pub fn open_blank(folder: &Path) -> Result<Self, ModelError> {
        if let Some(base) = adapter::base_of(folder)? {
            return Self::open_blank(&base);
        }
        let path = folder.join(CONFIG);
        let config_json = families::with_architecture(families::language_model(read_json(&path)?));
        let config = ModelConfig::from_json(&config_json).map_err(|problem| ModelError::invalid(&path, problem))?;
        let path = folder.join(GENERATION_CONFIG);
        let generation_json = if path.is_file() { Some(read_json(&path)?) } else { None };
        let generation = GenerationConfig::from_json(generation_json.as_ref(), &config);
        let mut generation = generation.map_err(|problem| ModelError::invalid(&path, problem))?;
        let path = folder.join(TOKENIZER);
        let tokenizer_settings = TokenizerSettings::in_folder(folder)?;
        let tokenizer = Tokenizer::from_file(&path, &tokenizer_settings, config.vocab_size)?;
        if tokenizer.file_size().saturating_sub(config.vocab_size) > config.vocab_size / BEYOND_SHARE {
            let problem = format!("token ids reach {}, but vocab_size in {CONFIG} is {}", tokenizer.file_size() - 1, config.vocab_size);
            return Err(ModelError::invalid(&path, problem));
        }
        let parameters = parameters::list(&config);
        let chat_template = ChatTemplate::in_folder(folder)?;
        let ends = EndTokens::new(
            std::mem::take(&mut generation.eos_token_ids),
            config.eos_token_ids.clone(),
            tokenizer_settings.named("eos_token"),
            chat_template.as_ref(),
            &tokenizer,
            config.vocab_size,
        );
        generation.eos_token_ids = ends.joined();
        Ok(Self {
            config,
            generation,
            tokenizer,
            chat_template,
            ends,
            tokenizer_settings,
            padding: None,
            folder: folder.to_path_buf(),
            config_json,
            parameters,
            weights: None,
            adapter: None,
            score_seed: None,
        })
    }

    /// This policy as the start of a reward model: the same transformer without its `lm_head`,
    /// under a score head that is drawn from `seed`, normal with mean 0 and standard deviation
    /// `initializer_range`. A checkpoint that is a reward model already stays as it is.
    ///
    /// `config.json` of what is saved names the family's `...ForSequenceClassification` with one
    /// label. It and the tokenizer's settings name a token for padding that never ends a
    /// conversation, or none.
    #[must_use]
    pub fn with_reward_head(mut self, seed: u64) -> Self {
        if self.config.head == Head::Reward {
            return self;
        }
        let padding = self.reward_padding();
        self.config_json = families::with_reward_head(&self.config_json, padding.as_ref().map(|(id, _)| *id));
        self.padding = padding.map(|(_, token)| token).filter(|token| self.tokenizer_settings.named("pad_token") != Some(token));
        self.config.head = Head::Reward;
        self.parameters = parameters::list(&self.config);
        self.score_seed = Some(seed);
        self
    }

    /// Checks that transformers has a reward model of this family.
    ///
    /// # Errors
    /// When it has none: nothing else could load what is saved.
    pub fn check_reward_head(&self) -> Result<(), ModelError> {
        let checked = families::check_reward_head(&self.config_json);
        checked.map_err(|problem| ModelError::invalid(&self.folder.join(CONFIG), problem))
    }

    /// This checkpoint with `adapter`, made for a model of this `config`, in place of its own.
    pub(super) fn adapted(mut self, adapter: Adapter, config: ModelConfig) -> Self {
        if self.config.tie_word_embeddings != config.tie_word_embeddings {
            self.config_json["tie_word_embeddings"] = Value::from(config.tie_word_embeddings);
        }
        self.parameters = parameters::list(&config);
        Self { adapter: Some(adapter), config, ..self }
    }

    /// The opened folder; of an adapter, its base's.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name here of a parameter or projection with the path `name` in a model.
    pub(crate) fn stored_name(&self, name: &str) -> String {
        self.config.experts.as_ref().map_or_else(|| name.to_string(), |experts| experts.names.stored(name))
    }

    /// How many numbers the model consists of.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// Checks the head of the model.
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

    /// The values of one parameter under its Hugging Face name, in the checkpoint's layout, as f32,
    /// an adapter's part merged in. All weights are read through here.
    ///
    /// # Errors
    /// When the checkpoint was opened blank, has no such parameter, or a file cannot be read any
    /// more.
    pub fn parameter(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        if let Some(saved) = self.adapter.as_ref().map(|adapter| adapter.saved(name)).transpose()?.flatten() {
            return Ok(saved);
        }
        let values = self.base_parameter(name)?;
        match self.adapter.as_ref().zip(self.parameters.iter().find(|parameter| parameter.name == name)) {
            Some((adapter, parameter)) => adapter.merge(parameter, values),
            None => Ok(values),
        }
    }

    /// The values of one parameter as they are without an adapter.
    pub(crate) fn base_parameter(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let weights = self.weights.as_ref();
        let weights = weights.ok_or_else(|| ModelError::invalid(&self.folder, "opened without weights, nothing to load"))?;
        match self.score_seed {
            Some(seed) if name == SCORE => Ok(normal(&mut generator(seed), self.config.hidden_size, self.config.initializer_range)),
            // Logits that an adapter unties begin as the embedding.
            _ if name == LM_HEAD && !weights.has(LM_HEAD) => weights.read(EMBEDDING),
            _ => weights.read(name),
        }
    }

    /// Writes everything but the weights. These are in `dtype`.
    pub(crate) fn write_settings(&self, folder: &Path, dtype: Dtype) -> Result<(), ModelError> {
        self.write_companions(folder)?;
        let path = folder.join(CONFIG);
        let text = format!("{:#}\n", with_dtype(&self.config_json, dtype));
        disk::write(&path, text).map_err(|source| ModelError::Write { path, source })
    }

    /// Writes the files beside weights or an adapter: tokenizer, chat template and end tokens.
    pub(crate) fn write_companions(&self, folder: &Path) -> Result<(), ModelError> {
        let failed = |path: PathBuf| move |source: io::Error| ModelError::Write { path, source };
        fs::create_dir_all(folder).map_err(failed(folder.to_path_buf()))?;
        for name in COPIED {
            // Not fs::copy: a read-only original must not make a read-only copy.
            let original = self.folder.join(name);
            let bytes = match self.changed_companion(name, &original)? {
                Some(changed) => format!("{changed:#}\n").into_bytes(),
                None if original.is_file() => files::read(&original).map_err(|source| ModelError::Read { path: original, source })?,
                None => continue,
            };
            disk::write(&folder.join(name), bytes).map_err(failed(folder.join(name)))?;
        }
        Ok(())
    }

    /// A file beside the weights with other content than the original: with all end tokens, or with
    /// the padding token of a new reward model. `None` if it stays as it is.
    fn changed_companion(&self, name: &str, original: &Path) -> Result<Option<Value>, ModelError> {
        let read = || if original.is_file() { read_json(original).map(Some) } else { Ok(None) };
        match (name, &self.padding) {
            (GENERATION_CONFIG, _) => Ok(self.ends.completed(read()?.as_ref(), &self.config_json)),
            (TOKENIZER_CONFIG, Some(padding)) => Ok(Some(with_padding(read()?.unwrap_or_else(|| json!({})), padding))),
            (SPECIAL_TOKENS_MAP, Some(padding)) => Ok(read()?.map(|settings| with_padding(settings, padding))),
            _ => Ok(None),
        }
    }
}

/// A tokenizer's settings with this token for padding.
fn with_padding(mut settings: Value, padding: &str) -> Value {
    if let Some(settings) = settings.as_object_mut() {
        settings.insert("pad_token".to_string(), Value::from(padding));
    }
    settings
}

/// `config.json` for weights in `dtype`: the setting is `dtype` in newer files and `torch_dtype` in
/// older ones.
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
