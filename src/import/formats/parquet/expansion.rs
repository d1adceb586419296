//! The memory that a Parquet file needs once it is decoded, estimated from its metadata and its
//! dictionaries.
//!
//! A run of equal values takes a few bytes in the file, and so does a text of a dictionary. In
//! memory every value takes space.

use std::path::Path;

use ::parquet::arrow::ProjectionMask;
use ::parquet::basic::{Encoding, Type};
use ::parquet::column::page::Page;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use ::parquet::file::reader::{FileReader, SerializedFileReader};

use super::bounded_file::BoundedFile;
use crate::import::error::ImportError;
use crate::import::limits::Budget;

/// The bytes that the texts of a batch may take if their dictionaries hold long ones.
const BATCH_BYTES: u64 = 256 << 20;

/// Fails if the values of the columns to `read` take more memory than the budget, by the file's
/// metadata.
pub(super) fn check(path: &Path, metadata: &ParquetMetaData, read: &ProjectionMask, budget: &Budget) -> Result<(), ImportError> {
    let mut columns = vec![Column::default(); metadata.file_metadata().schema_descr().num_columns()];
    for row_group in metadata.row_groups() {
        for (leaf, (column, chunk)) in columns.iter_mut().zip(row_group.columns()).enumerate() {
            if read.leaf_included(leaf) {
                column.add(chunk);
            }
        }
    }
    let total = columns.iter().fold(0_u64, |total, column| total.saturating_add(column.bytes));
    budget.expect(path, total, || {
        let rows = metadata.file_metadata().num_rows();
        let largest = columns.iter().enumerate().max_by_key(|(_, column)| column.bytes);
        let of_column = largest.map_or(String::new(), |(index, column)| {
            let name = metadata.file_metadata().schema_descr().column(index).path().string();
            let Column { bytes, values, width } = column;
            format!(", of them {bytes} in column {name}: {values} values of {width} bytes or more")
        });
        format!("found about {total} in {rows} rows{of_column}")
    })
}

/// The sums of one column over all row groups.
#[derive(Clone, Default)]
struct Column {
    bytes: u64,
    values: u64,
    width: u64,
}

impl Column {
    fn add(&mut self, chunk: &ColumnChunkMetaData) {
        // A corrupt file may have negative counts. As 0 they leave the estimate a lower bound.
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let values = count(chunk.num_values());
        self.width = match chunk.column_type() {
            Type::BOOLEAN => 0,
            // A text has at least an offset.
            Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
            Type::INT64 | Type::DOUBLE | Type::INT96 => 8,
            Type::FIXED_LEN_BYTE_ARRAY => count(i64::from(chunk.column_descr().type_length())),
        };
        self.values = self.values.saturating_add(values);
        // The encoded size may be smaller or larger than the values.
        let bytes = values.saturating_mul(self.width).max(values / 8).max(count(chunk.uncompressed_size()));
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// The number of rows of a batch, at most `most`. Each text may be the longest of its column's
/// dictionaries.
pub(super) fn batch_rows(reader: &SerializedFileReader<BoundedFile>, read: &ProjectionMask, most: usize) -> Result<usize, ParquetError> {
    let mut longest = vec![0_u64; reader.metadata().file_metadata().schema_descr().num_columns()];
    for index in 0..reader.num_row_groups() {
        let row_group = reader.get_row_group(index)?;
        for (column, (chunk, longest)) in row_group.metadata().columns().iter().zip(&mut longest).enumerate() {
            if chunk.column_type() != Type::BYTE_ARRAY || !read.leaf_included(column) {
                continue;
            }
            let encodings: Vec<Encoding> = chunk.encodings().collect();
            let found = if encodings.contains(&Encoding::DELTA_BYTE_ARRAY) {
                // A value may contain the whole value before it.
                u64::try_from(chunk.uncompressed_size()).unwrap_or(0)
            } else if chunk.dictionary_page_offset().is_some() || encodings.iter().any(is_dictionary) {
                match row_group.get_column_page_reader(column)?.get_next_page()? {
                    Some(Page::DictionaryPage { buf, .. }) => longest_of(&buf),
                    _ => 0,
                }
            } else {
                0
            };
            *longest = found.max(*longest);
        }
    }
    let of_row = longest.iter().fold(0_u64, |sum, longest| sum.saturating_add(*longest)).max(1);
    Ok(usize::try_from(BATCH_BYTES / of_row).unwrap_or(most).clamp(1, most))
}

fn is_dictionary(encoding: &Encoding) -> bool {
    matches!(encoding, Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY)
}

/// The longest text of a dictionary. The length of each text precedes it.
fn longest_of(mut dictionary: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = dictionary.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        // A length beyond the end ends the search; the reader reports it.
        dictionary = usize::try_from(length).ok().and_then(|length| rest.get(length..)).unwrap_or(&[]);
    }
    longest
}
