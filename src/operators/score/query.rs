//! Scores by the user's SQL.
//!
//! Knows what the query must give back; not what it means.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Schema};

use super::problem::Problem;
use super::{Item, Score, Scores};
use crate::operators::{Context, OperatorError};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::tables::responses;

/// The columns that say which response a row of the query is about. `sampled_iteration` may be left out: it is the same for all of them.
const KEY: [&str; 3] = ["prompt_id", "sampled_iteration", "response_index"];

/// Checks that a query's columns can be rewards, before there are any responses to score.
///
/// # Errors
/// A column that is missing or is not a number.
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

/// What gave the rewards, for errors.
const WHOSE: &str = "reward query";

/// A reward and its components, or null.
type Found = (Option<f64>, BTreeMap<String, f64>);

/// What a query says, by prompt_id and response_index.
pub(super) struct Query(HashMap<(String, i32), Found>);

impl Query {
    /// Runs the query over `responses`, `prompts` and the tables it names; its rows must be those of the responses without an error
    /// among `all`, one each, and finite where other rewards stop the node.
    pub(super) fn run(context: &Context, sql: &str, all: &[responses::Row], non_finite: NonFinite) -> Result<Self, OperatorError> {
        let session = context.query_session()?;
        context.register(&session, "all_responses", Slot::Responses)?;
        session.register_view("responses", "SELECT * FROM all_responses WHERE error IS NULL")?;
        if context.has(Slot::Prompts) {
            context.register(&session, "prompts", Slot::Prompts)?;
        }
        context.register_named(&session, Slot::Tables)?;
        let query = Self::read(&session.query(sql)?)?;
        query.check(all, non_finite)?;
        Ok(query)
    }

    /// What the query said of these responses.
    pub(super) fn score(&self, items: &[Item]) -> Scores {
        let score = |item: &Item| match self.0.get(&(item.row.prompt_id.clone(), item.row.response_index)) {
            Some(found) => finite(found),
            // Every response was checked to have a row.
            None => Err(Problem::Other(format!("{WHOSE}: expected a row, found none"))),
        };
        items.iter().map(score).collect()
    }

    fn read(batches: &[RecordBatch]) -> Result<Self, OperatorError> {
        let mut scores = HashMap::new();
        for batch in batches {
            check_columns(&batch.schema())?;
            let column = |name: &str, data_type: &DataType| -> Result<_, OperatorError> {
                let array = batch.column_by_name(name).ok_or_else(|| OperatorError::Input(format!("reward query: no column {name}")))?;
                Ok(cast(array, data_type)?)
            };
            let prompt_ids = column("prompt_id", &DataType::Utf8)?;
            let indices = column("response_index", &DataType::Int32)?;
            let numbers: Vec<(String, Float64Array)> = batch
                .schema()
                .fields()
                .iter()
                .filter(|field| !KEY.contains(&field.name().as_str()))
                .map(|field| Ok((field.name().clone(), column(field.name(), &DataType::Float64)?.as_primitive().clone())))
                .collect::<Result<_, OperatorError>>()?;
            for row in 0..batch.num_rows() {
                let (prompt_id, index) = (prompt_ids.as_string::<i32>().value(row), indices.as_primitive::<Int32Type>().value(row));
                let mut components: BTreeMap<String, f64> = numbers
                    .iter()
                    .filter(|(_, values)| values.is_valid(row))
                    .map(|(name, values)| (name.clone(), values.value(row)))
                    .collect();
                let reward = components.remove("reward");
                if scores.insert((prompt_id.to_string(), index), (reward, components)).is_some() {
                    return Err(OperatorError::Input(format!(
                        "reward query: expected one row for each response, found several for prompt_id {prompt_id}, response_index {index}"
                    )));
                }
            }
        }
        Ok(Self(scores))
    }

    /// Every response without an error has a row, and no other has; rewards are finite where others stop the node.
    fn check(&self, all: &[responses::Row], non_finite: NonFinite) -> Result<(), OperatorError> {
        let mut rest: HashMap<(&str, i32), &Found> = self.0.iter().map(|((id, index), found)| ((id.as_str(), *index), found)).collect();
        for response in all {
            let (prompt_id, response_index) = (response.prompt_id.as_str(), response.response_index);
            let found = rest.remove(&(prompt_id, response_index));
            if response.error.is_some() {
                continue;
            }
            let place = format!("prompt_id {prompt_id}, response_index {response_index}");
            let Some(found) = found else {
                return Err(OperatorError::Input(format!("{WHOSE}: expected a finite reward for {place}, found no row")));
            };
            let stop = if non_finite == NonFinite::Stop { finite(found).err().and_then(|problem| problem.stop(&place)) } else { None };
            if let Some(error) = stop {
                return Err(OperatorError::Input(error));
            }
        }
        match rest.keys().min() {
            Some((prompt_id, index)) => Err(OperatorError::Input(format!(
                "reward query: expected rows for the responses only, found one for prompt_id {prompt_id}, response_index {index}"
            ))),
            None => Ok(()),
        }
    }
}

/// The score, if the reward and all components are finite.
fn finite((reward, components): &Found) -> Result<Score, Problem> {
    let reward = reward.ok_or_else(|| Problem::not_finite(WHOSE, "null"))?;
    match components.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) if reward.is_finite() => Err(Problem::not_finite(WHOSE, format!("{value} as its component {name}"))),
        _ => Ok(Score { components: components.clone(), ..Score::plain(WHOSE, reward)? }),
    }
}
