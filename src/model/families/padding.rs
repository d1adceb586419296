//! The padding token of a model by its `config.json`. Knows no tokenizer.

use serde_json::{Map, Value};

/// The `pad_token_id`; where it is left out, the default of the family's configuration class in
/// transformers.
pub(in crate::model) fn pad_token_id(config: &Map<String, Value>) -> Option<i32> {
    match config.get("pad_token_id") {
        Some(id) => id.as_i64().and_then(|id| i32::try_from(id).ok()),
        None => match config.get("model_type").and_then(Value::as_str) {
            Some("smollm3") => Some(128_004),
            Some("phi3") => Some(32_000),
            Some("gemma2" | "gemma3_text") => Some(0),
            Some("olmo2" | "olmo3") => Some(1),
            _ => None,
        },
    }
}

/// The row of padding in an embedding of so many rows, as PyTorch counts it: a negative number
/// counts from the end. `None` for a row beyond the embedding, which PyTorch refuses.
pub(super) fn padding_row(config: &Map<String, Value>, rows: usize) -> Option<usize> {
    let id = i64::from(pad_token_id(config)?);
    let row = if id < 0 { i64::try_from(rows).ok()? + id } else { id };
    usize::try_from(row).ok().filter(|row| *row < rows)
}
