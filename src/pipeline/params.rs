//! Params: replaced by `--set`, then filled in for `${name}` everywhere.
//!
//! Knows scalars and their positions, not their use.

use indexmap::IndexMap;
use serde::Deserialize;

use super::error::Diagnostic;
use super::position::Span;
use super::spec::Param;
use super::tree::{Tree, Value};
use crate::did_you_mean::suggestion;

/// Replaces params by `--set`, then fills them in. The scalar `${name}` alone gets the value of the
/// param with its type.
pub(super) fn fill_in(root: &mut Tree, sets: &[(String, String)]) -> Result<(), Diagnostic> {
    let Value::Mapping(entries) = &mut root.value else { return Ok(()) };
    let mut params = IndexMap::new();
    if let Some((_, given)) = entries.iter_mut().find(|(key, _)| key.text() == Some("params")) {
        replace(given, sets)?;
        if let Value::Mapping(given) = &given.value {
            for (name, value) in given {
                if value.text().is_some_and(|text| text.contains("${")) {
                    return Err(Diagnostic::at(value.span, "a param cannot be made of params; write its value"));
                }
                let param = Param::deserialize(value).map_err(|_| Diagnostic::at(value.span, "expected a number, text, true or false"))?;
                params.insert(name.text().unwrap_or_default().to_string(), (value.value.clone(), param));
            }
        }
    } else if let Some((name, _)) = sets.first() {
        return Err(Diagnostic::nowhere(format!("--set {name}: the pipeline has no params")));
    }
    let others = entries.iter_mut().filter(|(key, _)| key.text() != Some("params"));
    others.map(|(_, value)| value).try_for_each(|value| fill(value, &params))
}

/// Replaces the values of params by those of `--set`.
fn replace(params: &mut Tree, sets: &[(String, String)]) -> Result<(), Diagnostic> {
    let Value::Mapping(entries) = &mut params.value else { return Ok(()) };
    for (name, written) in sets {
        let names: Vec<String> = entries.iter().filter_map(|(key, _)| key.text().map(str::to_string)).collect();
        let Some((_, param)) = entries.iter_mut().find(|(key, _)| key.text() == Some(name)) else {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            return Err(Diagnostic::nowhere(format!("--set {name}: unknown param \"{name}\"{}", suggestion(name, &names))));
        };
        let read = Tree::read(written).map(|tree| tree.value).unwrap_or(Value::Null);
        let (value, expected) = match (&param.value, read) {
            (Value::Text(_), _) => (Some(Value::Text(written.clone())), ""),
            // The digits of the param may be a text or a number.
            (Value::Padded(_), read) if !read.is_number() => (Some(Value::Text(written.clone())), ""),
            (Value::Boolean(_), read) => (matches!(read, Value::Boolean(_)).then_some(read), "true or false"),
            (_, read) => (read.is_number().then_some(read), "a number"),
        };
        param.value =
            value.ok_or_else(|| Diagnostic::nowhere(format!("--set {name}={written}: expected {expected}, found \"{written}\"")))?;
    }
    Ok(())
}

type Params = IndexMap<String, (Value, Param)>;

fn fill(tree: &mut Tree, params: &Params) -> Result<(), Diagnostic> {
    match &mut tree.value {
        Value::List(items) => items.iter_mut().try_for_each(|item| fill(item, params)),
        Value::Mapping(entries) => entries.iter_mut().try_for_each(|(_, value)| fill(value, params)),
        Value::Text(text) if text.contains("${") => {
            tree.value = filled(text, tree.span, params)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The value of a text with `${…}` in it.
fn filled(text: &str, span: Span, params: &Params) -> Result<Value, Diagnostic> {
    let mut parts = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        parts.push_str(before);
        let place = |length: usize| within(text, span, text.len() - after.len() - 2, length);
        let Some((name, end)) = after.split_once('}') else {
            return Err(Diagnostic::at(place(2), "\"${\" without its \"}\""));
        };
        let Some((value, param)) = params.get(name.trim()) else {
            let names: Vec<&str> = params.keys().map(String::as_str).collect();
            let unknown = format!("unknown param \"{}\"{}", name.trim(), suggestion(name.trim(), &names));
            return Err(Diagnostic::at(place(name.chars().count() + 3), unknown));
        };
        if before.is_empty() && end.is_empty() && rest.len() == text.len() {
            return Ok(value.clone());
        }
        parts.push_str(&param.to_string());
        rest = end;
    }
    parts.push_str(rest);
    Ok(Value::Text(parts))
}

/// The position of a part of a text from byte `start`: inside the scalar if it is on one line and
/// without escapes, else the whole scalar.
fn within(text: &str, span: Span, start: usize, width: usize) -> Span {
    let characters = text.chars().count();
    let quotes = span.width.checked_sub(characters).filter(|quotes| [0, 2].contains(quotes));
    match quotes {
        Some(quotes) if !text.contains('\n') => {
            let before = text.get(..start).map_or(0, |before| before.chars().count());
            Span { line: span.line, column: span.column + quotes / 2 + before, width }
        }
        _ => span,
    }
}
