//! Tables sorted by prompt_id, read side by side in groups of whole prompts.
//!
//! An operator without comparisons between prompts can work on one group after the other. Its
//! memory does not grow with the tables, and it needs neither a hash table nor a sort. Its output
//! does not depend on the size of the groups: the groups, one after the other, are the rows of the
//! tables. Knows nothing of the operators.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch, StringArray};
use arrow::compute::{concat_batches, partition};
use arrow::datatypes::{Int32Type, SchemaRef};

use super::Rows;
use crate::store::StoreError;

/// The column of the sort order.
const PROMPT_ID: &str = "prompt_id";

/// Rows of each table in a group: enough to make the cost of a group small, and few enough to stay
/// in the CPU's cache.
const GROUP_ROWS: usize = 32 * 1024;

/// Iterates over groups of whole prompts. A group is one batch for each table, in the order of
/// [`with_table`](Self::with_table). A batch may be empty.
pub struct PromptGroups<'a> {
    rows: usize,
    tables: Vec<Table<'a>>,
}

impl Default for PromptGroups<'_> {
    fn default() -> Self {
        Self::new(GROUP_ROWS)
    }
}

impl<'a> PromptGroups<'a> {
    /// Groups of about `rows` rows of each table.
    pub fn new(rows: usize) -> Self {
        Self { rows: rows.max(1), tables: Vec::new() }
    }

    /// Adds the rows of a query. `key` is the sort order of the rows: `prompt_id` (Utf8), then any
    /// number of Int32 columns. Rows must be unique by it. With an empty `key`, rows are sorted by
    /// `prompt_id` and need not be unique. Errors show `name`.
    pub fn with_table(mut self, name: &'static str, key: &'static [&'static str], rows: Rows<'a>) -> Self {
        let schema = rows.schema();
        self.tables.push(Table { name, key, schema, rows, waiting: VecDeque::new(), waiting_rows: 0, last_row: None });
        self
    }

    /// The next group; `None` at the end of all tables.
    fn next_group(&mut self) -> Result<Option<Vec<RecordBatch>>, StoreError> {
        // A prompt may have more rows than a group. Then more rows are read until one prompt is
        // complete.
        for rows in (1..).map(|times: usize| times.saturating_mul(self.rows)) {
            self.tables.iter_mut().try_for_each(|table| table.fill(rows))?;
            // Every table has been read up to this prompt, so the prompts before it are complete.
            let mut end: Option<&str> = None;
            for table in &self.tables {
                if let Some(prompt_id) = table.prompt_of(rows - 1)? {
                    end = Some(end.map_or(prompt_id, |end| end.min(prompt_id)));
                }
            }
            let end = end.map(str::to_string);
            let group = self.tables.iter_mut().map(|table| table.take_before(end.as_deref())).collect::<Result<Vec<_>, _>>()?;
            if group.iter().any(|batch| batch.num_rows() > 0) {
                return Ok(Some(group));
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

    /// The next group, or an error at the first row out of order.
    fn next(&mut self) -> Option<Self::Item> {
        self.next_group().transpose()
    }
}

/// The rows of each prompt in one batch of a group.
pub struct PromptRows<'a> {
    ids: &'a StringArray,
    ranges: Vec<Range<usize>>,
    /// The range of the first prompt not passed yet by `rows_of`.
    next: usize,
}

impl<'a> PromptRows<'a> {
    /// Finds the rows of each prompt in a batch sorted by prompt_id.
    ///
    /// # Errors
    /// The batch has no column `prompt_id` of type Utf8.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, StoreError> {
        let error = |problem: String| StoreError::Sql { message: format!("prompt rows: {problem}") };
        let column = batch.column_by_name(PROMPT_ID).ok_or_else(|| error(format!("expected a column {PROMPT_ID}, found none")))?;
        let ids = column.as_string_opt();
        let ids = ids.ok_or_else(|| error(format!("expected {PROMPT_ID} of type Utf8, found {}", column.data_type())))?;
        let ranges = partition(std::slice::from_ref(column)).map_err(|problem| error(problem.to_string()))?.ranges();
        Ok(Self { ids, ranges, next: 0 })
    }

    /// Each prompt_id with its rows, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Range<usize>)> + '_ {
        self.ranges.iter().map(|range| (self.ids.value(range.start), range.clone()))
    }

    /// The rows of a prompt. For a prompt without rows, this is an empty range at its position in
    /// the sort order. Calls must be in ascending order of `prompt_id`: this is one side of a merge
    /// join.
    pub fn rows_of(&mut self, prompt_id: &str) -> Range<usize> {
        while let Some(range) = self.ranges.get(self.next) {
            match self.ids.value(range.start).cmp(prompt_id) {
                Ordering::Less => self.next += 1,
                Ordering::Equal => return range.clone(),
                Ordering::Greater => return range.start..range.start,
            }
        }
        self.ids.len()..self.ids.len()
    }
}

/// One table, up to the last row read so far.
struct Table<'a> {
    name: &'static str,
    key: &'static [&'static str],
    schema: SchemaRef,
    rows: Rows<'a>,
    /// Rows read already, for the next groups.
    waiting: VecDeque<RecordBatch>,
    waiting_rows: usize,
    /// The last row read so far.
    last_row: Option<RecordBatch>,
}

impl Table<'_> {
    /// Reads until at least `rows` rows are waiting, or to the end of the table.
    fn fill(&mut self, rows: usize) -> Result<(), StoreError> {
        while self.waiting_rows < rows {
            let Some(batch) = self.rows.next().transpose()? else { break };
            if batch.num_rows() == 0 {
                continue;
            }
            self.check_order(&batch)?;
            self.last_row = Some(batch.slice(batch.num_rows() - 1, 1));
            self.waiting_rows += batch.num_rows();
            self.waiting.push_back(batch);
        }
        Ok(())
    }

    /// Checks the order of the rows in a batch. Its first row must follow the last row before it.
    fn check_order(&self, batch: &RecordBatch) -> Result<(), StoreError> {
        let keys = self.keys(batch)?;
        let is_ordered = |order: Ordering| order.is_lt() || (order.is_eq() && self.key.is_empty());
        if let Some(last_row) = &self.last_row {
            let last = self.keys(last_row)?;
            if !is_ordered(last.compare(0, &keys, 0)) {
                return Err(self.order_error(&keys.described(0), &last.described(0)));
            }
        }
        for row in 1..keys.ids.len() {
            if !is_ordered(keys.compare(row - 1, &keys, row)) {
                return Err(self.order_error(&keys.described(row), &keys.described(row - 1)));
            }
        }
        Ok(())
    }

    fn order_error(&self, found: &str, before: &str) -> StoreError {
        let key = if self.key.is_empty() { PROMPT_ID.to_string() } else { self.key.join(", ") };
        self.error(&format!("expected rows in ascending order of {key}, found {found} after {before}"))
    }

    fn keys<'b>(&self, batch: &'b RecordBatch) -> Result<Keys<'b>, StoreError> {
        let numbers = self.key.iter().skip(1).map(|name| batch.column_by_name(name)?.as_primitive_opt::<Int32Type>());
        let keys = prompt_ids(batch).zip(numbers.collect()).map(|(ids, numbers)| Keys { ids, numbers });
        let has_nulls = |keys: &Keys| keys.ids.null_count() > 0 || keys.numbers.iter().any(|numbers| numbers.null_count() > 0);
        match keys {
            Some(keys) if !has_nulls(&keys) => Ok(keys),
            _ => Err(self.error(&format!("expected {PROMPT_ID} (Utf8) and the key {:?} in every row, found a row without", self.key))),
        }
    }

    fn prompt_ids<'b>(&self, batch: &'b RecordBatch) -> Result<&'b StringArray, StoreError> {
        prompt_ids(batch).ok_or_else(|| self.error(&format!("expected a column {PROMPT_ID} (Utf8), found none")))
    }

    fn error(&self, problem: &str) -> StoreError {
        StoreError::Sql { message: format!("table {}: {problem}", self.name) }
    }

    /// The prompt_id of a waiting row; `None` if fewer rows are waiting.
    fn prompt_of(&self, mut row: usize) -> Result<Option<&str>, StoreError> {
        for batch in &self.waiting {
            if row < batch.num_rows() {
                return Ok(Some(self.prompt_ids(batch)?.value(row)));
            }
            row -= batch.num_rows();
        }
        Ok(None)
    }

    /// Takes the waiting rows of the prompts before `end`, or all waiting rows.
    fn take_before(&mut self, end: Option<&str>) -> Result<RecordBatch, StoreError> {
        let mut taken = Vec::new();
        while let Some(batch) = self.waiting.pop_front() {
            let count = match end {
                Some(end) => rows_before(self.prompt_ids(&batch)?, end),
                None => batch.num_rows(),
            };
            self.waiting_rows -= count;
            taken.push(batch.slice(0, count));
            if count < batch.num_rows() {
                self.waiting.push_front(batch.slice(count, batch.num_rows() - count));
                break;
            }
        }
        concat_batches(&self.schema, &taken).map_err(|error| self.error(&error.to_string()))
    }
}

/// The columns of a sort order.
struct Keys<'a> {
    ids: &'a StringArray,
    /// The columns behind the prompt_id.
    numbers: Vec<&'a Int32Array>,
}

impl Keys<'_> {
    fn compare(&self, row: usize, other: &Keys, other_row: usize) -> Ordering {
        let mut order = self.ids.value(row).cmp(other.ids.value(other_row));
        for (ours, theirs) in self.numbers.iter().zip(&other.numbers) {
            order = order.then_with(|| ours.value(row).cmp(&theirs.value(other_row)));
        }
        order
    }

    /// The key of a row for people.
    fn described(&self, row: usize) -> String {
        let mut text = self.ids.value(row).to_string();
        for numbers in &self.numbers {
            text += &format!(", {}", numbers.value(row));
        }
        text
    }
}

fn prompt_ids(batch: &RecordBatch) -> Option<&StringArray> {
    batch.column_by_name(PROMPT_ID)?.as_string_opt()
}

/// The number of prompt_ids before `end`, in ascending ids.
fn rows_before(ids: &StringArray, end: &str) -> usize {
    let mut low = 0;
    let mut high = ids.len();
    while low < high {
        let middle = low.midpoint(high);
        if ids.value(middle) < end {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
