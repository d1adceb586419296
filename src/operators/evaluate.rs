//! evaluate: the policy's responses beside the baseline's, prompt by prompt.
//!
//! The responses and rewards of both come from `generate` and `score` tasks. This joins them, and
//! adds the responses' NLL under the initial policy. The logprob behind it is computed once: the
//! responses of a baseline come back in every iteration, those of the policy beside every baseline.

use std::collections::{HashMap, HashSet};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::support::broken_model;
use super::support::logprob_memo::{self, LogprobMemo, arithmetic};
use super::support::model_work::{Found, Job, Logprobs, TaskModel, Work};
use super::support::parts::{self, Parts};
use super::support::rows::unsigned;
use super::support::summary::rounded;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::tables::{FinishReason, Outcome, TableKind, evaluation, responses, rewards};
use crate::token_lists::TokenLists;

/// Responses in one computation of NLLs, between two checks for a stop.
const RESPONSES_PER_PART: usize = 512;

/// Sequences in one batch of the model, unless the node's resources set another number.
const BATCH_SIZE: usize = 32;

/// This module in internal errors.
const PLACE: &str = "operators::evaluate";

/// Writes one row a held-out prompt with a scored response of both models.
pub(super) fn run(context: &Context) -> Result<Summary, OperatorError> {
    let policy_table = concat_batches(&responses::schema(), &context.batches(Slot::Responses)?)?;
    let baseline_table = concat_batches(&responses::schema(), &context.batches(Slot::BaselineResponses)?)?;
    let total = policy_table.num_rows() + baseline_table.num_rows();
    context.progress.started(&context.task.label(), "responses", 0, total as u64);
    let mut initial = InitialPolicy::new(context)?;
    let policy = scored(&policy_table, context.rows(Slot::Rewards, rewards::rows)?, initial.nll(context, &policy_table)?)?;
    let baseline = scored(&baseline_table, context.rows(Slot::BaselineRewards, rewards::rows)?, initial.nll(context, &baseline_table)?)?;
    let mut rows = Vec::new();
    for (prompt_id, responses) in &policy {
        if let Some(baseline) = baseline.get(prompt_id) {
            rows.push(row(prompt_id, responses, baseline)?);
        }
    }
    rows.sort_by(|a, b| a.prompt_id.cmp(&b.prompt_id));
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count() as i64;
    let (wins, losses, total) = (count(Outcome::Win), count(Outcome::Loss), rows.len() as i64);
    let mean = |value: fn(&evaluation::Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len().max(1) as f64;
    let text = if rows.is_empty() {
        "no prompt has a scored response of both models".to_string()
    } else {
        format!(
            "mean reward {} (baseline {}), win score {:.1}, NLL under the initial policy {:.3}",
            rounded(mean(|row| row.reward)),
            rounded(mean(|row| row.baseline_reward)),
            50.0 + 50.0 * (wins - losses) as f64 / total as f64,
            mean(|row| row.nll_initial),
        )
    };
    let counts = [("prompts", total), ("wins", wins), ("losses", losses), ("ties", total - wins - losses)];
    context.write_relation(TableKind::Evaluation, |relation| relation.write(&evaluation::batch(&rows)).map(|()| counts))?;
    Ok(Summary { text, tokens: initial.tokens })
}

/// The prompt_id and response_index of a response.
type Key = (String, i32);

/// One response with its reward.
struct ScoredResponse {
    index: i32,
    text: String,
    reward: f64,
    token_count: f64,
    truncated: bool,
    nll: f64,
}

/// The scored responses of each prompt, in the order of their index. Responses without a reward are
/// left out.
fn scored(
    table: &RecordBatch,
    rewards: Vec<rewards::Row>,
    nll: HashMap<Key, f64>,
) -> Result<HashMap<String, Vec<ScoredResponse>>, OperatorError> {
    let rewards: HashMap<Key, f64> =
        rewards.into_iter().filter_map(|row| Some(((row.prompt_id, row.response_index), row.reward?))).collect();
    let mut scored: HashMap<String, Vec<ScoredResponse>> = HashMap::new();
    for row in responses::rows(table)? {
        let token_count = response_length(&row)? as f64;
        let truncated = row.finish_reason == FinishReason::Length;
        let key = (row.prompt_id, row.response_index);
        let Some(&reward) = rewards.get(&key) else { continue };
        let problem = || OperatorError::internal(PLACE, format!("response {} to prompt {} has a reward but no NLL", key.1, key.0));
        let nll = *nll.get(&key).ok_or_else(problem)?;
        let response = ScoredResponse { index: row.response_index, text: row.text, reward, token_count, truncated, nll };
        scored.entry(key.0).or_default().push(response);
    }
    scored.values_mut().for_each(|responses| responses.sort_by_key(|response| response.index));
    Ok(scored)
}

/// Tokens of a response, without its prompt's.
fn response_length(row: &responses::Row) -> Result<usize, OperatorError> {
    Ok(row.token_ids.len().saturating_sub(unsigned(row.prompt_token_count, PLACE)?))
}

/// The row of a prompt with at least one response of both models.
fn row(prompt_id: &str, policy: &[ScoredResponse], baseline: &[ScoredResponse]) -> Result<evaluation::Row, OperatorError> {
    let (Some(first), Some(baseline_first)) = (policy.first(), baseline.first()) else {
        return Err(OperatorError::internal(PLACE, format!("prompt {prompt_id} has no scored response")));
    };
    let mean =
        |responses: &[ScoredResponse], value: fn(&ScoredResponse) -> f64| responses.iter().map(value).sum::<f64>() / responses.len() as f64;
    let reward = mean(policy, |response| response.reward);
    let baseline_reward = mean(baseline, |response| response.reward);
    let outcome = match reward.total_cmp(&baseline_reward) {
        std::cmp::Ordering::Greater => Outcome::Win,
        std::cmp::Ordering::Equal => Outcome::Tie,
        std::cmp::Ordering::Less => Outcome::Loss,
    };
    Ok(evaluation::Row {
        prompt_id: prompt_id.to_string(),
        reward,
        baseline_reward,
        outcome,
        text: first.text.clone(),
        baseline_text: baseline_first.text.clone(),
        token_count: mean(policy, |response| response.token_count),
        truncated: mean(policy, |response| f64::from(u8::from(response.truncated))),
        nll_initial: mean(policy, |response| response.nll),
        baseline_nll_initial: mean(baseline, |response| response.nll),
    })
}

/// The initial policy, and its work so far.
struct InitialPolicy {
    models: [TaskModel; 1],
    /// The arithmetic of its logprobs.
    arithmetic: String,
    responses: u64,
    tokens: u64,
}

impl InitialPolicy {
    fn new(context: &Context) -> Result<Self, OperatorError> {
        let arithmetic = format!("evaluate {}", arithmetic(context)?);
        Ok(Self { models: [TaskModel::of_slot(Slot::Initial)], arithmetic, responses: 0, tokens: 0 })
    }

    /// Nats per token of each response in a table of responses.
    fn nll(&mut self, context: &Context, table: &RecordBatch) -> Result<HashMap<Key, f64>, OperatorError> {
        let rows = responses::rows(table)?;
        let answered: Vec<&responses::Row> = rows.iter().filter(|row| row.error.is_none()).collect();
        let key = |row: &&responses::Row| {
            let prompt_token_count = unsigned(row.prompt_token_count, PLACE)?;
            Ok(logprob_memo::key(&self.arithmetic, prompt_token_count, &row.token_ids))
        };
        let keys = answered.iter().map(key).collect::<Result<Vec<_>, OperatorError>>()?;
        let logprobs = LogprobMemo::read(context, Slot::Initial, &keys)?;
        let mut seen = HashSet::new();
        let open: Vec<usize> = (0..keys.len()).filter(|row| !logprobs.has(&keys[*row]) && seen.insert(&keys[*row])).collect();
        self.responses += (answered.len() - open.len()) as u64;
        context.progress.advanced(&context.task.label(), self.responses, self.tokens);
        let chunks: Vec<&[usize]> = open.chunks(RESPONSES_PER_PART).collect();
        let (responses, tokens) = (self.responses, self.tokens);
        let mut parts = NllParts { context, answered: &answered, keys: &keys, chunks: &chunks, logprobs, responses, tokens };
        parts::compute(context, &mut self.models, (0..chunks.len()).collect(), &mut parts)?;
        let NllParts { logprobs, responses, tokens, .. } = parts;
        self.responses = responses;
        self.tokens = tokens;
        let mut nll = HashMap::new();
        for (row, key) in answered.iter().zip(&keys) {
            let logprob = logprobs.logprob(key, || format!("a response to prompt {}", row.prompt_id))?;
            nll.insert((row.prompt_id.clone(), row.response_index), -logprob / response_length(row)?.max(1) as f64);
        }
        Ok(nll)
    }
}

/// The computations of logprobs; a part is a chunk of responses. They go into the memo, not into a
/// table.
struct NllParts<'a, 'c> {
    context: &'a Context<'c>,
    answered: &'a [&'a responses::Row],
    keys: &'a [logprob_memo::Key],
    /// The rows of each part.
    chunks: &'a [&'a [usize]],
    logprobs: LogprobMemo<'a>,
    responses: u64,
    tokens: u64,
}

impl NllParts<'_, '_> {
    fn chunk(&self, part: usize) -> Result<&[usize], OperatorError> {
        let missing = || OperatorError::internal(PLACE, format!("part {part} of {} computations", self.chunks.len()));
        self.chunks.get(part).copied().ok_or_else(missing)
    }
}

impl Parts for NllParts<'_, '_> {
    fn name(&self, part: usize) -> String {
        format!("computation {} of {}", part + 1, self.chunks.len())
    }

    fn work(&mut self, part: usize) -> Result<Vec<Work>, OperatorError> {
        let rows: Vec<&responses::Row> = self.chunk(part)?.iter().map(|row| self.answered[*row]).collect();
        let counts = rows.iter().map(|row| unsigned(row.prompt_token_count, PLACE)).collect::<Result<Vec<_>, OperatorError>>()?;
        let token_ids: Vec<&[i32]> = rows.iter().map(|row| row.token_ids.as_slice()).collect();
        let sequences = TokenLists::from_rows(&token_ids)?;
        let batch_size = self.context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        let job = Job::Logprobs(Logprobs { sequences, prompt_token_counts: counts, batch_size });
        Ok(vec![Work { model: 0, of: None, job }])
    }

    fn take(&mut self, part: usize, found: Vec<Found>) -> Result<(), OperatorError> {
        let chunk = self.chunk(part)?.to_vec();
        for found in found {
            let numbers = found.numbers(chunk.len())?;
            let of = |index: usize| format!("a response to prompt {}", self.answered[chunk[index]].prompt_id);
            broken_model::check(&numbers, "logprob", of)?;
            self.logprobs.add(chunk.iter().map(|row| self.keys[*row]).zip(numbers.values))?;
        }
        self.responses += chunk.len() as u64;
        self.tokens += chunk.iter().map(|row| self.answered[*row].token_ids.len() as u64).sum::<u64>();
        self.context.progress.advanced(&self.context.task.label(), self.responses, self.tokens);
        Ok(())
    }

    fn so_far(&self) -> (u64, u64) {
        (self.responses, self.tokens)
    }
}
