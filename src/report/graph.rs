//! The graph of the pipeline, with the rows and seconds of each node.

use super::block::{Block, Chart, Edge, Marks, Section, Table, Vertex};
use super::outline::{Node, Part};
use super::source::Source;
use super::words::{missing, seconds, whole};
use crate::store::{Manifest, OutputKey, OutputKind};
use crate::tables::TableKind;

/// The most outputs that are listed.
const MOST_OUTPUTS: usize = 500;

/// The outputs of a node so far.
#[derive(Default)]
struct Made {
    done: u32,
    of: u32,
    rows: u64,
    seconds: f64,
    /// Whether any of its time is known.
    timed: bool,
}

/// The section.
pub fn section(source: &Source) -> Section {
    let mut table = Table::new("Nodes", &["node", "operator", "#done", "#rows", "#time", "reads"]);
    let mut nodes = Vec::new();
    let mut edges = Vec::new();
    for node in &source.nodes {
        let made = made(source, node);
        let iterations =
            if node.part == Part::Loop && source.iterations() > 1 { format!(" × {}", source.iterations()) } else { String::new() };
        let rows = if made.rows > 0 { format!("{} rows", whole(made.rows as i64)) } else { String::new() };
        let time = if made.timed { seconds(made.seconds) } else { String::new() };
        let detail: Vec<String> = [rows, time].into_iter().filter(|text| !text.is_empty()).collect();
        nodes.push(Vertex {
            name: node.name.clone(),
            operator: format!("{}{iterations}", node.operator),
            detail: detail.join(", "),
            state: state(node, &made),
        });
        for read in node.reads.iter().filter(|read| source.node(&read.name).is_some()) {
            edges.push(Edge { from: read.name.clone(), to: node.name.clone(), last: read.last });
            // The input used instead in the first iteration.
            let start =
                source.spec.iterate.iter().flat_map(|iterate| &iterate.start).filter(|(name, _)| read.last && name.value == read.name);
            let start = start.map(|(_, start)| &start.value).filter(|start| source.node(start).is_some());
            edges.extend(start.map(|start| Edge { from: start.clone(), to: node.name.clone(), last: false }));
        }
        let reads: Vec<String> = node.reads.iter().map(|read| format!("{}{}", read.name, if read.last { "[t-1]" } else { "" })).collect();
        table.rows.push(vec![
            node.name.clone(),
            node.operator.to_string(),
            if node.part == Part::Input { missing() } else { format!("{} of {}", made.done, made.of) },
            if made.rows > 0 { whole(made.rows as i64) } else { missing() },
            if made.timed { seconds(made.seconds) } else { missing() },
            reads.join(", "),
        ]);
    }
    table.folded = true;
    let chart = Chart {
        title: "Nodes and what they read".to_string(),
        note: "dashed: what the iteration before made; rows and time are sums over iterations and over what a node brings along"
            .to_string(),
        x: String::new(),
        y: String::new(),
        marks: Marks::Graph { nodes, edges },
    };
    Section::new("graph", "Graph", "The pipeline's nodes.")
        .with(Block::Charts { charts: vec![chart] })
        .with(Block::Table(table))
        .with(Block::Table(outputs(source)))
}

fn made(source: &Source, node: &Node) -> Made {
    let of = match node.part {
        Part::Input => 0,
        Part::Once => 1,
        Part::Loop => source.iterations(),
    };
    let mut made = Made { of, ..Made::default() };
    for (place, manifest) in &source.outputs {
        if place.name == node.name {
            made.done += u32::from(manifest.complete);
        }
        if source.owner(&place.name).is_some_and(|owner| owner.name == node.name) {
            if place.name == node.name && manifest.table.is_some()
                || manifest.recipe.operator == "input"
                || ["sql", "command"].contains(&node.operator)
            {
                made.rows += manifest.rows();
            }
            if manifest.table != Some(TableKind::Training) {
                made.timed |= source.seconds(place).is_some();
                made.seconds += source.seconds(place).unwrap_or_default();
            }
        }
    }
    made
}

fn state(node: &Node, made: &Made) -> &'static str {
    match (node.part, made.done) {
        (Part::Input, _) => "input",
        (_, done) if done >= made.of => "done",
        (_, 0) if !made.timed && made.rows == 0 => "absent",
        _ => "partial",
    }
}

/// Every output with its fingerprint.
fn outputs(source: &Source) -> Table {
    let mut table =
        Table::new("Outputs", &["output", "kind", "operator", "state", "#parts", "#rows", "#bytes", "#time", "from", "fingerprint"]);
    table.folded = true;
    table.rows.extend(source.outputs.iter().take(MOST_OUTPUTS).map(|(place, manifest)| row(source, place, manifest)));
    if source.outputs.len() > MOST_OUTPUTS {
        table.title = format!("The first {MOST_OUTPUTS} of {} outputs", whole(source.outputs.len() as i64));
    }
    table
}

fn row(source: &Source, place: &OutputKey, manifest: &Manifest) -> Vec<String> {
    let from = match manifest.recipe.operator.as_str() {
        "input" => "outside",
        "training" => "its node",
        _ if source.seconds(place).is_none() && manifest.complete => "the cache",
        _ => "this run",
    };
    let bytes = manifest.parts.iter().map(|part| part.bytes).chain(manifest.files.iter().map(|file| file.bytes)).sum::<u64>();
    let table = place.kind == OutputKind::Table;
    vec![
        place.iteration.map_or(place.name.clone(), |iteration| format!("{}[{iteration}]", place.name)),
        manifest.table.map_or(place.kind.name().to_string(), |table| table.to_string()),
        manifest.recipe.operator.clone(),
        if manifest.complete { "done" } else { "partial" }.to_string(),
        if table { format!("{} of {}", manifest.parts.len(), manifest.part_count) } else { missing() },
        if table { whole(manifest.rows() as i64) } else { missing() },
        whole(bytes as i64),
        source.seconds(place).map_or_else(missing, seconds),
        from.to_string(),
        manifest.fingerprint.short().to_string(),
    ]
}
