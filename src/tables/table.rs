//! The macro that makes a table from the list of its columns.
//!
//! Knows how a row becomes cells and back, not what any column means.

/// Makes `Row`, `KEY`, `schema`, `batch`, `rows` and `check` from a table's columns. `Row` must have `fn check(&self) -> Result<(), String>`.
macro_rules! table {
    (
        $kind:ident, version $version:literal, key [$($key:ident),+];
        $(#[$row_attribute:meta])*
        pub struct Row { $($(#[$attribute:meta])* pub $column:ident: $cell:ty,)+ }
    ) => {
        $(#[$row_attribute])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct Row { $($(#[$attribute])* pub $column: $cell,)+ }

        /// The columns that together name a row, within an iteration.
        pub const KEY: &[&str] = &[$(stringify!($key)),+];

        /// The table's columns; the metadata names the table and the schema's version.
        pub fn schema() -> arrow::datatypes::SchemaRef {
            use $crate::tables::cell::field;
            static SCHEMA: std::sync::LazyLock<arrow::datatypes::SchemaRef> = std::sync::LazyLock::new(|| {
                $crate::tables::check::versioned($crate::tables::TableKind::$kind, $version, vec![$(field::<$cell>(stringify!($column))),+])
            });
            SCHEMA.clone()
        }

        /// The rows as Arrow. Text and token ids of one batch must stay below 2 GiB and 2^31 values (Arrow's 32-bit offsets).
        pub fn batch(rows: &[Row]) -> arrow::array::RecordBatch {
            use $crate::tables::cell::Cell;
            let columns = vec![$(<$cell as Cell>::array(rows.iter().map(|row| Some(&row.$column)))),+];
            // Types and nulls come from the same list of cells as the schema, and every column has rows.len() values.
            arrow::array::RecordBatch::try_new(schema(), columns).expect("columns made from the schema's own cells")
        }

        /// The batch as rows, in order.
        ///
        /// # Errors
        /// The batch's schema is not the table's, or a word (such as a finish_reason) is unknown.
        pub fn rows(batch: &arrow::array::RecordBatch) -> Result<Vec<Row>, $crate::tables::TableError> {
            let kind = $crate::tables::TableKind::$kind;
            $crate::tables::check::schema(kind, batch)?;
            $(let mut $column = $crate::tables::cell::cells::<$cell>(kind, batch, stringify!($column))?.into_iter();)+
            let mut rows = Vec::with_capacity(batch.num_rows());
            while let ($(Some($column),)+) = ($($column.next(),)+) {
                rows.push(Row { $($column),+ });
            }
            Ok(rows)
        }

        /// Checks every row, a slice at a time so that memory stays small.
        pub(super) fn check(batch: &arrow::array::RecordBatch) -> Result<(), $crate::tables::TableError> {
            $crate::tables::check::slices(batch, |slice| {
                $crate::tables::check::each($crate::tables::TableKind::$kind, &rows(slice)?, Row::check)
            })
        }
    };
}
