//! Gemma 3 with images: `Gemma3Config` of transformers. Only its language model is read, as a
//! `Gemma3TextConfig`; without an image, the logits are the same.

use serde_json::{Map, Value};

/// The class of transformers with images, and its `model_type`.
const ARCHITECTURE: &str = "Gemma3ForConditionalGeneration";
const MODEL_TYPE: &str = "gemma3";

/// Defaults of `Gemma3TextConfig` for sizes required in other families: files of the hub leave them
/// out.
const DEFAULTS: [(&str, usize); 5] =
    [("vocab_size", 262_208), ("hidden_size", 2304), ("intermediate_size", 9216), ("num_hidden_layers", 26), ("num_attention_heads", 8)];

/// Settings beside `text_config`, for a language model without its own.
const SHARED: [&str; 6] = ["bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "dtype", "torch_dtype"];

/// The settings of the language model, if it is a `config.json` of this class.
fn text_config(config: &Value) -> Option<&Map<String, Value>> {
    let architectures = config.get("architectures").and_then(Value::as_array);
    let is_named = architectures.is_some_and(|names| names.iter().any(|name| name.as_str() == Some(ARCHITECTURE)));
    let is_typed = config.get("model_type").and_then(Value::as_str) == Some(MODEL_TYPE);
    if is_typed && (is_named || architectures.is_none()) { config.get("text_config")?.as_object() } else { None }
}

/// Whether a `config.json` is that of a model with images.
pub(super) fn has_images(config: &Value) -> bool {
    text_config(config).is_some()
}

/// The `config.json` of the language model in a model with images; another one as it is.
pub(super) fn language_model(config: Value) -> Value {
    let Some(text) = text_config(&config) else { return config };
    let mut text = text.clone();
    for name in SHARED {
        if let Some(value) = config.get(name).filter(|_| !text.contains_key(name)) {
            text.insert(name.to_string(), value.clone());
        }
    }
    for (name, default) in DEFAULTS {
        text.entry(name).or_insert_with(|| Value::from(default));
    }
    text.insert("architectures".to_string(), Value::from(vec!["Gemma3ForCausalLM"]));
    text.insert("model_type".to_string(), Value::from("gemma3_text"));
    Value::Object(text)
}
