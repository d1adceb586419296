//! answer_responses: the generated answers of one task of a benchmark as responses, for a reward.
//!
//! Knows neither the reward nor the model.

use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::answer::AnswerResponses;
use crate::tables::{TableKind, answers, responses};

/// This module in internal errors.
const PLACE: &str = "operators::answer_responses";

/// Writes one response a generated answer. The item's id is that of its prompt.
pub(super) fn run(context: &Context, settings: &AnswerResponses) -> Result<Summary, OperatorError> {
    let policy_fingerprint = context.fingerprint_of(Slot::Policy)?.to_string();
    let mut rows = Vec::new();
    for answer in context.rows(Slot::Answers, answers::rows)?.into_iter().filter(|answer| answer.task == settings.task) {
        let missing = || OperatorError::internal(PLACE, format!("item {} has no generated answer", answer.item_id));
        rows.push(responses::Row {
            finish_reason: answer.finish_reason.ok_or_else(missing)?,
            prompt_id: answer.item_id,
            // The answers of a policy are the same in every iteration.
            sampled_iteration: 0,
            response_index: 0,
            token_ids: answer.token_ids,
            prompt_token_count: answer.prompt_token_count,
            text: answer.text,
            logprob: None,
            token_logprobs: None,
            policy_fingerprint: policy_fingerprint.clone(),
            error: None,
        });
    }
    rows.sort_by(|one, other| one.prompt_id.cmp(&other.prompt_id));
    let count = rows.len() as i64;
    context.write_relation(TableKind::Responses, |relation| relation.write(&responses::batch(&rows)).map(|()| [("responses", count)]))?;
    Ok(Summary::new(format!("{count} generated answers of task {}", settings.task)))
}
