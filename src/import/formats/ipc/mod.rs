//! External Arrow IPC files and streams.

mod lengths;

use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};

use self::lengths::Container;
use super::batches::arrow_message;
use super::reader;
use crate::disk;
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

/// The rows of several files, file by file, all with the columns of the first.
pub(super) fn read(paths: &[PathBuf], budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, ImportError> {
    reader::read(paths, open, budget)
}

/// A file or a stream whose lengths are within the file and the limits.
fn open(path: &Path, budget: &Budget) -> Result<Box<dyn RecordBatchReader>, ImportError> {
    budget.expect_file(path)?;
    let file = || disk::open(path).map(BufReader::new).map_err(ImportError::io(path));
    let failed = |error: ArrowError| ImportError::file(path, arrow_message(error));
    let container = lengths::check(path).map_err(ImportError::io(path))?.map_err(|problem| ImportError::file(path, problem))?;
    let reader: Box<dyn RecordBatchReader> = match container {
        Container::File => Box::new(FileReader::try_new(file()?, None).map_err(failed)?),
        Container::Stream => Box::new(StreamReader::try_new(file()?, None).map_err(failed)?),
    };
    limits::batch_rows(path, reader.schema().fields())?;
    Ok(reader)
}
