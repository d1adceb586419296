//! score: a reward for every response, by the user's SQL.
//!
//! Knows what the query must give back; not what it means.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Schema};

use super::{Context, StageError, Summary};
use crate::tables::{TableKind, responses, rewards};

/// The columns that say which response a row of the query is about. `born` may be left out: it is the same for all of them.
const KEY: [&str; 3] = ["prompt_id", "born", "response_index"];

/// Runs the reward's query over `responses`, `prompts` and the tables it names, and matches its rows to the responses one to one.
pub(super) fn run(context: &Context, sql: &str) -> Result<Summary, StageError> {
    let fingerprint = context.fingerprint_of("reward")?;
    let all: Vec<responses::Row> = context.rows("responses", responses::rows)?;
    let session = context.session()?;
    context.register(&session, "all_responses", "responses")?;
    session.register_view("responses", "SELECT * FROM all_responses WHERE error IS NULL")?;
    if context.has("prompts") {
        context.register(&session, "prompts", "prompts")?;
    }
    context.register_named(&session, "tables")?;
    let mut scored = Scored::read(&session.query(sql)?)?;

    let rewards: Vec<rewards::Row> = all.into_iter().map(|response| scored.reward(response, &fingerprint)).collect::<Result<_, _>>()?;
    scored.nothing_left()?;
    let count = rewards.len();
    let values: Vec<f64> = rewards.iter().filter_map(|row| row.reward).collect();
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    context.write_relation(
        TableKind::Rewards,
        &[rewards::batch(&rewards)],
        [("responses", count as i64), ("scored", values.len() as i64)],
    )?;
    Ok(Summary::new(format!("{count} responses scored, mean reward {mean:.3}")))
}

/// Checks that a query's columns can be rewards, before there are any responses to score.
///
/// # Errors
/// A column that is missing or is not a number.
pub fn check_columns(schema: &Schema) -> Result<(), StageError> {
    for name in ["prompt_id", "response_index", "reward"] {
        if schema.field_with_name(name).is_err() {
            let found = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
            return Err(StageError::Input(format!("reward query: expected a column {name}, found {found}")));
        }
    }
    for field in schema.fields().iter().filter(|field| !KEY.contains(&field.name().as_str())) {
        if !(field.data_type().is_numeric() || matches!(field.data_type(), DataType::Boolean | DataType::Null)) {
            return Err(StageError::Input(format!(
                "reward query: column {}: expected a number (the reward, or a component of it), found {}",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

/// A reward and its components, or null.
type Score = (Option<f64>, BTreeMap<String, f64>);

/// What the query said, by prompt_id and response_index.
struct Scored(HashMap<(String, i32), Score>);

impl Scored {
    fn read(batches: &[RecordBatch]) -> Result<Self, StageError> {
        let mut scores = HashMap::new();
        for batch in batches {
            check_columns(&batch.schema())?;
            let column = |name: &str, data_type: &DataType| -> Result<_, StageError> {
                let array = batch.column_by_name(name).ok_or_else(|| StageError::Input(format!("reward query: no column {name}")))?;
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
                .collect::<Result<_, StageError>>()?;
            for row in 0..batch.num_rows() {
                let (prompt_id, index) = (prompt_ids.as_string::<i32>().value(row), indices.as_primitive::<Int32Type>().value(row));
                let mut components: BTreeMap<String, f64> = numbers
                    .iter()
                    .filter(|(_, values)| values.is_valid(row))
                    .map(|(name, values)| (name.clone(), values.value(row)))
                    .collect();
                let reward = components.remove("reward");
                if scores.insert((prompt_id.to_string(), index), (reward, components)).is_some() {
                    return Err(StageError::Input(format!(
                        "reward query: expected one row for each response, found several for prompt_id {prompt_id}, response_index {index}"
                    )));
                }
            }
        }
        Ok(Self(scores))
    }

    /// The reward row of one response.
    fn reward(&mut self, response: responses::Row, fingerprint: &str) -> Result<rewards::Row, StageError> {
        let (prompt_id, response_index) = (response.prompt_id, response.response_index);
        let scored = self.0.remove(&(prompt_id.clone(), response_index));
        let (reward, components, error) = match (response.error, scored) {
            (Some(error), _) => (None, BTreeMap::new(), Some(error)),
            (None, Some((Some(reward), components))) if reward.is_finite() => (Some(reward), components, None),
            (None, found) => {
                let found = match found {
                    Some((Some(reward), _)) => format!("{reward}"),
                    Some((None, _)) => "null".to_string(),
                    None => "no row".to_string(),
                };
                return Err(StageError::Input(format!(
                    "reward query: expected a finite reward for prompt_id {prompt_id}, response_index {response_index}, found {found}"
                )));
            }
        };
        let components = (!components.is_empty()).then_some(components);
        let reward_fingerprint = fingerprint.to_string();
        Ok(rewards::Row { prompt_id, born: response.born, response_index, reward, reward_fingerprint, components, error })
    }

    fn nothing_left(&self) -> Result<(), StageError> {
        match self.0.keys().min() {
            Some((prompt_id, index)) => Err(StageError::Input(format!(
                "reward query: expected rows for the responses only, found one for prompt_id {prompt_id}, response_index {index}"
            ))),
            None => Ok(()),
        }
    }
}
