//! The head of a transformer in `config.json`: logits over the vocabulary, or one score. Knows
//! nothing of weights.

use serde_json::{Value, json};

/// The head of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Logits over the vocabulary: Hugging Face's `...ForCausalLM`.
    CausalLm,
    /// One score, a reward: Hugging Face's `...ForSequenceClassification` with one label.
    Reward,
}

impl Head {
    /// How names of architectures with this head end.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::CausalLm => "ForCausalLM",
            Self::Reward => "ForSequenceClassification",
        }
    }

    /// A model with this head in words, with the article.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::CausalLm => "a language model",
            Self::Reward => "a reward model",
        }
    }
}

/// How many labels the `config.json` of a classifier gives it; `None` when it does not say.
pub(super) fn labels(config: &Value) -> Option<usize> {
    let named = config.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
    named.or_else(|| config.get("num_labels")?.as_u64()?.try_into().ok())
}

/// The `config.json` of a reward model that starts from a language model's, with the label's name
/// as transformers writes it.
///
/// transformers scores a batch only where `config.json` names a token for padding, and takes each
/// row's last other token: `padding` never ends a conversation.
pub(super) fn with_reward_head(config: &Value, architecture: Option<String>, padding: Option<i32>) -> Value {
    let mut config = config.clone();
    if let Some(settings) = config.as_object_mut() {
        settings.insert("architectures".to_string(), architecture.into_iter().collect());
        settings.remove("num_labels");
        settings.insert("id2label".to_string(), json!({"0": "LABEL_0"}));
        settings.insert("label2id".to_string(), json!({"LABEL_0": 0}));
        // Without this key, transformers takes the default of its class.
        settings.insert("pad_token_id".to_string(), padding.map_or(Value::Null, Value::from));
    }
    config
}
