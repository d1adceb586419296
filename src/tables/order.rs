//! Tables that come batch by batch, in the order that they are written in: checks whose memory does not grow with the rows.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, DynComparator, RecordBatch, make_comparator};
use arrow::compute::SortOptions;

use super::check::described;
use super::error::missing_column;
use super::{TableError, TableKind};

/// Whether rows ascend by some columns; no two of them are equal then.
pub(super) struct Ascent {
    kind: TableKind,
    columns: &'static [&'static str],
    last: Option<Vec<ArrayRef>>,
}

impl Ascent {
    pub(super) fn new(kind: TableKind, columns: &'static [&'static str]) -> Self {
        Self { kind, columns, last: None }
    }

    /// The first row of the next batch that does not come after the row before it.
    pub(super) fn broken_by(&mut self, batch: &RecordBatch) -> Result<Option<usize>, TableError> {
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

/// The checks of a table that comes batch by batch.
pub struct InOrder {
    kind: TableKind,
    ascent: Ascent,
    before: usize,
}

impl InOrder {
    /// The checks of a table of `kind` from its first row on.
    pub fn new(kind: TableKind) -> Self {
        Self { kind, ascent: Ascent::new(kind, kind.order()), before: 0 }
    }

    /// Checks columns and rows of the next batch, and that its rows come in the table's order ([`TableKind::order`]). Where that is the
    /// key, no key can be there twice; where it is not, [`TableKind::check_keys`] has to see to that.
    ///
    /// # Errors
    /// The first thing wrong; rows count on from batch to batch.
    pub fn check(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        let before = self.before;
        self.before += batch.num_rows();
        self.kind.check_rows(batch).map_err(|error| match error {
            TableError::Row { table, row, problem } => TableError::Row { table, row: before + row, problem },
            other => other,
        })?;
        let Some(row) = self.ascent.broken_by(batch)? else { return Ok(()) };
        let columns = self.ascent.columns;
        Err(TableError::Order { table: self.kind.to_string(), row: before + row, found: described(self.kind, columns, batch, row)? })
    }
}
