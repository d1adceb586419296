//! The objects of a JSON file, one at a time. The file is never in memory as a whole.
//!
//! Knows where an object ends, not what is in it.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use crate::import::error::ImportError;
use crate::import::formats::text_file::open;
use crate::import::limits::{MOST_ROW_BYTES, row_too_long};

/// The layout of the objects in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::import::formats) enum Layout {
    /// One a line.
    Lines,
    /// In an array, or in the one array of objects that an object has.
    Array,
}

/// The error of a row: with its line, else with its number.
pub(super) fn error_at(path: &Path, line: Option<u64>, row: usize, problem: String) -> ImportError {
    let problem = if line.is_some() { problem } else { format!("row {row}: {problem}") };
    ImportError::File { path: path.to_path_buf(), line, problem }
}

/// The objects of a file one after the other: the line each begins in, and its bytes.
pub(super) struct Objects {
    pub(super) path: PathBuf,
    reader: Box<dyn BufRead>,
    layout: Layout,
    line: u64,
    /// The number of the next object, from 0.
    pub(super) row: usize,
    state: State,
}

/// The position of the reader in a file of [`Layout::Array`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before anything.
    Start,
    /// Within the array, before an element or the end; `inner` if the array is in an object.
    Element { inner: bool, first: bool },
    /// Behind everything, or behind an error.
    End,
}

impl Objects {
    /// The objects of a file from its beginning.
    pub(super) fn open(layout: Layout, path: &Path) -> Result<Self, ImportError> {
        Ok(Self { path: path.to_path_buf(), reader: open(path)?, layout, line: 0, row: 0, state: State::Start })
    }

    fn wrong(&self, problem: String) -> ImportError {
        ImportError::File { path: self.path.clone(), line: Some(self.line.max(1)), problem }
    }

    /// The next line that is not empty.
    fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, ImportError> {
        loop {
            let mut bytes = Vec::new();
            // One byte above the limit, to detect a longer row.
            let mut line = (&mut self.reader).take(MOST_ROW_BYTES as u64 + 1);
            if line.read_until(b'\n', &mut bytes).map_err(ImportError::io(&self.path))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if bytes.len() > MOST_ROW_BYTES {
                return Err(self.wrong(row_too_long()));
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some((self.line, bytes)));
            }
        }
    }

    /// The next element of the array.
    fn next_element(&mut self) -> Result<Option<(u64, Vec<u8>)>, ImportError> {
        loop {
            match self.state {
                State::End => return Ok(None),
                State::Start => match self.token()? {
                    // An empty file is a table without rows, as with lines.
                    None => self.state = State::End,
                    Some(b'[') => self.state = State::Element { inner: false, first: true },
                    Some(b'{') => self.members(true)?,
                    Some(other) => return Err(self.wrong(format!("expected an array of objects, found {:?}", char::from(other)))),
                },
                State::Element { inner, first } => {
                    let mut byte = self.token()?;
                    if byte == Some(b']') {
                        if inner {
                            self.members(false)?
                        } else {
                            self.end()?
                        }
                        continue;
                    }
                    if !first {
                        if byte != Some(b',') {
                            return Err(self.wrong(expected("a comma or the array's end", byte)));
                        }
                        byte = self.token()?;
                    }
                    let Some(begin @ b'{') = byte else {
                        return Err(self.wrong(format!("row {}: {}", self.row, expected("a JSON object", byte))));
                    };
                    self.state = State::Element { inner, first: false };
                    let line = self.line;
                    return Ok(Some((line, self.value(begin)?)));
                }
            }
        }
    }

    /// Reads the members of an object with one array of objects: up to the array's first element
    /// (`before`), or from its end up to the file's end.
    fn members(&mut self, before: bool) -> Result<(), ImportError> {
        let mut byte = self.token()?;
        loop {
            if !before || byte == Some(b',') {
                match byte {
                    Some(b',') => byte = self.token()?,
                    Some(b'}') => return self.end(),
                    _ => return Err(self.wrong(expected("a comma or the object's end", byte))),
                }
            }
            match byte {
                Some(b'"') => drop(self.value(b'"')?),
                Some(b'}') if before => {
                    let problem = "expected an array of objects, found an object without one; for one object a line say `format: jsonl`";
                    return Err(self.wrong(problem.to_string()));
                }
                _ => return Err(self.wrong(expected("a key", byte))),
            }
            let colon = self.token()?;
            if colon != Some(b':') {
                return Err(self.wrong(expected("a colon", colon)));
            }
            let value = self.token()?;
            let opens = value == Some(b'[') && self.peek()? == Some(b'{');
            match value {
                Some(b'[') if opens && before => {
                    self.state = State::Element { inner: true, first: true };
                    return Ok(());
                }
                Some(b'[') if opens => {
                    return Err(
                        self.wrong("expected one array of objects, found a second one; put each into a file of its own".to_string())
                    );
                }
                Some(begin) => drop(self.value(begin)?),
                None => return Err(self.wrong(expected("a value", None))),
            }
            byte = self.token()?;
        }
    }

    /// Checks that nothing follows.
    fn end(&mut self) -> Result<(), ImportError> {
        self.state = State::End;
        match self.token()? {
            None => Ok(()),
            found => Err(self.wrong(format!("{}; for one object a line say `format: jsonl`", expected("the file's end", found)))),
        }
    }

    /// The bytes of a value whose first byte `begin` was just read.
    fn value(&mut self, begin: u8) -> Result<Vec<u8>, ImportError> {
        let mut bytes = vec![begin];
        let mut depth = usize::from(matches!(begin, b'{' | b'['));
        let mut text = begin == b'"';
        let mut escaped = false;
        let nested = depth > 0;
        let mut done = !nested && !text;
        while !done {
            let Some(byte) = self.byte()? else {
                return Err(self.wrong(format!("row {}: expected the value's end, found that of the file", self.row)));
            };
            bytes.push(byte);
            if bytes.len() > MOST_ROW_BYTES {
                return Err(self.wrong(format!("row {}: {}", self.row, row_too_long())));
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' if text => escaped = true,
                b'"' => {
                    text = !text;
                    done = !nested && !text;
                }
                b'{' | b'[' if !text => depth += 1,
                b'}' | b']' if !text => {
                    depth -= 1;
                    done = depth == 0;
                }
                _ => {}
            }
        }
        // A number or a word ends at the next comma or bracket.
        if !nested && begin != b'"' {
            while let Some(byte) = self.peek()?.filter(|byte| !matches!(byte, b',' | b'}' | b']')) {
                bytes.push(byte);
                self.byte()?;
            }
        }
        Ok(bytes)
    }

    /// Takes white space and the next byte behind it.
    fn token(&mut self) -> Result<Option<u8>, ImportError> {
        self.peek()?;
        self.byte()
    }

    /// Takes white space and returns the next byte behind it without taking it.
    fn peek(&mut self) -> Result<Option<u8>, ImportError> {
        loop {
            let next = self.reader.fill_buf().map_err(ImportError::io(&self.path))?.first().copied();
            if !next.is_some_and(|byte| byte.is_ascii_whitespace()) {
                return Ok(next);
            }
            self.byte()?;
        }
    }

    /// Takes the next byte.
    fn byte(&mut self) -> Result<Option<u8>, ImportError> {
        let next = self.reader.fill_buf().map_err(ImportError::io(&self.path))?.first().copied();
        if let Some(byte) = next {
            self.reader.consume(1);
            self.line = self.line.max(1) + u64::from(byte == b'\n');
        }
        Ok(next)
    }
}

fn expected(what: &str, found: Option<u8>) -> String {
    match found {
        Some(byte) => format!("expected {what}, found {:?}", char::from(byte)),
        None => format!("expected {what}, found the end of the file"),
    }
}

impl Iterator for Objects {
    type Item = Result<(u64, Vec<u8>), ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.layout {
            Layout::Lines => self.next_line(),
            Layout::Array => self.next_element(),
        };
        if next.is_err() {
            // After an error the position in the file is unknown.
            self.state = State::End;
            self.reader = Box::new(std::io::empty());
        }
        self.row += 1;
        next.transpose()
    }
}
