//! The source of a text or a value of an item: a column, a template over the columns, or the text
//! itself. Knows one row's values, not their use.

use serde_json::Value;

use crate::did_you_mean::nearest;
use crate::model::{Fields, RowTemplate, kind};

/// A column, a template or a text.
pub(super) enum TextSource {
    Column(String),
    Template(Box<RowTemplate>),
    Literal(String),
}

impl TextSource {
    /// A column or a template among these columns; `what` it is, for errors. An empty text is
    /// itself.
    pub(super) fn new(what: &str, text: &str, columns: &[String]) -> Result<Self, String> {
        if text.is_empty() || RowTemplate::is_template(text) {
            return Self::literal_or_template(text, columns).map_err(|problem| format!("{what}: {problem}"));
        }
        if columns.iter().any(|column| column == text) {
            return Ok(Self::Column(text.to_string()));
        }
        Err(format!("{what}: expected a column or a template such as \"{{{{ … }}}}\", found {text:?}{}", known(text, columns)))
    }

    /// A text, with the tags of a template or without.
    pub(super) fn literal_or_template(text: &str, columns: &[String]) -> Result<Self, String> {
        if !RowTemplate::is_template(text) {
            return Ok(Self::Literal(text.to_string()));
        }
        let template = RowTemplate::new(text).map_err(|error| error.to_string())?;
        match template.variables().iter().find(|name| !columns.contains(name)) {
            Some(missing) => Err(format!("the template reads {missing:?}, and there is no such column{}", known(missing, columns))),
            None => Ok(Self::Template(Box::new(template))),
        }
    }

    pub(super) fn is_template(&self) -> bool {
        matches!(self, Self::Template(_))
    }

    /// The columns that it reads.
    pub(super) fn columns(&self) -> Vec<String> {
        match self {
            Self::Column(name) => vec![name.clone()],
            Self::Template(template) => template.variables().iter().cloned().collect(),
            Self::Literal(_) => Vec::new(),
        }
    }

    /// Its value in a row.
    pub(super) fn value(&self, values: &Fields) -> Result<Value, String> {
        match self {
            Self::Column(name) => match values.get(name) {
                Some(Value::Null) | None => Err(format!("expected a value in the column {name}, found null")),
                Some(value) => Ok(value.clone()),
            },
            Self::Template(template) => template.evaluate(values).map_err(|error| error.to_string()),
            Self::Literal(text) => Ok(Value::String(text.clone())),
        }
    }

    /// Its text in a row.
    pub(super) fn text(&self, values: &Fields) -> Result<String, String> {
        match self {
            Self::Template(template) => template.render(values).map_err(|error| error.to_string()),
            _ => text_of(&self.value(values)?),
        }
    }
}

/// A value as Python's text of it.
pub(super) fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(true) => Ok("True".to_string()),
        Value::Bool(false) => Ok("False".to_string()),
        other => Err(format!("expected a text, found {}", kind(other))),
    }
}

/// A whole number; true is 1.
pub(super) fn number(value: &Value) -> Result<i128, String> {
    let whole = |number: &serde_json::Number| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15).map(|float| float as i128);
        number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)).or(float)
    };
    match value {
        Value::Number(number) => whole(number).ok_or_else(|| format!("expected a whole number, found {number}")),
        Value::Bool(value) => Ok(i128::from(*value)),
        Value::String(text) => text.trim().parse().map_err(|_| format!("expected a whole number, found {text:?}")),
        other => Err(format!("expected a whole number, found {}", kind(other))),
    }
}

/// The known columns, and the nearest one.
fn known(name: &str, columns: &[String]) -> String {
    if columns.is_empty() {
        return "; the table has no columns".to_string();
    }
    let near = nearest(name, columns.iter().map(String::as_str)).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
    format!("; columns: {}{near}", columns.join(", "))
}
