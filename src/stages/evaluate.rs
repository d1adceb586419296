//! evaluate: the policy's responses beside the baseline's, prompt by prompt.
//!
//! Responses and rewards of both come from `generate` and `score` nodes of their own; this joins them and adds the responses'
//! NLL under the initial policy.

use std::collections::HashMap;

use arrow::array::{AsArray, ListArray, RecordBatch};
use arrow::compute::concat_batches;

use super::reference::BATCH_SIZE;
use super::{Context, StageError, Summary, tensors};
use crate::compute::CausalLm;
use crate::tables::{FinishReason, Outcome, TableKind, evaluation, responses, rewards};
use crate::training::{self, Responses};

/// Responses with an NLL computed at once, between two looks at whether to stop.
const RESPONSES_PER_PART: usize = 512;

/// One row a held-out prompt that both models could answer.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let policy_table = concat_batches(&responses::schema(), &context.batches("responses")?)?;
    let baseline_table = concat_batches(&responses::schema(), &context.batches("baseline_responses")?)?;
    let total = policy_table.num_rows() + baseline_table.num_rows();
    context.progress.started(&context.task.label(), "responses", 0, total as u64);
    let mut initial = Initial::load(context)?;
    let policy = Answers::read(&policy_table, context.rows("rewards", rewards::rows)?, initial.nll(context, &policy_table)?)?;
    let baseline =
        Answers::read(&baseline_table, context.rows("baseline_rewards", rewards::rows)?, initial.nll(context, &baseline_table)?)?;
    let mut rows: Vec<evaluation::Row> =
        policy.0.iter().filter_map(|(prompt_id, answers)| Some(row(prompt_id, answers, baseline.0.get(prompt_id)?))).collect();
    rows.sort_by(|a, b| a.prompt_id.cmp(&b.prompt_id));
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count() as i64;
    let (wins, losses, total) = (count(Outcome::Win), count(Outcome::Loss), rows.len() as i64);
    let mean = |value: fn(&evaluation::Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len().max(1) as f64;
    let text = format!(
        "mean reward {:.3} (baseline {:.3}), win score {:.1}, NLL under the initial policy {:.3}",
        mean(|row| row.reward),
        mean(|row| row.baseline_reward),
        50.0 + 50.0 * (wins - losses) as f64 / total.max(1) as f64,
        mean(|row| row.nll_initial),
    );
    let counts = [("prompts", total), ("wins", wins), ("losses", losses), ("ties", total - wins - losses)];
    context.write_relation(TableKind::Evaluation, |relation| relation.write(&evaluation::batch(&rows)).map(|()| counts))?;
    Ok(Summary { text, tokens: initial.tokens })
}

/// Which response: prompt_id and response_index.
type Key = (String, i32);

/// One response with its reward.
struct Answer {
    index: i32,
    text: String,
    reward: f64,
    token_count: f64,
    truncated: bool,
    nll: f64,
}

/// The scored responses of each prompt, in the order of their index.
struct Answers(HashMap<String, Vec<Answer>>);

impl Answers {
    fn read(table: &RecordBatch, rewards: Vec<rewards::Row>, nll: HashMap<Key, f64>) -> Result<Self, StageError> {
        let rewards: HashMap<Key, f64> =
            rewards.into_iter().filter_map(|row| Some(((row.prompt_id, row.response_index), row.reward?))).collect();
        let mut answers: HashMap<String, Vec<Answer>> = HashMap::new();
        for row in responses::rows(table)? {
            let (token_count, truncated) = (response_length(&row) as f64, row.finish_reason == FinishReason::Length);
            let key = (row.prompt_id, row.response_index);
            let (Some(&reward), Some(&nll)) = (rewards.get(&key), nll.get(&key)) else { continue };
            let answer = Answer { index: row.response_index, text: row.text, reward, token_count, truncated, nll };
            answers.entry(key.0).or_default().push(answer);
        }
        answers.values_mut().for_each(|answers| answers.sort_by_key(|answer| answer.index));
        Ok(Self(answers))
    }
}

/// Tokens of a response, without its prompt's.
fn response_length(row: &responses::Row) -> usize {
    row.token_ids.len().saturating_sub(usize::try_from(row.prompt_token_count).unwrap_or(0))
}

fn row(prompt_id: &str, policy: &[Answer], baseline: &[Answer]) -> evaluation::Row {
    let mean = |answers: &[Answer], value: fn(&Answer) -> f64| answers.iter().map(value).sum::<f64>() / answers.len().max(1) as f64;
    let (reward, baseline_reward) = (mean(policy, |a| a.reward), mean(baseline, |a| a.reward));
    let text = |answers: &[Answer]| answers.first().map(|answer| answer.text.clone()).unwrap_or_default();
    let outcome = match reward.total_cmp(&baseline_reward) {
        std::cmp::Ordering::Greater => Outcome::Win,
        std::cmp::Ordering::Equal => Outcome::Tie,
        std::cmp::Ordering::Less => Outcome::Loss,
    };
    evaluation::Row {
        prompt_id: prompt_id.to_string(),
        reward,
        baseline_reward,
        outcome,
        text: text(policy),
        baseline_text: text(baseline),
        token_count: mean(policy, |a| a.token_count),
        truncated: mean(policy, |a| f64::from(u8::from(a.truncated))),
        nll_initial: mean(policy, |a| a.nll),
        baseline_nll_initial: mean(baseline, |a| a.nll),
    }
}

/// The initial policy, and how much it has read.
struct Initial {
    model: CausalLm,
    batch_size: usize,
    responses: u64,
    tokens: u64,
}

impl Initial {
    fn load(context: &Context) -> Result<Self, StageError> {
        let model = context.checkpoint("initial")?.load(&context.device()?)?;
        let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
        Ok(Self { model, batch_size, responses: 0, tokens: 0 })
    }

    /// Nats per token of each response in a table of responses.
    fn nll(&mut self, context: &Context, table: &RecordBatch) -> Result<HashMap<Key, f64>, StageError> {
        let rows = responses::rows(table)?;
        let answered: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].error.is_none()).collect();
        let mut nll = HashMap::new();
        for chunk in answered.chunks(RESPONSES_PER_PART) {
            context.check_stopped()?;
            let indices = arrow::array::UInt64Array::from_iter_values(chunk.iter().map(|row| *row as u64));
            let lists = arrow::compute::take(responses::token_ids(table)?, &indices, None)?;
            let lists: &ListArray = lists.as_list();
            let counts = chunk.iter().map(|row| usize::try_from(rows[*row].prompt_token_count).unwrap_or(0)).collect();
            let sequences = Responses::new(tensors::token_lists(lists)?, counts)?;
            let all: Vec<usize> = (0..chunk.len()).collect();
            let logprobs = training::response_logprobs(&self.model, &sequences, &all, self.batch_size)?;
            for (row, logprob) in chunk.iter().map(|row| &rows[*row]).zip(logprobs) {
                nll.insert((row.prompt_id.clone(), row.response_index), -logprob / response_length(row).max(1) as f64);
            }
            self.responses += chunk.len() as u64;
            self.tokens += sequences.token_count(&all) as u64;
            context.progress.advanced(&context.task.label(), self.responses, self.tokens);
        }
        Ok(nll)
    }
}
