//! Views: queries that come with every run, over its tables whatever their nodes are called. Their texts are in `views/*.sql`.
//!
//! `{relation}` in a text stands for all tables of a kind, one after the other, each with its node's name. Which tables belong together is
//! read from the recipes in the manifests: a pair's texts are in the responses that its pool was made of, not in those of an evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::error::ArrowError;

use crate::store::{Manifest, OutputKey, OutputKind};
use crate::dag::fingerprint::Fingerprint;
use crate::tables::{TableKind, training};

/// The table of what the manifests say, which is made here as well.
pub(super) const OUTPUTS: &str = "outputs";

/// The views' names and texts, sorted.
const TEXTS: [(&str, &str); 4] = [
    ("cost_by_stage", include_str!("views/cost_by_stage.sql")),
    ("largest_gaps", include_str!("views/largest_gaps.sql")),
    ("regeneration_gain", include_str!("views/regeneration_gain.sql")),
    ("reward_by_iteration", include_str!("views/reward_by_iteration.sql")),
];

/// The names that views may have.
pub(super) fn names() -> [&'static str; TEXTS.len()] {
    TEXTS.map(|(name, _)| name)
}

/// The views over these outputs, by name, as queries; those whose tables are there.
pub(super) fn over(outputs: &[(OutputKey, Manifest)]) -> Vec<(&'static str, String)> {
    let relations = Lineage::new(outputs).relations();
    let filled = |text: &str| {
        let mut text = text.to_string();
        for (name, tables) in &relations {
            let key = format!("{{{name}}}");
            if text.contains(&key) && tables.is_empty() {
                return None;
            }
            text = text.replace(&key, &tables.iter().map(String::as_str).collect::<Vec<_>>().join("\n  UNION ALL "));
        }
        Some(text)
    };
    TEXTS.iter().filter_map(|(name, text)| Some((*name, filled(text)?))).collect()
}

/// What every manifest says: node, iteration, operator, kind (model, or a table's), rows, parts, part_count, bytes, complete, fingerprint.
pub(super) fn outputs(outputs: &[(OutputKey, Manifest)]) -> Result<RecordBatch, ArrowError> {
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let manifests = || outputs.iter().map(|(_, manifest)| manifest);
    let kind = |manifest: &Manifest| manifest.table.map_or(manifest.kind.name(), TableKind::name);
    let rows = |manifest: &Manifest| (manifest.kind == OutputKind::Table).then(|| count(manifest.rows()));
    let bytes = |manifest: &Manifest| count(manifest.listed().fold(0, |bytes: u64, listed| bytes.saturating_add(listed.bytes)));
    let iteration = |key: &OutputKey| key.iteration.and_then(|iteration| i32::try_from(iteration).ok());
    let columns: [(&str, ArrayRef); 10] = [
        ("node", Arc::new(StringArray::from_iter_values(outputs.iter().map(|(key, _)| &key.name)))),
        ("iteration", Arc::new(outputs.iter().map(|(key, _)| iteration(key)).collect::<Int32Array>())),
        ("operator", Arc::new(StringArray::from_iter_values(manifests().map(|manifest| &manifest.recipe.operator)))),
        ("kind", Arc::new(StringArray::from_iter_values(manifests().map(kind)))),
        ("rows", Arc::new(manifests().map(rows).collect::<Int64Array>())),
        ("parts", Arc::new(Int64Array::from_iter_values(manifests().map(|manifest| manifest.parts.len() as i64)))),
        ("part_count", Arc::new(Int64Array::from_iter_values(manifests().map(|manifest| count(manifest.part_count))))),
        ("bytes", Arc::new(Int64Array::from_iter_values(manifests().map(bytes)))),
        ("complete", Arc::new(BooleanArray::from_iter(manifests().map(|manifest| Some(manifest.complete))))),
        ("fingerprint", Arc::new(StringArray::from_iter_values(manifests().map(|manifest| manifest.fingerprint.as_str())))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
}

/// Which output was made of which.
struct Lineage<'a> {
    outputs: &'a [(OutputKey, Manifest)],
    /// By what a recipe says of its inputs.
    by_fingerprint: BTreeMap<&'a Fingerprint, &'a (OutputKey, Manifest)>,
}

impl<'a> Lineage<'a> {
    fn new(outputs: &'a [(OutputKey, Manifest)]) -> Self {
        Self { outputs, by_fingerprint: outputs.iter().map(|output| (&output.1.fingerprint, output)).collect() }
    }

    /// The tables of a kind.
    fn of(&self, kind: TableKind) -> impl Iterator<Item = &'a (OutputKey, Manifest)> {
        self.outputs.iter().filter(move |(_, manifest)| manifest.table == Some(kind))
    }

    /// What fills a slot of an output's recipe.
    fn inputs(&self, output: &Manifest, slot: &str) -> impl Iterator<Item = &'a (OutputKey, Manifest)> {
        let found = output.recipe.inputs.get(slot).into_iter().flatten();
        found.filter_map(|fingerprint| self.by_fingerprint.get(fingerprint).copied()).collect::<Vec<_>>().into_iter()
    }

    /// The responses that a pool can hold: the fresh ones, and those of the pools that it carries over.
    fn responses_of(&self, pool: &'a Manifest) -> Vec<&'a (OutputKey, Manifest)> {
        let (mut found, mut next, mut seen) = (Vec::new(), Some(pool), BTreeSet::new());
        while let Some(pool) = next.filter(|pool| seen.insert(&pool.fingerprint)) {
            found.extend(self.inputs(pool, "responses"));
            next = self.inputs(pool, "carried").next().map(|(_, manifest)| manifest);
        }
        found
    }

    /// The queries that each name in the views' texts stands for, one a table.
    fn relations(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut relations = BTreeMap::new();
        let select = |node: &str, columns: &str, (key, _): &(OutputKey, Manifest)| {
            let iteration = if self.iterated(&key.name) { "iteration" } else { "CAST(NULL AS INT) AS iteration" };
            let (node, table) = (node.replace('\'', "''"), key.name.replace('"', "\"\""));
            format!("SELECT '{node}' AS node, {iteration}, {columns} FROM \"{table}\"")
        };
        let all = |kind: TableKind, columns: &str| -> BTreeSet<String> {
            self.of(kind).map(|output| select(&output.0.name, columns, output)).collect()
        };
        relations.insert("rewards", all(TableKind::Rewards, "reward"));
        relations.insert("pool", all(TableKind::Pool, "prompt_id, reward"));
        let mut tokens = all(TableKind::Responses, "CAST(array_length(token_ids) AS BIGINT) - prompt_token_count AS tokens");
        tokens.extend(self.of(TableKind::Training).map(|output| {
            let model = output.0.name.strip_suffix(training::SUFFIX).unwrap_or(&output.0.name);
            select(model, "tokens", output)
        }));
        if tokens.is_empty() {
            tokens.insert("SELECT '' AS node, CAST(NULL AS INT) AS iteration, CAST(0 AS BIGINT) AS tokens WHERE FALSE".to_string());
        }
        relations.insert("tokens", tokens);

        let (mut selection, mut pairs, mut responses) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (pool, manifest) in self.of(TableKind::Pool) {
            for (_, sampled) in self.inputs(manifest, "responses") {
                // One that ranked by nothing, as the first does, selects everything and gains nothing.
                let ranked =
                    |manifest: &Manifest| manifest.table == Some(TableKind::Selection) && manifest.recipe.inputs.contains_key("pool");
                for selected in self.inputs(sampled, "selection").filter(|(_, manifest)| ranked(manifest)) {
                    let rank_by = selected.1.recipe.settings.get("rank_by").and_then(|word| word.as_str()).unwrap_or("mean");
                    let columns = format!("'{}' AS rank_by, prompt_id, score, selected", rank_by.replace('\'', "''"));
                    selection.insert(select(&pool.name, &columns, selected));
                }
            }
        }
        for output in self.of(TableKind::Pairs) {
            for (_, pool) in self.inputs(&output.1, "pool") {
                let columns = "prompt_id, chosen_sampled_iteration, chosen_index, rejected_sampled_iteration, rejected_index, reward_gap, weight";
                pairs.insert(select(&output.0.name, columns, output));
                let texts = self.responses_of(pool);
                let texts = texts.into_iter().filter(|(_, manifest)| manifest.table == Some(TableKind::Responses));
                responses.extend(texts.map(|table| select(&output.0.name, "prompt_id, sampled_iteration, response_index, text", table)));
            }
        }
        relations.extend([("selection", selection), ("pairs", pairs), ("responses", responses)]);
        relations
    }

    /// Whether a table has the column `iteration`.
    fn iterated(&self, name: &str) -> bool {
        self.outputs.iter().any(|(key, _)| key.kind == OutputKind::Table && key.name == name && key.iteration.is_some())
    }
}
