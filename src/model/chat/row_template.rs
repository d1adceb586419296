//! Templates of texts over the values of a table's row, such as a benchmark's question. Knows
//! nothing of tables.
//!
//! The language is that of chat templates, with two differences of Python's `jinja2.Environment`:
//! white space stays as it is written, and a missing value is an error. `regex_replace` is a filter
//! as in lm-evaluation-harness.

use std::collections::BTreeSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value as Variable};
use serde_json::Value;

use super::{environment, on_a_large_stack, repr, syntax};
use crate::model::{Fields, ModelError};

const NAME: &str = "template";

/// A compiled template.
#[derive(Clone, Debug)]
pub struct RowTemplate {
    environment: Environment<'static>,
    /// The source of a template that is one `{{ expression }}`.
    expression: Option<String>,
    variables: BTreeSet<String>,
}

impl RowTemplate {
    /// Compiles a template's source.
    ///
    /// # Errors
    /// The source is not Jinja.
    pub fn new(source: &str) -> Result<Self, ModelError> {
        on_a_large_stack(source, || Self::compiled(source)).map_err(|error| match error {
            ModelError::Chat(problem) => ModelError::Template(problem),
            other => other,
        })
    }

    /// Whether a text has a tag of a template.
    pub fn is_template(text: &str) -> bool {
        ["{{", "{%", "{#"].iter().any(|tag| text.contains(tag))
    }

    fn compiled(source: &str) -> Result<Self, ModelError> {
        let mut environment = environment(NAME, "")?;
        environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build().map_err(failed)?);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(show);
        environment.add_filter("regex_replace", regex_replace);
        let translated = syntax::translate(source);
        environment.add_template_owned(NAME, translated.clone()).map_err(failed)?;
        let globals: BTreeSet<String> = environment.globals().map(|(name, _)| name.to_string()).collect();
        let used = environment.get_template(NAME).map_err(failed)?.undeclared_variables(false);
        let variables = used.into_iter().filter(|name| !globals.contains(name)).collect();
        let expression = expression(&translated).filter(|inner| environment.compile_expression(inner).is_ok());
        let expression = expression.map(str::to_string);
        Ok(Self { environment, expression, variables })
    }

    /// The names of the values that the template reads.
    pub fn variables(&self) -> &BTreeSet<String> {
        &self.variables
    }

    /// The text with these values.
    ///
    /// # Errors
    /// A value is missing or of another kind, or the template does not end.
    pub fn render(&self, values: &Fields) -> Result<String, ModelError> {
        let template = self.environment.get_template(NAME).map_err(failed)?;
        template.render(variables(values)).map_err(failed)
    }

    /// The value of a template that is one expression, else its text.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn evaluate(&self, values: &Fields) -> Result<Value, ModelError> {
        let Some(expression) = &self.expression else { return Ok(Value::String(self.render(values)?)) };
        let compiled = self.environment.compile_expression(expression).map_err(failed)?;
        let value = compiled.eval(variables(values)).map_err(failed)?;
        if value.is_undefined() {
            return Err(ModelError::Template(format!("expected a value of {}, found none", expression.trim())));
        }
        serde_json::to_value(&value).map_err(|error| ModelError::Template(error.to_string()))
    }
}

fn variables(values: &Fields) -> Variable {
    Variable::from_pairs(values.iter().map(|(name, value)| (name.as_str(), Variable::from(Serde(value)))))
}

fn failed(error: Error) -> ModelError {
    ModelError::Template(error.to_string())
}

/// The expression of a source that is one tag `{{ … }}`.
fn expression(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    if ["{{", "}}", "{%"].iter().any(|tag| inner.contains(tag)) { None } else { Some(inner) }
}

/// Writes the text of `{{ value }}`.
fn show(out: &mut Output, state: &mut State, value: &Variable) -> Result<(), Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    repr::show(out, state, value)
}

/// `value | regex_replace(pattern, replacement, count)`: Python's `re.sub`; a count of 0 is all.
fn regex_replace(text: &str, pattern: &str, replacement: &str, count: Option<usize>) -> Result<String, Error> {
    let refused = |error: fancy_regex::Error| Error::new(ErrorKind::InvalidOperation, format!("regex_replace: {error}"));
    let regex = fancy_regex::Regex::new(pattern).map_err(refused)?;
    let replaced = regex.try_replacen(text, count.unwrap_or(0), groups_in_rust(replacement).as_str()).map_err(refused)?;
    Ok(replaced.into_owned())
}

/// Python's `\1` as `${1}`, and its plain `$` as `$$`.
fn groups_in_rust(replacement: &str) -> String {
    let mut out = String::with_capacity(replacement.len());
    let mut rest = replacement.chars().peekable();
    while let Some(character) = rest.next() {
        match (character, rest.peek().copied()) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                out.extend(["${", digit.to_string().as_str(), "}"]);
                rest.next();
            }
            ('\\', Some('\\')) => {
                out.push('\\');
                rest.next();
            }
            ('$', _) => out.push_str("$$"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::RowTemplate;
    use crate::model::Fields;

    fn values(value: Value) -> Fields {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn white_space_stays_as_written() {
        let template = RowTemplate::new("Q: {{ question.strip() }}\n{% for choice in choices %}\n{{ choice }}{% endfor %}\nA:\n").unwrap();
        let text = template.render(&values(json!({ "question": " why ", "choices": ["a", "b"] }))).unwrap();
        // As jinja2.Environment(keep_trailing_newline=True) renders it.
        assert_eq!(text, "Q: why\n\na\nb\nA:\n");
        let names: Vec<&str> = template.variables().iter().map(String::as_str).collect();
        assert_eq!(names, ["choices", "question"]);
    }

    #[test]
    fn an_expression_keeps_its_type() {
        let row = values(json!({ "choices": { "text": ["x", "y"], "label": ["A", "B"] }, "key": "B" }));
        let evaluate = |source: &str| RowTemplate::new(source).unwrap().evaluate(&row).unwrap();
        assert_eq!(evaluate("{{ choices.text }}"), json!(["x", "y"]));
        assert_eq!(evaluate("{{choices.label.index(key)}}"), json!(1));
        assert_eq!(evaluate("{{ choices.text | map('regex_replace', '[xy]', '<$>') | list }}"), json!(["<$>", "<$>"]));
        assert_eq!(evaluate("{{ key }}{{ key }}"), json!("BB"));
    }

    #[test]
    fn a_missing_value_is_an_error() {
        let row = values(json!({ "a": { "b": 1 } }));
        for source in ["{{ a.c }}", "{{ nothing }}", "x{{ a.c }}", "{{ a.c.d }}"] {
            let template = RowTemplate::new(source).unwrap();
            assert!(template.evaluate(&row).is_err(), "{source}");
            assert!(template.render(&row).is_err(), "{source}");
        }
        assert!(RowTemplate::new("{{ a ").is_err());
    }
}
