//! Whether rows ascend by some columns, from batch to batch. Memory does not grow with the rows.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, DynComparator, RecordBatch, make_comparator};
use arrow::compute::SortOptions;

use super::error::{TableError, missing_column};
use super::kind::TableKind;

/// Finds the first row out of strictly ascending order.
pub(super) struct Ascent {
    kind: TableKind,
    columns: &'static [&'static str],
    last: Option<Vec<ArrayRef>>,
}

impl Ascent {
    pub(super) fn new(kind: TableKind, columns: &'static [&'static str]) -> Self {
        Self { kind, columns, last: None }
    }

    /// The first row of the next batch that is not greater than the row before it.
    pub(super) fn first_unordered(&mut self, batch: &RecordBatch) -> Result<Option<usize>, TableError> {
        let column = |name: &&str| batch.column_by_name(name).cloned().ok_or_else(|| missing_column(self.kind.name(), batch, name));
        let columns: Vec<ArrayRef> = self.columns.iter().map(column).collect::<Result<_, _>>()?;
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(None);
        }
        let last = self.last.replace(columns.iter().map(|column| column.slice(rows - 1, 1)).collect());
        if let Some(last) = last
            && !comes_after(&self.comparators(&last, &columns)?, 0, 0)
        {
            return Ok(Some(0));
        }
        let comparators = self.comparators(&columns, &columns)?;
        Ok((1..rows).find(|row| !comes_after(&comparators, row - 1, *row)))
    }

    fn comparators(&self, before: &[ArrayRef], after: &[ArrayRef]) -> Result<Vec<DynComparator>, TableError> {
        let both = before.iter().zip(after);
        let comparators = both.map(|(before, after)| make_comparator(before, after, SortOptions::default())).collect::<Result<_, _>>();
        comparators.map_err(|source| TableError::Arrow { table: self.kind.to_string(), source })
    }
}

/// Whether row `after` comes after row `before`: by the first column in which they differ.
fn comes_after(comparators: &[DynComparator], before: usize, after: usize) -> bool {
    let differing = comparators.iter().map(|compare| compare(before, after)).find(|ordering| ordering.is_ne());
    differing == Some(Ordering::Less)
}
