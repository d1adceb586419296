//! Files from outside: tables in the usual formats, and the fingerprints of files and folders.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::{ModelFile, StoreError, files, parquet};
use crate::dag::fingerprint::Fingerprint;

/// Rows a batch of CSV and JSON lines.
const BATCH_ROWS: usize = 8192;

/// How a table from outside is written.
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
        /// The columns in the order of the file. If empty, names come from the header (without one: `column_1`, …), types from all values.
        columns: Vec<(String, ColumnType)>,
    },
    /// One JSON object a line; types come from all values.
    JsonLines,
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
    fn data_type(self) -> DataType {
        match self {
            ColumnType::Text => DataType::Utf8,
            ColumnType::Integer => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Boolean => DataType::Boolean,
        }
    }
}

impl InputFormat {
    /// The format that the file's name says: `.parquet`, `.csv`, `.tsv`, `.jsonl`, `.ndjson`; `None` for other names.
    pub fn of_path(path: &Path) -> Option<Self> {
        let csv = |delimiter| InputFormat::Csv { delimiter, header: true, columns: Vec::new() };
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" => Some(InputFormat::Parquet),
            "csv" => Some(csv(b',')),
            "tsv" => Some(csv(b'\t')),
            "jsonl" | "ndjson" => Some(InputFormat::JsonLines),
            _ => None,
        }
    }
}

/// All rows of a file, in order: at least one batch, maybe an empty one.
///
/// # Errors
/// The file cannot be read, or a line is not what the format says; the error names the line where the reader knows it.
pub fn read_input(format: &InputFormat, path: &Path) -> Result<Vec<RecordBatch>, StoreError> {
    match format {
        InputFormat::Parquet => parquet::decode(path).map(|batch| vec![batch]),
        InputFormat::Csv { delimiter, header, columns } => read_csv(path, *delimiter, *header, columns),
        InputFormat::JsonLines => read_json_lines(path),
    }
}

fn read_csv(path: &Path, delimiter: u8, header: bool, columns: &[(String, ColumnType)]) -> Result<Vec<RecordBatch>, StoreError> {
    let failed = |error: ArrowError| {
        let (problem, line) = line_of(message(error));
        StoreError::Input { path: path.to_path_buf(), line, problem }
    };
    let format = arrow::csv::reader::Format::default().with_delimiter(delimiter).with_header(header);
    let mut file = open(path)?;
    let schema = if columns.is_empty() {
        let (schema, _) = format.infer_schema(&mut file, None).map_err(failed)?;
        file.rewind().map_err(StoreError::io("read", path))?;
        schema
    } else {
        Schema::new(columns.iter().map(|(name, column_type)| Field::new(name, column_type.data_type(), true)).collect::<Vec<_>>())
    };
    let schema = Arc::new(schema);
    let reader = arrow::csv::ReaderBuilder::new(schema.clone()).with_format(format).with_batch_size(BATCH_ROWS);
    let batches = reader.build(file).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(never_empty(batches, &schema))
}

fn read_json_lines(path: &Path) -> Result<Vec<RecordBatch>, StoreError> {
    let failed = |error: ArrowError| {
        bad_line(path).unwrap_or_else(|| StoreError::Input { path: path.to_path_buf(), line: None, problem: message(error) })
    };
    let mut file = open(path)?;
    let (schema, _) = arrow::json::reader::infer_json_schema_from_seekable(&mut file, None).map_err(failed)?;
    let schema = Arc::new(schema);
    let reader = arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS).build(file).map_err(failed)?;
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(never_empty(batches, &schema))
}

/// The first line that is not a JSON object, to say where the reader only says that.
fn bad_line(path: &Path) -> Option<StoreError> {
    open(path).ok()?.lines().map_while(Result::ok).enumerate().find_map(|(index, line)| {
        let problem = match serde_json::from_str::<serde_json::Value>(&line) {
            _ if line.trim().is_empty() => return None,
            Ok(value) if value.is_object() => return None,
            Ok(_) => "expected a JSON object, found another JSON value".to_string(),
            Err(error) => format!("expected a JSON object, found {error}"),
        };
        Some(StoreError::Input { path: path.to_path_buf(), line: Some(index as u64 + 1), problem })
    })
}

fn open(path: &Path) -> Result<BufReader<File>, StoreError> {
    File::open(path).map(BufReader::new).map_err(StoreError::io("read", path))
}

fn never_empty(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Vec<RecordBatch> {
    if batches.is_empty() { vec![RecordBatch::new_empty(schema.clone())] } else { batches }
}

/// Arrow's message about CSV without its line, and that line from 1: Arrow counts from 0 where a value is wrong.
fn line_of(message: String) -> (String, Option<u64>) {
    let Some((before, after)) = message.split_once(" at line ") else { return (message, None) };
    let (number, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
    match number.parse::<u64>() {
        Ok(line) => (format!("{before}{after}"), Some(line + u64::from(before.starts_with("Error while parsing")))),
        Err(_) => (message, None),
    }
}

/// The reader's words without its name for the kind of error.
fn message(error: ArrowError) -> String {
    match error {
        ArrowError::CsvError(text) | ArrowError::JsonError(text) | ArrowError::ParseError(text) | ArrowError::SchemaError(text) => text,
        other => other.to_string(),
    }
}

/// The fingerprint of what is in a file, or in a folder: names and contents of all files but dot files. Where it lies does not matter.
///
/// # Errors
/// Something cannot be read, or a folder has no files.
pub fn fingerprint_of(path: &Path) -> Result<Fingerprint, StoreError> {
    if !path.is_dir() {
        return files::hash(path).map(|(_, hash)| hash.into());
    }
    let names = files::walk(path)?;
    if names.is_empty() {
        return Err(StoreError::Input {
            path: path.to_path_buf(),
            line: None,
            problem: "expected files, found an empty folder".to_string(),
        });
    }
    Ok(fingerprint_of_files(&hash_files(path, &names)?))
}

/// The length and the blake3 of each of these files of a folder.
///
/// # Errors
/// A file cannot be read.
pub fn hash_files(folder: &Path, names: &[String]) -> Result<Vec<ModelFile>, StoreError> {
    let hashed = |file: &String| {
        let (bytes, hash) = files::hash(&folder.join(file))?;
        Ok(ModelFile { file: file.clone(), bytes, blake3: hash.to_hex().to_string() })
    };
    names.iter().map(hashed).collect()
}

/// The fingerprint of a folder with just these files, which are sorted by name.
pub fn fingerprint_of_files(files: &[ModelFile]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    for ModelFile { file, blake3, .. } in files {
        // File names have no line ends on any system we name files on; where they do, the length keeps names apart.
        hasher.update(format!("{} {file} {blake3}\n", file.len()).as_bytes());
    }
    hasher.finalize().into()
}
