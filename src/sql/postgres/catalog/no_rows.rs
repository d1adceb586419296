//! Subqueries over tables of the catalog without rows, which have no rows themselves.
//!
//! Clients ask for the default, comment or index of each column in correlated subqueries, which the
//! engine does not plan. Their answer is known without a plan.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, GroupByExpr, JoinOperator, ObjectName, Query, Select, SetExpr, SetOperator, TableFactor, Visit, Visitor};

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
        TableFactor::Table { name, .. } => is_empty(name),
        TableFactor::Derived { subquery, .. } => of_query(subquery, is_empty),
        _ => false,
    };
    let is_inner = |join: &JoinOperator| matches!(join, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_));
    let from_nothing = select.from.iter().any(|from| {
        let only_inner = from.joins.iter().all(|join| is_inner(&join.join_operator));
        let left_outer = |join: &JoinOperator| matches!(join, JoinOperator::Left(_) | JoinOperator::LeftOuter(_));
        let keeps_left = from.joins.iter().all(|join| is_inner(&join.join_operator) || left_outer(&join.join_operator));
        (keeps_left && reads_nothing(&from.relation)) || (only_inner && from.joins.iter().any(|join| reads_nothing(&join.relation)))
    });
    from_nothing && (has_groups(&select.group_by) || !may_aggregate(select))
}

fn has_groups(groups: &GroupByExpr) -> bool {
    matches!(groups, GroupByExpr::Expressions(groups, _) if !groups.is_empty())
}

/// Whether a select without groups may have a row nevertheless: that of an aggregate.
pub(super) fn may_aggregate(select: &Select) -> bool {
    select.having.is_some() || select.projection.visit(&mut Aggregates).is_break()
}

/// Looks for a call that is not known to be scalar.
struct Aggregates;

/// Scalar functions of the engine in clients' subqueries.
const SCALAR: [&str; 12] = [
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

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_ascii_lowercase());
        let is_scalar = name.is_some_and(|name| functions::is_known(&name) || SCALAR.contains(&name.as_str()));
        if is_scalar { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
