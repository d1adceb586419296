//! generate: new responses of a policy, part by part, sampled here or by a server.
//!
//! A part is a fixed slice of the prompts in the order of their ids. The randomness of each
//! response comes from (seed, iteration, prompt_id, response_index). So a part is the same however
//! often it is made.

mod local;
pub(super) mod server;
mod tokens;

use std::collections::HashSet;

use arrow::array::{Array, StringArray};

use super::{Context, OperatorError, Prompt, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::generate::Generate;
use crate::store::TableWriter;
use crate::tables::{self, selection};
use tokens::{prompt_ids, response_indices, response_text, response_tokens, without_cut};

/// Samples responses to the selected prompts, or to all prompts without a selection.
pub(super) fn run(context: &Context, settings: &Generate) -> Result<Summary, OperatorError> {
    let prompts = selected(context)?;
    let (writer, tokens) = match &settings.engine {
        Some(engine) => server::run(context, settings, engine, &prompts)?,
        None => local::run(context, settings, &prompts)?,
    };
    finish(context, writer, tokens)
}

/// The prompts to answer, in the order of their ids.
fn selected(context: &Context) -> Result<Vec<Prompt>, OperatorError> {
    let mut prompts = context.prompts(Slot::Prompts)?.into_sorted();
    if context.has(Slot::Selection) {
        let rows = context.rows(Slot::Selection, selection::rows)?;
        let selected: HashSet<&str> = rows.iter().filter(|row| row.selected).map(|row| row.prompt_id.as_str()).collect();
        prompts.retain(|prompt| selected.contains(prompt.id.as_str()));
    }
    Ok(prompts)
}

/// Finishes the table with all its responses; this call generated `tokens` of their tokens.
fn finish(context: &Context, writer: TableWriter, tokens: u64) -> Result<Summary, OperatorError> {
    let Counts { responses, tokens: all_tokens, truncated, failed } = Counts::new(&writer)?;
    if let Some((prompt_id, error)) = first_failure(&writer)? {
        let message = format!("{failed} of {responses} responses failed, the first: prompt {prompt_id}: {error}");
        context.progress.warned(&context.task.label(), &message);
    }
    let text = format!("{responses} responses, {all_tokens} tokens, {truncated} cut by the length limit, {failed} failed");
    let counts = [("responses", responses), ("tokens", all_tokens), ("truncated", truncated), ("failed", failed)];
    writer.finish(counts.into_iter().map(|(name, count)| (name.to_string(), count)).collect())?;
    Ok(Summary { text, tokens })
}

/// Totals over all committed parts. They do not depend on interruptions.
#[derive(Default)]
struct Counts {
    responses: i64,
    tokens: i64,
    truncated: i64,
    failed: i64,
}

impl Counts {
    fn new(writer: &TableWriter) -> Result<Self, OperatorError> {
        let mut counts = Self::default();
        for batch in writer.committed()? {
            let reasons: &StringArray = tables::column(&batch, "finish_reason")?;
            let ended = |name: &str| reasons.iter().filter(|reason| *reason == Some(name)).count() as i64;
            counts.responses += batch.num_rows() as i64;
            counts.tokens += response_tokens(&batch)? as i64;
            counts.truncated += ended("length");
            counts.failed += ended("error");
        }
        Ok(counts)
    }
}

/// The first failed response: its prompt and its error.
fn first_failure(writer: &TableWriter) -> Result<Option<(String, String)>, OperatorError> {
    for batch in writer.committed()? {
        let ids: &StringArray = tables::column(&batch, "prompt_id")?;
        let errors: &StringArray = tables::column(&batch, "error")?;
        if let Some(row) = (0..batch.num_rows()).find(|row| errors.is_valid(*row)) {
            return Ok(Some((ids.value(row).to_string(), errors.value(row).to_string())));
        }
    }
    Ok(None)
}
