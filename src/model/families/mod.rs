//! The supported families of models, one file each: from a family's `config.json` to one neutral
//! description.
//!
//! An unknown setting with an effect on the logits is an error, never ignored. Defaults are those
//! of the families' configuration classes in Hugging Face transformers. Knows nothing of weights or
//! tensors.

mod gemma2;
mod gemma3;
mod gemma3_images;
mod granite;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod olmo3;
pub(super) mod padding;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope;
mod settings;
mod smollm3;

use serde_json::Value;

use self::settings::Settings;
use super::ModelConfig;
use super::head::{self, Head};

/// A family by its names in `config.json`.
struct Family {
    /// How the names of its architectures begin.
    name: &'static str,
    model_type: &'static str,
    read: fn(&Settings) -> Result<ModelConfig, String>,
    /// How the name of its classifier begins; `None` where transformers has no such class.
    classifier: Option<&'static str>,
}

const FAMILIES: [Family; 13] = [
    Family { classifier: Some("Gemma3Text"), ..Family::new("Gemma3", "gemma3_text", gemma3::read) },
    Family::new("Gemma2", "gemma2", gemma2::read),
    Family { classifier: None, ..Family::new("Granite", "granite", granite::read) },
    Family::new("Llama", "llama", llama::read),
    Family::new("Mistral", "mistral", mistral::read),
    Family::new("Mixtral", "mixtral", mixtral::read),
    Family::new("Olmo2", "olmo2", olmo2::read),
    Family::new("Olmo3", "olmo3", olmo3::read),
    Family::new("Phi3", "phi3", phi3::read),
    Family::new("Qwen2", "qwen2", qwen2::read),
    Family::new("Qwen3", "qwen3", qwen3::read),
    Family::new("Qwen3Moe", "qwen3_moe", qwen3_moe::read),
    Family::new("SmolLM3", "smollm3", smollm3::read),
];

impl Family {
    const fn new(name: &'static str, model_type: &'static str, read: fn(&Settings) -> Result<ModelConfig, String>) -> Self {
        Self { name, model_type, read, classifier: Some(name) }
    }

    /// The architecture with this head.
    ///
    /// # Errors
    /// When transformers has no such class.
    fn architecture(&self, head: Head) -> Result<String, String> {
        let name = match head {
            Head::CausalLm => Some(self.name),
            Head::Reward => self.classifier,
        };
        let missing = || format!("{} has no class for sequence classification in transformers, so it cannot be a reward model", self.name);
        name.map(|name| format!("{name}{}", head.suffix())).ok_or_else(missing)
    }
}

impl ModelConfig {
    /// Reads `config.json`, of any of the supported families; of a model with images, its language
    /// model.
    ///
    /// # Errors
    /// A sentence without the file's name: another architecture, a missing or absurd size, or a
    /// setting that would change the logits and is not supported.
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let json = &language_model(json.clone());
        let (family, head) = find(json)?;
        if head == Head::Reward
            && let Some(labels) = head::labels(json).filter(|labels| *labels != 1)
        {
            return Err(format!("expected a classifier with 1 label, its score being the reward; found {labels} (num_labels, id2label)"));
        }
        let model = ModelConfig { family: family.name, head, ..(family.read)(&Settings::new(json)?)? };
        model.check()?;
        Ok(model)
    }
}

/// Checks that a reward model can start from the language model of this `config.json`.
pub(super) fn check_reward_head(config: &Value) -> Result<(), String> {
    find(config)?.0.architecture(Head::Reward).map(drop)
}

/// The `config.json` of a reward model that starts from the language model of this one; see
/// [`head::with_reward_head`] for other changes.
pub(super) fn with_reward_head(config: &Value, padding: Option<i32>) -> Value {
    let architecture = find(config).and_then(|(family, _)| family.architecture(Head::Reward));
    head::with_reward_head(config, architecture.ok(), padding)
}

/// The `config.json` of the language model alone, where the model has images too.
pub(super) fn language_model(config: Value) -> Value {
    gemma3_images::language_model(config)
}

/// Whether the model has images too; the names of its weights differ from those of a language
/// model.
pub(super) fn has_images(config: &Value) -> bool {
    gemma3_images::has_images(config)
}

/// The `config.json` of a supported family with the name of its architecture, for software that
/// chooses by it; transformers chooses by `model_type`.
pub(super) fn with_architecture(mut config: Value) -> Value {
    let found = find(&config).and_then(|(family, head)| family.architecture(head));
    if let (Ok(architecture), Some(settings)) = (found, config.as_object_mut()) {
        let named = settings.get("architectures").and_then(Value::as_array);
        if !named.is_some_and(|named| named.iter().any(|name| name.as_str() == Some(architecture.as_str()))) {
            settings.insert("architectures".to_string(), Value::from(vec![architecture]));
        }
    }
    config
}

/// The family and the head of a `config.json`. transformers chooses the family by `model_type`, so
/// both must agree.
fn find(config: &Value) -> Result<(&'static Family, Head), String> {
    let architectures: Vec<&str> =
        config.get("architectures").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let model_type = config.get("model_type").and_then(Value::as_str);
    let named = |head: Head| {
        let is_named = |family: &&Family| family.architecture(head).is_ok_and(|name| architectures.contains(&name.as_str()));
        FAMILIES.iter().find(is_named).map(|family| (family, head))
    };
    let found = named(Head::CausalLm).or_else(|| named(Head::Reward)).or_else(|| by_model_type(config, &architectures));
    let Some((family, head)) = found else {
        if let Some(missing) = gpt_oss(&architectures, model_type) {
            return Err(missing);
        }
        let found = match (architectures.is_empty(), model_type) {
            (false, _) => architectures.join(", "),
            (true, Some(model_type)) => format!("none (model_type is {model_type})"),
            (true, None) => "none".to_string(),
        };
        let suffix = Head::CausalLm.suffix();
        let supported = FAMILIES.each_ref().map(|family| format!("{}{suffix}", family.name)).join(", ");
        let reward = Head::Reward.suffix();
        return Err(format!("architectures is {found}; supported: {supported}, and as a reward model the same with {reward}"));
    };
    match model_type {
        Some(model_type) if model_type != family.model_type => {
            let architecture = family.architecture(head)?;
            Err(format!("architectures says {architecture}, but model_type is {model_type}, expected {}", family.model_type))
        }
        _ => Ok((family, head)),
    }
}

/// What gpt-oss has and no supported family: a known name deserves a reason.
fn gpt_oss(architectures: &[&str], model_type: Option<&str>) -> Option<String> {
    let is_gpt_oss = model_type == Some("gpt_oss") || architectures.iter().any(|name| name.starts_with("GptOss"));
    is_gpt_oss.then(|| {
        "gpt-oss is not supported: attention sinks, mxfp4 weights, and experts with biases and a clamped activation are missing here; \
         use a model of another family with routed experts (Mixtral, Qwen3-MoE)"
            .to_string()
    })
}

/// The family of `model_type` where `architectures` is left out or names no class of ours: the
/// transformer without a head, or a language model of other code. One label makes a reward model
/// of a file without `architectures`.
fn by_model_type(config: &Value, architectures: &[&str]) -> Option<(&'static Family, Head)> {
    let model_type = config.get("model_type")?.as_str()?;
    let family = FAMILIES.iter().find(|family| family.model_type == model_type)?;
    let is_reward = architectures.is_empty() && head::labels(config) == Some(1);
    let is_language_model = |name: &&str| name.ends_with(Head::CausalLm.suffix()) || **name == format!("{}Model", family.name);
    if is_reward {
        return Some((family, Head::Reward));
    }
    architectures.iter().all(is_language_model).then_some((family, Head::CausalLm))
}
