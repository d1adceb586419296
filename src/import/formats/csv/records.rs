//! The records of a csv file, strictly as RFC 4180 has them: every quoted value is closed, and
//! nothing follows its closing quote.
//!
//! Reads what Python's `csv` reads in its strict mode. Knows no column. A library is not used
//! because none both tells a quoted empty value from a missing one and refuses an open quote.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::import::error::ImportError;
use crate::import::formats::text_file::open;
use crate::import::limits::{MOST_ROW_BYTES, row_too_long};

/// Values of a record, at most. A table has fewer columns.
const MOST_VALUES: usize = 1 << 20;

/// The records of a file.
pub(super) struct Records {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    delimiter: u8,
    /// The line that is read, from 1.
    line: u64,
    record: Record,
}

/// One record.
#[derive(Default)]
pub(super) struct Record {
    /// The line in which it begins, from 1.
    pub(super) line: u64,
    text: String,
    bytes: Vec<u8>,
    values: Vec<Ends>,
}

/// Where a value ends in its record's text, and whether it was quoted.
#[derive(Clone, Copy)]
struct Ends {
    at: usize,
    quoted: bool,
}

/// A value of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// Nothing between two delimiters.
    Missing,
    /// A text; an empty one was quoted.
    Text(&'a str),
}

impl Record {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The bytes of all values.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The value at `index`; a missing one beyond the end.
    pub(super) fn get(&self, index: usize) -> Field<'_> {
        let Some(end) = self.values.get(index) else { return Field::Missing };
        let start = index.checked_sub(1).and_then(|before| self.values.get(before)).map_or(0, |before| before.at);
        match &self.text[start..end.at] {
            "" if !end.quoted => Field::Missing,
            text => Field::Text(text),
        }
    }

    /// The values as texts, missing ones empty.
    pub(super) fn texts(&self) -> Vec<String> {
        let text = |index| match self.get(index) {
            Field::Missing => String::new(),
            Field::Text(text) => text.to_string(),
        };
        (0..self.len()).map(text).collect()
    }

    fn end_value(&mut self, quoted: bool) {
        self.values.push(Ends { at: self.bytes.len(), quoted });
    }
}

/// The position in a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before its first byte.
    Start,
    Unquoted,
    /// Within quotes, opened at this line.
    Quoted(u64),
    /// Behind a quote within quotes: the end, or the first of two.
    Quote(u64),
}

impl Records {
    pub(super) fn open(path: &Path, delimiter: u8) -> Result<Self, ImportError> {
        Ok(Self { path: path.to_path_buf(), reader: open(path)?, delimiter, line: 1, record: Record::default() })
    }

    pub(super) fn wrong(&self, line: u64, problem: String) -> ImportError {
        ImportError::File { path: self.path.clone(), line: Some(line), problem }
    }

    /// The next record; `None` at the end. A line without anything is a record of one missing
    /// value if records have one value (`single`), and is passed over otherwise.
    pub(super) fn next(&mut self, single: bool) -> Result<Option<&Record>, ImportError> {
        while self.read()? {
            if single || self.record.len() > 1 || self.record.get(0) != Field::Missing {
                return Ok(Some(&self.record));
            }
        }
        Ok(None)
    }

    /// Reads a record; `false` at the end of the file.
    fn read(&mut self) -> Result<bool, ImportError> {
        let mut record = std::mem::take(&mut self.record);
        record.bytes = std::mem::take(&mut record.text).into_bytes();
        record.bytes.clear();
        record.values.clear();
        record.line = self.line;
        let found = self.fill(&mut record)?;
        record.text = String::from_utf8(std::mem::take(&mut record.bytes))
            .map_err(|_| self.wrong(record.line, "expected text in UTF-8, found an invalid character".to_string()))?;
        let ends_within = record.values.iter().any(|end| !record.text.is_char_boundary(end.at));
        if ends_within {
            return Err(self.wrong(record.line, "expected text in UTF-8, found an invalid character".to_string()));
        }
        self.record = record;
        Ok(found)
    }

    fn fill(&mut self, record: &mut Record) -> Result<bool, ImportError> {
        let mut state = State::Start;
        let mut any = false;
        loop {
            let bytes = self.reader.fill_buf().map_err(ImportError::io(&self.path))?;
            if bytes.is_empty() {
                return match state {
                    State::Quoted(line) => {
                        let problem = "expected the closing quote of the value that begins here, found the end of the file".to_string();
                        Err(self.wrong(line, problem))
                    }
                    _ if !any => Ok(false),
                    _ => {
                        record.end_value(matches!(state, State::Quote(_)));
                        Ok(true)
                    }
                };
            }
            any = true;
            let mut used = 0;
            let mut done = false;
            let mut problem = None;
            for &byte in bytes {
                used += 1;
                match (state, byte) {
                    (State::Start, b'"') => state = State::Quoted(self.line),
                    (State::Quoted(line), b'"') => state = State::Quote(line),
                    (State::Quote(line), b'"') => {
                        record.bytes.push(b'"');
                        state = State::Quoted(line);
                    }
                    (State::Quoted(_), _) => {
                        self.line += u64::from(byte == b'\n');
                        record.bytes.push(byte);
                    }
                    (_, b'\n' | b'\r') => {
                        record.end_value(matches!(state, State::Quote(_)));
                        self.line += 1;
                        done = true;
                    }
                    _ if byte == self.delimiter => {
                        record.end_value(matches!(state, State::Quote(_)));
                        state = State::Start;
                    }
                    (State::Quote(line), _) => {
                        problem = Some((line, byte));
                        done = true;
                    }
                    _ => {
                        record.bytes.push(byte);
                        state = State::Unquoted;
                    }
                }
                if done || record.bytes.len() > MOST_ROW_BYTES {
                    break;
                }
            }
            let carriage_return = done && bytes.get(used - 1) == Some(&b'\r');
            self.reader.consume(used);
            if let Some((line, byte)) = problem {
                let found = char::from(byte);
                let problem = format!(
                    "expected a delimiter or the line's end behind the closing quote of the value that begins here, found {found:?}; \
                     a quote within quotes is written twice"
                );
                return Err(self.wrong(line, problem));
            }
            if record.bytes.len() > MOST_ROW_BYTES || record.values.len() > MOST_VALUES {
                return Err(self.wrong(record.line, row_too_long()));
            }
            if carriage_return {
                // "\r\n" is one end of a line.
                let next = self.reader.fill_buf().map_err(ImportError::io(&self.path))?.first().copied();
                self.reader.consume(usize::from(next == Some(b'\n')));
            }
            if done {
                return Ok(true);
            }
        }
    }
}
