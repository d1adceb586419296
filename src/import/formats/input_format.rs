//! The formats of external tables and their settings.

use std::path::Path;

use arrow::datatypes::DataType;

/// The format of the files of an external table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// Parquet.
    Parquet,
    /// Values with a delimiter between them.
    Csv {
        /// The delimiter, one byte.
        delimiter: u8,
        /// Whether the first line has the columns' names.
        header: bool,
        /// The columns in the order of the file. If empty, names come from the header (without one:
        /// `column_1`, …) and types from all values.
        columns: Vec<(String, ColumnType)>,
    },
    /// One JSON object a line. Types come from all values.
    JsonLines,
    /// An array of JSON objects, or an object with one such array in it. Types come from all
    /// values.
    Json,
    /// Arrow IPC, a file or a stream.
    Arrow,
}

/// The type of a CSV column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Utf8.
    Text,
    /// Int64.
    Integer,
    /// Float64.
    Number,
    /// Boolean.
    Boolean,
}

impl ColumnType {
    /// The Arrow type.
    pub(super) fn data_type(self) -> DataType {
        match self {
            ColumnType::Text => DataType::Utf8,
            ColumnType::Integer => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Boolean => DataType::Boolean,
        }
    }
}

impl InputFormat {
    /// The format by the file's extension: `.parquet`, `.csv`, `.tsv`, `.jsonl`, `.ndjson`,
    /// `.json`, `.arrow`, `.feather`, `.ipc`. `None` for other names.
    pub fn from_path(path: &Path) -> Option<Self> {
        let csv = |delimiter| InputFormat::Csv { delimiter, header: true, columns: Vec::new() };
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" => Some(InputFormat::Parquet),
            "csv" => Some(csv(b',')),
            "tsv" => Some(csv(b'\t')),
            "jsonl" | "ndjson" => Some(InputFormat::JsonLines),
            "json" => Some(InputFormat::Json),
            "arrow" | "feather" | "ipc" => Some(InputFormat::Arrow),
            _ => None,
        }
    }
}
