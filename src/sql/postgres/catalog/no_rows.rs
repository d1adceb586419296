//! Subqueries over tables of the catalog without rows, which have no rows themselves.
//!
//! Clients ask for the default, comment or index of each column in correlated subqueries, which the
//! engine does not plan. Their answer is known without a plan.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, SetOperator,
    TableFactor, Value, Visit, Visitor,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use super::expressions::{lower, parsed, parts};
use super::functions;

/// Whether a query surely has no rows: it reads a table for which `is_empty` holds.
pub(super) fn of_query(query: &Query, is_empty: &impl Fn(&ObjectName) -> bool) -> bool {
    of_body(&query.body, is_empty)
}

fn of_body(body: &SetExpr, is_empty: &impl Fn(&ObjectName) -> bool) -> bool {
    match body {
        SetExpr::Select(select) => of_select(select, is_empty),
        SetExpr::Query(query) => of_query(query, is_empty),
        SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } => of_body(left, is_empty) && of_body(right, is_empty),
        _ => false,
    }
}

fn of_select(select: &Select, is_empty: &impl Fn(&ObjectName) -> bool) -> bool {
    let reads_nothing = |factor: &TableFactor| match factor {
        TableFactor::Table { name, args: None, .. } => is_empty(name),
        // The options and privileges of tables and columns, which are null.
        TableFactor::Table { name, args: Some(arguments), .. } if parts(name).last().is_some_and(|name| name == "unnest") => {
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(list))] = arguments.args.as_slice() else { return false };
            ["reloptions", "attoptions", "relacl", "attacl", "nspacl", "datacl"].contains(&name_of(list).as_str())
        }
        TableFactor::Derived { subquery, .. } => of_query(subquery, is_empty),
        _ => false,
    };
    let from_nothing = select.from.iter().any(|from| {
        from.joins.iter().fold(reads_nothing(&from.relation), |is_empty, join| match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => is_empty || reads_nothing(&join.relation),
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => is_empty,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => reads_nothing(&join.relation),
            _ => false,
        })
    });
    from_nothing && (has_groups(&select.group_by) || !may_aggregate(select))
}

fn has_groups(groups: &GroupByExpr) -> bool {
    matches!(groups, GroupByExpr::Expressions(groups, _) if !groups.is_empty())
}

/// Reduces a query without rows to the names of its columns and the types of its parameters. A
/// query with all columns of a table stays as it is.
pub(super) fn keep_names(query: &mut Query) {
    let Some(names) = names(&query.body) else { return };
    let mut parameters = Parameters::default();
    let _ = query.visit(&mut parameters);
    let columns: Vec<String> = names.iter().map(|name| format!("NULL AS {}", Ident::with_quote('"', name))).collect();
    let parameters = parameters.0.values().map(|parameter| format!(" AND {parameter} IS NULL"));
    let text = format!("SELECT {} WHERE false{}", columns.join(", "), parameters.collect::<String>());
    let parsed = Parser::new(&GenericDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_query());
    if let Ok(parsed) = parsed {
        *query = *parsed;
    }
}

/// The names of a query's columns; `None` for all columns of a table.
fn names(body: &SetExpr) -> Option<Vec<String>> {
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::Query(query) => return names(&query.body),
        SetExpr::SetOperation { left, .. } => return names(left),
        _ => return None,
    };
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(lower(alias)),
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
        _ => None,
    };
    let names: Vec<String> = select.projection.iter().map(name).collect::<Option<_>>()?;
    let mut taken = HashSet::new();
    // The engine has no two columns of one name. A client finds the second one by its number only.
    let different = |(index, name): (usize, String)| if taken.insert(name.clone()) { name } else { format!("{name}_{index}") };
    Some(names.into_iter().enumerate().map(different).collect())
}

/// The name that PostgreSQL gives to a column.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => lower(name),
        Expr::CompoundIdentifier(names) => names.last().map(lower).unwrap_or_default(),
        Expr::Function(function) => parts(&function.name).pop().unwrap_or_default(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        Expr::Case { .. } => "case".to_string(),
        _ => "?column?".to_string(),
    }
}

/// A value in place of an expression with its parameters, which a client binds all the same.
pub(super) fn value_of(value: &str, replaced: &Expr) -> Option<Expr> {
    let mut parameters = Parameters::default();
    let _ = replaced.visit(&mut parameters);
    let parameters: Vec<String> = parameters.0.values().map(|parameter| format!("{parameter} IS NULL")).collect();
    let text = if parameters.is_empty() {
        value.to_string()
    } else {
        format!("CASE WHEN {} THEN {value} ELSE {value} END", parameters.join(" OR "))
    };
    parsed(&text)
}

/// The parameters of a query by name, with their casts.
#[derive(Default)]
struct Parameters(BTreeMap<String, String>);

impl Visitor for Parameters {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let name = |expr: &Expr| match expr {
            Expr::Value(value) => match &value.value {
                Value::Placeholder(name) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        };
        if let Expr::Cast { expr: inner, .. } = expr
            && let Some(name) = name(inner)
        {
            self.0.insert(name, expr.to_string());
        } else if let Some(name) = name(expr) {
            self.0.entry(name.clone()).or_insert(name);
        }
        ControlFlow::Continue(())
    }
}

/// Whether a select without groups may have a row nevertheless: that of an aggregate.
pub(super) fn may_aggregate(select: &Select) -> bool {
    select.having.is_some() || select.projection.visit(&mut Aggregates { queries: 0 }).is_break()
}

/// Looks for a call that is not known to be scalar, outside of subqueries.
struct Aggregates {
    /// The number of subqueries around.
    queries: usize,
}

/// Scalar functions of the engine in clients' subqueries.
const SCALAR: [&str; 16] = [
    "generate_subscripts",
    "format",
    "array",
    "json_build_object",
    "array_to_string",
    "btrim",
    "coalesce",
    "concat",
    "left",
    "length",
    "lower",
    "regexp_replace",
    "replace",
    "substring",
    "upper",
    "unnest",
];

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        if self.queries > 0 {
            return ControlFlow::Continue(());
        }
        let name = function.name.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_ascii_lowercase());
        let is_scalar = name.is_some_and(|name| functions::is_known(&name) || SCALAR.contains(&name.as_str()));
        if is_scalar { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
