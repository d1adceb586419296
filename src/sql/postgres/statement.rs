//! A client's statement: a query, or one of the few other statements of clients and drivers.
//!
//! Knows words, not the tables of the run.

use arrow::datatypes::{DataType, SchemaRef};
use pgwire::api::Type;
use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::copy::{self, CopyFormat};
use super::settings;
use super::words::{tokens, word, written};

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    /// Its answer has rows.
    Query(Query),
    /// The rows of a query as a file.
    Copy {
        /// The query.
        query: Query,
        /// The form of the file.
        format: CopyFormat,
    },
    /// A cursor over a query.
    Declare {
        /// The name of the cursor.
        name: String,
        /// The query.
        query: Query,
        /// Whether it outlives its transaction.
        hold: bool,
    },
    /// The next rows of a cursor.
    Fetch {
        /// The name of the cursor.
        name: String,
        /// The number of rows.
        count: usize,
        /// The columns of the cursor; `None` in the simple protocol.
        columns: Option<SchemaRef>,
    },
    /// A cursor ends; all of them without a name.
    Close(Option<String>),
    /// A transaction begins.
    Begin,
    /// A transaction ends; with the word of the answer.
    End(&'static str),
    /// Accepted without effect; with the word of the answer.
    Setting(&'static str),
}

/// A query with its description before it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Query {
    /// The SQL text.
    pub text: String,
    /// The columns of its rows; `None` in the simple protocol.
    pub columns: Option<SchemaRef>,
    /// The types of `$1`, `$2`, …, as far as the client says them.
    pub declared: Vec<Option<Type>>,
    /// The types of `$1`, `$2`, …, as far as the query determines them.
    pub parameters: Vec<Option<DataType>>,
}

impl Query {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_string(), ..Self::default() }
    }
}

impl Statement {
    /// Classifies `text` by its first words.
    ///
    /// # Errors
    /// The expected form of a statement known by its first word.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let words = tokens(text).unwrap_or_default();
        Ok(match word(words.first()).as_str() {
            "BEGIN" | "START" => Self::Begin,
            "COMMIT" | "END" => Self::End("COMMIT"),
            "ROLLBACK" | "ABORT" => Self::End("ROLLBACK"),
            "SET" => Self::Setting("SET"),
            "RESET" => Self::Setting("RESET"),
            "DISCARD" => Self::Setting("DISCARD ALL"),
            "DEALLOCATE" => Self::Setting("DEALLOCATE"),
            "SAVEPOINT" => Self::Setting("SAVEPOINT"),
            "RELEASE" => Self::Setting("RELEASE"),
            "UNLISTEN" => Self::Setting("UNLISTEN"),
            "SHOW" => Self::Query(Query::new(&settings::query(text)?)),
            "COPY" => {
                let (query, format) = copy::parse(&words)?;
                Self::Copy { query: Query::new(&query), format }
            }
            "DECLARE" => declare(&words)?,
            "FETCH" => fetch(&words)?,
            "CLOSE" => match words.get(1) {
                Some(all) if word(Some(all)) == "ALL" => Self::Close(None),
                name => Self::Close(Some(self::name(name, "CLOSE")?)),
            },
            _ => Self::Query(Query::new(text)),
        })
    }

    /// The query in it.
    pub fn query_mut(&mut self) -> Option<&mut Query> {
        match self {
            Self::Query(query) | Self::Copy { query, .. } | Self::Declare { query, .. } => Some(query),
            _ => None,
        }
    }

    /// The query in it.
    pub fn query(&self) -> Option<&Query> {
        match self {
            Self::Query(query) | Self::Copy { query, .. } | Self::Declare { query, .. } => Some(query),
            _ => None,
        }
    }
}

/// The statements in a text, without those that are comments alone. A text that is no SQL is one
/// statement, for the engine to refuse.
pub(super) fn split(text: &str) -> Vec<String> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize() else { return vec![text.to_string()] };
    let parts = tokens.split(|token| *token == Token::SemiColon);
    let says = |part: &&[Token]| part.iter().any(|token| !matches!(token, Token::Whitespace(_)));
    let parts: Vec<&[Token]> = parts.filter(says).collect();
    match parts.len() {
        // As it was written: errors name its lines and columns.
        1 => vec![text.to_string()],
        _ => parts.into_iter().map(written).collect(),
    }
}

/// The name in a token: in lower case unless it is quoted.
fn name(token: Option<&Token>, statement: &str) -> Result<String, String> {
    match token {
        Some(Token::Word(word)) if word.quote_style.is_some() => Ok(word.value.clone()),
        Some(Token::Word(word)) => Ok(word.value.to_ascii_lowercase()),
        Some(Token::SingleQuotedString(text)) => Ok(text.clone()),
        Some(other) => Err(format!("{statement}: expected the name of a cursor, found {other}")),
        None => Err(format!("{statement}: expected the name of a cursor, found the end")),
    }
}

/// `DECLARE name [NO SCROLL] CURSOR [WITH HOLD | WITHOUT HOLD] FOR query`.
fn declare(tokens: &[Token]) -> Result<Statement, String> {
    let name = name(tokens.get(1), "DECLARE")?;
    let end = tokens.iter().position(|token| word(Some(token)) == "FOR");
    let end = end.ok_or_else(|| "DECLARE: expected CURSOR FOR and a query, found no FOR".to_string())?;
    let options: Vec<String> = tokens.get(2..end).unwrap_or_default().iter().map(|token| word(Some(token))).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    if !options.contains(&"CURSOR") {
        return Err("DECLARE: expected CURSOR FOR and a query, found no CURSOR".to_string());
    }
    if options.contains(&"BINARY") || (options.contains(&"SCROLL") && !options.contains(&"NO")) {
        return Err("DECLARE: expected a cursor that moves forward, in text, found SCROLL or BINARY".to_string());
    }
    let hold = options.windows(2).any(|pair| pair == ["WITH", "HOLD"]);
    Ok(Statement::Declare { name, query: Query::new(&written(tokens.get(end + 1..).unwrap_or_default())), hold })
}

/// `FETCH [NEXT | FORWARD] [count | ALL] [FROM | IN] name`.
fn fetch(tokens: &[Token]) -> Result<Statement, String> {
    let mut count = None;
    for (index, token) in tokens.iter().enumerate().skip(1) {
        let is_last = index + 1 == tokens.len();
        match (word(Some(token)).as_str(), token) {
            _ if is_last => {}
            ("FROM" | "IN" | "NEXT" | "FORWARD", _) => {}
            ("ALL", _) => count = Some(usize::MAX),
            (_, Token::Number(number, _)) => {
                count = Some(number.parse().map_err(|_| format!("FETCH: expected a number of rows, found {number}"))?);
            }
            (_, other) => {
                return Err(format!("FETCH: expected NEXT, FORWARD, a number of rows or ALL, found {other}; cursors move forward"));
            }
        }
    }
    Ok(Statement::Fetch { name: name(tokens.get(1..).and_then(<[Token]>::last), "FETCH")?, count: count.unwrap_or(1), columns: None })
}

#[cfg(test)]
mod tests {
    use super::{Statement, split};

    #[test]
    fn statements_end_at_semicolons_outside_of_texts_names_and_comments() {
        assert_eq!(split("SELECT 1"), ["SELECT 1"]);
        assert_eq!(split("SELECT ';' ; -- one; two\n;; SELECT \"a;b\" /* ; */"), ["SELECT ';' ", " SELECT \"a;b\" /* ; */"]);
        assert_eq!(split("SELECT 'it''s'; SELECT 2;"), ["SELECT 'it''s'", " SELECT 2"]);
        assert_eq!(split(" ; -- nothing\n"), Vec::<String>::new());
        assert_eq!(split("SELECT '"), ["SELECT '"]);
    }

    #[test]
    fn cursors_have_names_and_move_forward() {
        let declared = Statement::parse("DECLARE \"My Cursor\" NO SCROLL CURSOR WITH HOLD FOR SELECT 'a b', 1").unwrap();
        let Statement::Declare { name, query, hold } = declared else { panic!("{declared:?}") };
        assert_eq!((name.as_str(), query.text.as_str(), hold), ("My Cursor", "SELECT 'a b' , 1", true));
        for (text, expected) in [
            ("FETCH FORWARD 100 FROM \"My Cursor\"", 100),
            ("fetch next from c", 1),
            ("FETCH c", 1),
            ("FETCH 5 IN c", 5),
            ("FETCH ALL FROM c", usize::MAX),
            ("FETCH FORWARD ALL FROM c", usize::MAX),
        ] {
            let Statement::Fetch { count, .. } = Statement::parse(text).unwrap() else { panic!("{text}") };
            assert_eq!(count, expected, "{text}");
        }
        for text in
            ["FETCH PRIOR FROM c", "FETCH BACKWARD 2 FROM c", "DECLARE c SCROLL CURSOR FOR SELECT 1", "DECLARE c FOR SELECT 1", "CLOSE"]
        {
            assert!(Statement::parse(text).is_err(), "{text}");
        }
    }
}
