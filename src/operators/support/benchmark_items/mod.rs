//! The items of a benchmark's task: questions, choices and right answers of a table's rows.
//!
//! Knows no model. A fault of a row is an error with the row, before any model is loaded.

mod text_source;

use std::collections::{BTreeSet, HashMap};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde_json::Value;

use super::OperatorError;
use crate::import::RowValues;
use crate::model::Fields;
use crate::pipeline::spec::benchmark::answer::{Question, RightAnswer};
use crate::pipeline::spec::benchmark::task::{Choices, Target};
use text_source::{TextSource, number, text_of};

/// The column with the ids of prompts, which a reward needs.
const PROMPT_ID: &str = "prompt_id";

/// One item.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its row in the table, from 0.
    pub row: usize,
    /// Its id, unique in the table.
    pub id: String,
    /// The text in front of everything; may be empty.
    pub description: String,
    /// The question.
    pub question: String,
    /// The choices; empty where the answer is generated.
    pub choices: Vec<String>,
    /// The right answers.
    pub right: Right,
    /// The value of the column that examples share with the item.
    group: Option<Value>,
}

/// The right answers of an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    /// The right choices, from 0, ascending; at least one.
    Choices(Vec<usize>),
    /// The right texts; at least one.
    Texts(Vec<String>),
    /// A reward or a query knows.
    Unknown,
}

/// The source of each text of a task, by the columns of its table.
struct Sources {
    question: TextSource,
    description: Option<TextSource>,
    choices: ChoiceSource,
    right: RightSource,
    id: Option<TextSource>,
    group: Option<TextSource>,
}

enum ChoiceSource {
    None,
    List(TextSource),
    Each(Vec<TextSource>),
}

enum RightSource {
    Unknown,
    Index(u64),
    Text { source: TextSource, is_template: bool },
    Labels(TextSource),
}

/// The items of a table; `table` is its name, for errors.
///
/// # Errors
/// A column that is not there, a template that fails, choices that are none, an answer outside of
/// the choices, an id of two items, or no item at all.
pub fn items(question: &Question, table: &str, batches: &[RecordBatch]) -> Result<Vec<Item>, OperatorError> {
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Err(OperatorError::Input(format!("table {table}: expected at least one item, found none")));
    }
    let names = batches.first().map(|batch| column_names(&batch.schema()));
    let sources = Sources::new(question, table, &names.unwrap_or_default())?;
    let used = sources.columns();
    let mut items = Vec::new();
    let mut ids: HashMap<String, usize> = HashMap::new();
    for batch in batches {
        let values = RowValues::new(batch, |name| used.contains(name));
        for index in 0..batch.num_rows() {
            let row = items.len();
            let of_row = |problem: String| OperatorError::Input(format!("table {table}, row {row}: {problem}"));
            let item = values.at(index).and_then(|values| sources.item(row, &values)).map_err(of_row)?;
            if let Some(first) = ids.insert(item.id.clone(), row) {
                return Err(of_row(format!("id {} is already that of row {first}", item.id)));
            }
            items.push(item);
        }
    }
    Ok(items)
}

/// Checks the columns of a table without its rows.
///
/// # Errors
/// A column that is not there, or a template that reads one.
pub fn check_columns(question: &Question, table: &str, schema: &Schema) -> Result<(), OperatorError> {
    Sources::new(question, table, &column_names(schema)).map(drop)
}

fn column_names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// The examples in front of an item: the first `count` of `examples`, without the item itself where
/// they are the items of its own table.
///
/// # Errors
/// There are fewer.
pub fn examples_of<'a>(item: &Item, examples: &'a [Item], count: usize, own_table: bool) -> Result<Vec<&'a Item>, OperatorError> {
    let fits = |example: &&Item| (!own_table || example.row != item.row) && example.group == item.group;
    let found: Vec<&Item> = examples.iter().filter(fits).take(count).collect();
    if found.len() == count {
        return Ok(found);
    }
    let group = item.group.as_ref().map_or(String::new(), |group| format!(" of the group {group}"));
    Err(OperatorError::Input(format!("item {}: expected {count} examples{group}, found {}", item.id, found.len())))
}

impl Item {
    /// The text of the first right answer, behind an example's question. Empty where there is none.
    pub fn answer(&self) -> &str {
        match &self.right {
            Right::Choices(right) => right.first().and_then(|right| self.choices.get(*right)).map_or("", String::as_str),
            Right::Texts(texts) => texts.first().map_or("", String::as_str),
            Right::Unknown => "",
        }
    }
}

impl Sources {
    fn new(question: &Question, table: &str, columns: &[String]) -> Result<Self, OperatorError> {
        let source = |what: &str, text: &str| {
            TextSource::new(what, text, columns).map_err(|problem| OperatorError::Input(format!("table {table}: {problem}")))
        };
        let choices = match &question.choices {
            None => ChoiceSource::None,
            Some(Choices::Text(text)) => ChoiceSource::List(source("choices", text)?),
            Some(Choices::List(texts)) => ChoiceSource::Each(
                texts
                    .iter()
                    .map(|text| TextSource::literal_or_template(text, columns))
                    .collect::<Result<_, _>>()
                    .map_err(|problem| OperatorError::Input(format!("table {table}: choices: {problem}")))?,
            ),
        };
        let right = match &question.target {
            RightAnswer::None => RightSource::Unknown,
            RightAnswer::One(Target::Index(index)) => RightSource::Index(*index),
            RightAnswer::One(Target::Text(text)) => {
                let source = source("answer", text)?;
                RightSource::Text { is_template: source.is_template(), source }
            }
            RightAnswer::Labels(text) => RightSource::Labels(source("labels", text)?),
        };
        let id = match &question.id {
            Some(id) => Some(source("id", id)?),
            None if columns.iter().any(|column| column == PROMPT_ID) => Some(source("id", PROMPT_ID)?),
            None => None,
        };
        let group = question.few_shot.as_ref().and_then(|examples| examples.group.as_ref());
        Ok(Self {
            question: source("question", &question.question)?,
            description: question
                .description
                .as_ref()
                .map(|text| TextSource::literal_or_template(text, columns))
                .transpose()
                .map_err(|problem| OperatorError::Input(format!("table {table}: description: {problem}")))?,
            choices,
            right,
            id,
            group: group.map(|group| source("group", group)).transpose()?,
        })
    }

    /// The columns that are read.
    fn columns(&self) -> BTreeSet<String> {
        let choices: Vec<&TextSource> = match &self.choices {
            ChoiceSource::None => Vec::new(),
            ChoiceSource::List(source) => vec![source],
            ChoiceSource::Each(sources) => sources.iter().collect(),
        };
        let right = match &self.right {
            RightSource::Text { source, .. } | RightSource::Labels(source) => Some(source),
            RightSource::Unknown | RightSource::Index(_) => None,
        };
        let others = [Some(&self.question), self.description.as_ref(), self.id.as_ref(), self.group.as_ref(), right];
        choices.into_iter().chain(others.into_iter().flatten()).flat_map(|source| source.columns()).collect()
    }

    fn item(&self, row: usize, values: &Fields) -> Result<Item, String> {
        let text = |what: &str, source: &TextSource| source.text(values).map_err(|problem| format!("{what}: {problem}"));
        let choices = self.choices(values).map_err(|problem| format!("choices: {problem}"))?;
        Ok(Item {
            row,
            id: self.id.as_ref().map_or_else(|| Ok(row.to_string()), |id| text("id", id))?,
            description: self.description.as_ref().map_or_else(|| Ok(String::new()), |source| text("description", source))?,
            question: text("question", &self.question)?,
            right: self.right(values, &choices)?,
            choices,
            group: self.group.as_ref().map(|group| group.value(values)).transpose().map_err(|problem| format!("group: {problem}"))?,
        })
    }

    fn choices(&self, values: &Fields) -> Result<Vec<String>, String> {
        let choices: Vec<String> = match &self.choices {
            ChoiceSource::None => return Ok(Vec::new()),
            ChoiceSource::List(source) => match source.value(values)? {
                Value::Array(items) => items.iter().map(text_of).collect::<Result<_, _>>()?,
                other => return Err(format!("expected a list of texts, found {}", crate::model::kind(&other))),
            },
            ChoiceSource::Each(sources) => sources.iter().map(|source| source.text(values)).collect::<Result<_, _>>()?,
        };
        if choices.len() < 2 {
            return Err(format!("expected at least 2, found {}", choices.len()));
        }
        // Without a token behind the question there is nothing to compare.
        match choices.iter().position(|choice| choice.is_empty()) {
            Some(empty) => Err(format!("expected texts with at least one character, found an empty one, choice {empty}")),
            None => Ok(choices),
        }
    }

    fn right(&self, values: &Fields, choices: &[String]) -> Result<Right, String> {
        let answer = |problem: String| format!("answer: {problem}");
        match &self.right {
            RightSource::Unknown => Ok(Right::Unknown),
            RightSource::Index(index) => Ok(Right::Choices(vec![choice(*index as i128, choices).map_err(answer)?])),
            RightSource::Labels(source) => labels(&source.value(values).map_err(|problem| format!("labels: {problem}"))?, choices),
            RightSource::Text { source, is_template } => {
                let value = source.value(values).map_err(answer)?;
                if choices.is_empty() { texts(&value) } else { one_choice(&value, *is_template, choices) }.map_err(answer)
            }
        }
    }
}

/// The right texts of a generated answer.
fn texts(value: &Value) -> Result<Right, String> {
    match value {
        Value::Array(items) if items.is_empty() => Err("expected at least one text, found an empty list".to_string()),
        Value::Array(items) => items.iter().map(text_of).collect::<Result<_, _>>().map(Right::Texts),
        one => Ok(Right::Texts(vec![text_of(one)?])),
    }
}

/// The right choice: by its number, or by its text. Digits from a template are a number.
fn one_choice(value: &Value, is_template: bool, choices: &[String]) -> Result<Right, String> {
    let index = match value {
        Value::String(text) if is_template && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            choice(text.parse::<i128>().unwrap_or(i128::MAX), choices)?
        }
        Value::String(text) => choices.iter().position(|choice| choice == text).ok_or_else(|| {
            let found = choices.iter().take(8).map(|choice| format!("{choice:?}")).collect::<Vec<_>>().join(", ");
            format!("expected one of the choices {found}, found {text:?}; a letter becomes a number with `\"{{{{ 'ABCD'.index(…) }}}}\"`")
        })?,
        other => choice(number(other)?, choices)?,
    };
    Ok(Right::Choices(vec![index]))
}

fn choice(index: i128, choices: &[String]) -> Result<usize, String> {
    let last = choices.len().saturating_sub(1);
    usize::try_from(index)
        .ok()
        .filter(|index| *index <= last)
        .ok_or_else(|| format!("expected the number of a choice from 0 to {last}, found {index}"))
}

fn labels(value: &Value, choices: &[String]) -> Result<Right, String> {
    let Value::Array(labels) = value else {
        return Err(format!("labels: expected a list with a 1 or 0 for each choice, found {}", crate::model::kind(value)));
    };
    if labels.len() != choices.len() {
        return Err(format!("labels: expected one for each of {} choices, found {}", choices.len(), labels.len()));
    }
    let mut right = Vec::new();
    for (index, label) in labels.iter().enumerate() {
        match number(label).map_err(|problem| format!("labels: {problem}"))? {
            0 => {}
            1 => right.push(index),
            other => return Err(format!("labels: expected 1 or 0, found {other}")),
        }
    }
    if right.is_empty() {
        return Err("labels: expected at least one right choice, found none".to_string());
    }
    Ok(Right::Choices(right))
}
