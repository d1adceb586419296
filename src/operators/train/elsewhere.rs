//! train by a program of the user's: it gets the pairs as token ids with weights and reference
//! logprobs, the policy, and the settings of the node.
//!
//! Knows neither the program nor how it trains.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use serde_json::Value;

use super::super::support::pair_tokens::PairTokens;
use super::super::support::program::environment::{SETTINGS, Variables, input, variable};
use super::super::support::program::{self, Product, model};
use super::super::support::tensors;
use super::super::{Context, OperatorError, Summary};
use crate::disk;
use crate::model::Head;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::train_engine::TrainEngine;
use crate::store::{self, StoreError};
use crate::tables::pairs;

/// This module in internal errors.
const PLACE: &str = "operators::train::elsewhere";

/// The names of the inputs, and of their folders.
const PAIRS: &str = "pairs";
const POLICY: &str = "policy";

/// The file of the pairs in their folder.
const FILE: &str = "pairs.parquet";

/// Settings that are not the program's: its own call, and what was done before it.
const NOT_ITS_OWN: [&str; 4] = ["engine", "malformed", "chat_template_kwargs", "date"];

/// Runs the program on `pair_tokens` and takes its model.
pub(super) fn run(context: &Context, engine: &TrainEngine, pair_tokens: &PairTokens) -> Result<Summary, OperatorError> {
    let inputs = |folder: &Path| inputs(context, folder, pair_tokens);
    let take = |output: &Path| {
        let made = model::take(context, Head::CausalLm, output)?;
        Ok(Summary::new(format!("{} from {} pairs", made.text, pair_tokens.pairs.len())))
    };
    program::run(context, engine.program(), Product::Model, inputs, take)
}

/// The variables of the inputs; their files are in `folder`.
fn inputs(context: &Context, folder: &Path, pair_tokens: &PairTokens) -> Result<Variables, OperatorError> {
    let pairs = folder.join(PAIRS);
    disk::create_folder(&pairs).map_err(StoreError::io("create", &pairs))?;
    store::write_parquet(&pairs.join(FILE), &table(pair_tokens)?)?;
    let missing = || OperatorError::internal(PLACE, format!("{}: no model to train", context.task.label()));
    let from = context.task.inputs(Slot::From).next().ok_or_else(missing)?;
    let policy = input(context, from, &folder.join(POLICY))?;
    let mut variables = variable(PAIRS, &pairs)?;
    variables.extend(variable(POLICY, &policy)?);
    variables.push((SETTINGS.to_string(), settings(&context.task.settings).into()));
    Ok(variables)
}

/// The settings of the node as JSON, every default written out.
fn settings(all: &BTreeMap<String, Value>) -> String {
    let own = all.iter().filter(|(name, _)| !NOT_ITS_OWN.contains(&name.as_str()));
    Value::from_iter(own.map(|(name, value)| (name.clone(), value.clone()))).to_string()
}

/// The pairs for a trainer: no text, so that nothing is tokenized again.
fn table(pair_tokens: &PairTokens) -> Result<RecordBatch, OperatorError> {
    let token_ids = pair_tokens.token_ids()?;
    let rows = &pair_tokens.pairs;
    let number = |value: fn(&pairs::Row) -> Option<f64>| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<Float64Array>()) };
    let columns: [(&str, ArrayRef); 8] = [
        ("prompt_id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.prompt_id)))),
        ("prompt_ids", lists(token_ids.iter().map(|[prompt, _, _]| *prompt))?),
        ("chosen_ids", lists(token_ids.iter().map(|[_, chosen, _]| *chosen))?),
        ("rejected_ids", lists(token_ids.iter().map(|[_, _, rejected]| *rejected))?),
        ("weight", number(|row| Some(row.weight))),
        ("reward_gap", number(|row| Some(row.reward_gap))),
        ("reference_logprob_chosen", number(|row| row.reference_logprob_chosen)),
        ("reference_logprob_rejected", number(|row| row.reference_logprob_rejected)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A column of lists.
fn lists<'a>(rows: impl Iterator<Item = &'a [i32]> + Clone) -> Result<ArrayRef, OperatorError> {
    let ids: Vec<i32> = rows.clone().flatten().copied().collect();
    tensors::list_array(ids.into(), rows.map(<[i32]>::len))
}
