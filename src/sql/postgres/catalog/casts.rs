//! Casts to the types of PostgreSQL, and texts of its lists and bytes, for the engine.
//!
//! Knows the names of types, not the catalog's tables.

use sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, Value};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use super::expressions::{call, called, parsed, parts, value};
use crate::sql::postgres::list_text;

/// Types whose names are looked up among the catalog's objects.
pub(super) const OBJECTS: [&str; 3] = ["regclass", "regtype", "regnamespace"];

/// A cast for the engine.
pub(super) fn cast(expr: &Expr, data_type: &mut DataType) -> Option<Expr> {
    if *data_type == DataType::Bytea {
        return bytes(expr);
    }
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(item, _)) = data_type {
        if let Some(own) = own_type(item) {
            **item = own;
        }
        return list(expr, item);
    }
    let name = match data_type {
        DataType::Regclass => "regclass".to_string(),
        DataType::Custom(name, _) => parts(name).pop()?,
        _ => String::new(),
    };
    let is_text = text_of(expr).is_some() || matches!(expr, Expr::Cast { data_type: DataType::Text | DataType::Varchar(_), .. });
    let is_text = is_text || matches!(expr, Expr::Value(value) if matches!(value.value, Value::Placeholder(_)));
    match name.as_str() {
        // Twice the same cast.
        kind @ ("regclass" | "regtype" | "regnamespace") if called(expr, &format!("{kind}_oid")).is_some() => return Some(expr.clone()),
        kind @ ("regclass" | "regtype" | "regnamespace") => {
            return call(&format!("{kind}_{}", if is_text { "oid" } else { "name" }), &[expr]);
        }
        "regproc" | "regprocedure" => {
            let own = text_of(expr).map(|text| text.strip_prefix("pg_catalog.").unwrap_or(&text).to_string());
            return Some(own.map_or(expr.clone(), |text| value(Value::SingleQuotedString(text))));
        }
        "regrole" => return call("pg_get_userbyid", &[expr]),
        _ => {}
    }
    if let Some(own) = own_type(data_type) {
        *data_type = own;
    }
    match data_type {
        // The oid of the name of an oid, and the name of the oid of a name.
        DataType::BigInt(_) => OBJECTS.iter().find_map(|kind| called(expr, &format!("{kind}_name"))),
        DataType::Text | DataType::Varchar(_) => {
            let kind = OBJECTS.iter().find(|kind| called(expr, &format!("{kind}_oid")).is_some())?;
            call(&format!("{kind}_name"), &[expr])
        }
        _ => None,
    }
}

/// The engine's type for a type that only PostgreSQL has.
fn own_type(data_type: &DataType) -> Option<DataType> {
    let name = match data_type {
        DataType::Uuid | DataType::JSON | DataType::JSONB => return Some(DataType::Text),
        DataType::Custom(name, _) => parts(name).pop()?,
        _ => return None,
    };
    Some(match name.as_str() {
        "oid" | "xid" | "cid" | "xid8" => DataType::BigInt(None),
        "name" | "char" | "cstring" | "uuid" | "json" | "jsonb" | "inet" | "aclitem" | "pg_node_tree" | "citext" => DataType::Text,
        "sql_identifier" | "character_data" | "yes_or_no" => DataType::Text,
        "cardinal_number" => DataType::Int(None),
        "int2vector" | "oidvector" => DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::BigInt(None)), None)),
        // A type of the standard with the catalog's schema.
        other => Parser::new(&GenericDialect {}).try_with_sql(other).ok()?.parse_data_type().ok()?,
    })
}

/// The list of a text such as `{a,b}`; `None` for another expression.
pub(super) fn list(expr: &Expr, item: &DataType) -> Option<Expr> {
    let items = list_text::items(&text_of(expr)?)?;
    if items.is_empty() {
        return parsed(&format!("CAST(make_array() AS {item}[])"));
    }
    let quoted = |value: Option<String>| match value {
        Some(text) => format!("CAST('{}' AS {item})", text.replace('\'', "''")),
        None => format!("CAST(NULL AS {item})"),
    };
    let items: Vec<String> = items.into_iter().map(quoted).collect();
    parsed(&format!("make_array({})", items.join(", ")))
}

/// The bytes of a text such as `\x00ff`.
fn bytes(expr: &Expr) -> Option<Expr> {
    let text = text_of(expr)?;
    let digits = text.strip_prefix("\\x")?;
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| value(Value::HexStringLiteral(digits.to_string())))
}

fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
            _ => None,
        },
        Expr::Nested(expr) => text_of(expr),
        _ => None,
    }
}
