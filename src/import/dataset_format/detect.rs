//! Which dataset format a table has, told by the names and types of its columns; never by a guess.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};

use super::columns::{Column, Kind, kind};
use super::row::Said;
use crate::pipeline::spec::input::DatasetFormat;

/// Every dataset format but `auto`, with the columns it is known by.
const KNOWN: [(DatasetFormat, &str); 6] = [
    (DatasetFormat::Rows, "prompt (text) or messages, and response, or chosen and rejected (texts)"),
    (
        DatasetFormat::Trl,
        "prompt and completion; chosen and rejected (messages) with or without prompt; or messages that end with the assistant",
    ),
    (DatasetFormat::Sharegpt, "conversations, and chosen and rejected"),
    (DatasetFormat::Alpaca, "instruction, and input, output, or chosen and rejected"),
    (DatasetFormat::Ultrafeedback, "chosen and rejected (messages), and prompt (text) or score_chosen and score_rejected"),
    (
        DatasetFormat::Rlhflow,
        "chosen and rejected (messages), chosen_score and rejected_score; context_messages; or prompt, responses and rewards",
    ),
];

/// The dataset formats and the columns each is known by, for an error.
fn known_shapes() -> String {
    KNOWN.map(|(dataset_format, columns)| format!("\n  {}: {columns}", dataset_format.name())).concat()
}

/// The dataset format of a table whose first rows are `batch`, for rows that are prompts or preferences: `asked` for, or told by the columns.
///
/// # Errors
/// No dataset format or several, or columns that the dataset format asked for does not have.
pub(crate) fn detect(asked: DatasetFormat, batch: &RecordBatch) -> Result<DatasetFormat, String> {
    let columns = Columns(batch);
    if asked != DatasetFormat::Auto {
        let expected = KNOWN.iter().find(|(dataset_format, _)| *dataset_format == asked).map_or("", |(_, columns)| columns);
        return match columns.can_be(asked) {
            true => Ok(asked),
            false => Err(format!("dataset_format {}: expected {expected}; found {}", asked.name(), names(&batch.schema()))),
        };
    }
    let fitting: Vec<DatasetFormat> =
        KNOWN.iter().map(|(dataset_format, _)| *dataset_format).filter(|dataset_format| columns.is(*dataset_format)).collect();
    match fitting.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!(
            "expected a column prompt or messages, or those of a known dataset format, found {}; name columns with `map:`, or say `dataset_format:`{}",
            names(&batch.schema()),
            known_shapes()
        )),
        several => {
            let several = several.iter().map(|dataset_format| dataset_format.name()).collect::<Vec<_>>().join(" and ");
            Err(format!("the columns {} fit {several}; say which with `dataset_format:`", names(&batch.schema())))
        }
    }
}

/// The names of all columns, for an error.
pub(super) fn names(schema: &Schema) -> String {
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() { "no columns".to_string() } else { names.join(", ") }
}

/// A column, unless it has nothing but nulls.
pub(super) fn there<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    batch.column_by_name(name).filter(|array| *array.data_type() != DataType::Null)
}

/// The columns of a table, with its first rows.
struct Columns<'a>(&'a RecordBatch);

impl Columns<'_> {
    fn kind(&self, name: &str) -> Option<Kind> {
        there(self.0, name).map(|array| kind(array.data_type()))
    }

    fn has(&self, name: &str) -> bool {
        self.0.column_by_name(name).is_some()
    }

    fn text(&self, name: &str) -> bool {
        self.kind(name) == Some(Kind::Text)
    }

    /// Whether it holds texts, or numbers or truth values, which a csv file may have for texts.
    fn scalar(&self, name: &str) -> bool {
        let scalar = |array: &ArrayRef| array.data_type().is_primitive() || *array.data_type() == DataType::Boolean;
        self.text(name) || there(self.0, name).is_some_and(scalar)
    }

    fn turns(&self, name: &str) -> bool {
        self.kind(name) == Some(Kind::Turns)
    }

    fn pair_of_turns(&self) -> bool {
        self.turns("chosen") && self.turns("rejected")
    }

    fn sampled(&self) -> bool {
        self.kind("responses") == Some(Kind::Texts) && self.kind("rewards") == Some(Kind::Numbers)
    }

    /// Whether `messages` of the first row go on to a response.
    fn messages_are_answered(&self) -> bool {
        let messages = there(self.0, "messages").filter(|array| !array.is_empty() && self.turns("messages"));
        let first = messages.and_then(|array| Column::of("messages", array).ok()?.said(0).ok()?);
        matches!(first, Some(Said::Turns(turns)) if turns.last().is_some_and(|last| last.role == "assistant"))
    }

    /// Whether the columns tell this dataset format and leave no doubt about the others that share some of them.
    fn is(&self, dataset_format: DatasetFormat) -> bool {
        let foreign = self.pair_of_turns() || self.has("completion") || self.sampled();
        match dataset_format {
            DatasetFormat::Auto => false,
            DatasetFormat::Rows => {
                let unanswered = self.turns("messages") && (self.has("response") || !self.messages_are_answered());
                (self.scalar("prompt") || unanswered) && !foreign
            }
            DatasetFormat::Trl => {
                let implicit = self.pair_of_turns()
                    && !["prompt", "score_chosen", "chosen_score", "conversations", "instruction", "context_messages"]
                        .iter()
                        .any(|name| self.has(name));
                let answered = self.messages_are_answered() && !self.has("response") && !self.pair_of_turns() && !self.has("prompt");
                self.turns("prompt") || (self.text("prompt") && self.has("completion")) || implicit || answered
            }
            DatasetFormat::Sharegpt => self.turns("conversations"),
            DatasetFormat::Alpaca => self.text("instruction"),
            DatasetFormat::Ultrafeedback => {
                let scored = self.has("score_chosen") && self.has("score_rejected");
                self.pair_of_turns()
                    && !self.turns("prompt")
                    && (scored || self.text("prompt"))
                    && !self.has("chosen_score")
                    && !self.has("context_messages")
            }
            DatasetFormat::Rlhflow => {
                let scored = self.pair_of_turns() && self.has("chosen_score") && self.has("rejected_score") && !self.turns("prompt");
                scored || self.turns("context_messages") || (self.sampled() && self.has("prompt"))
            }
        }
    }

    /// Whether the columns can be read as this dataset format.
    fn can_be(&self, dataset_format: DatasetFormat) -> bool {
        let pair = self.has("chosen") && self.has("rejected");
        match dataset_format {
            DatasetFormat::Trl => self.has("prompt") || self.turns("messages") || self.pair_of_turns(),
            DatasetFormat::Ultrafeedback => self.pair_of_turns(),
            DatasetFormat::Rlhflow => {
                self.pair_of_turns() || self.turns("context_messages") || (self.has("prompt") && (self.sampled() || pair))
            }
            DatasetFormat::Rows => self.scalar("prompt") || self.turns("messages"),
            _ => self.is(dataset_format),
        }
    }
}
