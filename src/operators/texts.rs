//! texts: a table of the user's own texts as the responses of a baseline.
//!
//! A prompt's text is found by its content, or else by its `prompt_id`. Token ids are those of the
//! model that measures NLL. Knows neither rewards nor the policy.

use std::collections::HashMap;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;

use super::support::rows::signed;
use super::{Context, OperatorError, Prompt, Summary};
use crate::import::prompts::fingerprint;
use crate::import::texts::text_column;
use crate::import::{Prompts, Repeats};
use crate::pipeline::slot::Slot;
use crate::tables::{FinishReason, TableKind, responses};

/// This module in internal errors.
const PLACE: &str = "operators::texts";

/// The column of the texts.
const RESPONSE: &str = "response";

/// Checks the columns of a table of texts.
///
/// # Errors
/// There is no column of texts, or none of prompts.
pub(super) fn check_columns(schema: &Schema) -> Result<(), OperatorError> {
    let has = |name: &str| schema.field_with_name(name).is_ok();
    if has(RESPONSE) && ["prompt_id", "prompt", "messages"].into_iter().any(has) {
        return Ok(());
    }
    let found = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    Err(OperatorError::Input(format!(
        "a table as baseline: expected a column {RESPONSE}, and prompt_id, prompt or messages, found {found}; rename with `map:`"
    )))
}

/// Writes one response a prompt, and an error row for a prompt without a text.
pub(super) fn run(context: &Context) -> Result<Summary, OperatorError> {
    let prompts = context.prompts(Slot::Prompts)?.into_sorted();
    let texts = Texts::read(context)?;
    let checkpoint = context.checkpoint(Slot::Policy)?;
    let source = context.fingerprint_of(Slot::Texts)?.to_string();
    let mut rows = Vec::with_capacity(prompts.len());
    let (mut tokens, mut failed) = (0, 0);
    for prompt in &prompts {
        let encoded = match texts.of(prompt) {
            Some(text) => checkpoint.encode_pair(&prompt.content, text).map(|pair| (text, pair)).map_err(|error| error.to_string()),
            None => Err("the baseline's table has no text for this prompt".to_string()),
        };
        let mut row = responses::Row {
            prompt_id: prompt.id.clone(),
            sampled_iteration: context.sampled_iteration()?,
            response_index: 0,
            token_ids: Vec::new(),
            prompt_token_count: 0,
            text: String::new(),
            finish_reason: FinishReason::Error,
            logprob: None,
            token_logprobs: None,
            policy_fingerprint: source.clone(),
            error: None,
        };
        match encoded {
            Ok((text, pair)) => {
                tokens += pair.token_ids.len().saturating_sub(pair.prompt_token_count);
                row.prompt_token_count = signed(pair.prompt_token_count, PLACE)?;
                row.token_ids = pair.token_ids;
                row.text = text.to_string();
                row.finish_reason = FinishReason::Stop;
            }
            Err(error) => {
                failed += 1;
                row.error = Some(error);
            }
        }
        rows.push(row);
    }
    if failed == rows.len() {
        let first = rows.first().and_then(|row| row.error.as_deref()).unwrap_or_default();
        return Err(OperatorError::Input(format!("a table as baseline: expected texts for the prompts, found none: {first}")));
    }
    if failed > 0 {
        let message = format!("{failed} of {} prompts have no text in the baseline's table, or one that the model cannot read", rows.len());
        context.progress.warned(&context.task.label(), &message);
    }
    let counts = [("responses", rows.len() as i64), ("tokens", tokens as i64), ("truncated", 0), ("failed", failed as i64)];
    context.write_relation(TableKind::Responses, |relation| relation.write(&responses::batch(&rows)).map(|()| counts))?;
    Ok(Summary::new(format!("{} texts, {tokens} tokens, {failed} missing", rows.len())))
}

/// The texts of a table; the first one of each prompt.
struct Texts {
    by_content: HashMap<String, String>,
    by_id: HashMap<String, String>,
}

impl Texts {
    fn read(context: &Context) -> Result<Self, OperatorError> {
        let mut texts = Self { by_content: HashMap::new(), by_id: HashMap::new() };
        for batch in context.batches(Slot::Texts)? {
            check_columns(&batch.schema())?;
            texts.add(batch)?;
        }
        Ok(texts)
    }

    fn add(&mut self, batch: RecordBatch) -> Result<(), OperatorError> {
        let column = |name: &str| {
            let texts = text_column(&batch, name);
            texts.map_err(|error| OperatorError::Input(format!("a table as baseline, row {}: {}", error.row, error.problem)))
        };
        let Some(responses) = column(RESPONSE)? else { return Ok(()) };
        let has_prompts = ["prompt", "messages"].iter().any(|name| batch.column_by_name(name).is_some());
        if has_prompts {
            let prompts = Prompts::from_batches("of the baseline", Repeats::Number, vec![batch.clone()])?;
            for (prompt, text) in prompts.iter().zip(&responses) {
                let Some(text) = text else { continue };
                self.by_content.entry(fingerprint(&prompt.content)).or_insert_with(|| text.to_string());
                self.by_id.entry(prompt.id.clone()).or_insert_with(|| text.to_string());
            }
        } else if let Some(ids) = column("prompt_id")? {
            for row in (0..batch.num_rows()).filter(|row| ids.is_valid(*row) && responses.is_valid(*row)) {
                self.by_id.entry(ids.value(row).to_string()).or_insert_with(|| responses.value(row).to_string());
            }
        }
        Ok(())
    }

    fn of(&self, prompt: &Prompt) -> Option<&str> {
        self.by_content.get(&fingerprint(&prompt.content)).or_else(|| self.by_id.get(&prompt.id)).map(String::as_str)
    }
}
