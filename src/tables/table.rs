//! The macro that makes a table from the list of its columns.
//!
//! Knows how a row becomes cells and back. Knows no column.

/// Makes `Row`, `View`, `KEY`, `ROW_MEANING`, `COLUMNS`, `schema`, `batch`, `rows` and `check` from
/// a table's columns.
///
/// The doc comments of the row and of its columns become `ROW_MEANING` and `COLUMNS`, for the
/// documentation. `View` must have `fn check(&self) -> Result<(), String>`; its error says what was
/// expected of a row and what was found.
macro_rules! table {
    (
        $kind:ident, version $version:literal, key [$($key:ident),+];
        $(#[doc = $row_meaning:literal])+
        pub struct Row { $($(#[doc = $meaning:literal])+ pub $column:ident: $cell:ty,)+ }
    ) => {
        $(#[doc = $row_meaning])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct Row { $($(#[doc = $meaning])+ pub $column: $cell,)+ }

        /// The columns that together name a row, within an iteration.
        pub const KEY: &[&str] = &[$(stringify!($key)),+];

        /// The meaning of one row, in Markdown.
        pub const ROW_MEANING: &str = concat!($($row_meaning),+).trim_ascii_start();

        /// The columns with their meanings, in the schema's order.
        pub const COLUMNS: &[$crate::tables::columns::ColumnMeaning] = &[$($crate::tables::columns::ColumnMeaning {
            name: stringify!($column),
            meaning: concat!($($meaning),+).trim_ascii_start(),
        }),+];

        /// The table's columns; the metadata names the table and the schema's version.
        pub fn schema() -> arrow::datatypes::SchemaRef {
            use $crate::tables::cell::field;
            static SCHEMA: std::sync::LazyLock<arrow::datatypes::SchemaRef> = std::sync::LazyLock::new(|| {
                $crate::tables::check::versioned($crate::tables::kind::TableKind::$kind, $version, vec![$(field::<$cell>(stringify!($column))),+])
            });
            SCHEMA.clone()
        }

        /// The rows as Arrow. Text and token ids of one batch must stay below 2 GiB and 2^31 values
        /// (Arrow's 32-bit offsets).
        pub fn batch(rows: &[Row]) -> arrow::array::RecordBatch {
            use $crate::tables::cell::Cell;
            let columns = vec![$(<$cell as Cell>::array(rows.iter().map(|row| Some(&row.$column)))),+];
            // Types and nulls come from the schema's own list of cells. Every column has rows.len()
            // values.
            arrow::array::RecordBatch::try_new(schema(), columns).expect("columns made from the schema's own cells")
        }

        /// One row for its checks: texts and token ids are borrowed.
        struct View<'a> { $($column: <$cell as $crate::tables::cell::Cell>::View<'a>,)+ }

        /// Calls `each` with every row, in order.
        fn views(
            batch: &arrow::array::RecordBatch,
            mut each: impl FnMut(View<'_>) -> Result<(), String>,
        ) -> Result<(), $crate::tables::error::TableError> {
            use $crate::tables::{cell, error::TableError};
            let kind = $crate::tables::kind::TableKind::$kind;
            $(let $column = cell::column::<$cell>(kind, batch, stringify!($column))?;)+
            (0..batch.num_rows()).try_for_each(|row| {
                $(let $column = cell::view::<$cell>(kind, &$column, stringify!($column), row)?;)+
                each(View { $($column),+ }).map_err(|problem| TableError::row(kind, row, problem))
            })
        }

        /// The batch as rows, in order.
        ///
        /// # Errors
        /// The batch has another schema, or a word (such as a finish_reason) is unknown.
        pub fn rows(batch: &arrow::array::RecordBatch) -> Result<Vec<Row>, $crate::tables::error::TableError> {
            use $crate::tables::cell::Cell;
            $crate::tables::check::schema($crate::tables::kind::TableKind::$kind, &schema(), batch)?;
            let mut rows = Vec::with_capacity(batch.num_rows());
            views(batch, |view| {
                rows.push(Row { $($column: <$cell as Cell>::owned(view.$column)),+ });
                Ok(())
            })?;
            Ok(rows)
        }

        /// Checks every row of a batch with the table's schema.
        pub(super) fn check(batch: &arrow::array::RecordBatch) -> Result<(), $crate::tables::error::TableError> {
            let kind = $crate::tables::kind::TableKind::$kind;
            views(batch, |view| view.check()).map_err(|error| $crate::tables::check::with_key(kind, KEY, batch, error))
        }
    };
}
