//! Checks of a table batch by batch, in its order. Their memory does not grow with the rows.

use arrow::array::RecordBatch;

use super::ascent::Ascent;
use super::error::{TableError, describe_row};
use super::kind::TableKind;

/// The checks of a table that comes batch by batch.
pub struct InOrder {
    kind: TableKind,
    ascent: Ascent,
    rows_before: usize,
}

impl InOrder {
    /// The checks of a table of `kind` from its first row on.
    pub fn new(kind: TableKind) -> Self {
        Self { kind, ascent: Ascent::new(kind, kind.order()), rows_before: 0 }
    }

    /// Checks columns and rows of the next batch, and that its rows come in the table's order
    /// ([`TableKind::order`]). If the order is the key, this excludes duplicate keys. Otherwise
    /// [`TableKind::check_keys`] must check them.
    ///
    /// # Errors
    /// The first fault; rows count on from batch to batch.
    pub fn check(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        let before = self.rows_before;
        self.rows_before += batch.num_rows();
        self.kind.check_rows(batch).map_err(|error| match error {
            TableError::Row { table, row, problem } => TableError::Row { table, row: before + row, problem },
            other => other,
        })?;
        let Some(row) = self.ascent.first_unordered(batch)? else { return Ok(()) };
        let found = describe_row(self.kind, self.kind.order(), batch, row)?;
        Err(TableError::Order { table: self.kind.to_string(), row: before + row, found })
    }
}
