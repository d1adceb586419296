//! Statements in PostgreSQL's words as statements in the engine's.
//!
//! | of PostgreSQL | for the engine |
//! |---|---|
//! | `pg_class`, `information_schema.tables` | tables of the schemas `pg_catalog` and `information` |
//! | `pg_catalog.format_type(…)`, `current_user` | functions without a schema |
//! | `OPERATOR(pg_catalog.~)`, `COLLATE …` | `~`, nothing |
//! | `'rewards'::regclass`, `oid::regclass` | the oid of a name, the name of an oid |
//! | `::oid`, `::name`, `::uuid`, … | numbers and texts |
//! | `'{a,b}'::text[]`, `'\x00'::bytea` | a list, bytes |
//!
//! Knows SQL and the names of the catalog's tables and functions, not their rows.

use std::collections::HashSet;
use std::ops::ControlFlow;

use pgwire::api::Type;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArguments, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, TableFactor, Value,
    VisitMut, VisitorMut,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::casts::{OBJECTS, cast, list};
use super::expressions::{argument, call, called, lower, parsed, parts, value};
use super::texts::{ASYNCPG, CATALOG, EMPTY, EMPTY_TABLES, INFORMATION, VIEWS};
use super::{functions, no_rows, types};

/// Words that are calls without brackets.
const BARE_CALLS: [&str; 6] = ["current_catalog", "current_role", "current_schema", "current_timestamp", "current_user", "session_user"];

/// Types of PostgreSQL that the engine does not have under this name.
const TYPES: [&str; 10] = ["bytea", "json", "jsonb", "name", "oid", "regproc", "regrole", "uuid", "xid", "char"];

/// Whether a text names the catalog, one of its functions, or a type that only PostgreSQL has.
pub(super) fn names_catalog(text: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize() else { return false };
    let tokens: Vec<&Token> = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    tokens.iter().enumerate().any(|(index, token)| {
        let Token::Word(word) = token else { return false };
        let name = word.value.to_ascii_lowercase();
        let next = tokens.get(index + 1);
        let cast = index.checked_sub(1).and_then(|before| tokens.get(before));
        let is_cast = matches!(cast, Some(Token::DoubleColon)) || (matches!(next, Some(Token::RParen)) && is_word(cast.copied(), "AS"));
        name.starts_with("pg_")
            || name == "information_schema"
            || BARE_CALLS.contains(&name.as_str())
            // A list bound by the client, whose type the engine does not infer.
            || (matches!(name.as_str(), "any" | "all" | "some") && matches!(tokens.get(index + 2), Some(Token::Placeholder(_))))
            || (matches!(next, Some(Token::LParen)) && (functions::is_known(&name) || name == "generate_subscripts"))
            || (is_cast && (OBJECTS.contains(&name.as_str()) || TYPES.contains(&name.as_str())))
    })
}

fn is_word(token: Option<&Token>, expected: &str) -> bool {
    matches!(token, Some(Token::Word(word)) if word.value.eq_ignore_ascii_case(expected))
}

/// A query in the engine's words; `None` for another statement and for no SQL. A table of these
/// names wins over one of the catalog.
pub(super) fn rewritten(text: &str, tables: &[String], declared: &[Option<Type>]) -> Option<String> {
    if text.contains("WITH RECURSIVE typeinfo_tree(") {
        return Some(ASYNCPG.to_string());
    }
    let mut statements = Parser::parse_sql(&GenericDialect {}, text).ok()?;
    let [statement @ (Statement::Query(_) | Statement::Explain { .. })] = statements.as_mut_slice() else { return None };
    let mut named = Names { tables, declared, queries: HashSet::new(), empty_queries: HashSet::new() };
    // The visitors never break off.
    let _ = statement.visit(&mut named.with_queries());
    if let Statement::Query(query) = statement
        && named.with_empty_queries(query).has_no_rows(query)
    {
        no_rows::keep_names(query);
    }
    let _ = statement.visit(&mut named);
    Some(statement.to_string())
}

/// The names that are not the catalog's.
struct Names<'a> {
    tables: &'a [String],
    /// The types of `$1`, `$2`, …, as far as the client says them.
    declared: &'a [Option<Type>],
    /// The names of `WITH name AS (…)`.
    queries: HashSet<String>,
    /// Those without rows.
    empty_queries: HashSet<String>,
}

/// Collects the names of `WITH name AS (…)`.
struct Queries<'a>(&'a mut HashSet<String>);

impl VisitorMut for Queries<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.extend(query.with.iter().flat_map(|with| &with.cte_tables).map(|named| lower(&named.alias.name)));
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    fn with_queries(&mut self) -> Queries<'_> {
        Queries(&mut self.queries)
    }

    /// The schema and name of a table of the catalog; `None` for another.
    fn of_catalog(&self, name: &ObjectName) -> Option<(&'static str, String)> {
        let mut parts = parts(name);
        let name = parts.pop()?;
        let is_own = |full: &str| VIEWS.contains(&format!("VIEW {full} AS")) || EMPTY.contains(&format!("TABLE {full} ("));
        match parts.pop().as_deref() {
            None if self.queries.contains(&name) || self.tables.contains(&name) => None,
            None | Some(CATALOG) => (name.starts_with("pg_") && is_own(&name)).then_some((CATALOG, name)),
            Some("information_schema") => is_own(&format!("{INFORMATION}.{name}")).then_some((INFORMATION, name)),
            Some(_) => None,
        }
    }

    /// Finds the queries of `WITH` without rows, one after the other.
    fn with_empty_queries(&mut self, query: &Query) -> &Self {
        for named in query.with.iter().flat_map(|with| &with.cte_tables) {
            if self.has_no_rows(&named.query) {
                self.empty_queries.insert(lower(&named.alias.name));
            }
        }
        self
    }

    /// Whether a query surely has no rows.
    fn has_no_rows(&self, query: &Query) -> bool {
        no_rows::of_query(query, &|name| match parts(name).as_slice() {
            [name] if self.empty_queries.contains(name) => true,
            _ => self.of_catalog(name).is_some_and(|(_, name)| EMPTY_TABLES.contains(name.as_str())),
        })
    }

    /// A subquery of one value over the catalog: the engine plans it with an aggregate only.
    fn aggregate(&self, query: &mut Query) {
        let SetExpr::Select(select) = query.body.as_mut() else { return };
        let is_catalog = |factor: &TableFactor| matches!(factor, TableFactor::Table { name, .. } if self.of_catalog(name).is_some());
        let all = select.from.iter().all(|from| is_catalog(&from.relation) && from.joins.iter().all(|join| is_catalog(&join.relation)));
        if !all || select.from.is_empty() || query.limit_clause.is_some() || query.order_by.is_some() || no_rows::may_aggregate(select) {
            return;
        }
        if let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] = select.projection.as_mut_slice()
            && let Some(most) = call("max", &[expr])
        {
            *expr = most;
        }
    }
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args, .. } = factor
            && let Some((schema, table)) = self.of_catalog(name)
        {
            // A function of rows without arguments is a table here, such as `pg_get_keywords()`.
            if args.as_ref().is_some_and(|arguments| arguments.args.is_empty()) {
                *args = None;
            }
            *name = ObjectName::from(vec![Ident::new(schema), Ident::new(table)]);
        }
        ControlFlow::Continue(())
    }

    /// Subqueries first, while their tables have their own names.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let known = match expr {
            Expr::Subquery(query) if self.has_no_rows(query) => Some("NULL"),
            Expr::Exists { subquery, negated } | Expr::InSubquery { subquery, negated, .. } if self.has_no_rows(subquery) => {
                Some(if *negated { "true" } else { "false" })
            }
            Expr::Function(function) if parts(&function.name) == ["array"] => match &function.args {
                FunctionArguments::Subquery(query) if self.has_no_rows(query) => Some("CAST(make_array() AS TEXT[])"),
                _ => None,
            },
            _ => None,
        };
        if let Some(known) = known.and_then(|known| no_rows::value_of(known, expr)) {
            *expr = known;
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Subquery(query) => self.aggregate(query),
            // The schemas of `search_path`, which Grafana takes out of the setting.
            Expr::InSubquery { expr: schema, subquery, negated: false } if is_search_path(subquery) => {
                if let Some(found) = parsed(&format!("{schema} = 'public'")) {
                    *expr = found;
                }
            }
            Expr::Function(function) if parts(&function.name) == ["array"] => {
                if let FunctionArguments::Subquery(query) = &function.args
                    && let Some(list) = parsed(&format!("(SELECT array_agg(item) FROM ({query}) AS items(item))"))
                {
                    *expr = list;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(changed) = self.changed(expr) {
            *expr = changed;
        }
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    /// What an expression is for the engine, if it is something else.
    fn changed(&self, expr: &mut Expr) -> Option<Expr> {
        match expr {
            Expr::Collate { expr, .. } => Some((**expr).clone()),
            Expr::Identifier(name) if name.quote_style.is_none() && BARE_CALLS.contains(&lower(name).as_str()) => call(&lower(name), &[]),
            Expr::CompoundIdentifier(names) => {
                if let [first, ..] = names.as_mut_slice()
                    && lower(first) == "information_schema"
                {
                    *first = Ident::new(INFORMATION);
                }
                None
            }
            Expr::BinaryOp { left, op, right } => {
                if let BinaryOperator::PGCustomBinaryOperator(words) = op
                    && let Some(own) = words.last().and_then(|word| operator(word))
                {
                    *op = own;
                }
                same_kind(left, right);
                function_number(left, right);
                None
            }
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
                if let Some(list) = list(right, &DataType::Text).or_else(|| self.list_of_client(right)) {
                    **right = list;
                }
                None
            }
            // The engine knows the backslash only.
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                let sign = escape_char.as_ref().map(|sign| sign.value.to_string()).filter(|sign| !sign.contains('\\'))?;
                **pattern = parsed(&format!(r"replace(replace({pattern}, '\', '\\'), {sign}, '\')"))?;
                *escape_char = None;
                None
            }
            Expr::Function(function) => {
                let mut parts = parts(&function.name);
                let name = parts.pop()?;
                if parts.last().is_some_and(|schema| schema == CATALOG || schema == "information_schema") {
                    function.name = ObjectName::from(vec![Ident::new(name.clone())]);
                }
                if function.args == FunctionArguments::None && BARE_CALLS.contains(&name.as_str()) {
                    return call(&name, &[]);
                }
                let first = argument(&function.args);
                match (name.as_str(), first) {
                    ("generate_subscripts", Some(_)) => parsed(&format!("unnest(pg_subscripts{})", function.args)),
                    // An argument of a table function must be a number.
                    ("array_upper", Some(Expr::Function(list))) if parts_end_with(&list.name, "current_schemas") => {
                        let has_catalog = argument(&list.args).is_some_and(|argument| argument.to_string().eq_ignore_ascii_case("true"));
                        parsed(if has_catalog { "2" } else { "1" })
                    }
                    _ => None,
                }
            }
            Expr::Cast { expr, data_type, .. } => cast(expr, data_type),
            _ => None,
        }
    }
}

/// Whether a query lists the items of `search_path`.
fn is_search_path(query: &Query) -> bool {
    let text = query.to_string();
    text.contains("current_setting('search_path')") && text.contains("FROM generate_series(") && text.contains("string_to_array(")
}

impl Names<'_> {
    /// A list bound by the client, of the type that it says; of texts without one.
    fn list_of_client(&self, expr: &Expr) -> Option<Expr> {
        let Expr::Value(value) = expr else { return None };
        let Value::Placeholder(name) = &value.value else { return None };
        let index = name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?;
        let declared = self.declared.get(index).cloned().flatten();
        let kind = declared.and_then(|kind| types::sql_name(i64::from(kind.oid()))).filter(|kind| kind.ends_with("[]"));
        parsed(&format!("CAST({name} AS {})", kind.as_deref().unwrap_or("text[]")))
    }
}

fn parts_end_with(name: &ObjectName, last: &str) -> bool {
    parts(name).last().is_some_and(|name| name == last)
}

/// An operator by its sign.
fn operator(sign: &str) -> Option<BinaryOperator> {
    Some(match sign {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "||" => BinaryOperator::StringConcat,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        _ => return None,
    })
}

/// The columns with names of functions, which PostgreSQL compares with oids too.
const FUNCTION_COLUMNS: [&str; 7] = ["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"];

/// No function is 0 as an oid, and `-` as a name.
fn function_number(left: &Expr, right: &mut Expr) {
    let column = match left {
        Expr::Identifier(name) => Some(lower(name)),
        Expr::CompoundIdentifier(names) => names.last().map(lower),
        _ => None,
    };
    if column.is_some_and(|column| FUNCTION_COLUMNS.contains(&column.as_str())) && right.to_string() == "0" {
        *right = value(Value::SingleQuotedString("-".to_string()));
    }
}

/// A comparison of the name of an oid with an oid compares oids.
fn same_kind(left: &mut Expr, right: &mut Expr) {
    let is_oid = |expr: &Expr| OBJECTS.iter().any(|kind| called(expr, &format!("{kind}_oid")).is_some());
    let oid = |expr: &Expr| OBJECTS.iter().find_map(|kind| called(expr, &format!("{kind}_name")));
    if is_oid(left)
        && let Some(oid) = oid(right)
    {
        *right = oid;
    } else if is_oid(right)
        && let Some(oid) = oid(left)
    {
        *left = oid;
    }
}

#[cfg(test)]
mod tests {
    use super::{names_catalog, rewritten};

    fn check(text: &str, expected: &str) {
        assert!(names_catalog(text), "{text}");
        assert_eq!(rewritten(text, &["pg_own".to_string()], &[]).as_deref(), Some(expected), "{text}");
    }

    #[test]
    fn the_words_of_clients_become_those_of_the_engine() {
        for (text, expected) in [
            ("SELECT pg_catalog.version()", "SELECT version()"),
            ("SELECT relname FROM pg_class", "SELECT relname FROM pg_catalog.pg_class"),
            ("SELECT a FROM pg_own", "SELECT a FROM pg_own"),
            ("SELECT a FROM pg_nothing", "SELECT a FROM pg_nothing"),
            ("WITH pg_q AS (SELECT 1 AS a) SELECT a FROM pg_q", "WITH pg_q AS (SELECT 1 AS a) SELECT a FROM pg_q"),
            (
                "SELECT 1 FROM pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default",
                "SELECT 1 FROM pg_catalog.pg_class c WHERE c.relname ~ '^(a)$'",
            ),
            ("SELECT 'a'::regclass, oid::regclass FROM pg_class", "SELECT regclass_oid('a'), regclass_name(oid) FROM pg_catalog.pg_class"),
            (
                "SELECT 'a'::regclass::oid, oid::regclass::oid FROM pg_class",
                "SELECT regclass_oid('a')::BIGINT, oid FROM pg_catalog.pg_class",
            ),
            ("SELECT 'a'::regclass::text", "SELECT regclass_name(regclass_oid('a'))"),
            ("SELECT typinput = 'pg_catalog.array_in'::regproc FROM pg_type", "SELECT typinput = 'array_in' FROM pg_catalog.pg_type"),
            ("SELECT current_user, current_schema", "SELECT current_user, current_schema()"),
            ("SELECT 'x'::uuid, '\\x00ff'::bytea", "SELECT 'x'::TEXT, X'00ff'"),
            ("SELECT table_name FROM information_schema.tables", "SELECT table_name FROM information.tables"),
            ("SELECT table_name FROM information_schema.df_settings", "SELECT table_name FROM information_schema.df_settings"),
            (
                "SELECT (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = a.attrelid) FROM pg_attribute a",
                "SELECT NULL FROM pg_catalog.pg_attribute a",
            ),
            (
                "SELECT a.attname, i.indexrelid::regclass AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid WHERE $1::text = a.attname",
                "SELECT NULL AS \"attname\", NULL AS \"name\" WHERE false AND $1::TEXT IS NULL",
            ),
            ("SELECT 1 FROM pg_class WHERE relkind = ANY($1)", "SELECT 1 FROM pg_catalog.pg_class WHERE relkind = ANY(CAST($1 AS TEXT[]))"),
            ("SELECT oid FROM pg_type WHERE typreceive != 0", "SELECT oid FROM pg_catalog.pg_type WHERE typreceive <> '-'"),
            ("SELECT NOT EXISTS (SELECT 1 FROM pg_index)", "SELECT true"),
            ("SELECT (SELECT count(*) FROM pg_index)", "SELECT (SELECT count(*) FROM pg_catalog.pg_index)"),
            (
                "SELECT (SELECT nspname FROM pg_namespace n WHERE n.oid = c.relnamespace) FROM pg_class c",
                "SELECT (SELECT max(nspname) FROM pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace) FROM pg_catalog.pg_class c",
            ),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn other_statements_are_left_alone() {
        for text in [
            "SELECT * FROM rewards",
            "SELECT version FROM t",
            "SELECT name, oid FROM t AS name",
            "SELECT 'pg_class'",
            "SELECT \"group\" FROM rewards -- pg_class",
            "SELECT now",
        ] {
            assert!(!names_catalog(text), "{text}");
        }
    }
}
