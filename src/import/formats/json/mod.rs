//! External JSON files: one object a line, or an array of objects.
//!
//! Both layouts become the same bytes: one object after the other. A file is never in memory as a
//! whole.

mod objects;
mod schema;
mod storable;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;

use self::objects::{Objects, error_at};
use self::storable::storable_batch;
use super::batches::{arrow_message, at_least_one};
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

pub(super) use self::objects::Layout;

/// The rows of several files, file by file, with one schema that all their values fit.
pub(super) fn read(layout: Layout, paths: &[PathBuf], budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, ImportError> {
    paths.iter().try_for_each(|path| budget.expect_file(path))?;
    let schema = Arc::new(schema::infer(layout, paths)?);
    paths.iter().map(|path| rows(layout, path, &schema, budget)).collect()
}

/// The error of row `row` (from 0) of a file, with its line from 1 if the layout has lines.
pub(super) fn row_error(layout: Layout, path: &Path, row: usize, problem: String) -> ImportError {
    let line = match layout {
        // The file was read before. If this fails now, the error has the row instead of the line.
        Layout::Lines => {
            Objects::open(layout, path).ok().and_then(|mut objects| objects.nth(row)).and_then(Result::ok).map(|(line, _)| line)
        }
        Layout::Array => None,
    };
    error_at(path, line, row, problem)
}

fn decoder(schema: &SchemaRef, rows: usize) -> Result<Decoder, ArrowError> {
    ReaderBuilder::new(schema.clone()).with_batch_size(rows).build_decoder()
}

fn rows(layout: Layout, path: &Path, schema: &SchemaRef, budget: &mut Budget) -> Result<Vec<RecordBatch>, ImportError> {
    let most = limits::batch_rows(path, schema.fields())?;
    let whole = |error: ArrowError| ImportError::file(path, arrow_message(error));
    let failed = |error: ArrowError| type_error(layout, path, schema).unwrap_or_else(|| whole(error));
    let mut decoder = decoder(schema, most).map_err(failed)?;
    let mut batches = Vec::new();
    let mut waiting = 0;
    let mut take = |batch: Option<RecordBatch>, batches: &mut Vec<RecordBatch>| {
        batch.iter().try_for_each(|batch| budget.take(path, batch))?;
        batches.extend(batch);
        Ok::<_, ImportError>(())
    };
    for object in Objects::open(layout, path)? {
        let (_, mut bytes) = object?;
        bytes.push(b'\n');
        decoder.decode(&bytes).map_err(failed)?;
        waiting += 1;
        if waiting == most {
            take(decoder.flush().map_err(failed)?, &mut batches)?;
            waiting = 0;
        }
    }
    take(decoder.flush().map_err(failed)?, &mut batches)?;
    let batches = at_least_one(batches, schema).iter().map(storable_batch).collect::<Result<Vec<_>, _>>();
    batches.map_err(whole)
}

/// The error of the first row of other types than the schema's. The decoder reports no row.
fn type_error(layout: Layout, path: &Path, schema: &SchemaRef) -> Option<ImportError> {
    let mut decoder = decoder(schema, 1).ok()?;
    Objects::open(layout, path).ok()?.map_while(Result::ok).enumerate().find_map(|(row, (line, bytes))| {
        let error = decoder.decode(&bytes).map(drop).and_then(|()| decoder.flush().map(drop)).err()?;
        Some(error_at(path, (layout == Layout::Lines).then_some(line), row, arrow_message(error)))
    })
}
