//! Parts of a pipeline file, held to the JSON Schema of the whole file: only known keys.
//!
//! Required keys may be missing. Names of nodes and inputs are free.

use serde_json::{Map, Value};

/// Every unknown key in a part of a pipeline file.
pub fn faults(fragment: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&optune::pipeline::schema()).unwrap();
    match serde_saphyr::from_str::<Value>(fragment) {
        Ok(value) => unknown_keys(&schema, &schema, &value, ""),
        Err(error) => vec![format!("no YAML: {error}")],
    }
}

/// The unknown keys of `value` under its best form of `schema`.
fn unknown_keys(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if *schema == Value::Bool(true) {
        // Any value, such as that of a chat template's variable.
        return Vec::new();
    }
    let forms = forms(root, schema);
    match value {
        Value::Object(entries) => {
            let mappings = forms.iter().filter(|form| form.get("properties").is_some() || form.get("additionalProperties").is_some());
            let faults = mappings.map(|form| of_mapping(root, form, entries, at));
            faults.min_by_key(Vec::len).unwrap_or_else(|| vec![format!("{at}: expected no mapping")])
        }
        Value::Array(values) => {
            let items: Vec<&Value> = forms.iter().filter_map(|form| form.get("items")).collect();
            if items.is_empty() {
                return vec![format!("{at}: expected no list")];
            }
            let of_one = |item: &Value, value: &Value| unknown_keys(root, item, value, at);
            let best = |value: &Value| items.iter().copied().map(|item| of_one(item, value)).min_by_key(Vec::len).unwrap_or_default();
            values.iter().flat_map(best).collect()
        }
        _ => Vec::new(),
    }
}

fn of_mapping(root: &Value, form: &Value, entries: &Map<String, Value>, at: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, value) in entries {
        let inside = format!("{at}/{key}");
        let named = form.get("properties").and_then(|properties| properties.get(key));
        let free = form.get("additionalProperties").filter(|free| **free != Value::Bool(false));
        match named.or(free) {
            Some(schema) => faults.extend(unknown_keys(root, schema, value, &inside)),
            None => faults.push(format!("{inside}: unknown key")),
        }
    }
    faults
}

/// A schema without references: itself, and every alternative in it.
fn forms<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![schema];
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("the schema has no {reference}"));
        found.extend(forms(root, target));
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        for alternative in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
            found.extend(forms(root, alternative));
        }
    }
    found
}
