//! Token ids, texts and indices of prompts and responses.

use std::ops::Range;

use arrow::array::{Int32Array, RecordBatch};

use super::{OperatorError, Prompt};
use crate::model::{Checkpoint, Tokenizer};
use crate::pipeline::spec::generate::Generate;
use crate::tables::{self, responses};

/// This module in internal errors.
const PLACE: &str = "operators::generate::tokens";

/// Response tokens in a batch of responses, without the prompts'.
pub(super) fn response_tokens(batch: &RecordBatch) -> Result<u64, OperatorError> {
    let ids = responses::token_ids(batch)?;
    let prompt_counts: &Int32Array = tables::column(batch, "prompt_token_count")?;
    let all: i64 = (0..batch.num_rows()).map(|row| i64::from(ids.value_length(row) - prompt_counts.value(row))).sum();
    u64::try_from(all).map_err(|_| OperatorError::internal(PLACE, format!("{all} response tokens in a part")))
}

/// The `response_index` of each response to a prompt. Checked pipelines stay within Int32.
pub(super) fn response_indices(settings: &Generate) -> Range<u32> {
    settings.first_index..settings.first_index.saturating_add(settings.responses_per_prompt.count())
}

/// The prompt's ids, or the reason for no answer.
pub(super) fn prompt_ids(checkpoint: &Checkpoint, prompt: &Prompt, settings: &Generate) -> Result<Vec<i32>, String> {
    let ids = checkpoint.encode_prompt(&prompt.content).map_err(|error| error.to_string())?;
    let limit = (settings.max_prompt_tokens as usize).min(checkpoint.config.longest_sequence().0.saturating_sub(1));
    if ids.len() > limit {
        return Err(format!("expected a prompt of at most {limit} tokens, found {}", ids.len()));
    }
    Ok(ids)
}

/// A response as text: the rest behind the prompt when both are decoded together, special tokens
/// left out.
pub(super) fn response_text(tokenizer: &Tokenizer, prompt: &[i32], response: &[i32]) -> Result<String, OperatorError> {
    // Decoders treat a text's first token differently (a leading space is dropped), so a response
    // is not decoded alone.
    let both = tokenizer.decode(&[prompt, response].concat())?;
    let before = tokenizer.decode(prompt)?;
    match both.strip_prefix(&before) {
        Some(text) => Ok(text.to_string()),
        None => Ok(tokenizer.decode(response)?),
    }
}

/// A response's text without the end that a stop string cuts off; nothing is cut if it is empty.
pub(super) fn without_cut(mut text: String, cut: &str) -> Result<String, OperatorError> {
    let Some(at) = text.len().checked_sub(cut.len()).filter(|at| text.get(*at..) == Some(cut)) else {
        let problem = format!("expected a response whose text ends with {cut:?}, found {text:?}");
        return Err(OperatorError::internal(PLACE, problem));
    };
    text.truncate(at);
    Ok(text)
}
