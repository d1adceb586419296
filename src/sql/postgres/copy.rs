//! `COPY (query) TO STDOUT`: the rows of a query as text, csv or PostgreSQL's binary form.
//!
//! Knows the statement and the form of the file, not the query.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::{BufMut, Bytes, BytesMut};
use pgwire::api::results::{CopyCsvOptions, CopyEncoder, CopyTextOptions, FieldInfo};
use pgwire::error::PgWireResult;
use pgwire::messages::copy::CopyData;
use sqlparser::tokenizer::Token;

use super::rows::Columns;
use super::words::{word, written};

/// The form of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CopyFormat {
    /// Values between tabs, `\N` for null.
    Text {
        /// Between two values.
        delimiter: String,
        /// For null.
        null: String,
    },
    /// Comma-separated values.
    Csv {
        /// Between two values.
        delimiter: String,
        /// For null.
        null: String,
        /// Whether the first line has the names.
        header: bool,
    },
    /// PostgreSQL's binary form.
    Binary,
}

impl CopyFormat {
    /// The number of the form in the protocol.
    pub fn code(&self) -> i8 {
        i8::from(*self == Self::Binary)
    }
}

const EXPECTED: &str = "expected COPY (query) TO STDOUT, maybe with (FORMAT text, csv or binary, HEADER, DELIMITER ',', NULL '')";

/// The query and the form of `COPY (query) | table TO STDOUT [[WITH] (option, …) | [WITH] CSV
/// [HEADER] | [WITH] BINARY]`.
pub(super) fn parse(tokens: &[Token]) -> Result<(String, CopyFormat), String> {
    let refused = |found: String| format!("{EXPECTED}, found {found}");
    let body = tokens.get(1..).unwrap_or_default();
    let (query, rest) = if body.first() == Some(&Token::LParen) {
        let end = closing(body).ok_or_else(|| refused("no closing bracket".to_string()))?;
        (written(body.get(1..end).unwrap_or_default()), body.get(end + 1..).unwrap_or_default())
    } else {
        let end = body.iter().position(|token| ["TO", "FROM"].contains(&word(Some(token)).as_str()));
        let end = end.unwrap_or(body.len());
        (format!("SELECT * FROM {}", written(body.get(..end).unwrap_or_default())), body.get(end..).unwrap_or_default())
    };
    if word(rest.first()) != "TO" || word(rest.get(1)) != "STDOUT" {
        return Err(refused(written(rest)));
    }
    let options: Vec<&Token> =
        rest.iter().skip(2).filter(|token| !matches!(token, Token::LParen | Token::RParen | Token::Comma | Token::Eq)).collect();
    format(&options).map_err(refused).map(|format| (query, format))
}

/// The index of the bracket that closes the first one.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(index),
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    None
}

fn format(options: &[&Token]) -> Result<CopyFormat, String> {
    let (mut kind, mut header, mut delimiter, mut null) = ("TEXT".to_string(), false, None, None);
    let mut options = options.iter().copied().peekable();
    let text = |token: Option<&Token>| match token {
        Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => Ok(text.replace("''", "'").replace("\\t", "\t")),
        other => Err(other.map_or("the end of the options".to_string(), Token::to_string)),
    };
    while let Some(token) = options.next() {
        match word(Some(token)).as_str() {
            "WITH" | "AS" => {}
            "FORMAT" => kind = option_word(options.next()),
            own @ ("CSV" | "BINARY" | "TEXT") => kind = own.to_string(),
            "HEADER" => {
                let value = option_word(options.peek().copied());
                header = !["FALSE", "OFF", "0"].contains(&value.as_str());
                if ["TRUE", "FALSE", "ON", "OFF", "1", "0"].contains(&value.as_str()) {
                    options.next();
                }
            }
            "DELIMITER" | "DELIMITERS" => delimiter = Some(text(options.next())?),
            "NULL" => null = Some(text(options.next())?),
            "ENCODING" => drop(text(options.next())?),
            _ => return Err(token.to_string()),
        }
    }
    match kind.as_str() {
        "TEXT" => Ok(CopyFormat::Text { delimiter: delimiter.unwrap_or("\t".to_string()), null: null.unwrap_or("\\N".to_string()) }),
        "CSV" => Ok(CopyFormat::Csv { delimiter: delimiter.unwrap_or(",".to_string()), null: null.unwrap_or_default(), header }),
        "BINARY" => Ok(CopyFormat::Binary),
        other => Err(format!("FORMAT {other}")),
    }
}

/// A word or text of an option, in capitals.
fn option_word(token: Option<&Token>) -> String {
    match token {
        Some(Token::Word(word)) => word.value.to_ascii_uppercase(),
        Some(Token::SingleQuotedString(text)) => text.to_ascii_uppercase(),
        Some(Token::Number(number, _)) => number.clone(),
        _ => String::new(),
    }
}

/// Writes the rows of a file.
pub(super) struct CopyWriter {
    fields: Arc<Vec<FieldInfo>>,
    format: CopyFormat,
    encoder: CopyEncoder,
    is_begun: bool,
}

impl CopyWriter {
    pub fn new(fields: Arc<Vec<FieldInfo>>, format: CopyFormat) -> Self {
        let encoder = match &format {
            CopyFormat::Text { delimiter, null } => CopyEncoder::new_text(
                fields.clone(),
                CopyTextOptions { delimiter: delimiter.as_str().into(), null_string: null.as_str().into() },
            ),
            CopyFormat::Csv { delimiter, null, .. } => CopyEncoder::new_csv(
                fields.clone(),
                CopyCsvOptions { delimiter: delimiter.as_str().into(), null_string: null.as_str().into(), ..CopyCsvOptions::default() },
            ),
            CopyFormat::Binary => CopyEncoder::new_binary(fields.clone()),
        };
        Self { fields, format, encoder, is_begun: false }
    }

    /// The pieces of the file with the rows of a batch. Each is a row, so that clients count right.
    pub fn rows(&mut self, batch: &RecordBatch) -> PgWireResult<Vec<PgWireResult<CopyData>>> {
        let columns = Columns::new(batch, &self.fields)?;
        let mut pieces = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            columns.write(row, &mut self.encoder)?;
            let piece = self.encoder.take_copy();
            pieces.push(Ok(match self.header() {
                Some(mut header) => {
                    header.extend_from_slice(&piece.data);
                    CopyData::new(header.freeze())
                }
                None => piece,
            }));
        }
        Ok(pieces)
    }

    /// What a file without rows begins with.
    pub fn end(&mut self) -> Option<PgWireResult<CopyData>> {
        if self.is_begun {
            return None;
        }
        if self.format == CopyFormat::Binary {
            let mut bytes = BytesMut::from(&b"PGCOPY\n\xff\r\n\0"[..]);
            bytes.put_i64(0);
            return Some(Ok(CopyData::new(bytes.freeze())));
        }
        self.header().map(|header| Ok(CopyData::new(header.freeze())))
    }

    /// The line of names, once.
    fn header(&mut self) -> Option<BytesMut> {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        let CopyFormat::Csv { delimiter, header: true, .. } = &self.format else { return None };
        let quoted = |name: &str| {
            if name.contains(['"', '\n', '\r']) || name.contains(delimiter.as_str()) {
                format!("\"{}\"", name.replace('"', "\"\""))
            } else {
                name.to_string()
            }
        };
        let names: Vec<String> = self.fields.iter().map(|field| quoted(field.name())).collect();
        is_first.then(|| BytesMut::from(Bytes::from(format!("{}\n", names.join(delimiter)))))
    }
}

#[cfg(test)]
mod tests {
    use super::CopyFormat;
    use crate::sql::postgres::statement::Statement;

    fn copied(text: &str) -> Result<(String, CopyFormat), String> {
        match Statement::parse(text)? {
            Statement::Copy { query, format } => Ok((query.text, format)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn queries_and_tables_are_copied_in_every_form() {
        let csv = |delimiter: &str, header| CopyFormat::Csv { delimiter: delimiter.to_string(), null: String::new(), header };
        for (text, query, format) in [
            ("COPY (SELECT (1), ')') TO STDOUT (FORMAT csv, HEADER)", "SELECT ( 1 ) , ')'", csv(",", true)),
            ("copy (select 1) to stdout with csv header", "select 1", csv(",", true)),
            ("COPY (SELECT 1) TO STDOUT WITH (FORMAT 'csv', HEADER false, DELIMITER ';')", "SELECT 1", csv(";", false)),
            ("COPY (SELECT 1) TO STDOUT (FORMAT \"binary\")", "SELECT 1", CopyFormat::Binary),
            ("COPY responses TO STDOUT BINARY", "SELECT * FROM responses", CopyFormat::Binary),
        ] {
            assert_eq!(copied(text).unwrap(), (query.to_string(), format), "{text}");
        }
        for text in
            ["COPY responses FROM STDIN", "COPY (SELECT 1) TO 'file'", "COPY (SELECT 1 TO STDOUT", "COPY (SELECT 1) TO STDOUT (FORMAT xml)"]
        {
            assert!(copied(text).unwrap_err().starts_with("expected COPY (query) TO STDOUT"), "{text}");
        }
    }
}
