//! The prompts as values of a template: `prompt`, `messages`, `reference_answer`, and the columns
//! that the template reads.
//!
//! Knows columns, not responses.

use std::collections::HashMap;

use arrow::datatypes::Schema;
use serde_json::{Value, json};

use super::super::{Context, OperatorError};
use crate::did_you_mean::nearest;
use crate::import::RowValues;
use crate::model::{Fields, PromptContent, RowTemplate};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::judge::Question;

/// The column of reference answers; null without one.
const ANSWER: &str = "reference_answer";

/// The values of each prompt, by its id.
pub struct Subjects(HashMap<String, Fields>);

impl Subjects {
    /// The values of the prompts in the slot `prompts`, for a template.
    ///
    /// # Errors
    /// The template reads a column that is not there, or a value that JSON has not.
    pub fn read(context: &Context, template: &RowTemplate, question: Question) -> Result<Self, OperatorError> {
        let prompts = context.prompts(Slot::Prompts)?;
        let mut contents = prompts.iter();
        let mut subjects = HashMap::with_capacity(prompts.len());
        for batch in &prompts.batches {
            let schema = batch.schema();
            let columns = check_variables(&schema, template, question).map_err(OperatorError::Input)?;
            let rows = RowValues::new(batch, |name| name == ANSWER || columns.iter().any(|column| column == name));
            for row in 0..batch.num_rows() {
                let problem = "fewer prompts than rows of prompts";
                let prompt = contents.next().ok_or_else(|| OperatorError::internal("operators::support::judging::subjects", problem))?;
                let mut values = rows.at(row).map_err(|problem| OperatorError::Input(format!("prompt {}: {problem}", prompt.id)))?;
                values.entry(ANSWER).or_insert(Value::Null);
                values.extend(of_content(&prompt.content));
                subjects.insert(prompt.id.clone(), values);
            }
        }
        Ok(Self(subjects))
    }

    /// The values of a prompt.
    ///
    /// # Errors
    /// There is no prompt of this id.
    pub fn of(&self, prompt_id: &str) -> Result<&Fields, OperatorError> {
        let missing = || OperatorError::Input(format!("expected the prompt {prompt_id}, found none in the table of prompts"));
        self.0.get(prompt_id).ok_or_else(missing)
    }
}

/// The columns that a template reads beside the given variables.
///
/// # Errors
/// One of them is not there.
pub fn check_variables(schema: &Schema, template: &RowTemplate, question: Question) -> Result<Vec<String>, String> {
    let given = question.variables();
    let read: Vec<String> = template.variables().iter().filter(|name| !given.contains(&name.as_str())).cloned().collect();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    match read.iter().find(|name| !columns.contains(&name.as_str())) {
        Some(missing) => {
            let near = nearest(missing, given.iter().copied().chain(columns.iter().copied()));
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            Err(format!(
                "judge: the template reads \"{missing}\"; expected one of {} or a column of the prompts, which are {}{near}",
                given.join(", "),
                columns.join(", ")
            ))
        }
        None => Ok(read),
    }
}

/// `prompt` and `messages` of a prompt: a text is a message of the user, a conversation is a text
/// with the names of the speakers unless it is one message.
fn of_content(content: &PromptContent) -> Fields {
    let (text, messages): (String, Vec<Value>) = match content {
        PromptContent::Text(text) => (text.clone(), vec![json!({ "role": "user", "content": text })]),
        PromptContent::Messages(conversation) => {
            let messages = &conversation.messages;
            let text = match messages.as_slice() {
                [only] => only.content.clone(),
                several => several.iter().map(|message| format!("{}: {}", message.role, message.content)).collect::<Vec<_>>().join("\n\n"),
            };
            (text, messages.iter().map(|message| json!({ "role": message.role, "content": message.content })).collect())
        }
    };
    Fields::from_iter([("prompt".to_string(), Value::String(text)), ("messages".to_string(), Value::Array(messages))])
}
