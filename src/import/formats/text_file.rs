//! Text files: the encoding is checked, and the length of a line is limited.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::disk;
use crate::import::error::ImportError;
use crate::import::limits::{MOST_ROW_BYTES, row_too_long};

/// A text file from its first byte behind a byte order mark.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, ImportError> {
    let mut reader = disk::open(path).map(BufReader::new).map_err(ImportError::io(path))?;
    let begin = reader.fill_buf().map_err(ImportError::io(path))?;
    let wrong = |found: &str| Err(ImportError::file(path, format!("expected text in UTF-8, found {found}")));
    match begin {
        [0xef, 0xbb, 0xbf, ..] => reader.consume(3),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return wrong("UTF-16"),
        [0x1f, 0x8b, ..] => return wrong("gzip; unpack it first"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return wrong("zstd; unpack it first"),
        _ => {}
    }
    Ok(Box::new(reader))
}

/// A reader that fails at a line longer than a row may be, before the line is in memory.
pub(super) struct ShortLines<R> {
    inner: R,
    line_bytes: usize,
}

impl<R> ShortLines<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, line_bytes: 0 }
    }
}

impl<R: BufRead> Read for ShortLines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let taken = bytes.len().min(into.len());
        into[..taken].copy_from_slice(&bytes[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl<R: BufRead> BufRead for ShortLines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.line_bytes > MOST_ROW_BYTES { Err(io::Error::other(row_too_long())) } else { self.inner.fill_buf() }
    }

    fn consume(&mut self, count: usize) {
        // The buffer is still filled, so this call does not read the file.
        if let Ok(bytes) = self.inner.fill_buf() {
            let read = &bytes[..count.min(bytes.len())];
            self.line_bytes = match read.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => read.len() - end - 1,
                None => self.line_bytes + read.len(),
            };
        }
        self.inner.consume(count);
    }
}
