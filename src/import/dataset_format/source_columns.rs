//! The columns of a batch that a dataset format reads, and their rows.

use arrow::array::{Array, ArrayRef, RecordBatch};

use super::columns::{self, Column, ColumnContent, Texts, non_null_column};
use super::row::Row;
use crate::import::scores::Scores;
use crate::pipeline::spec::input::DatasetFormat;

/// The columns that a dataset format reads.
pub(super) struct SourceColumns {
    dataset_format: DatasetFormat,
    prompt: Option<Column>,
    /// A prompt beside whole conversations.
    question: Option<Texts>,
    input: Option<Texts>,
    system: Option<Texts>,
    history: Option<ArrayRef>,
    pub(super) response: Option<Column>,
    pub(super) chosen: Option<Column>,
    rejected: Option<Column>,
    /// The scores of chosen and rejected.
    pub(super) scores: Option<Scores>,
    /// Lists of responses and of their rewards.
    pub(super) sampled: Option<(ArrayRef, ArrayRef)>,
    /// Whether prompts become messages.
    pub(super) is_conversation: bool,
    /// Whether the assistant's last message of a conversation is the response.
    pub(super) ends_in_response: bool,
    /// The names of all columns read.
    pub(super) used: Vec<String>,
}

impl SourceColumns {
    /// Finds the columns of a dataset format.
    pub(super) fn new(dataset_format: DatasetFormat, batch: &RecordBatch) -> Result<Self, String> {
        let mut used: Vec<String> = Vec::new();
        let mut column = |name: &str| -> Result<Option<Column>, String> {
            let found = non_null_column(batch, name).map(|array| Column::new(name, array)).transpose()?;
            used.extend(found.is_some().then(|| name.to_string()));
            Ok(found)
        };
        let first = |names: &[&'static str]| names.iter().copied().find(|name| non_null_column(batch, name).is_some());
        let prompt_name = match dataset_format {
            DatasetFormat::Sharegpt => Some("conversations"),
            DatasetFormat::Alpaca => Some("instruction"),
            DatasetFormat::Orca => Some("question"),
            DatasetFormat::Rlhflow => first(&["context_messages", "prompt"]),
            // Without responses of their own, messages are whole conversations.
            DatasetFormat::Trl if first(&["completion", "chosen"]).is_none() => first(&["messages", "prompt"]),
            _ => first(&["prompt", "messages"]),
        };
        let prompt = prompt_name.map_or(Ok(None), &mut column)?;
        let response = match dataset_format {
            DatasetFormat::Trl => column("completion")?,
            DatasetFormat::Alpaca => column("output")?,
            _ => None,
        };
        let chosen = column("chosen")?;
        let rejected = column("rejected")?;
        let is_messages = |column: &Option<Column>| column.as_ref().is_some_and(Column::is_messages);
        let is_orca = dataset_format == DatasetFormat::Orca;
        let is_conversation = is_orca || is_messages(&prompt) || (is_messages(&chosen) && dataset_format != DatasetFormat::Sharegpt);
        let whole = dataset_format == DatasetFormat::Sharegpt || (dataset_format == DatasetFormat::Trl && prompt_name == Some("messages"));
        let ends_in_response = whole && chosen.is_none();
        let mut texts = |name: &str| -> Result<Option<Texts>, String> {
            let found = non_null_column(batch, name).map(|array| Texts::new(name, array)).transpose()?;
            used.extend(found.is_some().then(|| name.to_string()));
            Ok(found)
        };
        let input = if dataset_format == DatasetFormat::Alpaca { texts("input")? } else { None };
        let has_system = matches!(dataset_format, DatasetFormat::Alpaca | DatasetFormat::Sharegpt | DatasetFormat::Orca);
        let system = if has_system { texts("system")? } else { None };
        let is_question = whole && prompt_name == Some("messages") && ColumnContent::of(batch, "prompt") == Some(ColumnContent::Text);
        let question = if is_question { texts("prompt")? } else { None };
        let history = if dataset_format == DatasetFormat::Alpaca { batch.column_by_name("history").cloned() } else { None };
        used.extend(history.is_some().then(|| "history".to_string()));
        let scores = if chosen.is_some() && rejected.is_some() { Scores::find(batch)? } else { None };
        used.extend(scores.iter().flat_map(Scores::own_columns).map(str::to_string));
        let sampled = match (batch.column_by_name("responses"), batch.column_by_name("rewards")) {
            (Some(responses), Some(rewards)) if dataset_format == DatasetFormat::Rlhflow => Some((responses.clone(), rewards.clone())),
            _ => None,
        };
        // The rows get one of these two. The other one has the same content, or that of supervised
        // training.
        used.extend(["messages", "prompt"].map(str::to_string));
        if sampled.is_some() {
            used.extend(["responses", "rewards"].map(str::to_string));
        }
        Ok(Self {
            dataset_format,
            prompt,
            question,
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

    /// The row at `index`.
    pub(super) fn row(&self, index: usize) -> Result<Row, String> {
        let content = |column: &Option<Column>| column.as_ref().map_or(Ok(None), |column| column.content(index));
        let mut row = Row {
            prompt: content(&self.prompt)?,
            response: content(&self.response)?,
            chosen: content(&self.chosen)?,
            rejected: content(&self.rejected)?,
            scores: self.scores.as_ref().map_or(Ok((None, None)), |scores| scores.row(index))?,
        };
        if let Some((responses, rewards)) = &self.sampled {
            row.take_best_and_worst(columns::texts_at("responses", responses, index)?, columns::numbers_at("rewards", rewards, index)?)?;
        }
        let text =
            |texts: &Option<Texts>| texts.as_ref().and_then(|texts| texts.value(index)).filter(|text| !text.is_empty()).map(str::to_string);
        if self.dataset_format == DatasetFormat::Orca {
            row.ask_as_message();
        }
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
        if let Some(question) = text(&self.question) {
            row.check_question(&question)?;
        }
        if self.ends_in_response {
            row.split_response();
        }
        row.check_prompt_end()?;
        Ok(row)
    }
}
