//! Tables of preferences: a prompt, a response to prefer and one to avoid.
//!
//! Knows the table's columns. Knows no training and no tokenizer.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::conversations::answer_at;
use super::error::ImportError;
use super::prompts::{contents, ids};
use super::row_errors::RowErrors;
use super::scores::{Gaps, Numbers, Scores};
use crate::model::{Answer, Message, PromptContent};
use crate::pipeline::spec::malformed::Malformed;

/// The problem of a preference whose reward gap is needed for a margin.
pub(crate) const NO_GAP: &str = "margin: expected a reward_gap, or a chosen_score and a rejected_score, found none";

/// One row of a table of preferences.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Its name, unique in the table: the prompt's id, followed by `#2`, `#3`, … for further pairs
    /// of one prompt.
    pub id: String,
    /// The prompt's text or messages.
    pub prompt: PromptContent,
    /// The response to prefer.
    pub chosen: String,
    /// The response to avoid.
    pub rejected: String,
    /// The messages of both responses with all their fields, where they are more than texts.
    pub messages: [Option<Message>; 2],
    /// The difference of both scores, else the column `reward_gap` or `margin`, if the table has
    /// them: finite, from 0.
    pub reward_gap: Option<f64>,
    /// The column `weight`, if the table has it: finite, from 0.
    pub weight: Option<f64>,
}

impl Preference {
    /// The response to prefer.
    pub fn chosen(&self) -> Answer<'_> {
        self.messages[0].as_ref().map_or(Answer::Text(&self.chosen), Answer::Message)
    }

    /// The response to avoid.
    pub fn rejected(&self) -> Answer<'_> {
        self.messages[1].as_ref().map_or(Answer::Text(&self.rejected), Answer::Message)
    }
}

/// A checked table of preferences, in the order of their ids. The order of the table's rows does
/// not matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Preferences(Vec<Preference>);

impl Preferences {
    /// Checks a user's table; `name` is for errors. Columns: `prompt` or `messages`, `chosen`,
    /// `rejected`; maybe `prompt_id`, the scores of both responses in any of their usual names, or
    /// their difference as `reward_gap` or `margin`, and `weight`. A missing `prompt_id` becomes
    /// the blake3 hash of the prompt.
    ///
    /// # Errors
    /// A column is missing or has another type; a row has no prompt or no response; a chosen
    /// response scores below the rejected one; a number is not finite; a weight is below 0; there
    /// are no rows. The error names the row.
    pub fn from_batches(name: &str, batches: Vec<RecordBatch>) -> Result<Self, ImportError> {
        let location = |row: usize| format!("table {name}, row {row}");
        Self::from_located_batches(&mut RowErrors::new(Malformed::Stop, &location), name, &batches, false)
    }

    /// As [`Self::from_batches`], with another reaction to malformed rows. With `gaps`, a row
    /// without a reward gap is one of them.
    pub(super) fn from_located_batches(
        errors: &mut RowErrors,
        name: &str,
        batches: &[RecordBatch],
        gaps: bool,
    ) -> Result<Self, ImportError> {
        let mut rows = Vec::new();
        let mut before = 0;
        for batch in batches {
            let columns = Columns::new(name, batch)?;
            let ids = ids(batch).map_err(|problem| ImportError::Input(format!("{}: {problem}", errors.place(before))))?;
            for (index, prompt) in contents(name, batch)?.into_iter().enumerate() {
                let row = prompt.and_then(|prompt| {
                    let mut row = columns.row(index, ids.id(index, &prompt)?, prompt)?;
                    row.messages = [answer_at("chosen", &row.chosen, batch, index)?, answer_at("rejected", &row.rejected, batch, index)?];
                    if gaps && row.reward_gap.is_none() { Err(NO_GAP.to_string()) } else { Ok(row) }
                });
                match row {
                    Ok(row) => rows.push(row),
                    Err(problem) => errors.malformed(before + index, &problem)?,
                }
            }
            before += batch.num_rows();
        }
        if rows.is_empty() {
            return Err(ImportError::Input(format!("table {name}: expected at least one preference, found none{}", errors.why_none())));
        }
        number_pairs(name, &mut rows)?;
        Ok(Self(rows))
    }

    /// The number of preferences.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none. A checked table has at least one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The preferences in the order of their ids.
    pub fn iter(&self) -> std::slice::Iter<'_, Preference> {
        self.0.iter()
    }
}

impl IntoIterator for Preferences {
    type Item = Preference;
    type IntoIter = std::vec::IntoIter<Preference>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Sorts the rows by their contents and numbers those with the same prompt id, so the table's order
/// does not matter.
fn number_pairs(name: &str, rows: &mut [Preference]) -> Result<(), ImportError> {
    let number = |value: Option<f64>| value.map_or(u64::MAX, f64::to_bits);
    let json = |message: &Option<Message>| message.as_ref().and_then(|message| serde_json::to_string(message).ok());
    let key = |row: &Preference| {
        let messages = row.messages.each_ref().map(json);
        (row.id.clone(), row.chosen.clone(), row.rejected.clone(), messages, number(row.reward_gap), number(row.weight))
    };
    rows.sort_by_cached_key(key);
    for same in rows.chunk_by_mut(|one, other| one.id == other.id) {
        for (further, row) in same.iter_mut().skip(1).enumerate() {
            row.id = format!("{}#{}", row.id, further + 2);
        }
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    match rows.array_windows().find(|[one, other]| one.id == other.id) {
        Some([row, _]) => {
            let problem = "is the id of one prompt and the name of a further pair of another; rename the prompt";
            Err(ImportError::Input(format!("table {name}: {:?} {problem}", row.id)))
        }
        None => Ok(()),
    }
}

/// The columns of a batch besides the prompt's.
struct Columns {
    chosen: StringArray,
    rejected: StringArray,
    scores: Option<Scores>,
    reward_gap: Option<Gaps>,
    weight: Option<Numbers>,
}

impl Columns {
    fn new(name: &str, batch: &RecordBatch) -> Result<Self, ImportError> {
        let of_type = |column: &str, array: &ArrayRef, expected: &str| {
            ImportError::Input(format!("table {name}: {column}: expected {expected}, found {}", array.data_type()))
        };
        let text = |column: &str| {
            let array = batch.column_by_name(column).ok_or_else(|| {
                let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
                ImportError::Input(format!("table {name}: expected columns chosen and rejected, found {found}"))
            })?;
            match array.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null | DataType::Dictionary(..) => {
                    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
                }
                _ => Err(of_type(column, array, "text")),
            }
        };
        let of_table = |problem: String| ImportError::Input(format!("table {name}: {problem}"));
        Ok(Self {
            chosen: text("chosen")?,
            rejected: text("rejected")?,
            scores: Scores::find(batch).map_err(of_table)?,
            reward_gap: Gaps::find(batch).map_err(of_table)?,
            weight: Numbers::column(batch, "weight").map_err(of_table)?,
        })
    }

    fn row(&self, index: usize, id: String, prompt: PromptContent) -> Result<Preference, String> {
        let text = |column: &str, texts: &StringArray| {
            if texts.is_null(index) {
                return Err(format!("{column}: expected a response, found null"));
            }
            Ok(texts.value(index).to_string())
        };
        let scores = self.scores.as_ref().map_or(Ok(None), |scores| scores.preference(index))?;
        let reward_gap = self.reward_gap.as_ref().map_or(Ok(None), |gaps| gaps.preference(index))?;
        let weight = self.weight.as_ref().map_or(Ok(None), |weight| weight.value(index))?;
        match weight {
            Some(weight) if !weight.is_finite() => return Err(format!("weight: expected a finite number, found {weight}")),
            Some(weight) if weight < 0.0 => return Err(format!("weight: expected 0 or more, found {weight}")),
            _ => {}
        }
        Ok(Preference {
            id,
            prompt,
            chosen: text("chosen", &self.chosen)?,
            rejected: text("rejected", &self.rejected)?,
            messages: [None, None],
            reward_gap: scores.map(|(chosen, rejected)| chosen - rejected).or(reward_gap),
            weight,
        })
    }
}
