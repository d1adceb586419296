//! Views: standard queries over the tables of every run, independent of the names of its nodes.
//! Their texts are in `views/*.sql`.
//!
//! `{relation}` in a text stands for all tables of a kind, one after the other, each with its
//! node's name. Recipes in the manifests link the tables: the texts of a pair come from the
//! responses in its pool, not from those of an evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};

use crate::dag::fingerprint::Fingerprint;
use crate::store::{Manifest, OutputKey, OutputKind, StoreError};
use crate::tables::{TableKind, training};

/// The name of the table of manifests, see [`outputs`].
pub(super) const OUTPUTS: &str = "outputs";

/// The views' names and texts, sorted.
const TEXTS: [(&str, &str); 5] = [
    ("cost_by_stage", include_str!("cost_by_stage.sql")),
    ("expected_gain", include_str!("expected_gain.sql")),
    ("largest_gaps", include_str!("largest_gaps.sql")),
    ("regeneration_gain", include_str!("regeneration_gain.sql")),
    ("reward_by_iteration", include_str!("reward_by_iteration.sql")),
];

/// The names of all views.
pub(super) fn names() -> [&'static str; TEXTS.len()] {
    TEXTS.map(|(name, _)| name)
}

/// The views over these outputs, as names and queries. A view without its tables is left out.
pub(super) fn queries(outputs: &[(OutputKey, Manifest)]) -> Vec<(&'static str, String)> {
    let relations = Lineage::new(outputs).relations();
    let filled = |text: &str| {
        let mut text = text.to_string();
        for (name, tables) in &relations {
            let placeholder = format!("{{{name}}}");
            if text.contains(&placeholder) && tables.is_empty() {
                return None;
            }
            text = text.replace(&placeholder, &tables.iter().map(String::as_str).collect::<Vec<_>>().join("\n  UNION ALL "));
        }
        Some(text)
    };
    TEXTS.iter().filter_map(|(name, text)| Some((*name, filled(text)?))).collect()
}

/// The manifests as a table: node, iteration, operator, kind (model, or a table's), rows, parts,
/// part_count, bytes, complete, fingerprint.
///
/// # Errors
/// A number is too large for its column.
pub(super) fn outputs(outputs: &[(OutputKey, Manifest)]) -> Result<RecordBatch, StoreError> {
    let too_large = |number: u64| StoreError::internal("views::outputs", format!("a manifest has the number {number}"));
    let integer = |value: u64| i64::try_from(value).map_err(|_| too_large(value));
    let integers = |number: &dyn Fn(&Manifest) -> Option<u64>| {
        let values = outputs.iter().map(|(_, manifest)| number(manifest).map(integer).transpose());
        values.collect::<Result<Int64Array, _>>()
    };
    let iteration =
        |key: &OutputKey| key.iteration.map(|iteration| i32::try_from(iteration).map_err(|_| too_large(u64::from(iteration)))).transpose();
    let iterations: Int32Array = outputs.iter().map(|(key, _)| iteration(key)).collect::<Result<_, _>>()?;
    let rows = integers(&|manifest| (manifest.kind == OutputKind::Table).then(|| manifest.rows()))?;
    let parts = integers(&|manifest| Some(manifest.parts.len() as u64))?;
    let part_counts = integers(&|manifest| Some(manifest.part_count))?;
    let bytes = integers(&|manifest| Some(manifest.bytes()))?;
    let manifests = || outputs.iter().map(|(_, manifest)| manifest);
    let kind = |manifest: &Manifest| manifest.table.map_or(manifest.kind.name(), TableKind::name);
    let columns: [(&str, ArrayRef); 10] = [
        ("node", Arc::new(StringArray::from_iter_values(outputs.iter().map(|(key, _)| &key.name)))),
        ("iteration", Arc::new(iterations)),
        ("operator", Arc::new(StringArray::from_iter_values(manifests().map(|manifest| &manifest.recipe.operator)))),
        ("kind", Arc::new(StringArray::from_iter_values(manifests().map(kind)))),
        ("rows", Arc::new(rows)),
        ("parts", Arc::new(parts)),
        ("part_count", Arc::new(part_counts)),
        ("bytes", Arc::new(bytes)),
        ("complete", Arc::new(BooleanArray::from_iter(manifests().map(|manifest| Some(manifest.complete))))),
        ("fingerprint", Arc::new(StringArray::from_iter_values(manifests().map(|manifest| manifest.fingerprint.as_str())))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(|error| StoreError::internal("views::outputs", error))
}

/// What the prediction of a selection is about; `None` for a selection without one.
fn objective(selection: &Manifest) -> Option<&'static str> {
    let settings = &selection.recipe.settings;
    let strategy = settings.get("strategy")?;
    match strategy.get("expected_gain").and_then(|settings| settings.get("objective")?.as_str()) {
        Some("gap") => Some("gap"),
        Some(_) => Some("best"),
        // A budget needs the lengths, and predicts the best reward beside them.
        None => settings.get("tokens").filter(|tokens| !tokens.is_null()).map(|_| "best"),
    }
}

/// An expression for the iteration of `selection` that reads this table, or is read by it.
fn shifted_iteration(table: &OutputKey, selection: &OutputKey) -> String {
    match (table.iteration, selection.iteration) {
        (Some(table), Some(selection)) => format!("iteration + {}", i64::from(selection) - i64::from(table)),
        // A pool from outside the loop belongs to the iteration that begins with it.
        (None, Some(selection)) => format!("CAST({selection} AS INT)"),
        (_, None) => "CAST(NULL AS INT)".to_string(),
    }
}

/// The rows of `table` under the name of `node`, with this expression as their iteration.
fn select_as(node: &OutputKey, table: &OutputKey, iteration: &str, columns: &str) -> String {
    let node = node.name.replace('\'', "''");
    let table = table.name.replace('"', "\"\"");
    format!("SELECT '{node}' AS node, {iteration} AS iteration, {columns} FROM \"{table}\"")
}

/// The tokens of a response without its prompt.
const RESPONSE_TOKENS: &str = "CAST(array_length(token_ids) AS BIGINT) - prompt_token_count";

/// A query for the tokens of the responses with a reward.
fn scored_tokens(rewards: &OutputKey, responses: &OutputKey) -> String {
    let node = rewards.name.replace('\'', "''");
    let iteration = if rewards.iteration.is_some() { "r.iteration" } else { "CAST(NULL AS INT)" };
    let same = match (rewards.iteration, responses.iteration) {
        (Some(scored), Some(sampled)) => format!(" AND a.iteration = r.iteration + {}", i64::from(sampled) - i64::from(scored)),
        _ => String::new(),
    };
    let quoted = |key: &OutputKey| key.name.replace('"', "\"\"");
    format!(
        "SELECT '{node}' AS node, {iteration} AS iteration, 'scored' AS work, {RESPONSE_TOKENS} AS tokens FROM \"{}\" AS r JOIN \"{}\" AS a \
         ON a.prompt_id = r.prompt_id AND a.sampled_iteration = r.sampled_iteration AND a.response_index = r.response_index{same} \
         WHERE r.reward IS NOT NULL",
        quoted(rewards),
        quoted(responses),
    )
}

/// The links between outputs: the recipe of each names its inputs.
struct Lineage<'a> {
    outputs: &'a [(OutputKey, Manifest)],
    /// The outputs by fingerprint; recipes name their inputs by it.
    by_fingerprint: BTreeMap<&'a Fingerprint, &'a (OutputKey, Manifest)>,
}

impl<'a> Lineage<'a> {
    fn new(outputs: &'a [(OutputKey, Manifest)]) -> Self {
        Self { outputs, by_fingerprint: outputs.iter().map(|output| (&output.1.fingerprint, output)).collect() }
    }

    /// The tables of a kind.
    fn tables(&self, kind: TableKind) -> impl Iterator<Item = &'a (OutputKey, Manifest)> {
        self.outputs.iter().filter(move |(_, manifest)| manifest.table == Some(kind))
    }

    /// The inputs of an output for a slot of its recipe.
    fn inputs(&self, output: &Manifest, slot: &str) -> impl Iterator<Item = &'a (OutputKey, Manifest)> {
        let found = output.recipe.inputs.get(slot).into_iter().flatten();
        found.filter_map(|fingerprint| self.by_fingerprint.get(fingerprint).copied()).collect::<Vec<_>>().into_iter()
    }

    /// The tables of responses behind a pool: its new ones, and those of the pools carried over
    /// into it.
    fn responses_of(&self, pool: &'a Manifest) -> Vec<&'a (OutputKey, Manifest)> {
        let mut found = Vec::new();
        let mut next = Some(pool);
        let mut seen = BTreeSet::new();
        while let Some(pool) = next.filter(|pool| seen.insert(&pool.fingerprint)) {
            found.extend(self.inputs(pool, "responses"));
            next = self.inputs(pool, "carried").next().map(|(_, manifest)| manifest);
        }
        found
    }

    /// These columns of an output, under the name of `node`, with its iterations.
    fn select(&self, node: &str, columns: &str, (key, _): &(OutputKey, Manifest)) -> String {
        let iteration = if self.iterated(&key.name) { "iteration" } else { "CAST(NULL AS INT) AS iteration" };
        let node = node.replace('\'', "''");
        let table = key.name.replace('"', "\"\"");
        format!("SELECT '{node}' AS node, {iteration}, {columns} FROM \"{table}\"")
    }

    /// The queries for each name in the views' texts, one for each table.
    fn relations(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        let mut relations = BTreeMap::new();
        let all = |kind: TableKind, columns: &str| -> BTreeSet<String> {
            self.tables(kind).map(|output| self.select(&output.0.name, columns, output)).collect()
        };
        relations.insert("rewards", all(TableKind::Rewards, "reward"));
        relations.insert("pool", all(TableKind::Pool, "prompt_id, reward"));
        relations.insert("tokens", self.tokens());

        let mut selection = BTreeSet::new();
        let mut pairs = BTreeSet::new();
        let mut responses = BTreeSet::new();
        for (pool, manifest) in self.tables(TableKind::Pool) {
            for (_, sampled) in self.inputs(manifest, "responses") {
                // A selection without a pool, as the first one, has no ranking and no gain. One
                // within another selection belongs to the same iteration as its pool.
                let ranked = |manifest: &Manifest| {
                    let has = |slot: &str| manifest.recipe.inputs.contains_key(slot);
                    manifest.table == Some(TableKind::Selection) && has("pool") && !has("within")
                };
                for selected in self.inputs(sampled, "selection").filter(|(_, manifest)| ranked(manifest)) {
                    let rank_by = selected.1.recipe.settings.get("rank_by").and_then(|word| word.as_str()).unwrap_or("mean");
                    let columns = format!("'{}' AS rank_by, prompt_id, score, selected", rank_by.replace('\'', "''"));
                    selection.insert(self.select(&pool.name, &columns, selected));
                }
            }
        }
        for output in self.tables(TableKind::Pairs) {
            for (_, pool) in self.inputs(&output.1, "pool") {
                let columns =
                    "prompt_id, chosen_sampled_iteration, chosen_index, rejected_sampled_iteration, rejected_index, reward_gap, weight";
                pairs.insert(self.select(&output.0.name, columns, output));
                let texts = self.responses_of(pool);
                let texts = texts.into_iter().filter(|(_, manifest)| manifest.table == Some(TableKind::Responses));
                responses
                    .extend(texts.map(|table| self.select(&output.0.name, "prompt_id, sampled_iteration, response_index, text", table)));
            }
        }
        relations.extend([("selection", selection), ("pairs", pairs), ("responses", responses)]);
        relations.extend(self.predictions());
        relations
    }

    /// The queries about tokens, each with the work done on them: `sampled` for the pools,
    /// `evaluated` for comparisons and benchmarks, `scored`, `trained`. The responses of an
    /// evaluation are known by its first comparison; until then they are sampled ones.
    fn tokens(&self) -> BTreeSet<String> {
        let evaluations = || self.tables(TableKind::Evaluation);
        let compared = evaluations()
            .flat_map(|(_, evaluation)| ["responses", "baseline_responses"].into_iter().flat_map(|slot| self.inputs(evaluation, slot)));
        let compared: BTreeSet<&str> = compared.map(|(key, _)| key.name.as_str()).collect();
        let mut tokens = BTreeSet::new();
        for output in self.tables(TableKind::Responses).filter(|(_, manifest)| manifest.recipe.operator == "generate") {
            let work = if compared.contains(output.0.name.as_str()) { "evaluated" } else { "sampled" };
            tokens.insert(self.select(&output.0.name, &format!("'{work}' AS work, {RESPONSE_TOKENS} AS tokens"), output));
        }
        for output in self.tables(TableKind::Answers) {
            tokens.insert(self.select(&output.0.name, &format!("'evaluated' AS work, {RESPONSE_TOKENS} AS tokens"), output));
        }
        for output in self.tables(TableKind::Training) {
            let model = output.0.name.strip_suffix(training::SUFFIX).unwrap_or(&output.0.name);
            tokens.insert(self.select(model, "'trained' AS work, tokens", output));
        }
        for (rewards, scored) in self.tables(TableKind::Rewards) {
            tokens.extend(self.inputs(scored, "responses").map(|(responses, _)| scored_tokens(rewards, responses)));
        }
        if tokens.is_empty() {
            let none = "SELECT '' AS node, CAST(NULL AS INT) AS iteration, '' AS work, CAST(0 AS BIGINT) AS tokens WHERE FALSE";
            tokens.insert(none.to_string());
        }
        tokens
    }

    /// The queries about selections with a prediction: the prediction, the rewards before it, and
    /// those of its new responses.
    fn predictions(&self) -> [(&'static str, BTreeSet<String>); 3] {
        let mut predicted = BTreeSet::new();
        let mut before = BTreeSet::new();
        let mut after = BTreeSet::new();
        for (rewards, scored) in self.tables(TableKind::Rewards) {
            for (_, sampled) in self.inputs(scored, "responses") {
                for (selection, selected) in self.inputs(sampled, "selection") {
                    let Some(objective) = objective(selected) else { continue };
                    for (pool, _) in self.inputs(selected, "pool") {
                        let columns = format!("prompt_id, '{objective}' AS objective, expected_gain");
                        let iteration = |key: &OutputKey| shifted_iteration(key, selection);
                        predicted.insert(format!(
                            "{} WHERE selected AND expected_gain IS NOT NULL",
                            select_as(selection, selection, &iteration(selection), &columns)
                        ));
                        before.insert(select_as(selection, pool, &iteration(pool), "prompt_id, reward"));
                        after.insert(select_as(selection, rewards, &iteration(rewards), "prompt_id, reward"));
                    }
                }
            }
        }
        [("predicted", predicted), ("rewards_before", before), ("rewards_after", after)]
    }

    /// Whether a table has the column `iteration`.
    fn iterated(&self, name: &str) -> bool {
        self.outputs.iter().any(|(key, _)| key.kind == OutputKind::Table && key.name == name && key.iteration.is_some())
    }
}
