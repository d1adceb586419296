//! Parquet files whose bytes depend on nothing but the rows, the fingerprint and the part's number.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};

use super::StoreError;
use crate::dag::fingerprint::Fingerprint;
use crate::tables::{SCHEMA_VERSION_KEY, TABLE_KEY};

/// Rows a row group; also the unit that a query can skip.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Writes a Parquet file that is no part of a run: an export, a training node's log in a checkpoint.
///
/// # Errors
/// The file cannot be written.
pub fn write_parquet(path: &Path, batch: &RecordBatch) -> Result<(), StoreError> {
    let failed = |source| StoreError::Parquet { path: path.to_path_buf(), source };
    let bytes = encode(batch, &[]).map_err(failed)?;
    std::fs::write(path, bytes).map_err(StoreError::io("write", path))
}

/// All rows of a Parquet file as one batch, maybe an empty one.
///
/// # Errors
/// The file cannot be read or is no Parquet file.
pub fn read_parquet(path: &Path) -> Result<RecordBatch, StoreError> {
    decode(path)
}

/// One part as the bytes of a Parquet file; it names what it is a part of.
pub(super) fn encode_part(batch: &RecordBatch, fingerprint: &Fingerprint, part: usize) -> Result<Vec<u8>, ParquetError> {
    encode(batch, &[("fingerprint", fingerprint.to_string()), ("part", part.to_string())])
}

/// A batch of a Parquet file with these words about it. Every setting is written out, so that a library's new default changes nothing.
pub(super) fn encode(batch: &RecordBatch, words: &[(&str, String)]) -> Result<Vec<u8>, ParquetError> {
    let mut metadata = Vec::new();
    for key in [TABLE_KEY, SCHEMA_VERSION_KEY] {
        metadata.extend(batch.schema_ref().metadata().get(key).map(|value| KeyValue::new(key.to_string(), value.clone())));
    }
    metadata.extend(words.iter().map(|(key, value)| KeyValue::new(key.to_string(), value.clone())));
    let properties = WriterProperties::builder()
        .set_created_by("optune".to_string())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(metadata))
        .build();
    let plain = plain(batch)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), plain.schema(), Some(properties))?;
    writer.write(&plain)?;
    writer.into_inner()
}

/// All rows of a file as one batch, maybe an empty one. The schema's metadata is dropped.
pub(super) fn decode(path: &Path) -> Result<RecordBatch, StoreError> {
    let failed = |source| StoreError::Parquet { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(StoreError::io("read", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
    let schema = builder.schema().clone();
    let batches = builder.with_batch_size(rows.max(1)).build().map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let batches = batches.map_err(|error| failed(error.into()))?;
    let batch = arrow::compute::concat_batches(&schema, &batches).map_err(|error| failed(error.into()))?;
    plain(&batch).map_err(failed)
}

/// The columns of a file, without reading its rows.
pub(super) fn schema(path: &Path) -> Result<SchemaRef, StoreError> {
    let file = File::open(path).map_err(StoreError::io("read", path))?;
    let metadata =
        ArrowReaderMetadata::load(&file, Default::default()).map_err(|source| StoreError::Parquet { path: path.to_path_buf(), source })?;
    Ok(without_metadata(metadata.schema()))
}

/// The batch without its schema's metadata.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, ParquetError> {
    // Not `with_schema`, which wants the old metadata to stay.
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(without_metadata(batch.schema_ref()), batch.columns().to_vec(), &rows)?)
}

fn without_metadata(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}
