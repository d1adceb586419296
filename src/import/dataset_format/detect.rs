//! Detects the dataset format of a table from the names and types of its columns. Never guesses.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, FieldRef};

use super::columns::{Column, ColumnContent, column_names, non_null_column};
use super::row::Content;
use crate::pipeline::spec::input::DatasetFormat;

/// Every dataset format but `auto`, with its columns.
const FORMATS: [(DatasetFormat, &str); 7] = [
    (DatasetFormat::Rows, "prompt (text) or messages, and response, or chosen and rejected (texts)"),
    (
        DatasetFormat::Trl,
        "prompt and completion; chosen and rejected with or without prompt; messages that end with the assistant; or, for sft, text",
    ),
    (DatasetFormat::Sharegpt, "conversations, and chosen and rejected"),
    (DatasetFormat::Alpaca, "instruction, and input, output, or chosen and rejected"),
    (DatasetFormat::Orca, "question, and chosen and rejected (texts); maybe system"),
    (DatasetFormat::Ultrafeedback, "chosen and rejected (messages), and prompt (text) or score_chosen and score_rejected"),
    (
        DatasetFormat::Rlhflow,
        "chosen and rejected (messages), chosen_score and rejected_score; context_messages; or prompt, responses and rewards",
    ),
];

/// Names of columns that dataset formats begin with.
const NAMES: [&str; 7] = ["prompt", "messages", "conversations", "instruction", "chosen", "rejected", "completion"];

/// Names that other datasets give to the prompt.
const QUESTIONS: [&str; 9] = ["question", "query", "input", "problem", "user", "human", "post", "history", "context"];

/// The dataset formats with their columns, for an error.
fn describe_formats() -> String {
    FORMATS.map(|(dataset_format, columns)| format!("\n  {}: {columns}", dataset_format.name())).concat()
}

/// The dataset format of a table of prompts or preferences, given in `batches` of one schema: the
/// `given` one, or detected from the columns.
///
/// # Errors
/// The columns fit no dataset format, or several, or not the given one.
pub(in crate::import) fn detect(given: DatasetFormat, batches: &[RecordBatch]) -> Result<DatasetFormat, String> {
    let Some(first) = batches.first() else { return Err("expected columns, found none".to_string()) };
    let columns = Columns { first, batches };
    if given != DatasetFormat::Auto {
        let expected = FORMATS.iter().find(|(dataset_format, _)| *dataset_format == given).map_or("", |(_, columns)| columns);
        return if columns.can_be(given) {
            Ok(given)
        } else {
            Err(format!("dataset_format {}: expected {expected}; found {}", given.name(), column_names(&first.schema())))
        };
    }
    let fitting: Vec<DatasetFormat> =
        FORMATS.iter().map(|(dataset_format, _)| *dataset_format).filter(|dataset_format| columns.is(*dataset_format)).collect();
    match fitting.as_slice() {
        [DatasetFormat::Trl] if columns.pair_of_texts_alone() => columns.check_no_question().map(|()| DatasetFormat::Trl),
        [DatasetFormat::Alpaca] if columns.text("context") && !columns.has("input") => Err(
            "expected input beside instruction, found context; if it belongs to the prompt, say `map: { input: context }`, else leave it \
             out with `columns: { context: skip }`"
                .to_string(),
        ),
        [one] => Ok(*one),
        [] => Err(format!(
            "expected a column prompt or messages, or those of a known dataset format, found {}; name columns with `map:`, or say `dataset_format:`{}",
            columns.found(),
            describe_formats()
        )),
        several => {
            let several = several.iter().map(|dataset_format| dataset_format.name()).collect::<Vec<_>>().join(" and ");
            Err(format!("the columns {} fit {several}; say which with `dataset_format:`", column_names(&first.schema())))
        }
    }
}

/// The columns of a table, with its rows.
struct Columns<'a> {
    /// The first batch. All have the same columns.
    first: &'a RecordBatch,
    batches: &'a [RecordBatch],
}

impl Columns<'_> {
    /// The columns that fit no dataset format. Those with the name of one have their type, which is
    /// the reason.
    fn found(&self) -> String {
        let schema = self.first.schema();
        let described = |field: &FieldRef| match field.data_type() {
            _ if !NAMES.contains(&field.name().as_str()) => field.name().clone(),
            DataType::Null => format!("{} (null in every row)", field.name()),
            other => format!("{} ({other})", field.name()),
        };
        let names: Vec<String> = schema.fields().iter().map(described).collect();
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        match (names.as_slice(), rows) {
            ([], _) => "no columns".to_string(),
            (_, 0) => format!("{} without any row", column_names(&schema)),
            ([only], _) => match only.chars().find(|character| [';', '\t', '|'].contains(character)) {
                Some(delimiter) => format!("{only:?} (if {delimiter:?} separates columns, say `delimiter:`)"),
                None => only.clone(),
            },
            _ => names.join(", "),
        }
    }

    fn content(&self, name: &str) -> Option<ColumnContent> {
        non_null_column(self.first, name).map(|array| ColumnContent::from_type(array.data_type()))
    }

    fn has(&self, name: &str) -> bool {
        self.first.column_by_name(name).is_some()
    }

    fn text(&self, name: &str) -> bool {
        self.content(name) == Some(ColumnContent::Text)
    }

    /// Whether it holds texts, or numbers or Booleans: a csv file may contain texts like these.
    fn scalar(&self, name: &str) -> bool {
        let scalar = |array: &ArrayRef| array.data_type().is_primitive() || *array.data_type() == DataType::Boolean;
        self.text(name) || non_null_column(self.first, name).is_some_and(scalar)
    }

    fn conversation(&self, name: &str) -> bool {
        self.content(name) == Some(ColumnContent::Conversation)
    }

    fn pair_of_conversations(&self) -> bool {
        // Beside ShareGPT's conversations they are single messages.
        self.conversation("chosen") && self.conversation("rejected") && !self.conversation("conversations")
    }

    /// Whether chosen and rejected are texts that begin with their prompt.
    fn pair_of_texts_alone(&self) -> bool {
        let prompts = ["prompt", "messages", "conversations", "instruction", "context_messages"];
        self.text("chosen") && self.text("rejected") && !prompts.iter().any(|name| self.has(name))
    }

    /// Whether a column `question` is what chosen and rejected answer.
    fn asked_by_question(&self) -> bool {
        self.text("question") && self.pair_of_texts_alone()
    }

    /// Checks that chosen and rejected do not stand beside another column with the prompt. Their
    /// common beginning would be taken for it.
    fn check_no_question(&self) -> Result<(), String> {
        let question = QUESTIONS.into_iter().find(|name| self.text(name));
        question.map_or(Ok(()), |name| {
            Err(format!(
                "expected a column prompt, or chosen and rejected that begin with it, found {name} beside them; if it is the prompt, say \
                 `map: {{ prompt: {name} }}`; if chosen and rejected begin with the prompt, say `dataset_format: trl`"
            ))
        })
    }

    fn sampled(&self) -> bool {
        self.content("responses") == Some(ColumnContent::Texts) && self.content("rewards") == Some(ColumnContent::Numbers)
    }

    /// Whether the `messages` of any row end with a response. Each row is then taken by its own
    /// end.
    fn messages_are_answered(&self) -> bool {
        let is_answered = |content: &Content| match content {
            Content::Messages(messages) => messages.last().is_some_and(|last| last.role == "assistant"),
            Content::Text(_) => false,
        };
        let has_answer = |batch: &RecordBatch| {
            let column = non_null_column(batch, "messages").and_then(|array| Column::new("messages", array).ok());
            let mut rows = column.iter().flat_map(|column| (0..batch.num_rows()).filter_map(|row| column.content(row).ok()?));
            rows.any(|content| is_answered(&content))
        };
        self.conversation("messages") && self.batches.iter().any(has_answer)
    }

    /// Whether the columns are those of this dataset format and exclude other formats with some of
    /// the same columns.
    fn is(&self, dataset_format: DatasetFormat) -> bool {
        let foreign = self.pair_of_conversations() || self.has("completion") || self.sampled();
        match dataset_format {
            DatasetFormat::Auto => false,
            DatasetFormat::Rows => {
                let unanswered = self.conversation("messages") && (self.has("response") || !self.messages_are_answered());
                // A whole conversation beside its first question.
                let repeated = self.text("prompt") && !self.has("response") && self.messages_are_answered();
                (self.scalar("prompt") || unanswered) && !foreign && !repeated && !self.pair_of_texts_alone()
            }
            DatasetFormat::Trl => {
                let implicit = self.pair_of_conversations()
                    && !["prompt", "score_chosen", "chosen_score", "conversations", "instruction", "context_messages"]
                        .iter()
                        .any(|name| self.has(name));
                let beside = !self.has("prompt") || self.text("prompt");
                let answered = self.messages_are_answered() && !self.has("response") && !self.pair_of_conversations() && beside;
                let prompted = self.conversation("prompt") || (self.text("prompt") && self.has("completion"));
                prompted || implicit || answered || (self.pair_of_texts_alone() && !self.asked_by_question())
            }
            DatasetFormat::Sharegpt => self.conversation("conversations"),
            DatasetFormat::Alpaca => self.text("instruction"),
            DatasetFormat::Orca => self.asked_by_question(),
            DatasetFormat::Ultrafeedback => {
                let scored = self.has("score_chosen") && self.has("score_rejected");
                self.pair_of_conversations()
                    && !self.conversation("prompt")
                    && (scored || self.text("prompt"))
                    && !self.has("chosen_score")
                    && !self.has("context_messages")
                    && !self.conversation("conversations")
            }
            DatasetFormat::Rlhflow => {
                let prompted = self.conversation("prompt") || self.conversation("conversations");
                let scored = self.pair_of_conversations() && self.has("chosen_score") && self.has("rejected_score") && !prompted;
                scored || self.conversation("context_messages") || (self.sampled() && self.has("prompt"))
            }
        }
    }

    /// Whether a user may read the columns as this dataset format.
    fn can_be(&self, dataset_format: DatasetFormat) -> bool {
        let pair = self.has("chosen") && self.has("rejected");
        match dataset_format {
            DatasetFormat::Trl => {
                self.has("prompt") || self.conversation("messages") || self.pair_of_conversations() || self.pair_of_texts_alone()
            }
            DatasetFormat::Ultrafeedback => self.pair_of_conversations(),
            DatasetFormat::Rlhflow => {
                self.pair_of_conversations() || self.conversation("context_messages") || (self.has("prompt") && (self.sampled() || pair))
            }
            DatasetFormat::Rows => self.scalar("prompt") || self.conversation("messages"),
            _ => self.is(dataset_format),
        }
    }
}
