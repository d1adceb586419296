//! External Parquet files. Their metadata is checked before their rows are read.

mod bounded_file;
mod expansion;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use ::parquet::basic::{LogicalType, Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::SerializedFileReader;
use ::parquet::schema::types::TypePtr;
use arrow::array::RecordBatchReader;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use self::bounded_file::BoundedFile;
use super::batches::Rows;
use super::columns::{ColumnRules, json_field};
use super::reader::{self, Format};
use crate::disk;
use crate::import::error::ImportError;
use crate::import::limits::{self, Budget};

/// The rows of several files, file by file, with one schema.
pub(super) fn read(rules: &ColumnRules, paths: &[PathBuf], budget: &mut Budget) -> Result<Rows, ImportError> {
    reader::read(&Format { schema, open }, rules, paths, budget)
}

fn file(path: &Path) -> Result<BoundedFile, ImportError> {
    disk::open(path).map(BoundedFile).map_err(ImportError::io(path))
}

fn failed(path: &Path) -> impl Fn(ParquetError) -> ImportError {
    move |source| ImportError::Parquet { path: path.to_path_buf(), source }
}

/// The columns; those of JSON are marked.
fn schema(path: &Path) -> Result<SchemaRef, ImportError> {
    let metadata = metadata(path)?;
    limits::batch_rows(path, metadata.schema().fields())?;
    let roots = metadata.parquet_schema().root_schema().get_fields();
    let field = |(field, root): (&FieldRef, &TypePtr)| match root.get_basic_info().logical_type_ref() {
        Some(LogicalType::Json) => json_field(field.name()).into(),
        _ => field.clone(),
    };
    Ok(Arc::new(Schema::new(metadata.schema().fields().iter().zip(roots).map(field).collect::<Vec<FieldRef>>())))
}

/// The metadata. Old timestamps of 96 bits are read in microseconds: in nanoseconds, those before
/// 1678 and after 2261 would become others. Inside a list or struct they are refused ([`open`]).
fn metadata(path: &Path) -> Result<ArrowReaderMetadata, ImportError> {
    let metadata = ArrowReaderMetadata::load(&file(path)?, ArrowReaderOptions::new()).map_err(failed(path))?;
    let roots = metadata.parquet_schema().root_schema().get_fields();
    let is_old = |root: &TypePtr| root.is_primitive() && root.get_physical_type() == Type::INT96;
    if !roots.iter().any(is_old) {
        return Ok(metadata);
    }
    let field = |(field, root): (&FieldRef, &TypePtr)| {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        if is_old(root) { Field::new(field.name(), micros, field.is_nullable()).into() } else { field.clone() }
    };
    let fields: Vec<FieldRef> = metadata.schema().fields().iter().zip(roots).map(field).collect();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::load(&file(path)?, options).map_err(failed(path))
}

/// A file whose metadata fits the limits, for the columns at these places.
fn open(path: &Path, columns: &[usize], budget: &Budget) -> Result<Box<dyn RecordBatchReader>, ImportError> {
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file(path)?, metadata(path)?);
    let most_rows = limits::batch_rows(path, builder.schema().fields())?;
    let leaves = builder.parquet_schema();
    let is_nested = |leaf: &usize| leaves.column(*leaf).physical_type() == Type::INT96 && leaves.column(*leaf).path().parts().len() > 1;
    if let Some(leaf) = (0..leaves.num_columns()).filter(is_nested).find(|leaf| columns.contains(&leaves.get_column_root_idx(*leaf))) {
        let name = leaves.column(leaf).path().string();
        let problem = format!("column {name}: expected no timestamps of 96 bits inside a list or struct; write them with 64 bits");
        return Err(ImportError::file(path, problem));
    }
    let read = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
    expansion::check(path, builder.metadata(), &read, budget)?;
    let rows = SerializedFileReader::new(file(path)?).and_then(|reader| expansion::batch_rows(&reader, &read, most_rows));
    let rows = rows.map_err(failed(path))?;
    Ok(Box::new(builder.with_projection(read).with_batch_size(rows).build().map_err(failed(path))?))
}
