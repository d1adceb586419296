//! External Parquet files. Their metadata is checked before their rows are read.

mod bounded_file;
mod expansion;

use std::path::{Path, PathBuf};

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::file::reader::SerializedFileReader;
use arrow::array::{RecordBatch, RecordBatchReader};

use self::bounded_file::BoundedFile;
use super::reader;
use crate::disk;
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

/// The rows of several files, file by file, all with the columns of the first.
pub(super) fn read(paths: &[PathBuf], budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, ImportError> {
    reader::read(paths, open, budget)
}

/// A file whose metadata fits the limits.
fn open(path: &Path, budget: &Budget) -> Result<Box<dyn RecordBatchReader>, ImportError> {
    let failed = |source| ImportError::Parquet { path: path.to_path_buf(), source };
    let file = || disk::open(path).map(BoundedFile).map_err(ImportError::io(path));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file()?).map_err(failed)?;
    let most_rows = limits::batch_rows(path, builder.schema().fields())?;
    expansion::check(path, builder.metadata(), budget)?;
    let rows = SerializedFileReader::new(file()?).and_then(|reader| expansion::batch_rows(&reader, most_rows)).map_err(failed)?;
    Ok(Box::new(builder.with_batch_size(rows).build().map_err(failed)?))
}
