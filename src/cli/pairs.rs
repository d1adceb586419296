//! `optune export pairs`: pairs as TRL's preference trainers read them.
//!
//! Text prompts go out as texts. Message prompts go out as messages, with one message of the
//! assistant for each response. Knows the sources of the texts, not their columns.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use clap::ValueEnum;

use super::error::CliError;
use super::format::Format;
use super::pair_columns::{self, Pair};
use crate::import::{Preferences, Prompts, Repeats};
use crate::model::{Message, PromptContent};
use crate::operators::OperatorError;
use crate::pipeline::Pipeline;
use crate::pipeline::spec::input::Input;
use crate::pipeline::spec::operator::{Operator, Output};
use crate::sql::Session;
use crate::store::{Manifest, OutputKey, OutputKind, Run, Runs};
use crate::tables::{TableKind, pairs};

/// The wanted pairs, and the sources of their texts.
pub(super) struct Wanted {
    /// The node that made the pairs; `pairs` or the only one when none is named.
    pub(super) node: Option<String>,
    /// The node that sampled the responses.
    pub(super) responses: String,
    /// The table of prompts.
    pub(super) prompts: String,
    /// The iteration; the last one when none is named.
    pub(super) iteration: Option<u32>,
    /// Which pairs by their flags; all when not said.
    pub(super) flagged: Option<Flagged>,
}

/// Pairs by the flags on their prompts and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Flagged {
    /// The flagged ones.
    Only,
    /// The others.
    Without,
}

/// Pairs that were written.
pub(super) struct Written {
    /// Their run.
    pub(super) run: Run,
    /// Their table.
    pub(super) place: OutputKey,
    /// How many they are.
    pub(super) rows: usize,
}

/// Writes the pairs to `output`.
pub(super) fn export(runs: &Path, run: &Path, output: &Path, wanted: &Wanted) -> Result<Written, CliError> {
    let format = match output.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "json") => Format::Json,
        Some("parquet") => Format::Parquet,
        _ => return Err(CliError::Input(format!("{}: expected a file that ends in .jsonl or .parquet", output.display()))),
    };
    let run = Runs::open(runs)?.find(run)?;
    let manifests = run.manifests()?;
    let place = place_of(&manifests, wanted)?;
    let preferences = preferences_of(&run, &place)?;
    let mut rows = match &preferences {
        Some(table) => of_preferences(&run, &manifests, &place, table)?,
        None => of_responses(&run, &manifests, &place, wanted)?,
    };
    if let Some(which) = wanted.flagged {
        let prompts = preferences.as_deref().unwrap_or(&wanted.prompts);
        let ids = flagged(&run, &place, prompts, &wanted.responses)?;
        rows.retain(|pair| ids.contains(&pair.id) == (which == Flagged::Only));
    }
    pair_columns::write(&rows, format, output)?;
    Ok(Written { run, place, rows: rows.len() })
}

/// The prompts whose pairs have a flag: on themselves, on the pair, or on one of its responses.
fn flagged(run: &Run, place: &OutputKey, prompts: &str, responses: &str) -> Result<HashSet<String>, CliError> {
    let annotations = run.annotations().read()?;
    let all: Vec<_> = annotations.iter().filter(|annotation| annotation.flagged).collect();
    let mut ids = HashSet::new();
    for batch in run.read_table(place, Some(TableKind::Pairs))? {
        for pair in pairs::rows(&batch).map_err(OperatorError::from)? {
            let sides = [(pair.chosen_sampled_iteration, pair.chosen_index), (pair.rejected_sampled_iteration, pair.rejected_index)];
            let iteration = place.iteration.and_then(|iteration| i32::try_from(iteration).ok());
            let is_flagged = all.iter().filter(|flag| flag.prompt_id.as_deref() == Some(&pair.prompt_id)).any(|flag| {
                let on_response = sides.map(|(iteration, index)| (Some(iteration), Some(index)));
                (flag.node == prompts && flag.response_index.is_none())
                    || (flag.node == place.name && flag.row_iteration == iteration)
                    || (flag.node == responses && on_response.contains(&(flag.sampled_iteration, flag.response_index)))
            });
            if is_flagged {
                ids.insert(pair.prompt_id);
            }
        }
    }
    Ok(ids)
}

/// The key of the wanted pairs.
fn place_of(manifests: &[(OutputKey, Manifest)], wanted: &Wanted) -> Result<OutputKey, CliError> {
    let made: Vec<&OutputKey> = manifests
        .iter()
        .filter(|(_, manifest)| manifest.table == Some(TableKind::Pairs) && manifest.complete)
        .map(|(place, _)| place)
        .collect();
    let mut names: Vec<&str> = made.iter().map(|place| place.name.as_str()).collect();
    names.dedup();
    let node = match (&wanted.node, names.as_slice()) {
        (Some(node), _) => node.as_str(),
        (None, names) if names.contains(&"pairs") => "pairs",
        (None, [only]) => only,
        (None, names) => {
            return Err(CliError::Input(format!("expected the name of a table of pairs by --node, one of: {}", names.join(", "))));
        }
    };
    let fitting = made.iter().filter(|place| place.name == node && (wanted.iteration.is_none() || place.iteration == wanted.iteration));
    let place = fitting.max_by_key(|place| place.iteration).map(|place| (*place).clone());
    place.ok_or_else(|| {
        let of = wanted.iteration.map_or(String::new(), |iteration| format!(" of iteration {iteration}"));
        CliError::Input(format!(
            "expected finished pairs {node}{of}, found: {}",
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        ))
    })
}

/// The table of preferences behind the pairs of a `train` node; none if they are of sampled
/// responses.
fn preferences_of(run: &Run, place: &OutputKey) -> Result<Option<String>, CliError> {
    let Some(train) = place.name.strip_suffix("_pairs") else { return Ok(None) };
    let spec = Pipeline::load(&run.pipeline_file()?, &[])?.spec;
    let nodes = || spec.iterate.iter().flat_map(|iterate| &iterate.nodes).chain(&spec.nodes);
    let named = |name: &str| nodes().find(|(node, _)| node.value == name).map(|(_, node)| &node.operator);
    let Some(Operator::Train(settings)) = named(train) else { return Ok(None) };
    let table = settings.pairs.value.as_str();
    let table = table.strip_suffix("[t-1]").unwrap_or(table);
    let own =
        matches!(spec.inputs.get(table), Some(Input::Table(_))) || named(table).is_some_and(|operator| operator.output() == Output::Table);
    Ok(own.then(|| table.to_string()))
}

/// The batches of a table by name: of the same iteration if it has any.
fn table(run: &Run, manifests: &[(OutputKey, Manifest)], name: &str, iteration: Option<u32>) -> Result<Vec<RecordBatch>, CliError> {
    let is_it = |place: &&OutputKey| {
        place.kind == OutputKind::Table && place.name == name && (place.iteration.is_none() || place.iteration == iteration)
    };
    let place = manifests.iter().map(|(place, _)| place).find(is_it);
    let place = place.ok_or_else(|| CliError::Input(format!("expected a table {name} in the run, found none")))?;
    Ok(run.read_table(place, None)?)
}

fn of_preferences(run: &Run, manifests: &[(OutputKey, Manifest)], place: &OutputKey, name: &str) -> Result<Vec<Pair>, CliError> {
    let preferences = Preferences::from_batches(name, table(run, manifests, name, place.iteration)?)?;
    let mut texts: HashMap<String, _> = preferences.into_iter().map(|preference| (preference.id.clone(), preference)).collect();
    let mut rows = Vec::new();
    for batch in run.read_table(place, Some(TableKind::Pairs))? {
        for pair in pairs::rows(&batch).map_err(OperatorError::from)? {
            let found = texts.remove(&pair.prompt_id);
            let found = found.ok_or_else(|| CliError::Failed(format!("pair {}: not in the table {name} of the run", pair.prompt_id)))?;
            let [chosen, rejected] = found.messages;
            rows.push(Pair {
                id: pair.prompt_id,
                asked: found.prompt,
                chosen: chosen.unwrap_or_else(|| Message::assistant(found.chosen)),
                rejected: rejected.unwrap_or_else(|| Message::assistant(found.rejected)),
                weight: pair.weight,
                margin: pair.reward_gap,
            });
        }
    }
    Ok(rows)
}

fn of_responses(run: &Run, manifests: &[(OutputKey, Manifest)], place: &OutputKey, wanted: &Wanted) -> Result<Vec<Pair>, CliError> {
    let prompts = Prompts::from_batches(&wanted.prompts, Repeats::Refuse, table(run, manifests, &wanted.prompts, place.iteration)?)?;
    let asked: HashMap<&str, &PromptContent> = prompts.iter().map(|prompt| (prompt.id.as_str(), &prompt.content)).collect();
    let session = Session::over_run(run)?;
    session.register_batches("exported_pairs", run.read_table(place, Some(TableKind::Pairs))?)?;
    let batches = session.query(&format!(
        "SELECT pairs.prompt_id, chosen.text, rejected.text AS rejected_text, pairs.weight, pairs.reward_gap
FROM exported_pairs AS pairs
JOIN {responses} AS chosen ON chosen.prompt_id = pairs.prompt_id AND chosen.sampled_iteration = pairs.chosen_sampled_iteration AND chosen.response_index = pairs.chosen_index
JOIN {responses} AS rejected ON rejected.prompt_id = pairs.prompt_id AND rejected.sampled_iteration = pairs.rejected_sampled_iteration AND rejected.response_index = pairs.rejected_index
ORDER BY pairs.prompt_id",
        responses = format_args!("\"{}\"", wanted.responses.replace('"', "\"\"")),
    ))?;
    let mut rows = Vec::new();
    for batch in &batches {
        let texts = |column: usize| batch.column(column).as_string::<i32>();
        let numbers = |column: usize| batch.column(column).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let id = texts(0).value(row);
            let asked = asked.get(id).copied().cloned();
            rows.push(Pair {
                id: id.to_string(),
                asked: asked.ok_or_else(|| {
                    CliError::Input(format!("pair {id}: its prompt is not in {}; name its table with --prompts", wanted.prompts))
                })?,
                chosen: Message::assistant(texts(1).value(row)),
                rejected: Message::assistant(texts(2).value(row)),
                weight: numbers(3).value(row),
                margin: numbers(4).value(row),
            });
        }
    }
    Ok(rows)
}
