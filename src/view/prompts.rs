//! The prompts of a run as a table: filtered, sorted, and a page at a time.
//!
//! A page is two queries: the ids of its prompts, over the few columns that filters and sorting
//! need, then everything about these prompts. Knows no route.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::error::ViewError;
use super::lineage::State;
use super::parameters::Parameters;
use super::viewed::{Object, Viewed, literal, quoted};
use crate::import::{Prompts, Repeats};
use crate::model::PromptContent;
use crate::sql::{Condition, Session};
use crate::store::OutputKey;
use crate::tables::TableKind;

/// Prompts on a page.
const PAGE: usize = 50;
/// Characters of a text in the table.
const MOST_CHARACTERS: usize = 300;
/// The column of the prompts' texts in the queries.
const TEXT: &str = "prompt_text";

/// What is known of each prompt beside its own columns: the source, and its columns.
const SOURCES: [(&str, &[&str]); 4] = [
    ("rewards", &["responses", "reward", "best", "worst"]),
    ("selection", &["selected", "rank", "score", "expected_gain"]),
    ("pairs", &["reward_gap", "weight"]),
    ("annotations", &["flagged", "note"]),
];

/// A page of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptPage {
    /// The table of prompts.
    pub prompts: String,
    /// All tables of prompts of the run.
    pub tables: Vec<String>,
    /// The iteration of rewards, selection and pairs.
    pub iteration: Option<u32>,
    /// The iterations to choose from.
    pub iterations: Vec<u32>,
    /// The columns to filter and sort by, the prompts' own first.
    pub columns: Vec<String>,
    /// The prompts' own columns that are short enough to show.
    pub shown: Vec<String>,
    /// The place of the first row among all that pass the filters.
    pub offset: usize,
    /// The rows.
    pub rows: Vec<Object>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// The table behind a request: its tables and columns.
struct Source<'a> {
    viewed: &'a Viewed,
    state: Arc<State>,
    session: Arc<Session>,
    prompts: String,
    iteration: Option<u32>,
    iterations: Vec<u32>,
    /// The prompts' own columns, as they are called in the table and here.
    own: Vec<(String, String)>,
    /// Whether the texts are messages, and so in a table of their own.
    texts_apart: bool,
}

/// The filters and the order of a request.
struct Wanted {
    conditions: Vec<String>,
    /// The names of columns in them.
    names: BTreeSet<String>,
    order: String,
}

impl Viewed {
    /// A page of prompts.
    ///
    /// # Errors
    /// A parameter is wrong, or a table cannot be read.
    pub fn prompts(&self, parameters: &Parameters) -> Result<PromptPage, ViewError> {
        let source = Source::new(self, parameters)?;
        let wanted = source.wanted(parameters)?;
        let offset = parameters.number("offset")?.unwrap_or(0);
        let text = source.relation(&wanted.names, None)?;
        let filter = wanted.filter();
        let order = &wanted.order;
        let page = format!("SELECT prompt_id FROM ({text}) AS rows{filter}{order} LIMIT {} OFFSET {offset}", PAGE + 1);
        let found = self.objects(&source.session, &page)?;
        let mut ids: Vec<String> = found.iter().filter_map(|row| row.get("prompt_id")?.as_str().map(str::to_string)).collect();
        let more = ids.len() > PAGE;
        ids.truncate(PAGE);
        let rows = source.rows(&ids)?;
        let computed = SOURCES.iter().flat_map(|(_, columns)| *columns).map(|column| (*column).to_string());
        let own = source.own.iter().map(|(_, name)| name.clone());
        Ok(PromptPage {
            tables: source.state.prompt_tables().into_iter().map(str::to_string).collect(),
            columns: own.chain(computed).collect(),
            shown: source.shown(),
            prompts: source.prompts,
            iteration: source.iteration,
            iterations: source.iterations,
            offset,
            rows,
            more,
        })
    }

    /// The number of prompts that pass the filters of a request.
    ///
    /// # Errors
    /// As for [`Self::prompts`].
    pub fn prompt_count(&self, parameters: &Parameters) -> Result<u64, ViewError> {
        let source = Source::new(self, parameters)?;
        let wanted = source.wanted(parameters)?;
        let text = source.relation(&wanted.names, None)?;
        self.count(&source.session, &format!("SELECT count(*) AS n FROM ({text}) AS rows{}", wanted.filter()))
    }

    /// The table of prompts that a request is about.
    ///
    /// # Errors
    /// There is no such table.
    pub fn prompt_table(&self, state: &State, parameters: &Parameters) -> Result<String, ViewError> {
        let tables = state.prompt_tables();
        let listed = || if tables.is_empty() { "none".to_string() } else { tables.join(", ") };
        match parameters.text("prompts") {
            Some(name) if tables.contains(&name) => Ok(name.to_string()),
            Some(name) => Err(ViewError::NotFound(format!("expected a table of prompts, one of: {}; found {name:?}", listed()))),
            None => {
                let first = tables.first().ok_or_else(|| ViewError::NotFound("expected a table of prompts, found none yet".to_string()))?;
                Ok((*first).to_string())
            }
        }
    }
}

impl Wanted {
    fn filter(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions.join(" AND ")) }
    }
}

impl<'a> Source<'a> {
    fn new(viewed: &'a Viewed, parameters: &Parameters) -> Result<Self, ViewError> {
        let state = viewed.state()?;
        let session = viewed.session()?;
        let prompts = viewed.prompt_table(&state, parameters)?;
        let iterations = Self::iterations(&state, &prompts);
        let wanted: Option<u32> = parameters.number("iteration")?;
        if let Some(wanted) = wanted.filter(|wanted| !iterations.contains(wanted)) {
            let there = iterations.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            return Err(ViewError::Input(format!("iteration: expected one of {there}, found {wanted}")));
        }
        let iteration = wanted.or_else(|| iterations.last().copied());
        let schema = session.schema_of(&format!("SELECT * FROM {}", quoted(&prompts)))?;
        let computed: Vec<&str> = SOURCES.iter().flat_map(|(_, columns)| *columns).copied().chain([TEXT]).collect();
        let named = |name: &String| if computed.contains(&name.as_str()) { format!("prompts_{name}") } else { name.clone() };
        let own: Vec<(String, String)> = schema.fields().iter().map(|field| (field.name().clone(), named(field.name()))).collect();
        let texts_apart = !own.iter().any(|(name, _)| name == "prompt");
        Ok(Self { viewed, state, session, prompts, iteration, iterations, own, texts_apart })
    }

    /// The iterations of the tables about the prompts.
    fn iterations(state: &State, prompts: &str) -> Vec<u32> {
        let about = state.about(prompts).into_iter().flat_map(|table| state.iterations(table));
        about.chain(state.iterations(prompts)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The filters and the order.
    fn wanted(&self, parameters: &Parameters) -> Result<Wanted, ViewError> {
        let mut wanted = Wanted { conditions: Vec::new(), names: BTreeSet::new(), order: String::new() };
        let mut add = |names: &[&str], condition: String| {
            wanted.names.extend(names.iter().map(|name| (*name).to_string()));
            wanted.conditions.push(condition);
        };
        if let Some(text) = parameters.text("text") {
            add(&[TEXT], format!("contains(lower({TEXT}), {})", literal(&text.to_lowercase())));
        }
        if let Some(text) = parameters.text("response") {
            let responses =
                self.about(TableKind::Responses).ok_or_else(|| ViewError::Input("response: there are no responses yet".to_string()))?;
            let contains = format!("contains(lower(text), {})", literal(&text.to_lowercase()));
            add(&[], format!("prompt_id IN (SELECT prompt_id FROM {} WHERE {contains})", quoted(responses)));
        }
        if let (Some(column), Some(value)) = (parameters.text("column"), parameters.text("value")) {
            let column = self.column(column)?;
            add(&[&column], format!("CAST({} AS VARCHAR) = {}", quoted(&column), literal(value)));
        }
        for (bound, comparison) in [("reward_from", ">="), ("reward_to", "<=")] {
            if let Some(number) = parameters.number::<f64>(bound)?.filter(|number| number.is_finite()) {
                add(&["reward"], format!("reward {comparison} CAST({number:?} AS DOUBLE)"));
            }
        }
        for (name, column) in [("selected", "selected"), ("flagged", "flagged")] {
            if let Some(wanted) = parameters.flag(name)? {
                add(&[column], format!("coalesce({column}, FALSE) = {wanted}"));
            }
        }
        if let Some(text) = parameters.text("where") {
            let condition = Condition::parse(text)?;
            let names: Vec<&str> = condition.names.iter().map(String::as_str).collect();
            add(&names, format!("({})", condition.text));
        }
        if let Some(column) = parameters.text("sort") {
            let column = self.column(column)?;
            let direction = if parameters.flag("descending")? == Some(true) { "DESC" } else { "ASC" };
            wanted.order = format!(" ORDER BY {} {direction} NULLS LAST, prompt_id", quoted(&column));
            wanted.names.insert(column);
        }
        Ok(wanted)
    }

    /// A column that there is.
    fn column(&self, name: &str) -> Result<String, ViewError> {
        let computed = || SOURCES.iter().flat_map(|(_, columns)| *columns).copied();
        let own = || self.own.iter().map(|(_, name)| name.as_str());
        if own().chain(computed()).any(|other| other == name) {
            return Ok(name.to_string());
        }
        let all = own().chain(computed()).collect::<Vec<_>>().join(", ");
        Err(ViewError::Input(format!("expected a column, one of: {all}; found {name:?}")))
    }

    /// The prompts' own columns to show: all but their texts and ids.
    fn shown(&self) -> Vec<String> {
        let long = ["prompt_id", "prompt", "messages", "metadata", "iteration", "chosen", "rejected", "tools", "chat_template_kwargs"];
        self.own.iter().filter(|(name, _)| !long.contains(&name.as_str())).map(|(_, name)| name.clone()).collect()
    }

    fn about(&self, kind: TableKind) -> Option<&str> {
        self.state.first_about(&self.prompts, &[kind])
    }

    /// A query of the prompts with the columns of these names; with all columns for few prompts,
    /// chosen by the condition `few`. Of all prompts the rewards are kept in memory.
    fn relation(&self, names: &BTreeSet<String>, few: Option<&str>) -> Result<String, ViewError> {
        let mut columns: Vec<String> = self.own.iter().map(|(name, shown)| format!("p.{} AS {}", quoted(name), quoted(shown))).collect();
        let mut joins = String::new();
        if names.contains(TEXT) {
            if self.texts_apart {
                joins.push_str(&format!(" LEFT JOIN {} AS texts ON texts.prompt_id = p.prompt_id", quoted(&self.texts()?)));
                columns.push(format!("texts.text AS {TEXT}"));
            } else {
                columns.push(format!("CAST(p.prompt AS VARCHAR) AS {TEXT}"));
            }
        }
        for (source, own) in SOURCES.iter().filter(|(_, own)| few.is_some() || own.iter().any(|column| names.contains(*column))) {
            match self.joined(source, few)? {
                Some(text) => {
                    joins.push_str(&format!(" LEFT JOIN ({text}) AS {source} ON {source}.prompt_id = p.prompt_id"));
                    columns.extend(own.iter().map(|column| format!("{source}.{column} AS {column}")));
                }
                // Columns without a table yet.
                None => columns.extend(own.iter().map(|column| format!("{} AS {column}", missing(column)))),
            }
        }
        let of = self.restricted(&self.prompts, few);
        Ok(format!("SELECT {} FROM ({of}) AS p{joins}", columns.join(", ")))
    }

    /// The rows of a table in this iteration, and of these prompts.
    fn restricted(&self, table: &str, few: Option<&str>) -> String {
        let iterated = !self.state.iterations(table).is_empty();
        let iteration = self.iteration.filter(|_| iterated).map(|iteration| format!("iteration = {iteration}"));
        let conditions: Vec<String> = iteration.into_iter().chain(few.map(str::to_string)).collect();
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("SELECT * FROM {}{filter}", quoted(table))
    }

    /// The query of a source; none without its table.
    fn joined(&self, source: &str, few: Option<&str>) -> Result<Option<String>, ViewError> {
        Ok(match source {
            "rewards" => match self.state.rewards_of(&self.prompts) {
                Some(table) => Some(self.rewards(table, few)?),
                None => None,
            },
            "selection" => self.about(TableKind::Selection).map(|table| self.restricted(table, few)),
            "pairs" => self.about(TableKind::Pairs).map(|table| self.restricted(table, few)),
            _ => {
                let about: Vec<String> = self.state.about(&self.prompts).into_iter().chain([self.prompts.as_str()]).map(literal).collect();
                let few = few.map_or(String::new(), |few| format!(" AND {few}"));
                let own = literal(&self.prompts);
                Some(format!(
                    "SELECT prompt_id, bool_or(flagged) AS flagged, max(CASE WHEN node = {own} THEN note END) AS note
FROM annotations WHERE node IN ({}){few} GROUP BY prompt_id",
                    about.join(", ")
                ))
            }
        })
    }

    /// The rewards of each prompt.
    fn rewards(&self, table: &str, few: Option<&str>) -> Result<String, ViewError> {
        let query = format!(
            "SELECT prompt_id, count(reward) AS responses, avg(reward) AS reward, max(reward) AS best, min(reward) AS worst
FROM ({}) AS rewards GROUP BY prompt_id",
            self.restricted(table, few)
        );
        let iteration = self.iteration.map_or(String::new(), |iteration| format!("[{iteration}]"));
        let name = format!("rewards by prompt of {table}{iteration}");
        if let Some(few) = few {
            let kept = self.session.tables().contains(&name);
            return Ok(if kept { format!("SELECT * FROM {} WHERE {few}", quoted(&name)) } else { query });
        }
        self.viewed.keep(&self.session, &name, || {
            let rows = self.viewed.batches(&self.session, &query)?;
            // A result without rows has no batch, and a table needs one.
            if rows.is_empty() { Ok(self.session.query(&query)?) } else { Ok(rows) }
        })?;
        Ok(format!("SELECT * FROM {}", quoted(&name)))
    }

    /// The table of the prompts' texts, where they are messages.
    fn texts(&self) -> Result<String, ViewError> {
        let name = format!("texts of {}", self.prompts);
        self.viewed.keep(&self.session, &name, || {
            let key = OutputKey::table(&self.prompts, self.iteration.filter(|_| !self.state.iterations(&self.prompts).is_empty()));
            let rows = self.viewed.run().read_table(&key, None)?;
            let prompts = Prompts::from_batches(&self.prompts, Repeats::Number, rows).map_err(crate::report::ReportError::from)?;
            let ids: arrow::array::StringArray = prompts.iter().map(|prompt| Some(prompt.id.as_str())).collect();
            let texts: arrow::array::StringArray = prompts.iter().map(|prompt| Some(text_of(&prompt.content))).collect();
            let columns: [(&str, arrow::array::ArrayRef); 2] = [("prompt_id", Arc::new(ids)), ("text", Arc::new(texts))];
            let batch = arrow::array::RecordBatch::try_from_iter(columns);
            Ok(vec![batch.map_err(|error| ViewError::internal("view::texts", error))?])
        })?;
        Ok(name)
    }

    /// Everything about these prompts, in their order.
    fn rows(&self, ids: &[String]) -> Result<Vec<Object>, ViewError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = ids.iter().map(|id| literal(id)).collect::<Vec<_>>().join(", ");
        // The engine skips files by a range, but not by a long list.
        let ends = ids.iter().min().zip(ids.iter().max());
        let range = ends.map_or(String::new(), |(first, last)| format!(" AND prompt_id BETWEEN {} AND {}", literal(first), literal(last)));
        let few = format!("prompt_id IN ({list}){range}");
        let text = self.relation(&BTreeSet::new(), Some(&few))?;
        let mut found = self.viewed.objects(&self.session, &text)?;
        for row in &mut found {
            let shown = row.get("prompt").filter(|prompt| prompt.is_string()).or_else(|| row.get("messages")).map_or(String::new(), plain);
            row.insert("text".to_string(), Value::String(shortened(&shown)));
            row.remove("prompt");
            row.remove("messages");
            row.values_mut().for_each(shorten);
        }
        let place = |row: &Object| row.get("prompt_id").and_then(|id| ids.iter().position(|other| Some(other.as_str()) == id.as_str()));
        found.sort_by_key(place);
        Ok(found)
    }
}

/// The null of a computed column.
fn missing(column: &str) -> &'static str {
    match column {
        "selected" | "flagged" => "CAST(NULL AS BOOLEAN)",
        "note" => "CAST(NULL AS VARCHAR)",
        "responses" | "rank" => "CAST(NULL AS BIGINT)",
        _ => "CAST(NULL AS DOUBLE)",
    }
}

/// The text of a prompt; of messages, each with its role.
fn text_of(content: &PromptContent) -> String {
    match content {
        PromptContent::Text(text) => text.clone(),
        PromptContent::Messages(conversation) => {
            conversation.messages.iter().map(|message| format!("{}: {}", message.role, message.content)).collect::<Vec<_>>().join("\n")
        }
    }
}

/// A text, or messages as JSON, on one line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(messages) => {
            let part = |message: &Value, name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
            messages.iter().map(|message| format!("{}: {}", part(message, "role"), part(message, "content"))).collect::<Vec<_>>().join("\n")
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Shortens long texts inside of a value, and long lists.
pub(super) fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => *text = shortened(text),
        Value::Array(items) if items.len() > 12 => *value = Value::String(format!("{} values", items.len())),
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    }
}
