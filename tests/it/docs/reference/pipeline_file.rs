//! `docs/reference/pipeline-file.md`, from the JSON Schema of the pipeline file.
//!
//! Knows forms of schemas, not the keys in them.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::cell;

const HEAD: &str = "# The pipeline file

All keys of the pipeline file, with types, defaults and ranges. `optune schema` prints the same as a JSON Schema, for
completion and checks in editors. [Operators](operators.md) describes the nodes, and
[the quickstart](../guide/quickstart.md) shows a whole file.

`${param}` may stand in place of a number, a word or a text. An unknown key is an error.

This page is made from the code by a test.
";

/// The whole page.
pub fn page() -> String {
    let schema: Value = serde_json::from_str(&optune::pipeline::schema()).unwrap();
    let mut page = HEAD.to_string();
    writeln!(page, "\n## The file\n").unwrap();
    let schemas = Schemas { root: &schema };
    schemas.contents(&mut page, &schema);
    let mut names = Vec::new();
    schemas.collect(&schema, &mut names);
    for name in names {
        writeln!(page, "\n## {name}\n").unwrap();
        schemas.contents(&mut page, schemas.definition(&name));
    }
    // Named in a list only, so it has no section.
    page.replace("[Projection](#projection)", "projections by name")
}

/// The schema of the whole file, with its definitions.
struct Schemas<'a> {
    root: &'a Value,
}

impl<'a> Schemas<'a> {
    fn definition(&self, name: &str) -> &'a Value {
        self.root.pointer(&format!("/$defs/{name}")).unwrap_or_else(|| panic!("the schema has no definition {name}"))
    }

    /// The definitions with a section of their own, in the order of their first use.
    fn collect(&self, schema: &Value, names: &mut Vec<String>) {
        if let Some(name) = reference(schema)
            && has_section(self.definition(&name))
            && !names.contains(&name)
        {
            names.push(name.clone());
            self.collect(self.definition(&name), names);
        }
        match schema {
            Value::Object(entries) => entries.iter().filter(|(key, _)| *key != "$defs").for_each(|(_, inner)| self.collect(inner, names)),
            Value::Array(values) => values.iter().for_each(|inner| self.collect(inner, names)),
            _ => {}
        }
    }

    /// The meaning of a definition, its keys, and its alternatives.
    fn contents(&self, page: &mut String, schema: &Value) {
        writeln!(page, "{}\n", cell(description(schema))).unwrap();
        if let Some(properties) = properties(schema) {
            page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
            for (key, property) in properties {
                let (kind, default) = (self.kind(property), default(schema, key, property));
                let meaning = self.meaning(property);
                writeln!(page, "| `{key}` | {} | {} | {} |", cell(&kind), cell(&default), cell(&meaning)).unwrap();
            }
        }
        let alternatives = alternatives(schema);
        if !alternatives.is_empty() {
            page.push_str("| value | meaning |\n|---|---|\n");
            for alternative in alternatives {
                writeln!(page, "| {} | {} |", cell(&self.value(alternative)), cell(&self.alternative_meaning(alternative))).unwrap();
            }
        }
    }

    /// An alternative as it is written: a word, a mapping of one key, or a type.
    fn value(&self, alternative: &Value) -> String {
        match properties(alternative) {
            Some(properties) if properties.len() == 1 => {
                let key = properties.keys().next().map_or("", String::as_str);
                format!("`{key}:` with settings")
            }
            Some(_) => "a mapping".to_string(),
            None => self.kind(alternative),
        }
    }

    /// The meaning of an alternative, with the keys inside of it.
    fn alternative_meaning(&self, alternative: &Value) -> String {
        let mut text = self.meaning(alternative);
        let Some(outer) = properties(alternative) else {
            if text.is_empty() && alternative.get("enum").is_some() {
                text = "The name alone: all settings have their defaults.".to_string();
            }
            return text;
        };
        let single = if outer.len() == 1 { outer.values().next() } else { None };
        let inner = single.map(|single| reference(single).map_or(single, |name| self.definition(&name)));
        let (schema, keys) = match inner.and_then(|inner| properties(inner).map(|keys| (inner, keys))) {
            Some((schema, keys)) => (schema, keys),
            None => (alternative, outer),
        };
        if let Some(name) = single.and_then(reference).filter(|name| has_section(self.definition(name))) {
            write!(text, " Settings: {}.", link(&name)).unwrap();
            return text;
        }
        for (key, property) in keys {
            let kind = self.kind(property);
            write!(text, "<br>`{key}`: {kind}; {}. {}", default_words(schema, key, property), self.meaning(property)).unwrap();
        }
        text
    }

    /// The description of a property, or of the definition it refers to if that has no section.
    fn meaning(&self, schema: &Value) -> String {
        let own = description(schema);
        match reference(schema).map(|name| self.definition(&name)) {
            Some(definition) if own.is_empty() => description(definition).to_string(),
            _ => own.to_string(),
        }
    }

    /// The type of a value, with its range.
    fn kind(&self, schema: &Value) -> String {
        if let Some(name) = reference(schema) {
            let definition = self.definition(&name);
            return if has_section(definition) { link(&name) } else { self.kind(definition) };
        }
        if let Some(value) = schema.get("const") {
            return format!("`{}`", flow(value));
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return words.iter().map(|word| format!("`{}`", flow(word))).collect::<Vec<_>>().join(", ");
        }
        let alternatives = alternatives(schema);
        let kinds: Vec<String> = if alternatives.is_empty() {
            types(schema).into_iter().map(|kind| self.of_type(schema, kind)).collect()
        } else {
            alternatives.into_iter().map(|alternative| self.kind(alternative)).collect()
        };
        let mut distinct: Vec<String> = Vec::new();
        for kind in kinds {
            if !kind.is_empty() && !distinct.contains(&kind) {
                distinct.push(kind);
            }
        }
        if distinct.is_empty() { "any value".to_string() } else { distinct.join(" or ") + &range(schema) }
    }

    fn of_type(&self, schema: &Value, kind: &str) -> String {
        match kind {
            "string" => "text".to_string(),
            "integer" => "whole number".to_string(),
            "number" => "number".to_string(),
            "boolean" => "`true` or `false`".to_string(),
            "array" => format!("list of {}", schema.get("items").map_or("any value".to_string(), |items| self.kind(items))),
            "object" => match schema.get("additionalProperties").filter(|values| values.is_object()) {
                Some(values) => format!("mapping from names to {}", self.kind(values)),
                None => "mapping".to_string(),
            },
            // A key may be left out: the default says it.
            "null" => String::new(),
            other => other.to_string(),
        }
    }
}

fn reference(schema: &Value) -> Option<String> {
    schema.get("$ref").and_then(Value::as_str).map(|path| path.trim_start_matches("#/$defs/").to_string())
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object).filter(|properties| !properties.is_empty())
}

/// Whether a definition has keys, or words with meanings.
fn has_section(schema: &Value) -> bool {
    let has_meanings =
        alternatives(schema).iter().any(|alternative| properties(alternative).is_some() || alternative.get("const").is_some());
    properties(schema).is_some() || has_meanings
}

/// The alternatives of a schema, without `null` and the form of a param.
fn alternatives(schema: &Value) -> Vec<&Value> {
    let listed = ["oneOf", "anyOf"].into_iter().filter_map(move |key| schema.get(key).and_then(Value::as_array)).flatten();
    listed.filter(|form| !is_param(form) && form.get("type").is_none_or(|kind| kind != "null")).collect()
}

/// Whether text is allowed here only as `${param}`.
fn is_param(schema: &Value) -> bool {
    schema.get("pattern").and_then(Value::as_str).is_some_and(|pattern| pattern.starts_with(r"^\$\{"))
        && schema.get("type").is_some_and(|kind| kind == "string")
}

/// The types of a schema, without the text of a param.
fn types(schema: &Value) -> Vec<&str> {
    let has_param = schema.get("pattern").and_then(Value::as_str).is_some_and(|pattern| pattern.starts_with(r"^\$\{"));
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).filter(|kind| !has_param || *kind != "string").collect(),
        Some(Value::String(kind)) => vec![kind],
        _ => Vec::new(),
    }
}

/// The range of a number or the form of a text, behind its type.
fn range(schema: &Value) -> String {
    let bounds = [("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below")];
    let mut range = String::new();
    for (key, words) in bounds {
        if let Some(bound) = schema.get(key) {
            write!(range, ", {words} {}", flow(bound)).unwrap();
        }
    }
    if let Some(count) = schema.get("minItems") {
        write!(range, ", at least {count} of them").unwrap();
    }
    range
}

/// The cell of a default.
fn default(schema: &Value, key: &str, property: &Value) -> String {
    let is_required = schema.get("required").and_then(Value::as_array).is_some_and(|keys| keys.iter().any(|required| required == key));
    match property.get("default") {
        _ if is_required => "required".to_string(),
        None | Some(Value::Null) => "none".to_string(),
        Some(value) => format!("`{}`", flow(value)),
    }
}

/// A default in the middle of a sentence.
fn default_words(schema: &Value, key: &str, property: &Value) -> String {
    match default(schema, key, property).as_str() {
        "required" => "required".to_string(),
        "none" => "no default".to_string(),
        value => format!("default {value}"),
    }
}

/// A value as YAML on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".to_string(),
        Value::Object(entries) => {
            let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}
