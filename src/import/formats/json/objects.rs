//! JSON from outside: one object a line, or an array of objects.
//!
//! Both become the same thing, the bytes of one object after the other; a file is never in memory as a whole.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::{Decoder, infer_json_schema_from_iterator};
use serde_json::Value;

use super::limits::{self, Budget, MOST_ROW_BYTES, row_too_long};
use super::{Source, message, never_empty, open, storable_batch};
use crate::store::StoreError;

/// How the objects lie in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One a line.
    Lines,
    /// In an array, or in the one array of objects that an object has.
    Array,
}

/// The rows of several files, file by file, with one schema: that which the values of all of them need.
pub(super) fn read(layout: Layout, paths: &[PathBuf], budget: &mut Budget) -> Result<Vec<Vec<RecordBatch>>, StoreError> {
    paths.iter().try_for_each(|path| budget.expect_text(path))?;
    let schema = Arc::new(schema(layout, paths)?);
    paths.iter().map(|path| rows(layout, path, &schema, budget)).collect()
}

/// The error at row `row` (from 0) of a file; lines are counted from 1.
pub(super) fn wrong_row(layout: Layout, path: &Path, row: usize, problem: String) -> StoreError {
    let line = match layout {
        Layout::Lines => {
            Objects::open(layout, path).ok().and_then(|mut objects| objects.nth(row)).and_then(Result::ok).map(|(line, _)| line)
        }
        Layout::Array => None,
    };
    at(path, line, row, problem)
}

fn at(path: &Path, line: Option<u64>, row: usize, problem: String) -> StoreError {
    let problem = if line.is_some() { problem } else { format!("row {row}: {problem}") };
    StoreError::Input { path: path.to_path_buf(), line, problem }
}

/// The schema of all values of all files.
fn schema(layout: Layout, paths: &[PathBuf]) -> Result<Schema, StoreError> {
    // What the iterator below stopped at, so that an error of the inference can be given a place.
    let mut place = (paths.first().cloned().unwrap_or_default(), None, 0);
    let mut failed = None;
    let mut columns: Vec<BTreeSet<String>> = Vec::new();
    let mut objects: Option<Objects> = None;
    let mut rows: u64 = 0;
    let values = std::iter::from_fn(|| {
        loop {
            let Some(open) = &mut objects else {
                let path = paths.get(columns.len())?;
                columns.push(BTreeSet::new());
                match Objects::open(layout, path) {
                    Ok(opened) => objects = Some(opened),
                    Err(error) => {
                        failed = Some(error);
                        return None;
                    }
                }
                continue;
            };
            let row = open.row;
            let value = match open.next() {
                None => {
                    objects = None;
                    continue;
                }
                Some(Err(error)) => Err(error),
                Some(Ok((line, bytes))) => {
                    place = (open.path.clone(), (layout == Layout::Lines).then_some(line), row);
                    object(&bytes).map_err(|problem| at(&place.0, place.1, place.2, problem))
                }
            };
            return match value {
                Ok(value) => {
                    rows += 1;
                    if let (Some(names), Some(object)) = (columns.last_mut(), value.as_object()) {
                        object.keys().filter(|key| !names.contains(*key)).cloned().collect::<Vec<_>>().into_iter().for_each(|key| {
                            names.insert(key);
                        });
                    }
                    Some(Ok::<_, ArrowError>(value))
                }
                Err(error) => {
                    failed = Some(error);
                    None
                }
            };
        }
    });
    let inferred = infer_json_schema_from_iterator(values);
    if let Some(error) = failed {
        return Err(error);
    }
    let schema =
        inferred.map_err(|error| at(&place.0, place.1, place.2, format!("a value does not fit those before it: {}", message(error))))?;
    let sources: Vec<Source> =
        paths.iter().zip(columns).map(|(path, columns)| Source { path, columns: columns.into_iter().collect() }).collect();
    super::agree(&sources)?;
    fits(&schema, rows, paths)?;
    Ok(schema)
}

/// Values that a table may have whatever its files' length.
const CELLS: u64 = 1 << 25;
/// And for each byte of them: rows that say most of what they have, even if it is `null`, have fewer.
const CELLS_A_BYTE: u64 = 16;

/// That the table is not many times as large as its files, which it is when each row has columns of its own: all others have them as nulls.
fn fits(schema: &Schema, rows: u64, paths: &[PathBuf]) -> Result<(), StoreError> {
    fn count(data_type: &DataType) -> u64 {
        1 + match data_type {
            DataType::Struct(fields) => fields.iter().map(|field| count(field.data_type())).sum(),
            DataType::List(item) => count(item.data_type()),
            _ => 0,
        }
    }
    let columns: u64 = schema.fields().iter().map(|field| count(field.data_type())).sum();
    let bytes: u64 = paths.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum();
    if rows.saturating_mul(columns) <= CELLS.max(bytes.saturating_mul(CELLS_A_BYTE)) {
        return Ok(());
    }
    let problem = format!(
        "expected rows with mostly the same columns, found {columns} columns and fields in {rows} rows, of {bytes} bytes in all, so that nearly \
         every value would be null; write what differs from row to row as a list of names and values, or as one text"
    );
    Err(StoreError::Input { path: paths.first().cloned().unwrap_or_default(), line: None, problem })
}

/// A JSON object from its bytes, or what is wrong with them.
fn object(bytes: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err("expected a JSON object, found another JSON value".to_string()),
        Err(error) => {
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text);
            Err(format!("expected a JSON object, found {what} at byte {}", error.column()))
        }
    }
}

fn decoder(schema: &SchemaRef, rows: usize) -> Result<Decoder, ArrowError> {
    ReaderBuilder::new(schema.clone()).with_batch_size(rows).build_decoder()
}

fn rows(layout: Layout, path: &Path, schema: &SchemaRef, budget: &mut Budget) -> Result<Vec<RecordBatch>, StoreError> {
    let most = limits::batch_rows(path, schema.fields())?;
    let whole = |error: ArrowError| StoreError::Input { path: path.to_path_buf(), line: None, problem: message(error) };
    let failed = |error: ArrowError| mistyped(layout, path, schema).unwrap_or_else(|| whole(error));
    let mut decoder = decoder(schema, most).map_err(failed)?;
    let mut batches = Vec::new();
    let mut waiting = 0;
    let mut take = |batch: Option<RecordBatch>, batches: &mut Vec<RecordBatch>| {
        batch.iter().try_for_each(|batch| budget.take(path, batch))?;
        batches.extend(batch);
        Ok::<_, StoreError>(())
    };
    for object in Objects::open(layout, path)? {
        let (_, mut bytes) = object?;
        bytes.push(b'\n');
        decoder.decode(&bytes).map_err(failed)?;
        waiting += 1;
        if waiting == most {
            take(decoder.flush().map_err(failed)?, &mut batches)?;
            waiting = 0;
        }
    }
    take(decoder.flush().map_err(failed)?, &mut batches)?;
    let batches = never_empty(batches, schema).iter().map(storable_batch).collect::<Result<Vec<_>, _>>();
    batches.map_err(whole)
}

/// The first row that is not of the schema's types: the decoder only says that there is one.
fn mistyped(layout: Layout, path: &Path, schema: &SchemaRef) -> Option<StoreError> {
    let mut decoder = decoder(schema, 1).ok()?;
    Objects::open(layout, path).ok()?.map_while(Result::ok).enumerate().find_map(|(row, (line, bytes))| {
        let error = decoder.decode(&bytes).map(drop).and_then(|()| decoder.flush().map(drop)).err()?;
        Some(at(path, (layout == Layout::Lines).then_some(line), row, message(error)))
    })
}

/// The objects of a file one after the other: the line each begins in, and its bytes.
struct Objects {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    layout: Layout,
    line: u64,
    row: usize,
    state: State,
}

/// Where in a file of [`Layout::Array`] the reader is.
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
    fn open(layout: Layout, path: &Path) -> Result<Self, StoreError> {
        Ok(Self { path: path.to_path_buf(), reader: open(path)?, layout, line: 0, row: 0, state: State::Start })
    }

    fn wrong(&self, problem: String) -> StoreError {
        StoreError::Input { path: self.path.clone(), line: Some(self.line.max(1)), problem }
    }

    /// The next line that is not empty.
    fn next_line(&mut self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        loop {
            let mut bytes = Vec::new();
            // One byte more than may be, to see that there is one.
            let mut line = (&mut self.reader).take(MOST_ROW_BYTES as u64 + 1);
            if line.read_until(b'\n', &mut bytes).map_err(StoreError::io("read", &self.path))? == 0 {
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
    fn next_element(&mut self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        loop {
            match self.state {
                State::End => return Ok(None),
                State::Start => match self.token()? {
                    // A file without anything is a table without rows, as with lines.
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

    /// Reads an object's members, of which one is an array of objects: up to that array's first element, or (behind it) up to the end.
    fn members(&mut self, before: bool) -> Result<(), StoreError> {
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
    fn end(&mut self) -> Result<(), StoreError> {
        self.state = State::End;
        match self.token()? {
            None => Ok(()),
            found => Err(self.wrong(format!("{}; for one object a line say `format: jsonl`", expected("the file's end", found)))),
        }
    }

    /// The bytes of the value that begins with `begin`, which was just read.
    fn value(&mut self, begin: u8) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![begin];
        let (mut depth, mut text, mut escaped) = (usize::from(matches!(begin, b'{' | b'[')), begin == b'"', false);
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
        // What is neither nested nor text goes on to the next comma or bracket.
        if !nested && begin != b'"' {
            while let Some(byte) = self.peek()?.filter(|byte| !matches!(byte, b',' | b'}' | b']')) {
                bytes.push(byte);
                self.byte()?;
            }
        }
        Ok(bytes)
    }

    /// The next byte that is no white space, taken.
    fn token(&mut self) -> Result<Option<u8>, StoreError> {
        self.peek()?;
        self.byte()
    }

    /// The next byte that is no white space, which comes before it and is taken; it is not.
    fn peek(&mut self) -> Result<Option<u8>, StoreError> {
        loop {
            let next = self.reader.fill_buf().map_err(StoreError::io("read", &self.path))?.first().copied();
            if !next.is_some_and(|byte| byte.is_ascii_whitespace()) {
                return Ok(next);
            }
            self.byte()?;
        }
    }

    fn byte(&mut self) -> Result<Option<u8>, StoreError> {
        let next = self.reader.fill_buf().map_err(StoreError::io("read", &self.path))?.first().copied();
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
    type Item = Result<(u64, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.layout {
            Layout::Lines => self.next_line(),
            Layout::Array => self.next_element(),
        };
        if next.is_err() {
            // Nothing behind an error makes sense.
            (self.state, self.reader) = (State::End, Box::new(std::io::empty()));
        }
        self.row += 1;
        next.transpose()
    }
}
