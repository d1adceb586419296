//! Text files, plain or compressed by gzip or zstd: the encoding is checked.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::disk;
use crate::import::error::ImportError;

/// A text file from its first byte behind a byte order mark, decompressed.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, ImportError> {
    let file = disk::open(path).map(BufReader::new).map_err(ImportError::io(path))?;
    let mut reader = decompressed(file).map_err(ImportError::io(path))?;
    let begin = reader.fill_buf().map_err(ImportError::io(path))?;
    match begin {
        [0xef, 0xbb, 0xbf, ..] => reader.consume(3),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(ImportError::file(path, "expected text in UTF-8, found UTF-16")),
        _ => {}
    }
    Ok(reader)
}

/// The file's contents. Its first bytes tell how they are compressed; its name may say nothing.
fn decompressed<R: BufRead + 'static>(mut file: R) -> io::Result<Box<dyn BufRead>> {
    Ok(match file.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(Named(flate2::bufread::MultiGzDecoder::new(file), "gzip"))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(BufReader::new(Named(zstd::Decoder::with_buffer(file)?, "zstd"))),
        _ => Box::new(file),
    })
}

/// A decompressor that names its format in errors.
struct Named<R>(R, &'static str);

impl<R: Read> Read for Named<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let problem = |error: io::Error| io::Error::new(error.kind(), format!("the {} file is broken or cut short ({error})", self.1));
        self.0.read(buffer).map_err(problem)
    }
}
