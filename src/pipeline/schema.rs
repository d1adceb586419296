//! The JSON Schema of the pipeline file, for editors.
//!
//! Generated from the types of [`super::spec`]; adds only the forms of params.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Value, json};

use super::spec::Spec;

/// The JSON Schema of the pipeline file, as text: every key with its description, default and
/// range.
pub fn schema() -> String {
    let schema = SchemaSettings::draft2020_12().with_transform(OrParam).into_generator().into_root_schema_for::<Spec>();
    format!("{:#}", schema.to_value())
}

/// Lets `"${param}"` stand wherever a number, a truth value or one of several words is expected.
#[derive(Clone, Debug)]
struct OrParam;

/// The pattern of a scalar with one param.
const PARAM: &str = r"^\$\{[^}]+\}$";

impl Transform for OrParam {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let scalar = |kind: &Value| ["number", "integer", "boolean"].iter().any(|scalar| kind == scalar);
        let kinds: Vec<Value> = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.clone(),
            Some(kind) => vec![kind.clone()],
            None => Vec::new(),
        };
        if kinds.iter().any(scalar) && schema.get("const").is_none() {
            let kinds: Vec<Value> = kinds.into_iter().chain([json!("string")]).collect();
            schema.insert("type".to_string(), Value::Array(kinds));
            schema.insert("pattern".to_string(), json!(PARAM));
        }
        let words = |form: &Value| form.get("const").is_some_and(Value::is_string);
        if let Some(Value::Array(forms)) = schema.get_mut("oneOf")
            && forms.iter().all(words)
        {
            forms.push(json!({ "type": "string", "pattern": PARAM }));
        }
    }
}
