//! The dataset formats in which prompts, demonstrations and preferences come, and how each becomes our own columns.
//!
//! ```text
//! batch ─▶ renamed (map) ─▶ dataset format told by the columns ─▶ prompt | messages, response, chosen, rejected, …_score; the rest as it was
//! ```
//! Knows columns and messages; nothing of files, nor of what the rows are for.

mod columns;
mod detect;
mod row;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, RecordBatch, StringBuilder, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;

use self::columns::{Column, Numbers, Texts};
use self::row::Row;
use super::Conversations;
use crate::model::{Message, PromptContent};
use crate::pipeline::spec::input::DatasetFormat;

pub(super) use self::detect::detect;

/// What is wrong with a row (from 0, of the batch), or with the columns.
pub(super) struct Wrong {
    pub row: Option<usize>,
    pub problem: String,
}

impl From<String> for Wrong {
    fn from(problem: String) -> Self {
        Self { row: None, problem }
    }
}

/// The batch with its columns renamed: `map` has our names with theirs; `theirs.field` is a field of a struct, which stays where it is.
///
/// # Errors
/// A column that is not there, or a name that another column has already.
pub(super) fn renamed(batch: &RecordBatch, map: &IndexMap<String, String>) -> Result<RecordBatch, String> {
    if map.is_empty() {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let mut columns: Vec<(String, ArrayRef)> =
        schema.fields().iter().map(|field| field.name().clone()).zip(batch.columns().iter().cloned()).collect();
    for (ours, theirs) in map {
        let found = || format!("found {}", detect::names(&schema));
        let taken = map.values().any(|theirs| theirs == ours);
        if ours != theirs && !taken && schema.field_with_name(ours).is_ok() {
            return Err(format!("map: {ours} is a column already; map it to another name too"));
        }
        if let Some(index) = schema.fields().iter().position(|field| field.name() == theirs) {
            columns[index].0.clone_from(ours);
        } else {
            let nested = field_of(batch, theirs).ok_or_else(|| format!("map: expected a column {theirs}, {}", found()))?;
            columns.push((ours.clone(), nested));
        }
    }
    batch_of(columns)
}

/// The field of a struct column that `column.field` names, null where the struct is.
fn field_of(batch: &RecordBatch, path: &str) -> Option<ArrayRef> {
    let (column, rest) = path.split_once('.')?;
    let mut array = batch.column_by_name(column)?.clone();
    for name in rest.split('.') {
        let parent = array.as_struct_opt()?;
        let child = parent.column_by_name(name)?;
        let nulls = NullBuffer::union(parent.nulls(), child.nulls());
        array = make_array(child.to_data().into_builder().nulls(nulls).build().ok()?);
    }
    Some(array)
}

fn batch_of(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch, String> {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| error.to_string())
}

/// The batch's rows with our own columns first and all that the dataset format does not use behind them.
///
/// # Errors
/// A row that is not of the dataset format, or columns that the result would have twice.
pub(super) fn normalised(dataset_format: DatasetFormat, batch: &RecordBatch) -> Result<RecordBatch, Wrong> {
    if matches!(dataset_format, DatasetFormat::Rows | DatasetFormat::Auto) {
        return Ok(batch.clone());
    }
    let sources = Sources::of(dataset_format, batch)?;
    let mut made = Made::default();
    for index in 0..batch.num_rows() {
        let row = sources.row(index).and_then(|row| made.add(row, sources.is_conversation));
        row.map_err(|problem| Wrong { row: Some(index), problem })?;
    }
    let mut columns = made.finish(&sources);
    let schema = batch.schema();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        if sources.used.contains(&field.name().as_str()) {
            continue;
        }
        if columns.iter().any(|(name, _)| name == field.name()) {
            let problem = format!(
                "dataset_format {}: the table has a column {} that its rows would get; rename it with `map:`",
                dataset_format.name(),
                field.name()
            );
            return Err(problem.into());
        }
        columns.push((field.name().clone(), array.clone()));
    }
    Ok(batch_of(columns)?)
}

/// The columns that a dataset format reads.
struct Sources<'a> {
    dataset_format: DatasetFormat,
    asked: Option<Column>,
    input: Option<Texts>,
    system: Option<Texts>,
    history: Option<ArrayRef>,
    response: Option<Column>,
    chosen: Option<Column>,
    rejected: Option<Column>,
    scores: Option<(Numbers, Numbers)>,
    sampled: Option<(ArrayRef, ArrayRef)>,
    /// Whether prompts come out as messages.
    is_conversation: bool,
    /// Whether a conversation that ends with the assistant ends with a response.
    ends_in_response: bool,
    used: Vec<&'a str>,
}

impl<'a> Sources<'a> {
    fn of(dataset_format: DatasetFormat, batch: &RecordBatch) -> Result<Self, String> {
        let mut used: Vec<&'a str> = Vec::new();
        let mut column = |name: &'a str| -> Result<Option<Column>, String> {
            let found = detect::there(batch, name).map(|array| Column::of(name, array)).transpose()?;
            used.extend(found.is_some().then_some(name));
            Ok(found)
        };
        let first = |names: &[&'a str]| names.iter().copied().find(|name| detect::there(batch, name).is_some());
        let asked_name = match dataset_format {
            DatasetFormat::Sharegpt => Some("conversations"),
            DatasetFormat::Alpaca => Some("instruction"),
            DatasetFormat::Rlhflow => first(&["context_messages", "prompt"]),
            // Without responses of their own, messages are whole conversations.
            DatasetFormat::Trl if first(&["completion", "chosen"]).is_none() => first(&["messages", "prompt"]),
            _ => first(&["prompt", "messages"]),
        };
        let asked = asked_name.map_or(Ok(None), &mut column)?;
        let response = match dataset_format {
            DatasetFormat::Trl => column("completion")?,
            DatasetFormat::Alpaca => column("output")?,
            _ => None,
        };
        let (chosen, rejected) = (column("chosen")?, column("rejected")?);
        let turns = |column: &Option<Column>| column.as_ref().is_some_and(Column::is_turns);
        let is_conversation = turns(&asked) || (turns(&chosen) && dataset_format != DatasetFormat::Sharegpt);
        let whole = dataset_format == DatasetFormat::Sharegpt || (dataset_format == DatasetFormat::Trl && asked_name == Some("messages"));
        let ends_in_response = whole && chosen.is_none();
        let mut texts = |name: &'a str| -> Result<Option<Texts>, String> {
            let found = detect::there(batch, name).map(|array| Texts::of(name, array)).transpose()?;
            used.extend(found.is_some().then_some(name));
            Ok(found)
        };
        let input = if dataset_format == DatasetFormat::Alpaca { texts("input")? } else { None };
        let system = if matches!(dataset_format, DatasetFormat::Alpaca | DatasetFormat::Sharegpt) { texts("system")? } else { None };
        let history = if dataset_format == DatasetFormat::Alpaca { batch.column_by_name("history").cloned() } else { None };
        used.extend(history.is_some().then_some("history"));
        let mut scores = None;
        for (chosen, rejected) in [("chosen_score", "rejected_score"), ("score_chosen", "score_rejected")] {
            if let (None, Some(one), Some(other)) = (&scores, batch.column_by_name(chosen), batch.column_by_name(rejected)) {
                scores = Some((Numbers::of(chosen, one)?, Numbers::of(rejected, other)?));
                used.extend([chosen, rejected]);
            }
        }
        let sampled = match (batch.column_by_name("responses"), batch.column_by_name("rewards")) {
            (Some(responses), Some(rewards)) if dataset_format == DatasetFormat::Rlhflow => Some((responses.clone(), rewards.clone())),
            _ => None,
        };
        // The rows get one of these two; the other one would say the same again, or what supervised training learns.
        used.extend(["messages", "prompt"]);
        if sampled.is_some() {
            used.extend(["responses", "rewards"]);
        }
        Ok(Self {
            dataset_format,
            asked,
            input,
            system,
            history,
            response,
            chosen,
            rejected,
            scores,
            sampled,
            is_conversation,
            ends_in_response,
            used,
        })
    }

    fn row(&self, index: usize) -> Result<Row, String> {
        let said = |column: &Option<Column>| column.as_ref().map_or(Ok(None), |column| column.said(index));
        let score = |numbers: &Numbers| numbers.value(index);
        let mut row = Row {
            asked: said(&self.asked)?,
            response: said(&self.response)?,
            chosen: said(&self.chosen)?,
            rejected: said(&self.rejected)?,
            scores: self.scores.as_ref().and_then(|(chosen, rejected)| score(chosen).zip(score(rejected))),
        };
        if let Some((responses, rewards)) = &self.sampled {
            row.take_best_and_worst(columns::texts_at("responses", responses, index)?, columns::numbers_at("rewards", rewards, index)?)?;
        }
        let text =
            |texts: &Option<Texts>| texts.as_ref().and_then(|texts| texts.value(index)).filter(|text| !text.is_empty()).map(str::to_string);
        if self.dataset_format == DatasetFormat::Alpaca {
            let history =
                self.history.as_ref().is_some_and(|history| history.is_valid(index) && columns::length_at(history, index) != Some(0));
            if history || self.system.is_some() && text(&self.system).is_some() {
                return Err("expected an instruction alone, found a system prompt or a history; bring such rows as messages".to_string());
            }
            row.add_input(text(&self.input));
        } else if let Some(system) = text(&self.system) {
            row.add_system(system)?;
        }
        if self.ends_in_response {
            row.split_response(self.dataset_format == DatasetFormat::Trl)?;
        }
        row.check_asked_last()?;
        Ok(row)
    }
}

/// The columns in the making.
#[derive(Default)]
struct Made {
    prompt: StringBuilder,
    messages: Conversations,
    response: StringBuilder,
    chosen: StringBuilder,
    rejected: StringBuilder,
    chosen_score: Float64Builder,
    rejected_score: Float64Builder,
}

impl Made {
    fn add(&mut self, row: Row, is_conversation: bool) -> Result<(), String> {
        let scores = row.scores;
        let resolved = row.resolved()?;
        let (text, messages) = match resolved.asked {
            Some(PromptContent::Text(text)) if is_conversation => (None, Some(vec![Message { role: "user".to_string(), content: text }])),
            Some(PromptContent::Text(text)) => (Some(text), None),
            Some(PromptContent::Messages(messages)) => (None, Some(messages)),
            None => (None, None),
        };
        self.prompt.append_option(text);
        self.messages.append(messages.as_deref());
        self.response.append_option(resolved.response);
        self.chosen.append_option(resolved.chosen);
        self.rejected.append_option(resolved.rejected);
        self.chosen_score.append_option(scores.map(|(chosen, _)| chosen));
        self.rejected_score.append_option(scores.map(|(_, rejected)| rejected));
        Ok(())
    }

    fn finish(mut self, sources: &Sources) -> Vec<(String, ArrayRef)> {
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        let mut add = |there: bool, name: &str, array: ArrayRef| columns.extend(there.then(|| (name.to_string(), array)));
        let pairs = sources.chosen.is_some() || sources.sampled.is_some();
        add(!sources.is_conversation, "prompt", Arc::new(self.prompt.finish()));
        add(sources.is_conversation, "messages", self.messages.finish());
        add(sources.response.is_some() || sources.ends_in_response, "response", Arc::new(self.response.finish()));
        add(pairs, "chosen", Arc::new(self.chosen.finish()));
        add(pairs, "rejected", Arc::new(self.rejected.finish()));
        let scored = sources.scores.is_some() || sources.sampled.is_some();
        add(scored, "chosen_score", Arc::new(self.chosen_score.finish()));
        add(scored, "rejected_score", Arc::new(self.rejected_score.finish()));
        columns
    }
}
