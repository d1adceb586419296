//! Refuses a query that the engine's parser reads by another precedence than SQL's. Knows nothing
//! of the tables.
//!
//! The parser takes all that follows `a IS DISTINCT FROM` as its right side, so that
//! `a IS DISTINCT FROM b OR c` becomes `a IS DISTINCT FROM (b OR c)`: other rows without an error.

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, Spanned, Visit, Visitor};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

/// The longest expression shown in an error, in characters.
const MOST_SHOWN: usize = 200;

/// Refuses a query with an ambiguous `IS [NOT] DISTINCT FROM`. Syntax errors are left to the
/// engine.
///
/// # Errors
/// A sentence with the expression, its fix, and its position in the text.
pub(super) fn check(text: &str) -> Result<(), String> {
    if !text.to_ascii_uppercase().contains("DISTINCT") {
        return Ok(());
    }
    let Ok(statements) = Parser::parse_sql(&GenericDialect {}, text) else { return Ok(()) };
    match statements.visit(&mut Search) {
        ControlFlow::Break(problem) => Err(problem),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Looks for the first such expression.
struct Search;

impl Visitor for Search {
    type Break = String;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        match expr {
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if binds_looser(right) => ControlFlow::Break(problem(expr)),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Whether an expression without parentheses is no operand of `IS`.
fn binds_looser(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor),
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => true,
        Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::IsTrue(_) | Expr::IsNotTrue(_) => true,
        Expr::IsFalse(_) | Expr::IsNotFalse(_) | Expr::IsUnknown(_) | Expr::IsNotUnknown(_) => true,
        _ => false,
    }
}

fn problem(expr: &Expr) -> String {
    let start = expr.span().start;
    let place = if start.line > 0 { format!(" at Line: {}, Column: {}", start.line, start.column) } else { String::new() };
    let found = shown(&expr.to_string());
    match meant(expr).map(|meant| shown(&meant.to_string())) {
        Some(meant) => {
            format!(
                "expected parentheses around IS DISTINCT FROM or around its right side, found {found}, whose right side would be all that \
                 follows; write {meant}{place}"
            )
        }
        None => format!("expected parentheses around the right side of IS DISTINCT FROM, found {found}{place}"),
    }
}

/// The expression as SQL reads it, in parentheses.
fn meant(expr: &Expr) -> Option<Expr> {
    let (Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right)) = expr else { return None };
    let mut whole = (**right).clone();
    let operand = first_operand(&mut whole);
    let (left, right) = (left.clone(), Box::new(operand.clone()));
    let compared =
        if matches!(expr, Expr::IsDistinctFrom(..)) { Expr::IsDistinctFrom(left, right) } else { Expr::IsNotDistinctFrom(left, right) };
    *operand = Expr::Nested(Box::new(compared));
    Some(whole)
}

/// The operand at the start of the text.
fn first_operand(expr: &mut Expr) -> &mut Expr {
    if !binds_looser(expr) {
        return expr;
    }
    match expr {
        Expr::BinaryOp { left, .. } | Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => first_operand(left),
        Expr::IsNull(left) | Expr::IsNotNull(left) | Expr::IsTrue(left) | Expr::IsNotTrue(left) => first_operand(left),
        Expr::IsFalse(left) | Expr::IsNotFalse(left) | Expr::IsUnknown(left) | Expr::IsNotUnknown(left) => first_operand(left),
        other => other,
    }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MOST_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_right_side_that_would_swallow_the_rest_is_refused_with_the_fix() {
        for (found, meant) in [
            ("a IS DISTINCT FROM b OR c", "(a IS DISTINCT FROM b) OR c"),
            ("a IS NOT DISTINCT FROM b AND c", "(a IS NOT DISTINCT FROM b) AND c"),
            ("a IS DISTINCT FROM b XOR c", "(a IS DISTINCT FROM b) XOR c"),
            ("a IS DISTINCT FROM b AND c OR d", "(a IS DISTINCT FROM b) AND c OR d"),
            ("a IS DISTINCT FROM b + 1 OR c", "(a IS DISTINCT FROM b + 1) OR c"),
            ("a IS DISTINCT FROM b IS NULL", "(a IS DISTINCT FROM b) IS NULL"),
        ] {
            for query in [
                format!("SELECT {found}"),
                format!("SELECT 1 FROM t WHERE x AND ({found})"),
                format!("SELECT 1 FROM (SELECT 1 FROM t WHERE {found}) AS s"),
                format!("SELECT CASE WHEN {found} THEN 1 END"),
                format!("SELECT 1 FROM t JOIN u ON {found}"),
                format!("WITH s AS (SELECT 1 FROM t) SELECT sum(x) FILTER (WHERE {found}) FROM s"),
                format!("SELECT 1 FROM t WHERE EXISTS (SELECT 1 FROM u HAVING {found}) ORDER BY 1"),
                format!("EXPLAIN SELECT {found}"),
            ] {
                let error = check(&query).unwrap_err();
                assert!(error.contains(&format!("found {found}")) && error.contains(&format!("write {meant}")), "{query}: {error}");
            }
        }
        let error = check("SELECT 1\nFROM t WHERE a IS DISTINCT FROM b\nOR c").unwrap_err();
        assert!(error.ends_with(" at Line: 2, Column: 14"), "{error}");
    }

    #[test]
    fn what_has_one_reading_is_left_alone() {
        for query in [
            "SELECT a IS DISTINCT FROM (b OR c)",
            "SELECT (a IS DISTINCT FROM b) OR c",
            "SELECT c OR a IS DISTINCT FROM b",
            "SELECT c AND a IS NOT DISTINCT FROM b",
            "SELECT NOT a IS DISTINCT FROM b",
            "SELECT a IS DISTINCT FROM b = c",
            "SELECT a IS DISTINCT FROM b BETWEEN 1 AND 2",
            "SELECT a IS DISTINCT FROM CASE WHEN b OR c THEN 1 END",
            "SELECT a IS DISTINCT FROM (SELECT b OR c)",
            "SELECT count(DISTINCT a) FROM t WHERE b OR c",
            "SELECT DISTINCT a FROM b WHERE c OR d",
            "SELECT 'a IS DISTINCT FROM b OR c'",
            "SELECT a IS DISTINCT FROM",
        ] {
            assert_eq!(check(query), Ok(()), "{query}");
        }
    }
}
