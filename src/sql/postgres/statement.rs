//! A client's statement: a query, or one of the few other statements of drivers.

use arrow::datatypes::{DataType, SchemaRef};

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    /// Its answer has rows.
    Query(Query),
    /// A transaction begins.
    Begin,
    /// A transaction ends; with the word of the answer.
    End(&'static str),
    /// Accepted without effect; with the word of the answer.
    Setting(&'static str),
}

/// A query with its description before it runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// The SQL text.
    pub text: String,
    /// The columns of its rows; `None` in the simple protocol.
    pub columns: Option<SchemaRef>,
    /// The types of `$1`, `$2`, …, as far as the query determines them.
    pub parameters: Vec<Option<DataType>>,
}

impl Statement {
    /// Classifies `text` by its first word.
    pub fn parse(text: &str) -> Self {
        let text = text.trim().trim_end_matches(';').trim_end();
        let first = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_uppercase();
        match first.as_str() {
            "BEGIN" | "START" => Self::Begin,
            "COMMIT" | "END" => Self::End("COMMIT"),
            "ROLLBACK" | "ABORT" => Self::End("ROLLBACK"),
            "SET" => Self::Setting("SET"),
            "RESET" => Self::Setting("RESET"),
            "DISCARD" => Self::Setting("DISCARD ALL"),
            "DEALLOCATE" => Self::Setting("DEALLOCATE"),
            _ => Self::Query(Query { text: text.to_string(), columns: None, parameters: Vec::new() }),
        }
    }
}
