//! One prompt with everything about it: its responses over iterations with their rewards, why it
//! was selected, its pairs with the difference of their texts, and the flags on it.
//!
//! Knows no route.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::difference::{Piece, difference};
use super::error::ViewError;
use super::lineage::State;
use super::parameters::Parameters;
use super::viewed::{Object, Viewed, literal, quoted};
use crate::model::Checkpoint;
use crate::sql::Session;
use crate::store::OutputKind;
use crate::tables::TableKind;

/// A prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptDetail {
    /// The table of prompts.
    pub prompts: String,
    /// Its row there.
    pub row: Object,
    /// Its rows in the tables about these prompts, as far as it has any.
    pub tables: Vec<TableRows>,
    /// Why it was selected or not, by selection and iteration.
    pub selections: Vec<SelectionReason>,
    /// Its pairs with their texts.
    pub pairs: Vec<PairDetail>,
    /// The flags and notes on it and on its responses.
    pub annotations: Vec<Object>,
}

/// The rows of a prompt in a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableRows {
    /// The table.
    pub node: String,
    /// Its kind; none for a table with the user's own columns.
    pub kind: Option<&'static str>,
    /// The tables of responses that its rows are about.
    pub responses: Vec<String>,
    /// The rows.
    pub rows: Vec<Object>,
}

/// A row of a selection beside what decided about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelectionReason {
    /// The selection.
    pub node: String,
    /// The iteration.
    pub iteration: Option<u32>,
    /// The settings of the selection.
    pub settings: BTreeMap<String, Value>,
    /// The number of selected prompts, and of all.
    pub counts: BTreeMap<String, i64>,
    /// The prompts in the selection.
    pub prompts: u64,
    /// The row.
    pub row: Object,
}

/// A pair with the texts of both responses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairDetail {
    /// The table.
    pub node: String,
    /// The row.
    pub row: Object,
    /// The pieces of the chosen response.
    pub chosen: Vec<Piece>,
    /// The pieces of the rejected one.
    pub rejected: Vec<Piece>,
}

/// The tokens of a response.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tokens {
    /// The model whose vocabulary names the tokens; none if no model of the run is there.
    pub model: Option<String>,
    /// How many tokens are the prompt's.
    pub prompt_token_count: usize,
    /// The logprob of the whole response, in nats.
    pub logprob: Option<f64>,
    /// The logprob of each of the response's tokens, in nats.
    pub logprobs: Option<Vec<f32>>,
    /// The ids, and the tokens as the vocabulary has them.
    pub tokens: Vec<(i32, Option<String>)>,
}

impl Viewed {
    /// Everything about one prompt.
    ///
    /// # Errors
    /// There is no such prompt, or a table cannot be read.
    pub fn prompt(&self, parameters: &Parameters) -> Result<PromptDetail, ViewError> {
        let state = self.state()?;
        let session = self.session()?;
        let prompts = self.prompt_table(&state, parameters)?;
        let id = parameters.required("id")?;
        let of = |table: &str| format!("SELECT * FROM {} WHERE prompt_id = {}", quoted(table), literal(id));
        let row = self.objects(&session, &of(&prompts))?.into_iter().next();
        let row = row.ok_or_else(|| ViewError::NotFound(format!("expected a prompt of {prompts}, found {id:?}")))?;
        let mut tables = Vec::new();
        for table in state.about(&prompts) {
            let has_id = session.schema_of(&format!("SELECT * FROM {}", quoted(table)))?.field_with_name("prompt_id").is_ok();
            let rows = if has_id { self.objects(&session, &of(table))? } else { Vec::new() };
            if !rows.is_empty() {
                let responses = state.direct(table, "responses").into_iter().map(str::to_string).collect();
                let kind = state.kind(table).map(TableKind::name);
                tables.push(TableRows { node: table.to_string(), kind, responses, rows });
            }
        }
        let selections = tables.iter().filter(|table| table.kind == Some("selection"));
        let selections = selections.flat_map(|table| table.rows.iter().map(|row| reason(&state, &table.node, row))).collect();
        let pairs = pairs(&state, &row, &tables);
        let nodes: Vec<String> = state.about(&prompts).into_iter().chain([prompts.as_str()]).map(literal).collect();
        let annotated = format!("SELECT * FROM annotations WHERE prompt_id = {} AND node IN ({})", literal(id), nodes.join(", "));
        let annotations = self.objects(&session, &annotated)?;
        Ok(PromptDetail { prompts, row, tables, selections, pairs, annotations })
    }

    /// The tokens of one response.
    ///
    /// # Errors
    /// There is no such response.
    pub fn tokens(&self, parameters: &Parameters) -> Result<Tokens, ViewError> {
        let state = self.state()?;
        let session = self.session()?;
        let node = parameters.required("node")?;
        if state.kind(node) != Some(TableKind::Responses) {
            return Err(ViewError::NotFound(format!("expected a table of responses, found {node:?}")));
        }
        let row = self.response(&session, node, parameters)?;
        let ids: Vec<i32> = serde_json::from_value(row.get("token_ids").cloned().unwrap_or_default())
            .map_err(|error| ViewError::internal("view::tokens", error))?;
        let logprobs: Option<Vec<f32>> = serde_json::from_value(row.get("token_logprobs").cloned().unwrap_or_default())
            .map_err(|error| ViewError::internal("view::tokens", error))?;
        let policy = row.get("policy_fingerprint").and_then(Value::as_str).unwrap_or_default();
        let (model, vocabulary) = self.vocabulary(&state, policy).map_or((None, None), |(name, found)| (Some(name), Some(found)));
        let token = |id: i32| vocabulary.as_ref().and_then(|checkpoint| checkpoint.tokenizer.token(id));
        let count = row.get("prompt_token_count").and_then(Value::as_u64).unwrap_or_default();
        Ok(Tokens {
            model,
            prompt_token_count: usize::try_from(count).unwrap_or(ids.len()).min(ids.len()),
            logprob: row.get("logprob").and_then(Value::as_f64),
            logprobs,
            tokens: ids.into_iter().map(|id| (id, token(id))).collect(),
        })
    }

    fn response(&self, session: &Arc<Session>, node: &str, parameters: &Parameters) -> Result<Object, ViewError> {
        let id = parameters.required("id")?;
        let number = |name: &str| {
            let found: Option<i32> = parameters.number(name)?;
            found.ok_or_else(|| ViewError::Input(format!("expected the parameter {name}, found none")))
        };
        let query = format!(
            "SELECT token_ids, prompt_token_count, logprob, token_logprobs, policy_fingerprint FROM {} WHERE prompt_id = {} AND sampled_iteration = {} AND response_index = {} LIMIT 1",
            quoted(node),
            literal(id),
            number("sampled_iteration")?,
            number("response_index")?,
        );
        let row = self.objects(session, &query)?.into_iter().next();
        row.ok_or_else(|| ViewError::NotFound(format!("expected a response of {node} to {id:?}, found none")))
    }

    /// The configuration and the tokenizer of the model with this fingerprint, else of any finished
    /// model of the run: their vocabulary is the same unless the user mixes models.
    fn vocabulary(&self, state: &State, fingerprint: &str) -> Option<(String, Checkpoint)> {
        let models = || state.outputs.iter().filter(|(key, manifest)| key.kind == OutputKind::Model && manifest.complete);
        let own = models().filter(|(_, manifest)| manifest.fingerprint.as_str() == fingerprint);
        own.chain(models()).find_map(|(key, _)| Some((key.name.clone(), Checkpoint::open_blank(&self.run().path(key)).ok()?)))
    }
}

fn reason(state: &State, node: &str, row: &Object) -> SelectionReason {
    let iteration = row.get("iteration").and_then(Value::as_u64).and_then(|iteration| u32::try_from(iteration).ok());
    let manifest = state.manifests(node).find(|(key, _)| key.iteration == iteration).map(|(_, manifest)| manifest);
    SelectionReason {
        node: node.to_string(),
        iteration,
        settings: manifest.map(|manifest| manifest.recipe.settings.clone()).unwrap_or_default(),
        counts: manifest.map(|manifest| manifest.counts.clone()).unwrap_or_default(),
        prompts: manifest.map_or(0, |manifest| manifest.rows()),
        row: row.clone(),
    }
}

/// The pairs with the texts of their responses: sampled ones, else those of the user's preferences.
fn pairs(state: &State, prompt: &Object, tables: &[TableRows]) -> Vec<PairDetail> {
    let mut found = Vec::new();
    for table in tables.iter().filter(|table| table.kind == Some("pairs")) {
        let sources = state.upstream(&table.node, TableKind::Responses);
        let text = |row: &Object, side: &str| {
            let key = json!([row.get(&format!("{side}_sampled_iteration")), row.get(&format!("{side}_index"))]);
            let responses = tables.iter().filter(|other| sources.contains(other.node.as_str())).flat_map(|other| &other.rows);
            let sampled = responses.filter(|other| json!([other.get("sampled_iteration"), other.get("response_index")]) == key);
            let sampled = sampled.filter_map(|other| other.get("text")?.as_str()).next();
            sampled.or_else(|| prompt.get(side)?.as_str()).unwrap_or_default().to_string()
        };
        for row in &table.rows {
            let [chosen, rejected] = difference(&text(row, "chosen"), &text(row, "rejected"));
            found.push(PairDetail { node: table.node.clone(), row: row.clone(), chosen, rejected });
        }
    }
    found
}
