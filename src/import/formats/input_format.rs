//! The formats of external tables and their settings.

use std::path::Path;

/// The format of the files of an external table. Text formats may be compressed by gzip or zstd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// Parquet.
    Parquet,
    /// Values with a delimiter between them.
    Csv {
        /// The delimiter, one byte.
        delimiter: u8,
        /// Whether the first line has the columns' names. Without it the user gives all names.
        header: bool,
    },
    /// One JSON object a line. Types come from all values.
    JsonLines,
    /// An array of JSON objects, or an object with one such array in it. Types come from all
    /// values.
    Json,
    /// Arrow IPC, a file or a stream.
    Arrow,
}

impl InputFormat {
    /// The format by the file's extension: `.parquet`, `.csv`, `.tsv`, `.jsonl`, `.ndjson`,
    /// `.json`, `.arrow`, `.feather`, `.ipc`; for text also with `.gz` or `.zst` behind. `None` for
    /// other names.
    pub fn from_path(path: &Path) -> Option<Self> {
        let extension = |path: &Path| path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let compressed = extension(path).is_some_and(|extension| extension == "gz" || extension == "zst");
        let inner = if compressed { path.with_extension("") } else { path.to_path_buf() };
        let csv = |delimiter| InputFormat::Csv { delimiter, header: true };
        match extension(&inner)?.as_str() {
            "csv" => Some(csv(b',')),
            "tsv" => Some(csv(b'\t')),
            "jsonl" | "ndjson" => Some(InputFormat::JsonLines),
            "json" => Some(InputFormat::Json),
            "parquet" if !compressed => Some(InputFormat::Parquet),
            "arrow" | "feather" | "ipc" if !compressed => Some(InputFormat::Arrow),
            _ => None,
        }
    }
}
