//! A Parquet file whose reader fails at the end of the file.
//!
//! The library's own reader returns nothing there and is called again, as often as a corrupt length
//! demands, and memory is allocated for that length. Knows nothing of the contents.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;

/// The file.
pub(super) struct BoundedFile(pub(super) File);

/// Reads up to the end; a further read is an error.
pub(super) struct UntilEnd(File);

impl Read for UntilEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a length leads beyond the end of the file")),
            read => Ok(read),
        }
    }
}

impl Length for BoundedFile {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for BoundedFile {
    type T = BufReader<UntilEnd>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let mut file = self.0.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(UntilEnd(file)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            let problem = format!("expected {length} bytes at {start}, found a file of {}", self.len());
            return Err(ParquetError::EOF(problem));
        }
        self.0.get_bytes(start, length)
    }
}
