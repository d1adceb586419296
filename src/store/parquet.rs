//! Deterministic Parquet files: their bytes depend only on the rows, the fingerprint and the part's
//! number.

use std::io::{self, Write};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use ::parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use ::parquet::file::writer::SerializedFileWriter;
use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use rayon::prelude::*;

use super::StoreError;
use crate::dag::fingerprint::Fingerprint;
use crate::disk;
use crate::tables::{SCHEMA_VERSION_KEY, TABLE_KEY};

/// Rows in a row group; a query can skip a whole row group.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Writes a Parquet file outside a table of a run: an export, or a training log in a checkpoint.
///
/// # Errors
/// The file cannot be written.
pub fn write_parquet(path: &Path, batch: &RecordBatch) -> Result<(), StoreError> {
    let failed = |source| cannot_write(path, source);
    let file = disk::File::create(path).map_err(StoreError::io("write", path))?;
    let mut encoder = Encoder::new(file, batch.schema_ref(), &[]).map_err(failed)?;
    encoder.write(batch).map_err(failed)?;
    encoder.finish().map_err(failed)
}

/// The error for a failed write: the system's own error if there is one.
pub(super) fn cannot_write(path: &Path, error: ParquetError) -> StoreError {
    let source = match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(system) => return StoreError::io("write", path)(*system),
            Err(inner) => ParquetError::External(inner),
        },
        other => other,
    };
    StoreError::Parquet { path: path.to_path_buf(), source }
}

/// All rows of a Parquet file as one batch, possibly empty.
///
/// # Errors
/// The file cannot be read or is not a Parquet file.
pub fn read_parquet(path: &Path) -> Result<RecordBatch, StoreError> {
    decode(path)
}

/// A batch as a Parquet file with this metadata.
pub(super) fn encode(batch: &RecordBatch, metadata: &[(&str, String)]) -> Result<Vec<u8>, ParquetError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, batch.schema_ref(), metadata)?;
    encoder.write(batch)?;
    encoder.finish()?;
    Ok(bytes)
}

/// Writes a Parquet file batch by batch. Two row groups are in memory at a time: one fills while
/// the other is encoded.
///
/// The bytes depend on the rows alone. Batch sizes and the number of threads have no influence.
pub(super) struct Encoder<W: Write + Send> {
    file: SerializedFileWriter<W>,
    row_groups: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// The rows of the next row group.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    /// The previous row group.
    encoding: Option<JoinHandle<Result<Vec<ArrowColumnChunk>, ParquetError>>>,
}

impl<W: Write + Send> Encoder<W> {
    /// A part of a table; the metadata has its fingerprint and number.
    pub(super) fn for_part(sink: W, schema: &Schema, fingerprint: &Fingerprint, part: usize) -> Result<Self, ParquetError> {
        Self::new(sink, schema, &[("fingerprint", fingerprint.to_string()), ("part", part.to_string())])
    }

    /// A file with this metadata.
    fn new(sink: W, schema: &Schema, metadata: &[(&str, String)]) -> Result<Self, ParquetError> {
        let properties = properties(schema, metadata)?;
        let schema = without_metadata(schema);
        let (file, row_groups) = ArrowWriter::try_new(sink, schema.clone(), Some(properties))?.into_serialized_writer()?;
        Ok(Self { file, row_groups, schema, waiting: Vec::new(), waiting_rows: 0, encoding: None })
    }

    /// Appends rows with the file's columns.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut rest = plain(batch)?;
        while rest.num_rows() > 0 {
            let rows = rest.num_rows().min(ROW_GROUP_ROWS - self.waiting_rows);
            self.waiting.push(rest.slice(0, rows));
            self.waiting_rows += rows;
            rest = rest.slice(rows, rest.num_rows() - rows);
            if self.waiting_rows == ROW_GROUP_ROWS {
                self.encode_row_group()?;
            }
        }
        Ok(())
    }

    /// Writes the remaining rows and the footer. `into_inner` would turn the system's errors into
    /// texts.
    pub(super) fn finish(mut self) -> Result<(), ParquetError> {
        if self.waiting_rows > 0 {
            self.encode_row_group()?;
        }
        self.write_row_group()?;
        self.file.close().map(drop)
    }

    /// Writes the previous row group and begins to encode the waiting rows.
    fn encode_row_group(&mut self) -> Result<(), ParquetError> {
        self.write_row_group()?;
        let batches = std::mem::take(&mut self.waiting);
        self.waiting_rows = 0;
        let schema = self.schema.clone();
        let mut writers: Vec<Vec<ArrowColumnWriter>> = schema.fields().iter().map(|_| Vec::new()).collect();
        for (leaf, writer) in self.row_groups.create_column_writers(self.file.flushed_row_groups().len())?.into_iter().enumerate() {
            // The root of a leaf is a column of the schema.
            writers[self.file.schema_descr().get_column_root_idx(leaf)].push(writer);
        }
        self.encoding = Some(std::thread::spawn(move || {
            let columns = writers.into_par_iter().enumerate().map(|(index, writers)| encode_column(&schema, index, &batches, writers));
            Ok(columns.collect::<Result<Vec<_>, ParquetError>>()?.into_iter().flatten().collect())
        }));
        Ok(())
    }

    /// Waits for the encoded row group and writes it.
    fn write_row_group(&mut self) -> Result<(), ParquetError> {
        let Some(encoding) = self.encoding.take() else { return Ok(()) };
        let columns = encoding.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        let mut row_group = self.file.next_row_group()?;
        columns.into_iter().try_for_each(|column| column.append_to_row_group(&mut row_group))?;
        row_group.close().map(drop)
    }
}

/// Encodes the column `index` of a row group.
fn encode_column(
    schema: &Schema,
    index: usize,
    batches: &[RecordBatch],
    mut writers: Vec<ArrowColumnWriter>,
) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
    let pieces: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
    let leaves = compute_leaves(schema.field(index), &arrow::compute::concat(&pieces)?)?;
    writers.iter_mut().zip(&leaves).try_for_each(|(writer, leaf)| writer.write(leaf))?;
    writers.into_iter().map(ArrowColumnWriter::close).collect()
}

/// Every setting is explicit, so a new default of the library changes nothing.
fn properties(schema: &Schema, metadata: &[(&str, String)]) -> Result<WriterProperties, ParquetError> {
    let mut entries = Vec::new();
    for key in [TABLE_KEY, SCHEMA_VERSION_KEY] {
        entries.extend(schema.metadata().get(key).map(|value| KeyValue::new(key.to_string(), value.clone())));
    }
    entries.extend(metadata.iter().map(|(key, value)| KeyValue::new(key.to_string(), value.clone())));
    let properties = WriterProperties::builder()
        .set_created_by("optune".to_string())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(entries));
    Ok(properties.build())
}

/// All rows of a file as one batch, possibly empty, without the schema's metadata.
pub(super) fn decode(path: &Path) -> Result<RecordBatch, StoreError> {
    let failed = |source| StoreError::Parquet { path: path.to_path_buf(), source };
    let file = disk::open(path).map_err(StoreError::io("read", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    // A negative number of rows is left to the reader.
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
    let schema = builder.schema().clone();
    let batches = builder.with_batch_size(rows.max(1)).build().map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let batches = batches.map_err(|error| failed(error.into()))?;
    let batch = arrow::compute::concat_batches(&schema, &batches).map_err(|error| failed(error.into()))?;
    plain(&batch).map_err(failed)
}

/// The columns of a file, without reading its rows.
pub(crate) fn schema(path: &Path) -> Result<SchemaRef, StoreError> {
    let file = disk::open(path).map_err(StoreError::io("read", path))?;
    let metadata =
        ArrowReaderMetadata::load(&file, Default::default()).map_err(|source| StoreError::Parquet { path: path.to_path_buf(), source })?;
    Ok(without_metadata(metadata.schema()))
}

/// The batch without its schema's metadata.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, ParquetError> {
    // `with_schema` would require the old metadata.
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(without_metadata(batch.schema_ref()), batch.columns().to_vec(), &rows)?)
}

fn without_metadata(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}
