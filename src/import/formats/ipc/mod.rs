//! External Arrow IPC files and streams.

mod lengths;

use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatchReader;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};

use self::lengths::Container;
use super::batches::{Rows, arrow_message};
use super::columns::ColumnRules;
use super::reader::{self, Format};
use crate::disk;
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

/// The rows of several files, file by file, with one schema.
pub(super) fn read(rules: &ColumnRules, paths: &[PathBuf], budget: &mut Budget) -> Result<Rows, ImportError> {
    paths.iter().try_for_each(|path| budget.expect_file(path))?;
    reader::read(&Format { schema, open }, rules, paths, budget)
}

fn schema(path: &Path) -> Result<SchemaRef, ImportError> {
    Ok(reader_of(path, None)?.schema())
}

fn open(path: &Path, columns: &[usize], _: &Budget) -> Result<Box<dyn RecordBatchReader>, ImportError> {
    reader_of(path, Some(columns.to_vec()))
}

/// A file or a stream whose lengths are within the file and the limits.
fn reader_of(path: &Path, columns: Option<Vec<usize>>) -> Result<Box<dyn RecordBatchReader>, ImportError> {
    let file = || disk::open(path).map(BufReader::new).map_err(ImportError::io(path));
    let failed = |error: ArrowError| ImportError::file(path, arrow_message(error));
    let container = lengths::check(path).map_err(ImportError::io(path))?.map_err(|problem| ImportError::file(path, problem))?;
    let reader: Box<dyn RecordBatchReader> = match container {
        Container::File => Box::new(FileReader::try_new(file()?, columns).map_err(failed)?),
        Container::Stream => Box::new(StreamReader::try_new(file()?, columns).map_err(failed)?),
    };
    limits::batch_rows(path, reader.schema().fields())?;
    Ok(reader)
}
