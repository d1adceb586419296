//! The tables of a query, known before the run.
//!
//! Knows the grammar and the name scopes of SQL by DataFusion's own parser, not the contents of
//! tables.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{ObjectName, Query, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

/// The longest query, in bytes; far longer than any written by a person.
pub(super) const LONGEST_QUERY_BYTES: usize = 1 << 16;

/// Stack for parsing: an expression of the longest query can be nested thousands deep.
const STACK_BYTES: usize = 1 << 28;

/// The tables of one `SELECT`, without the names of its own `WITH`.
///
/// # Errors
/// A text other than one query, as a phrase after "the query".
pub(super) fn relations(sql: &str) -> Result<BTreeSet<String>, String> {
    if sql.len() > LONGEST_QUERY_BYTES {
        return Err(format!("is {} bytes long; expected at most {LONGEST_QUERY_BYTES}", sql.len()));
    }
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || parsed(sql));
        let parser = parser.map_err(|error| format!("could not be parsed: {error}"))?;
        parser.join().map_err(|_| "could not be parsed".to_string())?
    })
}

fn parsed(sql: &str) -> Result<BTreeSet<String>, String> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| {
        let message = error.to_string();
        format!("is not valid SQL: {}", message.strip_prefix("sql parser error: ").unwrap_or(&message))
    })?;
    match statements.as_slice() {
        [Statement::Query(query)] => {
            let mut reading = Reading::default();
            let _ = query.visit(&mut reading);
            Ok(reading.relations)
        }
        [_] => Err("must be a SELECT".to_string()),
        _ => Err(format!("must be one SELECT, found {} statements", statements.len())),
    }
}

/// A query during the visit, with the names of its `WITH`.
struct Frame {
    /// The names, and the address of the query of each.
    given: Vec<(String, *const Query)>,
    /// The number of names visible at this point.
    visible: usize,
    /// Whether a `WITH` query can read itself.
    recursive: bool,
}

#[derive(Default)]
struct Reading {
    relations: BTreeSet<String>,
    frames: Vec<Frame>,
    /// Whether the next relation is the name of a table function.
    function: bool,
}

impl Visitor for Reading {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        // Inside the query of a WITH name, only the names before it can be read.
        if let Some(frame) = self.frames.last_mut()
            && let Some(index) = frame.given.iter().position(|(_, given)| std::ptr::eq(*given, query))
        {
            frame.visible = if frame.recursive { index + 1 } else { index };
        }
        let with = query.with.as_ref();
        let given: Vec<_> =
            with.iter().flat_map(|with| &with.cte_tables).map(|cte| (folded(&cte.alias.name), &raw const *cte.query)).collect();
        self.frames.push(Frame { visible: given.len(), given, recursive: with.is_some_and(|with| with.recursive) });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.frames.pop();
        if let Some(frame) = self.frames.last_mut() {
            frame.visible = frame.given.len();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.function = matches!(factor, TableFactor::Table { args: Some(_), .. } | TableFactor::Function { .. });
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if std::mem::take(&mut self.function) {
            return ControlFlow::Continue(());
        }
        let parts: Vec<String> = relation.0.iter().map(|part| part.as_ident().map_or_else(|| part.to_string(), folded)).collect();
        let name = parts.join(".");
        if !self.frames.iter().any(|frame| frame.given.iter().take(frame.visible).any(|(given, _)| *given == name)) {
            self.relations.insert(name);
        }
        ControlFlow::Continue(())
    }
}

/// An identifier as DataFusion looks it up: in lower case unless quoted.
fn folded(identifier: &sqlparser::ast::Ident) -> String {
    if identifier.quote_style.is_some() { identifier.value.clone() } else { identifier.value.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::relations;

    fn read(sql: &str) -> Vec<String> {
        relations(sql).map_or_else(|error| vec![error], |found| found.into_iter().collect())
    }

    #[test]
    fn tables_are_found_and_with_names_are_not() {
        assert_eq!(read("SELECT * FROM Responses r JOIN prompts USING (prompt_id)"), ["prompts", "responses"]);
        assert_eq!(read("with a as (select * from x), b as (select * from a) select * from b where k in (select k from y)"), ["x", "y"]);
        assert_eq!(read("with x as (select * from x) select * from x"), ["x"], "a WITH name is not yet given in its own query");
        assert!(read("with recursive n as (select 1 union all select * from n) select * from n").is_empty());
        assert_eq!(read("select * from (with x as (select 1) select * from x) as inside, x"), ["x"], "nor outside of its query");
        assert_eq!(read("select * from generate_series(1, 3) g, unnest([1]) u, t, \"T\""), ["T", "t"]);
        assert_eq!(read("select * from information_schema.tables"), ["information_schema.tables"]);
    }

    #[test]
    fn only_one_query_is_taken() {
        assert_eq!(relations("drop table x"), Err("must be a SELECT".to_string()));
        assert_eq!(relations("select 1; select 2"), Err("must be one SELECT, found 2 statements".to_string()));
        assert_eq!(relations(""), Err("must be one SELECT, found 0 statements".to_string()));
        assert!(relations("select 1 +").is_err_and(|error| error.starts_with("is not valid SQL: Expected")));
    }

    #[test]
    fn a_deeply_nested_query_is_no_crash() {
        assert!(relations(&format!("select {}1", "1+".repeat(32_000))).is_ok());
        assert!(relations(&format!("select {}1", "(".repeat(32_000))).is_err());
    }
}
