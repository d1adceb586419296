//! Completion: the possible continuations of a line, from tables, columns, keywords and commands.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use sqlparser::keywords::{ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS};

use super::command::{COMMANDS, formats, quoted};
use crate::sql::{Session, TableInfo};

/// The keywords of queries; the parser knows hundreds more without a use here.
const KEYWORDS: [&str; 44] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "JOIN",
    "LEFT",
    "RIGHT",
    "FULL",
    "INNER",
    "CROSS",
    "ON",
    "USING",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "LIKE",
    "ILIKE",
    "BETWEEN",
    "EXISTS",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "DISTINCT",
    "HAVING",
    "UNION",
    "ALL",
    "EXCEPT",
    "INTERSECT",
    "WITH",
    "OVER",
    "PARTITION",
    "EXPLAIN",
    "DESC",
];

/// All possible completions of a word.
pub(super) struct Words {
    /// The tables, each with its columns.
    tables: Vec<(String, Vec<String>)>,
    /// The earlier lines of an unfinished query.
    before: String,
}

impl Words {
    /// The session's tables and their columns, for a query with `before` as its beginning.
    pub fn of(session: &Session, before: &str) -> Self {
        let columns = |table: TableInfo| (table.name, table.schema.fields().iter().map(|field| field.name().clone()).collect());
        // Without tables there is less to complete; this is not worth an error.
        Self { tables: session.describe_tables().unwrap_or_default().into_iter().map(columns).collect(), before: before.to_string() }
    }

    /// The beginning of the word before `position`, and its completions.
    fn candidates(&self, line: &str, position: usize) -> (usize, Vec<String>) {
        let typed = line.get(..position).unwrap_or(line);
        let start = typed.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '\\')).map_or(0, |at| at + last_width(&typed[at..]));
        let word = &typed[start..];
        let fits = |name: &str| name.len() >= word.len() && name.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
        // A command stands on the first line only.
        let command = if self.before.is_empty() { typed[..start].split_whitespace().next() } else { None };
        let mut found: Vec<String> = match command {
            None if word.starts_with('\\') => COMMANDS.iter().filter(|name| fits(name)).map(|name| (*name).to_string()).collect(),
            Some("\\d") => self.tables.iter().filter(|(name, _)| fits(name)).map(|(name, _)| name.clone()).collect(),
            Some("\\format") => formats().filter(|name| fits(name)).map(String::from).collect(),
            _ if typed[..start].ends_with('.') => self.columns(line, &fits),
            _ if self.names_a_table(&typed[..start]) => self.tables(&fits).collect(),
            _ => {
                let tables = self.tables(&fits);
                let small = word.starts_with(char::is_lowercase);
                let keyword = |word: &&str| if small { word.to_lowercase() } else { (*word).to_string() };
                let keywords = KEYWORDS.iter().filter(|name| !word.is_empty() && fits(name)).map(keyword);
                tables.chain(self.columns(line, &fits)).chain(keywords).collect()
            }
        };
        found.sort();
        found.dedup();
        (start, found)
    }

    /// Whether only a table can follow.
    fn names_a_table(&self, typed: &str) -> bool {
        let last = typed.split_whitespace().last().or_else(|| self.before.split_whitespace().last());
        last.is_some_and(|word| ["from", "join"].contains(&word.to_lowercase().as_str()))
    }

    fn tables(&self, fits: &dyn Fn(&str) -> bool) -> impl Iterator<Item = String> {
        self.tables.iter().map(|(name, _)| name).filter(|name| fits(name)).map(|name| as_sql(name))
    }

    /// The columns of the tables in the query; of all tables while it names none.
    fn columns(&self, line: &str, fits: &dyn Fn(&str) -> bool) -> Vec<String> {
        let text = format!("{}{line}", self.before);
        let words: Vec<&str> = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        let named: Vec<_> = self.tables.iter().filter(|(name, _)| words.contains(&name.as_str())).collect();
        let tables = if named.is_empty() { self.tables.iter().collect() } else { named };
        tables.into_iter().flat_map(|(_, columns)| columns).filter(|name| fits(name)).map(|name| as_sql(name)).collect()
    }
}

/// The length of the first character in bytes.
fn last_width(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// The name as a query needs it: quoted where it would be read as something else.
fn as_sql(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let reserved = ALL_KEYWORDS.binary_search(&name.to_uppercase().as_str()).ok().and_then(|index| ALL_KEYWORDS_INDEX.get(index));
    let reserved = reserved.is_some_and(|word| RESERVED_FOR_COLUMN_ALIAS.contains(word) || RESERVED_FOR_TABLE_ALIAS.contains(word));
    if plain && !reserved { name.to_string() } else { quoted(name) }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line, position))
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::Words;

    fn words(before: &str, line: &str) -> Vec<String> {
        let table = |name: &str, columns: &[&str]| (name.to_string(), columns.iter().map(|name| (*name).to_string()).collect());
        let tables = vec![table("pool", &["prompt_id", "reward"]), table("prompts", &["prompt_id", "group"]), table("Odd one", &["x"])];
        Words { tables, before: before.to_string() }.candidates(line, line.len()).1
    }

    #[test]
    fn what_is_typed_is_completed_by_what_is_there() {
        assert_eq!(words("", "SELECT re"), ["reward"]);
        assert_eq!(words("", "SEL"), ["SELECT"]);
        assert_eq!(words("", "sel"), ["select"]);
        assert_eq!(words("", "SELECT * FROM p"), ["pool", "prompts"]);
        assert_eq!(words("SELECT *\nFROM pool JOIN\n", "p"), ["pool", "prompts"]);
        assert_eq!(words("", "SELECT * FROM pool p"), ["partition", "pool", "prompt_id", "prompts"]);
        assert_eq!(words("", "SELECT * FROM prompts WHERE prompts.g"), ["\"group\""]);
        assert_eq!(words("SELECT * FROM pool\n", "WHERE r"), ["reward", "right"]);
        assert_eq!(words("SELECT * FROM pool\n", "WHERE g"), ["group"]);
        assert_eq!(words("", "SELECT * FROM odd"), ["\"Odd one\""]);
        assert_eq!(words("", "\\d pro"), ["prompts"]);
        assert_eq!(words("", "\\f"), ["\\format"]);
        assert_eq!(words("", "\\format c"), ["csv"]);
        assert_eq!(words("", "SELECT 'é"), Vec::<String>::new());
    }
}
