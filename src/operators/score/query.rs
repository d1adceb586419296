//! Scores from the user's SQL.
//!
//! Knows the columns and rows of a valid result, not their meaning.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Schema};

use super::score_error::ScoreError;
use super::{ResponseToScore, Score, Scores};
use crate::operators::{Context, OperatorError};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::tables::responses;

/// The columns with the key of a response. A query may leave out `sampled_iteration`: all responses
/// of an iteration have the same.
const KEY: [&str; 3] = ["prompt_id", "sampled_iteration", "response_index"];

/// Checks the columns of a query, before there are any responses to score.
///
/// # Errors
/// A column is missing or is not a number.
pub fn check_columns(schema: &Schema) -> Result<(), OperatorError> {
    for name in ["prompt_id", "response_index", "reward"] {
        if schema.field_with_name(name).is_err() {
            let found = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
            return Err(OperatorError::Input(format!("reward query: expected a column {name}, found {found}")));
        }
    }
    for field in schema.fields().iter().filter(|field| !KEY.contains(&field.name().as_str())) {
        if !(field.data_type().is_numeric() || matches!(field.data_type(), DataType::Boolean | DataType::Null)) {
            return Err(OperatorError::Input(format!(
                "reward query: column {}: expected a number (the reward, or a component of it), found {}",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// The name of this scorer in errors.
const SCORER: &str = "reward query";

/// A reward and its components; a reward may be null.
type QueryReward = (Option<f64>, BTreeMap<String, f64>);

/// The result of a query, by prompt_id and response_index.
pub(super) struct QueryScorer(HashMap<(String, i32), QueryReward>);

impl QueryScorer {
    /// Runs the query over `responses`, `prompts` and the tables of the node.
    ///
    /// # Errors
    /// The result must have one row for each response without an error in `all`, and no other row.
    /// Under `non_finite: stop`, rewards must be finite.
    pub(super) fn run(context: &Context, sql: &str, all: &[responses::Row], non_finite: NonFinite) -> Result<Self, OperatorError> {
        let session = context.query_session()?;
        context.register(&session, "all_responses", Slot::Responses)?;
        session.register_view("responses", "SELECT * FROM all_responses WHERE error IS NULL")?;
        if context.has(Slot::Prompts) {
            context.register(&session, "prompts", Slot::Prompts)?;
        }
        context.register_named(&session, Slot::Tables)?;
        let query = Self::from_batches(&session.query(sql)?)?;
        query.check(all, non_finite)?;
        Ok(query)
    }

    /// The scores of these responses.
    pub(super) fn score(&self, responses: &[ResponseToScore]) -> Result<Scores, OperatorError> {
        let mut scores = Vec::with_capacity(responses.len());
        for response in responses {
            // `check` has found a row for every response.
            let reward = self.0.get(&(response.row.prompt_id.clone(), response.row.response_index)).ok_or_else(|| {
                OperatorError::internal("operators::score::query", format!("the query has no row for {}", response.description()))
            })?;
            scores.push(finite_score(reward));
        }
        Ok(scores)
    }

    /// Takes the rewards from the result of a query.
    fn from_batches(batches: &[RecordBatch]) -> Result<Self, OperatorError> {
        let mut rewards = HashMap::new();
        for batch in batches {
            check_columns(&batch.schema())?;
            let column = |name: &str, data_type: &DataType| -> Result<_, OperatorError> {
                let array = batch.column_by_name(name).ok_or_else(|| OperatorError::Input(format!("{SCORER}: no column {name}")))?;
                Ok(cast(array, data_type)?)
            };
            let prompt_ids = column("prompt_id", &DataType::Utf8)?;
            let indices = column("response_index", &DataType::Int32)?;
            if prompt_ids.null_count() > 0 || indices.null_count() > 0 {
                let problem = "expected a prompt_id and a 32-bit response_index in every row, found a row without";
                return Err(OperatorError::Input(format!("{SCORER}: {problem}")));
            }
            let prompt_ids = prompt_ids.as_string::<i32>();
            let indices = indices.as_primitive::<Int32Type>();
            let schema = batch.schema();
            let mut numbers: Vec<(&str, Float64Array)> = Vec::new();
            for field in schema.fields().iter().filter(|field| !KEY.contains(&field.name().as_str())) {
                numbers.push((field.name(), column(field.name(), &DataType::Float64)?.as_primitive().clone()));
            }
            for row in 0..batch.num_rows() {
                let prompt_id = prompt_ids.value(row);
                let index = indices.value(row);
                let valid = numbers.iter().filter(|(_, values)| values.is_valid(row));
                let mut components: BTreeMap<String, f64> = valid.map(|(name, values)| (name.to_string(), values.value(row))).collect();
                let reward = components.remove("reward");
                if rewards.insert((prompt_id.to_string(), index), (reward, components)).is_some() {
                    return Err(OperatorError::Input(format!(
                        "{SCORER}: expected one row for each response, found several for prompt_id {prompt_id}, response_index {index}"
                    )));
                }
            }
        }
        Ok(Self(rewards))
    }

    /// Checks for one row for each response without an error, and for no other row. Under
    /// `non_finite: stop`, also checks for finite rewards.
    fn check(&self, all: &[responses::Row], non_finite: NonFinite) -> Result<(), OperatorError> {
        let mut rest: HashMap<(&str, i32), &QueryReward> =
            self.0.iter().map(|((id, index), reward)| ((id.as_str(), *index), reward)).collect();
        for response in all {
            let prompt_id = response.prompt_id.as_str();
            let index = response.response_index;
            let reward = rest.remove(&(prompt_id, index));
            if response.error.is_some() {
                // A row for a failed response is allowed, and does not count.
                continue;
            }
            let description = format!("prompt_id {prompt_id}, response_index {index}");
            let Some(reward) = reward else {
                return Err(OperatorError::Input(format!("{SCORER}: expected a finite reward for {description}, found no row")));
            };
            if non_finite == NonFinite::Stop {
                let error = finite_score(reward).err();
                if let Some(message) = error.and_then(|error| error.stop_message(&description)) {
                    return Err(OperatorError::Input(message));
                }
            }
        }
        match rest.keys().min() {
            Some((prompt_id, index)) => Err(OperatorError::Input(format!(
                "{SCORER}: expected rows for the responses only, found one for prompt_id {prompt_id}, response_index {index}"
            ))),
            None => Ok(()),
        }
    }
}

/// The score, if the reward and all components are finite.
fn finite_score((reward, components): &QueryReward) -> Result<Score, ScoreError> {
    let reward = reward.ok_or_else(|| ScoreError::not_finite(SCORER, "null"))?;
    match components.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) if reward.is_finite() => Err(ScoreError::not_finite(SCORER, format!("{value} as its component {name}"))),
        _ => Ok(Score { components: components.clone(), ..Score::plain(SCORER, reward)? }),
    }
}
