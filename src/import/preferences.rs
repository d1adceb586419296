//! Preferences as users bring them: a prompt, a response to prefer and one to avoid.
//!
//! Knows the table's columns; not what is trained on them, nor any tokenizer.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::prompts::{asked, ids};
use crate::import::ImportError;
use crate::model::PromptContent;

/// One row of a table of preferences.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Its name, unique in the table: the prompt's id, followed by `#2`, `#3`, … for further pairs of one prompt.
    pub id: String,
    /// What is asked.
    pub asked: PromptContent,
    /// The response to prefer.
    pub chosen: String,
    /// The response to avoid.
    pub rejected: String,
    /// `chosen_score` − `rejected_score`, else `reward_gap`, where the table has them; not checked for its sign.
    pub reward_gap: Option<f64>,
    /// The column `weight`, where the table has it: finite, from 0.
    pub weight: Option<f64>,
}

/// A table of preferences, checked, in the order of their ids. The order of the table's rows does not matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Preferences(Vec<Preference>);

impl Preferences {
    /// Checks a user's table; `name` is for errors. Columns: `prompt` or `messages`, `chosen`, `rejected`; maybe `prompt_id`,
    /// `chosen_score` and `rejected_score`, `reward_gap`, `weight`. A missing `prompt_id` is the blake3 of what is asked.
    ///
    /// # Errors
    /// A column that is missing or of another type, a row without a prompt or a response, a number that is not finite, a weight below
    /// 0, no rows at all; with the row.
    pub fn read(name: &str, batches: Vec<RecordBatch>) -> Result<Self, ImportError> {
        Self::read_rows(&|row| format!("table {name}, row {row}"), name, &batches)
    }

    /// As [`Self::read`]; `place` says in an error where a row (from 0) is.
    pub(super) fn read_rows(place: &dyn Fn(usize) -> String, name: &str, batches: &[RecordBatch]) -> Result<Self, ImportError> {
        let mut rows = Vec::new();
        for batch in batches {
            let columns = Columns::of(name, batch)?;
            let asked = asked(place, name, rows.len(), batch)?;
            let ids = ids(batch, &asked)?;
            for (index, (id, asked)) in ids.as_string::<i32>().iter().zip(asked).enumerate() {
                let at = |problem: String| ImportError::Input(format!("{}: {problem}", place(rows.len())));
                let id = id.filter(|id| !id.is_empty()).ok_or_else(|| at("expected a prompt_id, found none".to_string()))?;
                rows.push(columns.row(index, id.to_string(), asked).map_err(at)?);
            }
        }
        if rows.is_empty() {
            return Err(ImportError::Input(format!("table {name}: expected at least one preference, found none")));
        }
        named_apart(name, &mut rows)?;
        Ok(Self(rows))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none; a table that was read has some.
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

/// Sorts the rows and numbers those that share a prompt's id, by what they say: so the table's order does not matter.
fn named_apart(name: &str, rows: &mut [Preference]) -> Result<(), ImportError> {
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
    fn of(name: &str, batch: &RecordBatch) -> Result<Self, ImportError> {
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

    fn row(&self, index: usize, id: String, asked: PromptContent) -> Result<Preference, String> {
        let text = |column: &str, texts: &StringArray| match texts.is_valid(index) {
            true => Ok(texts.value(index).to_string()),
            false => Err(format!("{column}: expected a response, found null")),
        };
        let number = |column: &str, numbers: &Float64Array| match numbers.is_valid(index).then(|| numbers.value(index)) {
            Some(number) if !number.is_finite() => Err(format!("{column}: expected a finite number, found {number}")),
            number => Ok(number),
        };
        let of_scores = match &self.scores {
            Some((chosen, rejected)) => number("chosen_score", chosen)?.zip(number("rejected_score", rejected)?),
            None => None,
        };
        let column = |name: &str, numbers: &Option<Float64Array>| numbers.as_ref().map_or(Ok(None), |numbers| number(name, numbers));
        let reward_gap = column("reward_gap", &self.reward_gap)?;
        let weight = column("weight", &self.weight)?;
        if let Some((chosen, rejected)) = of_scores.filter(|(chosen, rejected)| !(chosen - rejected).is_finite()) {
            return Err(format!("expected scores whose difference is a finite number, found {chosen:e} and {rejected:e}"));
        }
        if let Some(weight) = weight.filter(|weight| *weight < 0.0) {
            return Err(format!("weight: expected 0 or more, found {weight}"));
        }
        Ok(Preference {
            id,
            asked,
            chosen: text("chosen", &self.chosen)?,
            rejected: text("rejected", &self.rejected)?,
            reward_gap: of_scores.map(|(chosen, rejected)| chosen - rejected).or(reward_gap),
            weight,
        })
    }
}
