//! evaluate: the policy's responses beside the baseline's, prompt by prompt.
//!
//! The responses and rewards of both come from `generate` and `score` tasks. This joins them, and
//! adds the responses' NLL under the initial policy. The logprob behind it is computed once: the
//! responses of a baseline come back in every iteration, those of the policy beside every baseline.

use std::collections::{HashMap, HashSet};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::support::advance::Advance;
use super::support::broken_model;
use super::support::logprob_memo::{self, LogprobMemo, arithmetic};
use super::support::model_work::{Found, Job, Logprobs, Work};
use super::support::parted_task::PartedTask;
use super::support::parts;
use super::support::replicas::{self, Part};
use super::support::rows::unsigned;
use super::support::summary::rounded;
use super::support::task_model::TaskModel;
use super::{Context, OperatorError, Summary};
use crate::pipeline::slot::Slot;
use crate::tables::{FinishReason, Outcome, TableKind, evaluation, responses, rewards};
use crate::token_lists::TokenLists;

/// Responses in one computation of NLLs, between two checks for a stop.
const RESPONSES_PER_PART: usize = 512;

/// The same on the CPUs of a cluster: its executors are not counted, and no bit depends on it.
const RESPONSES_PER_CLUSTER_PART: usize = 64;

/// Sequences in one batch of the model, unless the node's resources set another number.
const BATCH_SIZE: usize = 32;

/// This module in internal errors.
const PLACE: &str = "operators::evaluate";

/// Writes one row a held-out prompt with a scored response of both models.
pub(super) fn run(context: &Context) -> Result<Summary, OperatorError> {
    let policy_table = concat_batches(&responses::schema(), &context.batches(Slot::Responses)?)?;
    let baseline_table = concat_batches(&responses::schema(), &context.batches(Slot::BaselineResponses)?)?;
    let total = policy_table.num_rows() + baseline_table.num_rows();
    let advance = Advance::start(context, "responses", 0, total);
    let initial = InitialPolicy::new(context, &advance)?;
    let policy = scored(&policy_table, context.rows(Slot::Rewards, rewards::rows)?, initial.nll(&policy_table)?)?;
    let baseline = scored(&baseline_table, context.rows(Slot::BaselineRewards, rewards::rows)?, initial.nll(&baseline_table)?)?;
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
    Ok(Summary { text, tokens: advance.tokens() })
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

/// The initial policy, which computes logprobs.
struct InitialPolicy<'a> {
    context: &'a Context<'a>,
    advance: &'a Advance<'a>,
    model: [TaskModel; 1],
    /// The arithmetic of its logprobs.
    arithmetic: String,
    batch_size: usize,
}

impl<'a> InitialPolicy<'a> {
    fn new(context: &'a Context, advance: &'a Advance) -> Result<Self, OperatorError> {
        let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        let arithmetic = format!("evaluate {}", arithmetic(context)?);
        Ok(Self { context, advance, model: [TaskModel::from_slot(Slot::Initial)], arithmetic, batch_size })
    }

    /// Nats per token of each response in a table of responses.
    fn nll(&self, table: &RecordBatch) -> Result<HashMap<Key, f64>, OperatorError> {
        let rows = responses::rows(table)?;
        let answered: Vec<&responses::Row> = rows.iter().filter(|row| row.error.is_none()).collect();
        let key = |row: &&responses::Row| {
            let prompt_token_count = unsigned(row.prompt_token_count, PLACE)?;
            Ok(logprob_memo::key(&self.arithmetic, prompt_token_count, &row.token_ids))
        };
        let keys = answered.iter().map(key).collect::<Result<Vec<_>, OperatorError>>()?;
        let mut logprobs = LogprobMemo::read(self.context, Slot::Initial, &keys)?;
        let mut seen = HashSet::new();
        let open: Vec<usize> = (0..keys.len()).filter(|row| !logprobs.has(&keys[*row]) && seen.insert(&keys[*row])).collect();
        self.advance.finish(answered.len() - open.len(), 0, 0);
        let rows_of_part = |part: &Part| -> Vec<&responses::Row> { open[part.rows.clone()].iter().map(|row| answered[*row]).collect() };
        let prepare = |part: &Part| {
            let job = self.logprobs(&rows_of_part(part))?;
            Ok((vec![Work { model: 0, of: None, job }], ()))
        };
        let take = |part: &Part, (), found: Vec<Found>| {
            let rows = rows_of_part(part);
            for found in found {
                let computed = found.numbers(rows.len())?;
                broken_model::check(&computed, "logprob", |index| format!("a response to prompt {}", rows[index].prompt_id))?;
                logprobs.add(open[part.rows.clone()].iter().map(|row| keys[*row]).zip(computed.values))?;
            }
            Ok(rows.iter().map(|row| row.token_ids.len() as u64).sum())
        };
        let task = PartedTask { context: self.context, models: &self.model, advance: self.advance };
        parts::each_part(task, self.parts(open.len())?, replicas::all, prepare, take)?;
        let mut nll = HashMap::new();
        for (row, key) in answered.iter().zip(&keys) {
            let logprob = logprobs.logprob(key, || format!("a response to prompt {}", row.prompt_id))?;
            nll.insert((row.prompt_id.clone(), row.response_index), -logprob / response_length(row)?.max(1) as f64);
        }
        Ok(nll)
    }

    /// So many responses in parts. On the CPU every replica gets one; on a GPU the batches stay the
    /// same.
    fn parts(&self, responses: usize) -> Result<Vec<Part>, OperatorError> {
        let each = if !self.context.on_cpu()? {
            RESPONSES_PER_PART
        } else if self.context.executors.is_some() {
            RESPONSES_PER_CLUSTER_PART
        } else {
            let replicas = self.context.device.resolve_all()?.len();
            responses.div_ceil(replicas).clamp(1, RESPONSES_PER_PART)
        };
        let part = |(number, start): (usize, usize)| Part {
            number,
            rows: start..(start + each).min(responses),
            name: format!("responses {start} to {}", (start + each).min(responses)),
        };
        Ok((0..responses).step_by(each).enumerate().map(part).collect())
    }

    /// The computation of the logprobs of these responses.
    fn logprobs(&self, rows: &[&responses::Row]) -> Result<Job, OperatorError> {
        let counts = rows.iter().map(|row| unsigned(row.prompt_token_count, PLACE)).collect::<Result<Vec<_>, OperatorError>>()?;
        let token_ids: Vec<&[i32]> = rows.iter().map(|row| row.token_ids.as_slice()).collect();
        let sequences = TokenLists::from_rows(&token_ids)?;
        Ok(Job::Logprobs(Logprobs { sequences, prompt_token_counts: counts, batch_size: self.batch_size }))
    }
}
