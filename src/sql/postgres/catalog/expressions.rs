//! Parts of parsed expressions, and expressions from their text.
//!
//! Knows SQL's grammar only.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

/// A literal.
pub(super) fn value(value: Value) -> Expr {
    Expr::Value(value.into())
}

/// The first argument of a call.
pub(super) fn argument(arguments: &FunctionArguments) -> Option<&Expr> {
    let FunctionArguments::List(FunctionArgumentList { args, .. }) = arguments else { return None };
    match args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The argument of a call of the function `name`.
pub(super) fn called(expr: &Expr, name: &str) -> Option<Expr> {
    match expr {
        Expr::Function(function) if parts(&function.name) == [name] => argument(&function.args).cloned(),
        Expr::Nested(expr) => called(expr, name),
        _ => None,
    }
}

/// A call of a function.
pub(super) fn call(name: &str, arguments: &[&Expr]) -> Option<Expr> {
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.to_string()).collect();
    parsed(&format!("{name}({})", arguments.join(", ")))
}

/// The expression of a text; `None` for another text.
pub(super) fn parsed(text: &str) -> Option<Expr> {
    Parser::new(&GenericDialect {}).try_with_sql(text).ok()?.parse_expr().ok()
}

/// A name as it is looked up.
pub(super) fn lower(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

/// The parts of a name as they are looked up.
pub(super) fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(lower).collect()
}
