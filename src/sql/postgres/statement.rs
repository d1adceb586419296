//! A statement as it comes: a query, or one of the few words that drivers send around queries.

use arrow::datatypes::{DataType, SchemaRef};

/// What a statement is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    /// To be answered with rows.
    Query(Query),
    /// A transaction begins; with the word to answer.
    Begin,
    /// A transaction ends.
    End(&'static str),
    /// Accepted, without effect.
    Setting(&'static str),
}

/// A query and what is known of it before it runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    pub text: String,
    /// The columns of its rows; none where it was not asked for them.
    pub columns: Option<SchemaRef>,
    /// The types of `$1`, `$2`, …, as far as they can be told.
    pub parameters: Vec<Option<DataType>>,
}

impl Statement {
    /// What `text` is, by its first word.
    pub fn read(text: &str) -> Self {
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
