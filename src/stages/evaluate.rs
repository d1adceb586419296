//! evaluate: the policy's responses beside the baseline's, prompt by prompt.
//!
//! Responses and rewards of both come from `generate` and `score` nodes of their own; this joins them and adds the responses'
//! NLL under the initial policy.

use std::collections::HashMap;

use arrow::array::{AsArray, ListArray, RecordBatch};
use arrow::compute::concat_batches;

use super::reference::BATCH_SIZE;
use super::{Context, StageError, Summary, tensors};
use crate::model::Checkpoint;
use crate::tables::{FinishReason, Outcome, TableKind, evaluation, responses, rewards};
use crate::training::{self, Responses};

/// Responses with an NLL computed at once, between two looks at whether to stop.
const RESPONSES_PER_PART: usize = 512;

/// One row a held-out prompt that both models could answer.
pub(super) fn run(context: &Context) -> Result<Summary, StageError> {
    let batches = context.batches("responses")?;
    let table = concat_batches(&responses::schema(), &batches)?;
    let (nll, tokens) = nll_initial(context, &table)?;
    let mut policy = Answers::read(responses::rows(&table)?, context.rows("rewards", rewards::rows)?);
    for (key, nll) in nll {
        if let Some(answer) = policy.0.get_mut(&key.0).and_then(|answers| answers.iter_mut().find(|answer| answer.index == key.1)) {
            answer.nll = nll;
        }
    }
    let baseline = Answers::read(context.rows("baseline_responses", responses::rows)?, context.rows("baseline_rewards", rewards::rows)?);
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
    context.write_relation(TableKind::Evaluation, &[evaluation::batch(&rows)], counts)?;
    Ok(Summary { text, tokens })
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
    fn read(responses: Vec<responses::Row>, rewards: Vec<rewards::Row>) -> Self {
        let rewards: HashMap<Key, f64> =
            rewards.into_iter().filter_map(|row| Some(((row.prompt_id, row.response_index), row.reward?))).collect();
        let mut answers: HashMap<String, Vec<Answer>> = HashMap::new();
        for row in responses {
            let Some(&reward) = rewards.get(&(row.prompt_id.clone(), row.response_index)) else { continue };
            let token_count = row.token_ids.len().saturating_sub(usize::try_from(row.prompt_token_count).unwrap_or(0)) as f64;
            let truncated = row.finish_reason == FinishReason::Length;
            let answer = Answer { index: row.response_index, text: row.text, reward, token_count, truncated, nll: 0.0 };
            answers.entry(row.prompt_id).or_default().push(answer);
        }
        answers.values_mut().for_each(|answers| answers.sort_by_key(|answer| answer.index));
        Self(answers)
    }
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
    }
}

/// Nats per token of each response under the initial policy, by prompt_id and response_index; and how many tokens were read.
fn nll_initial(context: &Context, table: &RecordBatch) -> Result<(HashMap<Key, f64>, u64), StageError> {
    let rows = responses::rows(table)?;
    let answered: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].error.is_none()).collect();
    let label = context.task.label();
    context.progress.started(&label, "responses", 0, answered.len() as u64);
    let device = context.device()?;
    let model = Checkpoint::open(&context.model("initial")?)?.load(&device)?;
    let batch_size = context.task.resources.batch_size.map_or(BATCH_SIZE, |size| size as usize);
    let (mut nll, mut tokens) = (HashMap::new(), 0);
    for chunk in answered.chunks(RESPONSES_PER_PART) {
        context.check_stopped()?;
        let indices = arrow::array::UInt64Array::from_iter_values(chunk.iter().map(|row| *row as u64));
        let lists = arrow::compute::take(responses::token_ids(table)?, &indices, None)?;
        let lists: &ListArray = lists.as_list();
        let counts = chunk.iter().map(|row| usize::try_from(rows[*row].prompt_token_count).unwrap_or(0)).collect();
        let sequences = Responses::new(tensors::sequences(lists, &device)?, counts)?;
        let all: Vec<usize> = (0..chunk.len()).collect();
        let logprobs = training::response_logprobs(&model, &sequences, &all, batch_size)?;
        for (row, logprob) in chunk.iter().map(|row| &rows[*row]).zip(logprobs) {
            let length = row.token_ids.len().saturating_sub(usize::try_from(row.prompt_token_count).unwrap_or(0));
            nll.insert((row.prompt_id.clone(), row.response_index), -logprob / length.max(1) as f64);
        }
        tokens += sequences.token_count(&all) as u64;
        context.progress.advanced(&label, nll.len() as u64, tokens);
    }
    Ok((nll, tokens))
}
