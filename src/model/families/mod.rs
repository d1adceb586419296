//! The supported families of models, one file each: from a family's `config.json` to one neutral
//! description.
//!
//! An unknown setting with an effect on the logits is an error, never ignored. Defaults are those
//! of the families' configuration classes in Hugging Face transformers. Knows nothing of weights or
//! tensors.

mod llama;
mod mistral;
mod mixtral;
mod qwen2;
mod qwen3;
mod qwen3_moe;
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
}

const FAMILIES: [Family; 7] = [
    Family { name: "Llama", model_type: "llama", read: llama::read },
    Family { name: "Mistral", model_type: "mistral", read: mistral::read },
    Family { name: "Mixtral", model_type: "mixtral", read: mixtral::read },
    Family { name: "Qwen2", model_type: "qwen2", read: qwen2::read },
    Family { name: "Qwen3", model_type: "qwen3", read: qwen3::read },
    Family { name: "Qwen3Moe", model_type: "qwen3_moe", read: qwen3_moe::read },
    Family { name: "SmolLM3", model_type: "smollm3", read: smollm3::read },
];

impl Family {
    fn architecture(&self, head: Head) -> String {
        format!("{}{}", self.name, head.suffix())
    }
}

impl ModelConfig {
    /// Reads `config.json`, of any of the supported families.
    ///
    /// # Errors
    /// A sentence without the file's name: another architecture, a missing or absurd size, or a
    /// setting that would change the logits and is not supported.
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let (family, head) = find(json)?;
        if head == Head::Reward
            && let Some(labels) = head::labels(json).filter(|labels| *labels != 1)
        {
            return Err(format!("expected a classifier with 1 label, its score being the reward; found {labels} (num_labels, id2label)"));
        }
        let model = ModelConfig { head, ..(family.read)(&Settings::new(json)?)? };
        model.check()?;
        Ok(model)
    }
}

/// The `config.json` of a reward model that starts from the language model of this one; see
/// [`head::with_reward_head`] for other changes.
pub(super) fn with_reward_head(config: &Value, padding: Option<i32>) -> Value {
    let architecture = find(config).map(|(family, _)| family.architecture(Head::Reward));
    head::with_reward_head(config, architecture.ok(), padding)
}

/// The family and the head of a `config.json`. transformers chooses the family by `model_type`, so
/// both must agree.
fn find(config: &Value) -> Result<(&'static Family, Head), String> {
    let architectures: Vec<&str> =
        config.get("architectures").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let model_type = config.get("model_type").and_then(Value::as_str);
    let named = |head: Head| {
        FAMILIES.iter().find(|family| architectures.contains(&family.architecture(head).as_str())).map(|family| (family, head))
    };
    let Some((family, head)) = named(Head::CausalLm).or_else(|| named(Head::Reward)) else {
        if let Some(missing) = gpt_oss(&architectures, model_type) {
            return Err(missing);
        }
        let found = match (architectures.is_empty(), model_type) {
            (false, _) => architectures.join(", "),
            (true, Some(model_type)) => format!("none (model_type is {model_type})"),
            (true, None) => "none".to_string(),
        };
        let supported = FAMILIES.each_ref().map(|family| family.architecture(Head::CausalLm)).join(", ");
        let reward = Head::Reward.suffix();
        return Err(format!("architectures is {found}; supported: {supported}, and as a reward model the same with {reward}"));
    };
    match model_type {
        Some(model_type) if model_type != family.model_type => {
            Err(format!("architectures says {}, but model_type is {model_type}, expected {}", family.architecture(head), family.model_type))
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
