//! The columns of exported pairs, in the shapes that TRL and Hugging Face datasets read.
//!
//! Messages of a role and a text are structs. With further fields or tools, each message is a JSON
//! value of its own: an object in JSON lines, the type `Json` of Hugging Face datasets in Parquet.
//! Knows no run.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{Field, Schema};
use serde_json::{Map, Value};

use super::error::CliError;
use super::format::{self, Format};
use crate::import::{Conversations, json_field};
use crate::model::{Conversation, Fields, Message, PromptContent};

/// The variable of a chat template with a column of its own.
const TOOLS: &str = "tools";
/// The column of all other variables.
const KWARGS: &str = "chat_template_kwargs";

/// One pair with its texts or messages.
pub(super) struct Pair {
    pub(super) id: String,
    pub(super) asked: PromptContent,
    pub(super) chosen: Message,
    pub(super) rejected: Message,
    pub(super) weight: f64,
    pub(super) margin: f64,
}

impl Pair {
    fn is_whole(&self) -> bool {
        let asked = match &self.asked {
            PromptContent::Text(_) => false,
            PromptContent::Messages(asked) => !asked.variables.is_empty() || asked.messages.iter().any(|message| message.whole().is_some()),
        };
        asked || self.chosen.whole().is_some() || self.rejected.whole().is_some()
    }
}

/// Writes the pairs to a file: `prompt`, `chosen`, `rejected`, `weight` and `margin`; `tools` and
/// `chat_template_kwargs` where a prompt has them.
pub(super) fn write(pairs: &[Pair], format: Format, output: &Path) -> Result<(), CliError> {
    let conversations: Vec<&Conversation> = pairs.iter().filter_map(|pair| conversation(&pair.asked)).collect();
    let is_whole = pairs.iter().any(Pair::is_whole);
    let batch = match conversations.len() {
        0 if is_whole => {
            let pair = pairs.iter().find(|pair| pair.is_whole()).map_or("", |pair| pair.id.as_str());
            return Err(CliError::Input(format!(
                "pair {pair}: expected responses of text to a prompt of text, found a message with further fields"
            )));
        }
        0 => batch(pairs, texts(pairs))?,
        all if all == pairs.len() && !is_whole => batch(pairs, messages(pairs, &conversations))?,
        all if all == pairs.len() && format == Format::Json => return write_lines(pairs, &conversations, output),
        all if all == pairs.len() => batch(pairs, whole_messages(pairs, &conversations))?,
        some => {
            let problem = format!("expected prompts of one kind, found {some} of {} as messages and the others as texts", pairs.len());
            return Err(CliError::Input(format!("{problem}; TRL reads either")));
        }
    };
    format::write(&[batch], format, Some(output))
}

fn conversation(asked: &PromptContent) -> Option<&Conversation> {
    match asked {
        PromptContent::Text(_) => None,
        PromptContent::Messages(conversation) => Some(conversation),
    }
}

type Columns = Vec<(Field, ArrayRef)>;

/// The columns, with weights and margins behind them.
fn batch(pairs: &[Pair], mut columns: Columns) -> Result<RecordBatch, CliError> {
    let number = |number: fn(&Pair) -> f64| Arc::new(pairs.iter().map(number).collect::<Float64Array>()) as ArrayRef;
    columns.push(plain("weight", number(|pair| pair.weight)));
    columns.push(plain("margin", number(|pair| pair.margin)));
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| CliError::Failed(error.to_string()))
}

fn plain(name: &str, array: ArrayRef) -> (Field, ArrayRef) {
    (Field::new(name, array.data_type().clone(), array.null_count() > 0), array)
}

fn texts(pairs: &[Pair]) -> Columns {
    let column = |name: &str, text: fn(&Pair) -> &str| {
        let texts: StringArray = pairs.iter().map(|pair| Some(text(pair))).collect();
        plain(name, Arc::new(texts))
    };
    let asked = |pair: &Pair| match &pair.asked {
        PromptContent::Text(text) => Some(text.clone()),
        PromptContent::Messages(_) => None,
    };
    let prompts: StringArray = pairs.iter().map(asked).collect();
    vec![
        plain("prompt", Arc::new(prompts)),
        column("chosen", |pair| &pair.chosen.content),
        column("rejected", |pair| &pair.rejected.content),
    ]
}

fn messages(pairs: &[Pair], asked: &[&Conversation]) -> Columns {
    let mut columns = [Conversations::default(), Conversations::default(), Conversations::default()];
    let [prompt, chosen, rejected] = &mut columns;
    for (pair, asked) in pairs.iter().zip(asked) {
        prompt.append(Some(&asked.messages));
        chosen.append(Some(std::slice::from_ref(&pair.chosen)));
        rejected.append(Some(std::slice::from_ref(&pair.rejected)));
    }
    let arrays = columns.map(Conversations::finish);
    ["prompt", "chosen", "rejected"].into_iter().zip(arrays).map(|(name, array)| plain(name, array)).collect()
}

fn whole_messages(pairs: &[Pair], asked: &[&Conversation]) -> Columns {
    let answers = |answer: fn(&Pair) -> &Message| pairs.iter().map(move |pair| values(std::slice::from_ref(answer(pair))));
    let mut columns = vec![
        json_lists("prompt", asked.iter().map(|asked| values(&asked.messages))),
        json_lists("chosen", answers(|pair| &pair.chosen)),
        json_lists("rejected", answers(|pair| &pair.rejected)),
    ];
    for (name, values) in variables(asked) {
        let texts: StringArray = values.into_iter().map(|value| value.map(|value| value.to_string())).collect();
        columns.push((json_field(name), Arc::new(texts)));
    }
    columns
}

/// A column of lists of JSON values.
fn json_lists(name: &str, rows: impl Iterator<Item = Vec<Value>>) -> (Field, ArrayRef) {
    let mut lists = ListBuilder::new(StringBuilder::new()).with_field(json_field(Field::LIST_FIELD_DEFAULT_NAME));
    for row in rows {
        lists.append_value(row.into_iter().map(|value| Some(value.to_string())));
    }
    plain(name, Arc::new(lists.finish()))
}

/// One object a line.
fn write_lines(pairs: &[Pair], asked: &[&Conversation], output: &Path) -> Result<(), CliError> {
    let variables = variables(asked);
    let mut text = String::new();
    for (row, (pair, asked)) in pairs.iter().zip(asked).enumerate() {
        let mut line = Map::new();
        line.insert("prompt".to_string(), values(&asked.messages).into());
        line.insert("chosen".to_string(), values(std::slice::from_ref(&pair.chosen)).into());
        line.insert("rejected".to_string(), values(std::slice::from_ref(&pair.rejected)).into());
        for (name, values) in &variables {
            line.insert(name.to_string(), values[row].clone().unwrap_or_default());
        }
        line.insert("weight".to_string(), pair.weight.into());
        line.insert("margin".to_string(), pair.margin.into());
        text.push_str(&Value::Object(line).to_string());
        text.push('\n');
    }
    std::fs::write(output, text).map_err(|error| CliError::Failed(format!("{}: cannot write: {error}", output.display())))
}

fn values(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(|message| Value::Object(Fields::from(message.clone()))).collect()
}

/// The columns of variables that some conversation has, row by row.
fn variables(asked: &[&Conversation]) -> Vec<(&'static str, Vec<Option<Value>>)> {
    let tools = asked.iter().map(|asked| asked.variables.get(TOOLS).cloned()).collect();
    let mut columns: Vec<(&'static str, Vec<Option<Value>>)> = vec![(TOOLS, tools)];
    columns.retain(|(_, values)| values.iter().any(Option::is_some));
    let others = asked.iter().map(|asked| {
        let mut others = asked.variables.clone();
        others.shift_remove(TOOLS);
        others
    });
    let others: Vec<Fields> = others.collect();
    if others.iter().any(|others| !others.is_empty()) {
        // TRL wants an object in every row.
        columns.push((KWARGS, others.into_iter().map(|others| Some(Value::Object(others))).collect()));
    }
    columns
}
