//! The settings of the run: params, inputs and their hashes, the resolved pipeline, and tables of
//! the user's own.

use super::block::{Block, Section, Table};
use super::error::ReportError;
use super::source::Source;
use super::words::{missing, shortened, whole};
use crate::dag::fingerprint::Fingerprint;
use crate::pipeline::spec::input::Input;
use crate::store::OutputKind;

/// Shown characters of a param's value, and of the pipeline file.
const MOST_FACT: usize = 120;
const MOST_YAML: usize = 200_000;

/// The section.
///
/// # Errors
/// The record of fetched inputs cannot be read.
pub fn section(source: &Source) -> Result<Section, ReportError> {
    let mut facts = vec![fact("seed", source.spec.seed)];
    facts.extend(source.spec.params.iter().map(|(name, value)| fact(name, value)));
    facts.push(fact("iterations", source.iterations()));
    facts.push((
        "pipeline.yaml".to_string(),
        Fingerprint::from_contents(source.yaml.as_bytes()).short().to_string(),
        "blake3 of the resolved file".to_string(),
    ));
    facts.dedup_by(|one, other| one.0 == other.0);
    let mut section =
        Section::new("settings", "Settings", "The pipeline as it was run.").with(Block::Facts { facts }).with(Block::Table(inputs(source)));
    section = section.with(Block::Code { title: "pipeline.yaml, as resolved".to_string(), text: shortened(&source.yaml, MOST_YAML) });
    if let Some(text) = source.run.read_sources()? {
        section = section.with(Block::Code { title: "sources.json: what was fetched".to_string(), text });
    }
    Ok(section)
}

/// The tables without a fixed schema, made by queries of the pipeline.
pub fn own_tables(source: &Source) -> Option<Section> {
    let mut table = Table::new("", &["table", "#rows", "columns"]);
    let mut names: Vec<&str> = Vec::new();
    for (place, manifest) in &source.outputs {
        let own = place.kind == OutputKind::Table && manifest.table.is_none() && manifest.recipe.operator != "input";
        if own && !names.contains(&place.name.as_str()) {
            names.push(&place.name);
        }
    }
    for name in names {
        let rows: u64 = source
            .outputs
            .iter()
            .filter(|(place, _)| place.kind == OutputKind::Table && place.name == name)
            .map(|(_, manifest)| manifest.rows())
            .sum();
        table.rows.push(vec![name.to_string(), whole(rows as i64), source.columns(name).join(", ")]);
    }
    let lead = "What queries and programs of the pipeline made: optune sql shows their rows.";
    (!table.rows.is_empty()).then(|| Section::new("tables", "Tables of your own", lead).with(Block::Table(table)))
}

fn fact(name: &str, value: impl ToString) -> (String, String, String) {
    (name.to_string(), shortened(&value.to_string(), MOST_FACT), String::new())
}

fn inputs(source: &Source) -> Table {
    let mut table = Table::new("Inputs", &["input", "kind", "from", "#rows", "files, by their blake3"]);
    for (name, input) in &source.spec.inputs {
        let (kind, from) = match input {
            Input::Table(_) => ("table", from(input, "table")),
            Input::Model { model } => ("model", model.value.clone()),
            Input::Reward { .. } => ("reward", String::new()),
        };
        let manifest = source.outputs.iter().find(|(place, _)| place.name == name.value).map(|(_, manifest)| manifest);
        let hashes = manifest.and_then(|manifest| manifest.recipe.inputs.get("files"));
        let hashes: Vec<&str> = hashes.into_iter().flatten().map(Fingerprint::short).take(8).collect();
        table.rows.push(vec![
            name.value.clone(),
            kind.to_string(),
            from,
            manifest.map_or_else(missing, |manifest| whole(manifest.rows() as i64)),
            if hashes.is_empty() { missing() } else { hashes.join(", ") },
        ]);
    }
    table
}

/// The paths in an input, as written.
fn from(input: &Input, key: &str) -> String {
    let written = serde_json::to_value(input).unwrap_or_default();
    match &written[key] {
        serde_json::Value::String(path) => path.clone(),
        serde_json::Value::Array(paths) => paths.iter().filter_map(|path| path.as_str()).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    }
}
