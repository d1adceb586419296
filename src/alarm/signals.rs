//! The numbers of each iteration that alarms are made of, read from the tables of a run.
//!
//! Knows the tables' columns, not the rules.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

use crate::sql::Session;
use crate::store::StoreError;
use crate::tables::training;

/// The end of the name of the table with the baseline's responses.
const BASELINE_RESPONSES: &str = "_baseline_responses";

/// One evaluated iteration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Iteration {
    /// Its number; 0 for an evaluation outside the loop.
    pub iteration: i64,
    /// The held-out prompts, in the order of their ids.
    pub prompts: Vec<Prompt>,
    /// The divergence from the reference at the end of the training, in nats a response: the mean
    /// over the last quarter of its steps. None for a policy without a training table.
    pub kl: Option<f64>,
    /// The changes of the primary metrics of benchmarks against their baselines.
    pub benchmarks: Vec<Change>,
}

/// The change of a benchmark's metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The node, the task and the metric.
    pub name: String,
    /// The mean over items of policy minus baseline.
    pub change: f64,
    /// The upper end of its 95 % interval.
    pub high: f64,
}

/// One held-out prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Its id.
    pub id: String,
    /// The mean reward of the policy's responses.
    pub reward: f64,
    /// The same of the baseline's.
    pub baseline_reward: f64,
    /// Nats a token of the policy's responses under the initial policy.
    pub nll: f64,
    /// The same of the baseline's.
    pub baseline_nll: f64,
    /// Tokens of the policy's responses.
    pub tokens: f64,
    /// The same of the baseline's.
    pub baseline_tokens: f64,
    /// The share of the policy's responses cut off by the length limit.
    pub truncated: f64,
    /// The same of the baseline's.
    pub baseline_truncated: f64,
}

/// The evaluated iterations of a node, in order; none before the first.
///
/// `benchmarks` are the benchmark nodes of the same policy.
pub(super) fn read(session: &Session, evaluation: &str, policy: &str, benchmarks: &[&str]) -> Result<Vec<Iteration>, StoreError> {
    let tables = session.tables();
    let responses = format!("{evaluation}{BASELINE_RESPONSES}");
    if !tables.contains(&evaluation.to_string()) || !tables.contains(&responses) {
        return Ok(Vec::new());
    }
    let is_iterated =
        |table: &str| session.schema_of(&format!("SELECT * FROM {}", quoted(table))).map(|s| s.field_with_name("iteration").is_ok());
    let iteration = if is_iterated(evaluation)? { "CAST(iteration AS DOUBLE)" } else { "CAST(0 AS DOUBLE)" };
    let batches = session.query(&format!(
        "SELECT {iteration} AS t, e.prompt_id, e.reward, e.baseline_reward, e.nll_initial, e.baseline_nll_initial, e.token_count,
       e.truncated, b.tokens AS baseline_tokens, b.truncated AS baseline_truncated
FROM {} AS e JOIN (
  SELECT prompt_id, avg(CAST(array_length(token_ids) AS DOUBLE) - prompt_token_count) AS tokens,
         avg(CASE finish_reason WHEN 'length' THEN 1.0 ELSE 0.0 END) AS truncated
  FROM {} WHERE finish_reason <> 'error' GROUP BY prompt_id
) AS b ON b.prompt_id = e.prompt_id
ORDER BY 1, 2",
        quoted(evaluation),
        quoted(&responses),
    ))?;
    let training = format!("{policy}{}", training::SUFFIX);
    let kl = if tables.contains(&training) && is_iterated(&training)? { divergences(session, &training)? } else { HashMap::new() };
    let mut changes: HashMap<i64, Vec<Change>> = HashMap::new();
    for benchmark in benchmarks.iter().copied().filter(|benchmark| tables.iter().any(|table| table == benchmark)) {
        if is_iterated(benchmark)? {
            add_changes(session, benchmark, &mut changes)?;
        }
    }
    let mut iterations: Vec<Iteration> = Vec::new();
    for batch in &batches {
        let ids = cast(batch.column(1), &DataType::Utf8).map_err(form)?;
        let ids = ids.as_string::<i32>();
        let [numbers, rewards, baseline_rewards, nlls, baseline_nlls, tokens, truncated, baseline_tokens, baseline_truncated] =
            numbers(batch, [0, 2, 3, 4, 5, 6, 7, 8, 9])?;
        for row in 0..batch.num_rows() {
            let number = numbers.value(row) as i64;
            let prompt = Prompt {
                id: ids.value(row).to_string(),
                reward: rewards.value(row),
                baseline_reward: baseline_rewards.value(row),
                nll: nlls.value(row),
                baseline_nll: baseline_nlls.value(row),
                tokens: tokens.value(row),
                baseline_tokens: baseline_tokens.value(row),
                truncated: truncated.value(row),
                baseline_truncated: baseline_truncated.value(row),
            };
            match iterations.last_mut() {
                Some(last) if last.iteration == number => last.prompts.push(prompt),
                _ => iterations.push(Iteration {
                    iteration: number,
                    prompts: vec![prompt],
                    kl: kl.get(&number).copied(),
                    benchmarks: changes.remove(&number).unwrap_or_default(),
                }),
            }
        }
    }
    Ok(iterations)
}

/// The divergence at the end of the training of each iteration.
fn divergences(session: &Session, training: &str) -> Result<HashMap<i64, f64>, StoreError> {
    let table = quoted(training);
    let batches = session.query(&format!(
        "SELECT CAST(iteration AS DOUBLE), avg(kl) FROM {table}
JOIN (SELECT iteration AS t, max(step) AS last FROM {table} GROUP BY iteration) AS ends ON ends.t = iteration
WHERE 4 * step > 3 * last AND kl IS NOT NULL GROUP BY 1"
    ))?;
    let mut found = HashMap::new();
    for batch in &batches {
        let [iterations, divergences] = numbers(batch, [0, 1])?;
        let rows = iterations.values().iter().zip(divergences.values());
        found.extend(rows.map(|(iteration, kl)| (*iteration as i64, *kl)));
    }
    Ok(found)
}

/// Adds the changes of a benchmark's primary metrics by iteration.
fn add_changes(session: &Session, benchmark: &str, changes: &mut HashMap<i64, Vec<Change>>) -> Result<(), StoreError> {
    let batches = session.query(&format!(
        "SELECT CAST(iteration AS DOUBLE), change, change_high, task, metric FROM {} WHERE \"primary\" AND change IS NOT NULL ORDER BY 1, 4, 5",
        quoted(benchmark)
    ))?;
    for batch in &batches {
        let [iterations, means, highs] = numbers(batch, [0, 1, 2])?;
        let tasks = cast(batch.column(3), &DataType::Utf8).map_err(form)?;
        let metrics = cast(batch.column(4), &DataType::Utf8).map_err(form)?;
        for row in 0..batch.num_rows() {
            let name = format!("{benchmark} {} {}", tasks.as_string::<i32>().value(row), metrics.as_string::<i32>().value(row));
            let change = Change { name, change: means.value(row), high: highs.value(row) };
            changes.entry(iterations.value(row) as i64).or_default().push(change);
        }
    }
    Ok(())
}

/// Columns of a batch as numbers without a null.
fn numbers<const N: usize>(batch: &RecordBatch, columns: [usize; N]) -> Result<[Float64Array; N], StoreError> {
    let mut numbers = Vec::with_capacity(N);
    for column in columns {
        let array = cast(batch.column(column), &DataType::Float64).map_err(form)?;
        if array.null_count() > 0 {
            let problem = format!("column {column} of a query has {} nulls", array.null_count());
            return Err(StoreError::internal("alarm::signals", problem));
        }
        numbers.push(array.as_primitive::<Float64Type>().clone());
    }
    numbers.try_into().map_err(|_| StoreError::internal("alarm::signals", "not as many columns as asked for"))
}

/// A column of another type than the queries make.
fn form(error: ArrowError) -> StoreError {
    StoreError::internal("alarm::signals", error)
}

/// A table's name in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
