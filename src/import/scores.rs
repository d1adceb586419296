//! The scores of chosen and rejected responses, under the names and in the shapes of public
//! datasets.
//!
//! ```text
//! chosen_score, score_chosen, chosen-rating, rewardRejected      columns of numbers
//! scores: { chosen, rejected }, metadata: { chosen_score, … }    fields of a column
//! chosen: { content, score }, chosen: [{ role, content, score }] fields of the response itself
//! ```
//! Knows names and types of columns. Knows no prompt.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Float64Builder, RecordBatch, UInt64Array, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Schema};
use serde_json::Value;

use crate::model::Message;

/// Our own names.
pub(super) const CHOSEN: &str = "chosen_score";
/// Our own names.
pub(super) const REJECTED: &str = "rejected_score";

/// The names of a difference of scores, the first one ours. TRL's is `margin`.
const GAPS: [&str; 5] = ["reward_gap", "margin", "reward_margin", "score_margin", "score_gap"];

/// Words for a score.
const KINDS: [&str; 6] = ["score", "scores", "rating", "ratings", "reward", "rewards"];

/// Words beside these that leave it a score of the whole response.
const STATISTICS: [&str; 6] = ["avg", "average", "mean", "overall", "total", "final"];

/// Columns inside columns are searched to this depth.
const MOST_LEVELS: usize = 4;

/// The response with the score.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Chosen,
    Rejected,
}

/// A column of numbers, maybe inside of others: the names from the outer column to the inner one.
#[derive(Clone)]
struct Path(Vec<String>);

impl Path {
    fn text(&self) -> String {
        self.0.join(".")
    }
}

/// The two columns of scores of a batch.
pub(super) struct Scores {
    chosen: Numbers,
    rejected: Numbers,
}

impl Scores {
    /// The scores of chosen and rejected responses in a batch; `None` without any. The columns
    /// `chosen_score` and `rejected_score` come before all others.
    ///
    /// # Errors
    /// Two pairs of columns are scores, or a column is neither of numbers nor of texts of numbers.
    pub(super) fn find(batch: &RecordBatch) -> Result<Option<Self>, String> {
        let pairs = pairs(batch);
        let is_ours = |(chosen, rejected): &&(Path, Path)| chosen.text() == CHOSEN && rejected.text() == REJECTED;
        let pair = match pairs.as_slice() {
            [] => return no_scores(&batch.schema()).map(|()| None),
            [only] => only,
            several => several.iter().find(is_ours).ok_or_else(|| {
                let names = several.iter().map(|(chosen, rejected)| format!("{} and {}", chosen.text(), rejected.text()));
                let names = names.collect::<Vec<_>>().join(", or ");
                format!("expected one score for each response, found {names}; say which with `map: {{ {CHOSEN}: …, {REJECTED}: … }}`")
            })?,
        };
        Ok(Some(Self { chosen: Numbers::at(batch, &pair.0)?, rejected: Numbers::at(batch, &pair.1)? }))
    }

    /// The scores of chosen and rejected in a row, each `None` for null.
    ///
    /// # Errors
    /// A text that is no number.
    pub(super) fn row(&self, row: usize) -> Result<(Option<f64>, Option<f64>), String> {
        Ok((self.chosen.value(row)?, self.rejected.value(row)?))
    }

    /// The outer columns that hold nothing but these scores.
    pub(super) fn own_columns(&self) -> impl Iterator<Item = &str> {
        [&self.chosen, &self.rejected].into_iter().filter(|numbers| !numbers.name.contains('.')).map(|numbers| numbers.name.as_str())
    }

    /// The scores of a row, or the reason for them to be no scores of a preference. `None` where
    /// both are null.
    ///
    /// # Errors
    /// One score without the other, a score that is not finite, or a rejected response scored above
    /// the chosen one.
    pub(super) fn preference(&self, row: usize) -> Result<Option<(f64, f64)>, String> {
        let (chosen, rejected) = match self.row(row)? {
            (None, None) => return Ok(None),
            (Some(chosen), Some(rejected)) => (chosen, rejected),
            (chosen, _) => {
                let (known, missing) = if chosen.is_some() { (&self.chosen, &self.rejected) } else { (&self.rejected, &self.chosen) };
                return Err(format!("expected scores of both responses, found {} without {}", known.name, missing.name));
            }
        };
        for (numbers, score) in [(&self.chosen, chosen), (&self.rejected, rejected)] {
            if !score.is_finite() {
                return Err(format!("{}: expected a finite number, found {score}", numbers.name));
            }
        }
        if !(chosen - rejected).is_finite() {
            return Err(format!("expected scores whose difference is a finite number, found {chosen:e} and {rejected:e}"));
        }
        if chosen < rejected {
            return Err(format!(
                "expected the chosen response to score at least as high as the rejected one, found {} {chosen} and {} {rejected}; \
                 swap the two responses",
                self.chosen.name, self.rejected.name
            ));
        }
        Ok(Some((chosen, rejected)))
    }
}

/// The scores among the fields of the messages of both responses, each `None` without one.
pub(super) fn of_messages(chosen: &Message, rejected: &Message) -> (Option<f64>, Option<f64>) {
    let scores = |message: &Message, side: &str| -> BTreeMap<Vec<String>, f64> {
        let fields = message.whole().into_iter().flatten();
        let score = |(name, value): (&String, &Value)| {
            let (_, words) = side_of(&Path(vec![side.to_string(), name.clone()]))?;
            let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
            Some((words, number))
        };
        fields.filter_map(score).collect()
    };
    let chosen = scores(chosen, "chosen");
    let rejected = scores(rejected, "rejected");
    match chosen.iter().find(|(words, _)| rejected.contains_key(*words)) {
        Some((words, score)) => (Some(*score), rejected.get(words).copied()),
        None => (chosen.values().next().copied(), rejected.values().next().copied()),
    }
}

/// The difference of the scores in a batch, where it is a column of its own; `None` without one.
pub(super) struct Gaps(Numbers);

impl Gaps {
    /// The first column of these names.
    ///
    /// # Errors
    /// It is neither of numbers nor of texts of numbers.
    pub(super) fn find(batch: &RecordBatch) -> Result<Option<Self>, String> {
        let name = GAPS.into_iter().find(|name| batch.column_by_name(name).is_some_and(|array| *array.data_type() != DataType::Null));
        name.map(|name| Numbers::at(batch, &Path(vec![name.to_string()])).map(Self)).transpose()
    }

    /// The difference in a row, from 0; `None` for null.
    ///
    /// # Errors
    /// It is not finite, or below 0.
    pub(super) fn preference(&self, row: usize) -> Result<Option<f64>, String> {
        let name = &self.0.name;
        match self.0.value(row)? {
            Some(gap) if !gap.is_finite() => Err(format!("{name}: expected a finite number, found {gap}")),
            Some(gap) if gap < 0.0 => {
                Err(format!("{name}: expected 0 or more, as chosen is the better response, found {gap}; swap the two responses"))
            }
            gap => Ok(gap),
        }
    }
}

/// A column of numbers, or of texts of numbers as a csv file may have them.
pub(super) struct Numbers {
    name: String,
    numbers: Float64Array,
    /// The texts that are no numbers, by row.
    others: BTreeMap<usize, String>,
}

impl Numbers {
    /// The column `name` of a batch; `None` if there is none, or one of nulls only.
    ///
    /// # Errors
    /// It is neither of numbers nor of texts.
    pub(super) fn column(batch: &RecordBatch, name: &str) -> Result<Option<Self>, String> {
        let Some(array) = batch.column_by_name(name) else { return Ok(None) };
        let path = Path(vec![name.to_string()]);
        if *array.data_type() == DataType::Null { Ok(None) } else { Self::at(batch, &path).map(Some) }
    }

    fn at(batch: &RecordBatch, path: &Path) -> Result<Self, String> {
        let name = path.text();
        let array = values(batch, path).ok_or_else(|| format!("{name}: expected a number in every row"))?;
        let failed = |error: arrow::error::ArrowError| format!("{name}: {error}");
        if is_number(array.data_type()) || *array.data_type() == DataType::Null {
            let numbers = cast(&array, &DataType::Float64).map_err(failed)?.as_primitive::<Float64Type>().clone();
            return Ok(Self { name, numbers, others: BTreeMap::new() });
        }
        if !is_text(array.data_type()) {
            return Err(format!("{name}: expected a number, found {}", array.data_type()));
        }
        let texts = cast(&array, &DataType::Utf8).map_err(failed)?;
        let mut numbers = Float64Builder::with_capacity(texts.len());
        let mut others = BTreeMap::new();
        for (row, text) in texts.as_string::<i32>().iter().enumerate() {
            let text = text.map(str::trim).filter(|text| !text.is_empty());
            let number = text.and_then(|text| text.parse::<f64>().ok());
            if let (Some(text), None) = (text, number) {
                others.insert(row, text.to_string());
            }
            numbers.append_option(number);
        }
        Ok(Self { name, numbers: numbers.finish(), others })
    }

    /// The number in a row; `None` for null and for an empty text.
    ///
    /// # Errors
    /// A text that is no number.
    pub(super) fn value(&self, row: usize) -> Result<Option<f64>, String> {
        match self.others.get(&row) {
            Some(text) => Err(format!("{}: expected a number, found {text:?}; if it is no score, rename it with `map:`", self.name)),
            None => Ok(self.numbers.is_valid(row).then(|| self.numbers.value(row))),
        }
    }
}

fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric(),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

/// Notes on columns that look like scores, but do not say which response has which score.
pub(super) fn unused(schema: &Schema) -> Vec<String> {
    let one_side = |scores: &&Vec<(Side, Path)>| scores.iter().all(|(side, _)| *side == scores[0].0);
    let columns = columns(schema);
    let unpaired = columns.values().filter(one_side).flatten();
    let unpaired =
        unpaired.map(|(_, path)| format!("{} is the score of one response, none of the other one is there; it is not used", path.text()));
    let is_list = |field: &&FieldRef| match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_number(item.data_type()) && KINDS.contains(&field.name().to_lowercase().as_str())
        }
        _ => false,
    };
    let fix = "make columns chosen_score and rejected_score of it with a query";
    let lists = schema.fields().iter().filter(is_list);
    let lists = lists.map(|field| format!("{} is a list and does not say which score is whose; it is not used; {fix}", field.name()));
    unpaired.chain(lists).collect()
}

/// Checks that no column is called a score of chosen or rejected without being one.
fn no_scores(schema: &Schema) -> Result<(), String> {
    for field in schema.fields() {
        let kind = field.data_type();
        let may_be = is_number(kind) || is_text(kind) || *kind == DataType::Null || inner_fields(kind).is_some();
        let name = field.name();
        if !may_be && side_of(&Path(vec![name.clone()])).is_some() {
            return Err(format!(
                "{name}: expected a number, found {kind}; if it is no score, leave it out with `columns: {{ {name}: skip }}`"
            ));
        }
    }
    Ok(())
}

/// The columns with scores, by the words beside chosen or rejected. No list is empty.
fn columns(schema: &Schema) -> BTreeMap<Vec<String>, Vec<(Side, Path)>> {
    let mut paths = Vec::new();
    for field in schema.fields() {
        add_paths(&Path(Vec::new()), field, &mut paths);
    }
    let mut found: BTreeMap<Vec<String>, Vec<(Side, Path)>> = BTreeMap::new();
    for path in paths {
        if let Some((side, key)) = side_of(&path) {
            found.entry(key).or_default().push((side, path));
        }
    }
    found
}

/// All pairs of columns with the scores of chosen and rejected.
fn pairs(batch: &RecordBatch) -> Vec<(Path, Path)> {
    let mut pairs = Vec::new();
    for scores in columns(&batch.schema()).values() {
        let of = |side: Side| scores.iter().filter(move |(of, _)| *of == side).map(|(_, path)| path.clone());
        let ours = |side: Side, name: &str| of(side).find(|path| path.text() == name);
        match (ours(Side::Chosen, CHOSEN), ours(Side::Rejected, REJECTED)) {
            (Some(chosen), Some(rejected)) => pairs.push((chosen, rejected)),
            _ => pairs.extend(of(Side::Chosen).flat_map(|chosen| of(Side::Rejected).map(move |rejected| (chosen.clone(), rejected)))),
        }
    }
    pairs
}

/// Adds the columns in `field` that may hold numbers.
fn add_paths(outer: &Path, field: &FieldRef, paths: &mut Vec<Path>) {
    let mut path = outer.clone();
    path.0.push(field.name().clone());
    if path.0.len() > MOST_LEVELS {
        return;
    }
    match inner_fields(field.data_type()) {
        Some(fields) => fields.iter().for_each(|field| add_paths(&path, field, paths)),
        None if is_number(field.data_type()) || is_text(field.data_type()) || *field.data_type() == DataType::Null => paths.push(path),
        None => {}
    }
}

/// The fields of a struct, or of the structs in a list.
fn inner_fields(data_type: &DataType) -> Option<&[FieldRef]> {
    match data_type {
        DataType::Struct(fields) => Some(fields),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => {
            if let DataType::Struct(fields) = item.data_type() {
                Some(fields)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The response that a column is the score of, and the other words of its name; `None` for a column
/// that is no score. The names of outer columns count where the inner one does not say both.
fn side_of(path: &Path) -> Option<(Side, Vec<String>)> {
    let mut words = Vec::new();
    for name in path.0.iter().rev() {
        words.splice(0..0, words_of(name));
        let is_score = words.iter().any(|word: &String| KINDS.contains(&word.as_str()));
        let sides: Vec<Side> = words.iter().filter_map(|word| side(word)).collect();
        if let ([side], true) = (sides.as_slice(), is_score) {
            let others = words.iter().filter(|word| self::side(word).is_none());
            let mut others: Vec<String> = others.map(|word| word.trim_end_matches('s').to_string()).collect();
            others.sort();
            let known = |word: &String| STATISTICS.contains(&word.as_str()) || KINDS.contains(&word.as_str());
            let kinds = others.iter().filter(|word| KINDS.contains(&word.as_str())).count();
            return (kinds == 1 && others.iter().all(known)).then_some((*side, others));
        }
    }
    None
}

fn side(word: &str) -> Option<Side> {
    match word {
        "chosen" => Some(Side::Chosen),
        "rejected" | "reject" => Some(Side::Rejected),
        _ => None,
    }
}

/// The words of a name, in lower case: `scoreChosen`, `score-chosen` and `Score chosen` have two.
fn words_of(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut was_lower = false;
    for character in name.chars() {
        if !character.is_alphanumeric() || (was_lower && character.is_uppercase()) {
            words.push(String::new());
        }
        was_lower = character.is_lowercase();
        if let (true, Some(word)) = (character.is_alphanumeric(), words.last_mut()) {
            word.extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The values of a column, null where an outer one is. Of a list the last item counts: the response
/// is the last message.
fn values(batch: &RecordBatch, path: &Path) -> Option<ArrayRef> {
    let (first, inner) = path.0.split_first()?;
    let mut array = batch.column_by_name(first)?.clone();
    for name in inner {
        array = last_items(&array)?;
        let parent = array.as_struct_opt()?;
        let child = parent.column_by_name(name)?;
        let nulls = NullBuffer::union(parent.nulls(), child.logical_nulls().as_ref());
        array = if *child.data_type() == DataType::Null {
            child.clone()
        } else {
            make_array(child.to_data().into_builder().nulls(nulls).build().ok()?)
        };
    }
    Some(array)
}

/// The last item of each list, null for an empty one; any other array as it is.
fn last_items(array: &ArrayRef) -> Option<ArrayRef> {
    let item = match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => item,
        _ => return Some(array.clone()),
    };
    let lists = cast(array, &DataType::LargeList(item.clone())).ok()?;
    let lists = lists.as_list::<i64>();
    let last = lists
        .value_offsets()
        .array_windows()
        .enumerate()
        .map(|(row, [begin, end])| if lists.is_valid(row) && begin < end { u64::try_from(end - 1).ok() } else { None });
    take(lists.values(), &last.collect::<UInt64Array>(), None).ok()
}

#[cfg(test)]
mod tests {
    use super::{Path, Side, side_of};

    fn found(path: &str) -> Option<(bool, String)> {
        let path = Path(path.split('.').map(str::to_string).collect());
        side_of(&path).map(|(side, words)| (side == Side::Chosen, words.join(" ")))
    }

    #[test]
    fn scores_are_known_by_their_words() {
        for (chosen, rejected) in [
            ("chosen_score", "rejected_score"),
            ("score_chosen", "score_rejected"),
            ("chosen-score", "reject-score"),
            ("scoreChosen", "scoreRejected"),
            ("Chosen Score", "Rejected Score"),
            ("scores.chosen", "scores.rejected"),
            ("chosen.score", "rejected.score"),
            ("metadata.chosen_score", "metadata.rejected_score"),
            ("meta.data.score.chosen", "meta.data.score.rejected"),
        ] {
            assert_eq!(found(chosen), Some((true, "score".to_string())), "{chosen}");
            assert_eq!(found(rejected), Some((false, "score".to_string())), "{rejected}");
        }
        assert_eq!(found("chosen_avg_rating"), Some((true, "avg rating".to_string())));
        assert_eq!(found("rewards.rejected"), Some((false, "reward".to_string())));
        for other in [
            "chosen",
            "score",
            "chosen_model",
            "chosen_helpfulness_score",
            "reward_model_chosen",
            "chosen_rejected_score",
            "chosen_score_rating",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
