//! Cards: the pages of a model and of a dataset on the Hugging Face hub, in Markdown, made from the
//! run.
//!
//! They say what was trained on what, with figures and hashes. The licence is left to the user.
//! Knows nothing of the hub.

use std::fmt::Write;

use super::cost::costs;
use super::error::ReportError;
use super::evaluation::evaluated;
use super::source::{Source, form};
use super::words::{interval, whole};
use crate::pipeline::Operator;
use crate::pipeline::spec::input::Input;
use crate::store::{Manifest, OutputKey, Run};

/// The prefix of a model or a dataset of the hub.
const HUB: &str = "hf://";
/// Of a dataset.
const DATASETS: &str = "hf://datasets/";

/// The card of a finished model of a run. `repo` is its name on the hub.
///
/// # Errors
/// The run cannot be read.
pub fn model_card(run: &Run, place: &OutputKey, repo: &str) -> Result<String, ReportError> {
    let source = Source::open(run)?;
    let mut head = String::from("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [optune, preference-tuning]\n");
    head.push_str(&listed("base_model", &models(&source)));
    head.push_str(&listed("datasets", &datasets(&source)));
    let mut card = format!("{head}---\n\n# {repo}\n\n");
    say(
        &mut card,
        format_args!(
            "This is `{place}` of the run `{}`, made by optune {} by online preference tuning (OPTune, arXiv 2406.07657).\n\n",
            source.name(),
            env!("CARGO_PKG_VERSION")
        ),
    )?;
    inputs(&mut card, &source)?;
    training(&mut card, &source)?;
    figures(&mut card, &source)?;
    hashes(&mut card, &source, place)?;
    ending(&mut card, &source)?;
    Ok(card)
}

/// The card of exported pairs of a run: `file` with so many `rows`, in the repository `repo`.
///
/// # Errors
/// The run cannot be read.
pub fn dataset_card(run: &Run, place: &OutputKey, repo: &str, file: &str, rows: usize) -> Result<String, ReportError> {
    let source = Source::open(run)?;
    let mut card = format!(
        "---\ntags: [optune, preference-tuning]\nconfigs:\n- config_name: default\n  data_files: {}\n---\n\n# {repo}\n\n",
        quoted(file)
    );
    say(
        &mut card,
        format_args!(
            "{} pairs of preferred and rejected responses: `{place}` of the run `{}`, made by optune {} by online preference tuning \
             (OPTune, arXiv 2406.07657). TRL's preference trainers read them. `weight` is the weight of a pair in the loss, `margin` \
             the difference of its rewards.\n\n",
            whole(i64::try_from(rows).unwrap_or(i64::MAX)),
            source.name(),
            env!("CARGO_PKG_VERSION")
        ),
    )?;
    inputs(&mut card, &source)?;
    hashes(&mut card, &source, place)?;
    ending(&mut card, &source)?;
    Ok(card)
}

/// Models of the hub among the inputs, without their revisions.
fn models(source: &Source) -> Vec<String> {
    let models = source.spec.inputs.values().filter_map(|input| match input {
        Input::Model { model } => model.value.strip_prefix(HUB),
        _ => None,
    });
    models.filter_map(|name| name.split('@').next()).map(str::to_string).collect()
}

/// Datasets of the hub among the inputs.
fn datasets(source: &Source) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for input in source.spec.inputs.values() {
        let Input::Table(table) = input else { continue };
        let parts = table.table.0.iter().filter_map(|path| path.value.strip_prefix(DATASETS));
        for name in parts.map(|rest| rest.split(['/', '@']).take(2).collect::<Vec<_>>().join("/")) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// A key of the head with its values; nothing without any.
fn listed(key: &str, values: &[String]) -> String {
    if values.is_empty() {
        return String::new();
    }
    let values: String = values.iter().map(|value| format!("- {}\n", quoted(value))).collect();
    format!("{key}:\n{values}")
}

/// A text of YAML in quotes; JSON's are YAML's too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A cell of a table in Markdown.
fn cell(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
}

fn say(card: &mut String, words: std::fmt::Arguments) -> Result<(), ReportError> {
    card.write_fmt(words).map_err(|error| form("card", error))
}

fn inputs(card: &mut String, source: &Source) -> Result<(), ReportError> {
    card.push_str("## Inputs\n\n| input | kind | from | rows |\n|---|---|---|---|\n");
    for (name, input) in &source.spec.inputs {
        let (kind, from) = match input {
            Input::Table(table) => {
                let paths: Vec<&str> = table.table.0.iter().map(|path| path.value.as_str()).collect();
                ("table", paths.join(", "))
            }
            Input::Model { model } => ("model", model.value.clone()),
            Input::Reward { .. } => ("reward", String::new()),
        };
        let rows = source.outputs.iter().find(|(place, _)| place.name == name.value).map_or(0, |(_, manifest)| manifest.rows());
        let rows = if rows > 0 { whole(i64::try_from(rows).unwrap_or(i64::MAX)) } else { String::new() };
        say(card, format_args!("| {} | {kind} | {} | {rows} |\n", cell(&name.value), cell(&from)))?;
    }
    card.push('\n');
    Ok(())
}

/// The settings of the nodes that trained.
fn training(card: &mut String, source: &Source) -> Result<(), ReportError> {
    let once = source.spec.nodes.iter();
    let all = once.chain(source.spec.iterate.iter().flat_map(|iterate| &iterate.nodes));
    let trains = |operator: &Operator| matches!(operator, Operator::Train(_) | Operator::Sft(_) | Operator::RewardModel(_));
    card.push_str("## Training\n\n");
    for (name, node) in all.filter(|(_, node)| trains(&node.operator)) {
        let settings = serde_saphyr::to_string(node).map_err(|error| form(&name.value, error))?;
        say(card, format_args!("`{}`:\n\n```yaml\n{}```\n\n", name.value, fenced(&settings)))?;
    }
    if source.iterations() > 0 {
        say(card, format_args!("Iterations: {}. ", source.iterations()))?;
    }
    say(card, format_args!("Seed: {}.\n\n", source.spec.seed))
}

/// Held-out results of each iteration, and the sampled tokens.
fn figures(card: &mut String, source: &Source) -> Result<(), ReportError> {
    for node in source.with_operator("evaluate") {
        let all = evaluated(source, &node.name)?;
        if all.is_empty() {
            continue;
        }
        say(card, format_args!("## Held-out prompts ({})\n\n", node.name))?;
        card.push_str("Means with 95 % intervals over prompts. A win score of 50 is no difference to the baseline.\n\n");
        card.push_str("| iteration | reward | baseline | win score |\n|---|---|---|---|\n");
        for one in all {
            let cells = [interval(one.reward), interval(one.baseline()), interval(one.win_score)];
            say(card, format_args!("| {} | {} |\n", one.iteration, cells.join(" | ")))?;
        }
        card.push('\n');
    }
    let sampled: i64 = costs(source)?.iter().filter(|cost| cost.stage == "generate").map(super::cost::Cost::tokens).sum();
    if sampled > 0 {
        say(card, format_args!("Tokens sampled for training: {}.\n\n", whole(sampled)))?;
    }
    Ok(())
}

/// The files of an output by their hashes, and its fingerprint.
fn hashes(card: &mut String, source: &Source, place: &OutputKey) -> Result<(), ReportError> {
    let found = source.outputs.iter().find(|(key, _)| key == place).map(|(_, manifest)| manifest);
    let Some(manifest): Option<&Manifest> = found else { return Err(form(place, "its manifest is not there")) };
    card.push_str("## Hashes\n\n");
    say(card, format_args!("Fingerprint of everything that it was made of: `{}`.\n\n", manifest.fingerprint))?;
    card.push_str("| file in the run | bytes | blake3 |\n|---|---|---|\n");
    for file in manifest.listed() {
        say(card, format_args!("| {} | {} | `{}` |\n", cell(file.file), file.bytes, file.blake3))?;
    }
    card.push('\n');
    Ok(())
}

fn ending(card: &mut String, source: &Source) -> Result<(), ReportError> {
    card.push_str("## Licence\n\nNot stated. Its inputs' licences hold; the owner of this repository names one.\n\n");
    say(card, format_args!("## Pipeline\n\nAs resolved:\n\n```yaml\n{}```\n", fenced(&source.yaml)))
}

/// A text within a fence, which it cannot end.
fn fenced(text: &str) -> String {
    text.replace("```", "` ` `")
}
