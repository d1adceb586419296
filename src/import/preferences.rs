//! Tables of preferences: a prompt, a response to prefer and one to avoid.
//!
//! Knows the table's columns. Knows no training and no tokenizer.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::error::ImportError;
use super::prompts::{contents, ids};
use crate::model::PromptContent;

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
    /// `chosen_score` − `rejected_score`, else `reward_gap`, if the table has them. Its sign is not
    /// checked.
    pub reward_gap: Option<f64>,
    /// The column `weight`, if the table has it: finite, from 0.
    pub weight: Option<f64>,
}

/// A checked table of preferences, in the order of their ids. The order of the table's rows does
/// not matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Preferences(Vec<Preference>);

impl Preferences {
    /// Checks a user's table; `name` is for errors. Columns: `prompt` or `messages`, `chosen`,
    /// `rejected`; maybe `prompt_id`, `chosen_score` and `rejected_score`, `reward_gap`, `weight`.
    /// A missing `prompt_id` becomes the blake3 hash of the prompt.
    ///
    /// # Errors
    /// A column is missing or has another type; a row has no prompt or no response; a number is not
    /// finite; a weight is below 0; there are no rows. The error names the row.
    pub fn from_batches(name: &str, batches: Vec<RecordBatch>) -> Result<Self, ImportError> {
        Self::from_located_batches(&|row| format!("table {name}, row {row}"), name, &batches)
    }

    /// As [`Self::from_batches`]; `location` names a row (from 0) in an error.
    pub(super) fn from_located_batches(
        location: &dyn Fn(usize) -> String,
        name: &str,
        batches: &[RecordBatch],
    ) -> Result<Self, ImportError> {
        let mut rows = Vec::new();
        for batch in batches {
            let columns = Columns::new(name, batch)?;
            let prompts = contents(location, name, rows.len(), batch)?;
            let ids = ids(batch, &prompts)?;
            for (index, (id, prompt)) in ids.as_string::<i32>().iter().zip(prompts).enumerate() {
                let at = |problem: String| ImportError::Input(format!("{}: {problem}", location(rows.len())));
                let id = id.filter(|id| !id.is_empty()).ok_or_else(|| at("expected a prompt_id, found none".to_string()))?;
                rows.push(columns.row(index, id.to_string(), prompt).map_err(at)?);
            }
        }
        if rows.is_empty() {
            return Err(ImportError::Input(format!("table {name}: expected at least one preference, found none")));
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
    let key = |row: &Preference| (row.id.clone(), row.chosen.clone(), row.rejected.clone(), number(row.reward_gap), number(row.weight));
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
    scores: Option<(Float64Array, Float64Array)>,
    reward_gap: Option<Float64Array>,
    weight: Option<Float64Array>,
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
        let number = |column: &str| {
            let array = batch.column_by_name(column).filter(|array| array.null_count() < array.len());
            array.map_or(Ok(None), |array| match array.data_type() {
                data_type if data_type.is_numeric() => Ok(Some(cast(array, &DataType::Float64)?.as_primitive().clone())),
                _ => Err(of_type(column, array, "a number")),
            })
        };
        Ok(Self {
            chosen: text("chosen")?,
            rejected: text("rejected")?,
            scores: number("chosen_score")?.zip(number("rejected_score")?),
            reward_gap: number("reward_gap")?,
            weight: number("weight")?,
        })
    }

    fn row(&self, index: usize, id: String, prompt: PromptContent) -> Result<Preference, String> {
        let text = |column: &str, texts: &StringArray| {
            if texts.is_null(index) {
                return Err(format!("{column}: expected a response, found null"));
            }
            Ok(texts.value(index).to_string())
        };
        let number = |column: &str, numbers: &Float64Array| match numbers.is_valid(index).then(|| numbers.value(index)) {
            Some(number) if !number.is_finite() => Err(format!("{column}: expected a finite number, found {number}")),
            number => Ok(number),
        };
        let scores = match &self.scores {
            Some((chosen, rejected)) => number("chosen_score", chosen)?.zip(number("rejected_score", rejected)?),
            None => None,
        };
        let column = |name: &str, numbers: &Option<Float64Array>| numbers.as_ref().map_or(Ok(None), |numbers| number(name, numbers));
        let reward_gap = column("reward_gap", &self.reward_gap)?;
        let weight = column("weight", &self.weight)?;
        if let Some((chosen, rejected)) = scores.filter(|(chosen, rejected)| !(chosen - rejected).is_finite()) {
            return Err(format!("expected scores whose difference is a finite number, found {chosen:e} and {rejected:e}"));
        }
        if let Some(weight) = weight.filter(|weight| *weight < 0.0) {
            return Err(format!("weight: expected 0 or more, found {weight}"));
        }
        Ok(Preference {
            id,
            prompt,
            chosen: text("chosen", &self.chosen)?,
            rejected: text("rejected", &self.rejected)?,
            reward_gap: scores.map(|(chosen, rejected)| chosen - rejected).or(reward_gap),
            weight,
        })
    }
}
