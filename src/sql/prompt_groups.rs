//! Tables in the order of their prompts, read side by side a slice of whole prompts at a time.
//!
//! What looks at no two prompts together can be made slice by slice: in memory that does not grow with the tables, by one walk through
//! sorted rows, without a hash table or a sort. The rows of the slices, one after the other, are those of the tables, however the slices
//! are cut. Knows nothing of what is made of them.

use std::cmp::Ordering;
use std::collections::VecDeque;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, SchemaRef};

use super::Rows;
use crate::store::StoreError;

/// The column that says which prompt a row is about.
const PROMPT_ID: &str = "prompt_id";

/// Rows of each table that are read before a slice is cut: so many that a slice costs little, so few that they stay in the cache.
const SLICE_ROWS: usize = 32 * 1024;

/// The next rows of several tables up to the end of a prompt: one batch a table, maybe without rows, in the order that they were added.
pub struct PromptGroups<'a> {
    rows: usize,
    tables: Vec<Table<'a>>,
}

impl Default for PromptGroups<'_> {
    fn default() -> Self {
        Self::of_rows(SLICE_ROWS)
    }
}

impl<'a> PromptGroups<'a> {
    /// PromptGroups of about so many rows of each table.
    pub fn of_rows(rows: usize) -> Self {
        Self { rows: rows.max(1), tables: Vec::new() }
    }

    /// Adds the rows of a query. They ascend by their `key`, which is `prompt_id` (Utf8) and maybe columns (Int32) behind it, no two alike; where
    /// no key is given, by `prompt_id`. `name` is for errors.
    pub fn with(mut self, name: &'static str, key: &'static [&'static str], rows: Rows<'a>) -> Self {
        let waiting = VecDeque::new();
        self.tables.push(Table { name, key, schema: rows.schema(), rows, waiting, waiting_rows: 0, before: None });
        self
    }

    fn cut(&mut self) -> Result<Option<Vec<RecordBatch>>, StoreError> {
        for rows in (1..).map(|times: usize| times.saturating_mul(self.rows)) {
            self.tables.iter_mut().try_for_each(|table| table.fill(rows))?;
            // What is before a prompt that every table has been read up to is complete.
            let end = self.tables.iter().filter_map(|table| table.prompt_of(rows - 1)).min().map(str::to_string);
            let slice = self.tables.iter_mut().map(|table| table.take_before(end.as_deref())).collect::<Result<Vec<_>, _>>()?;
            if slice.iter().any(|batch| batch.num_rows() > 0) {
                return Ok(Some(slice));
            }
            if end.is_none() {
                break;
            }
        }
        Ok(None)
    }
}

impl Iterator for PromptGroups<'_> {
    type Item = Result<Vec<RecordBatch>, StoreError>;

    /// The next slice, or the first row that is not in its place.
    fn next(&mut self) -> Option<Self::Item> {
        self.cut().transpose()
    }
}

/// One table as far as it is read.
struct Table<'a> {
    name: &'static str,
    key: &'static [&'static str],
    schema: SchemaRef,
    rows: Rows<'a>,
    /// What is read and in no slice yet.
    waiting: VecDeque<RecordBatch>,
    waiting_rows: usize,
    /// The last row that was read.
    before: Option<RecordBatch>,
}

impl Table<'_> {
    /// Reads on until so many rows wait, or to the end.
    fn fill(&mut self, rows: usize) -> Result<(), StoreError> {
        while self.waiting_rows < rows {
            let Some(batch) = self.rows.next().transpose()? else { break };
            if batch.num_rows() == 0 {
                continue;
            }
            self.check_order(&batch)?;
            self.before = Some(batch.slice(batch.num_rows() - 1, 1));
            self.waiting_rows += batch.num_rows();
            self.waiting.push_back(batch);
        }
        Ok(())
    }

    fn check_order(&self, batch: &RecordBatch) -> Result<(), StoreError> {
        let keys = self.keys(batch)?;
        let ordered = |order: Ordering| order.is_lt() || (order.is_eq() && self.key.is_empty());
        let before = self.before.as_ref().map(|before| self.keys(before)).transpose()?;
        let first = before.filter(|before| !ordered(before.compare(0, &keys, 0))).map(|before| (before.described(0), 0));
        let later =
            || (1..keys.ids.len()).find(|row| !ordered(keys.compare(row - 1, &keys, *row))).map(|row| (keys.described(row - 1), row));
        match first.or_else(later) {
            Some((before, row)) => Err(self.wrong(&format!(
                "expected rows in ascending order of {}, found {} after {before}",
                if self.key.is_empty() { PROMPT_ID.to_string() } else { self.key.join(", ") },
                keys.described(row)
            ))),
            None => Ok(()),
        }
    }

    fn keys<'b>(&self, batch: &'b RecordBatch) -> Result<Keys<'b>, StoreError> {
        let further = self.key.iter().skip(1).map(|name| batch.column_by_name(name)?.as_primitive_opt::<Int32Type>());
        let keys = prompt_ids(batch).zip(further.collect()).map(|(ids, further)| Keys { ids, further });
        let full = keys.filter(|keys| keys.ids.null_count() == 0 && keys.further.iter().all(|numbers| numbers.null_count() == 0));
        full.ok_or_else(|| self.wrong(&format!("expected {PROMPT_ID} (Utf8) and the key {:?} in every row, found a row without", self.key)))
    }

    fn wrong(&self, problem: &str) -> StoreError {
        StoreError::Sql { message: format!("table {}: {problem}", self.name) }
    }

    /// The prompt of one of the waiting rows.
    fn prompt_of(&self, mut row: usize) -> Option<&str> {
        for batch in &self.waiting {
            if row < batch.num_rows() {
                return prompt_ids(batch).map(|ids| ids.value(row));
            }
            row -= batch.num_rows();
        }
        None
    }

    /// The waiting rows of the prompts before `end`, or all of them.
    fn take_before(&mut self, end: Option<&str>) -> Result<RecordBatch, StoreError> {
        let mut taken = Vec::new();
        while let Some(batch) = self.waiting.pop_front() {
            let count = match (end, prompt_ids(&batch)) {
                (Some(end), Some(ids)) => rows_before(ids, end),
                _ => batch.num_rows(),
            };
            self.waiting_rows -= count;
            taken.push(batch.slice(0, count));
            if count < batch.num_rows() {
                self.waiting.push_front(batch.slice(count, batch.num_rows() - count));
                break;
            }
        }
        concat_batches(&self.schema, &taken).map_err(|error| self.wrong(&error.to_string()))
    }
}

/// What rows are ordered by.
struct Keys<'a> {
    ids: &'a StringArray,
    further: Vec<&'a Int32Array>,
}

impl Keys<'_> {
    fn compare(&self, row: usize, other: &Keys, other_row: usize) -> Ordering {
        let further = || self.further.iter().zip(&other.further).map(|(ours, theirs)| ours.value(row).cmp(&theirs.value(other_row)));
        self.ids.value(row).cmp(other.ids.value(other_row)).then_with(|| further().find(|order| order.is_ne()).unwrap_or(Ordering::Equal))
    }

    fn described(&self, row: usize) -> String {
        let further = self.further.iter().map(|numbers| format!(", {}", numbers.value(row)));
        format!("{}{}", self.ids.value(row), further.collect::<String>())
    }
}

fn prompt_ids(batch: &RecordBatch) -> Option<&StringArray> {
    batch.column_by_name(PROMPT_ID)?.as_string_opt()
}

/// How many of these ids, which ascend, are before `end`.
fn rows_before(ids: &StringArray, end: &str) -> usize {
    let (mut low, mut high) = (0, ids.len());
    while low < high {
        let middle = low.midpoint(high);
        if ids.value(middle) < end { low = middle + 1 } else { high = middle }
    }
    low
}
