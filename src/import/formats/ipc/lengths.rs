//! The lengths inside an Arrow IPC file or stream, compared with the file's own: the reader
//! allocates them without a check.
//!
//! Format:
//! <https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc>.
//! Knows nothing of the rows.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow::ipc::{Message, root_as_footer, root_as_message};

/// An Arrow file begins and ends with this; a stream does not.
const MAGIC: &[u8] = b"ARROW1";
/// Each message of a stream begins with this, in all versions but the oldest.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Rows that any batch may have, because columns of nulls take no bytes.
const FREE_ROWS: u64 = 1 << 24;

/// The two containers of Arrow IPC.
pub(super) enum Container {
    /// A file, with a footer.
    File,
    /// A stream of messages.
    Stream,
}

/// Checks every length in the file.
///
/// # Errors
/// The outer error: the file cannot be read. The inner error: a length is wrong.
pub(super) fn check(path: &Path) -> io::Result<Result<Container, String>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut begin = Vec::new();
    reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    if begin == MAGIC {
        Ok(file_lengths(&mut reader, length)?.map(|()| Container::File))
    } else {
        Ok(stream_lengths(&mut reader, length)?.map(|()| Container::Stream))
    }
}

/// The file ends before `what`.
fn cut(what: &str) -> Result<(), String> {
    Err(format!("expected {what}, found the end of the file or a length beyond it; the file is cut short or is no Arrow file"))
}

fn file_lengths(reader: &mut BufReader<File>, length: u64) -> io::Result<Result<(), String>> {
    let tail = 4 + MAGIC.len() as u64;
    if length < 2 * tail {
        return Ok(cut("a footer"));
    }
    reader.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes)?;
    let Some(footer_bytes) = u64::try_from(i32::from_le_bytes(bytes)).ok().filter(|bytes| *bytes <= length - tail) else {
        return Ok(cut("a footer"));
    };
    let Some(footer) = bytes_at(reader, length - tail - footer_bytes, footer_bytes, length)? else { return Ok(cut("a footer")) };
    let Ok(footer) = root_as_footer(&footer) else { return Ok(cut("a footer")) };
    for block in footer.dictionaries().into_iter().chain(footer.recordBatches()).flatten() {
        let Ok(offset) = u64::try_from(block.offset()) else { return Ok(cut("a batch")) };
        let Ok(metadata) = u64::try_from(block.metaDataLength()) else { return Ok(cut("a batch")) };
        let Ok(body) = u64::try_from(block.bodyLength()) else { return Ok(cut("a batch")) };
        let Some(found) = bytes_at(reader, offset, metadata, length)? else { return Ok(cut("a batch")) };
        if offset.saturating_add(metadata).saturating_add(body) > length {
            return Ok(cut("a batch"));
        }
        let prefix = if found.starts_with(&CONTINUATION) { 8 } else { 4 };
        let Ok(message) = root_as_message(found.get(prefix..).unwrap_or_default()) else { return Ok(cut("a batch")) };
        if let Err(problem) = check_rows(&message, length) {
            return Ok(Err(problem));
        }
    }
    Ok(Ok(()))
}

fn stream_lengths(reader: &mut BufReader<File>, length: u64) -> io::Result<Result<(), String>> {
    let mut at = 0;
    while let Some(begin) = bytes_at(reader, at, 4, length)? {
        let prefix = if begin == CONTINUATION { 8 } else { 4 };
        let Some(number) = bytes_at(reader, at + prefix - 4, 4, length)? else { return Ok(cut("a message")) };
        // `bytes_at` returned exactly four bytes.
        let metadata = i32::from_le_bytes([number[0], number[1], number[2], number[3]]);
        let Ok(metadata) = u64::try_from(metadata) else { return Ok(cut("a message")) };
        if metadata == 0 {
            break;
        }
        let Some(found) = bytes_at(reader, at + prefix, metadata, length)? else { return Ok(cut("a message")) };
        let Ok(message) = root_as_message(&found) else { return Ok(cut("a message")) };
        let Some(end) = u64::try_from(message.bodyLength()).ok().and_then(|body| body.checked_add(at + prefix + metadata)) else {
            return Ok(cut("a message"));
        };
        if end > length {
            return Ok(cut("a message"));
        }
        if let Err(problem) = check_rows(&message, length) {
            return Ok(Err(problem));
        }
        at = end;
    }
    Ok(Ok(()))
}

/// Checks that a batch has no more rows than a file of this length can distinguish.
fn check_rows(message: &Message, length: u64) -> Result<(), String> {
    let Some(batch) = message.header_as_record_batch() else { return Ok(()) };
    match u64::try_from(batch.length()) {
        Ok(rows) if rows <= FREE_ROWS.max(length.saturating_mul(8)) => Ok(()),
        _ => Err(format!("expected a batch of rows that are in the file, found one of {} rows in {length} bytes", batch.length())),
    }
}

/// `count` bytes from `start`; `None` beyond the end of the file.
fn bytes_at(reader: &mut BufReader<File>, start: u64, count: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
    let (Some(end), Ok(size)) = (start.checked_add(count), usize::try_from(count)) else { return Ok(None) };
    if end > length {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; size];
    reader.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}
