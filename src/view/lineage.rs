//! The committed outputs of a run, and which tables are about which prompts.
//!
//! Recipes in the manifests name the inputs of an output by fingerprint. Inputs from outside are
//! found by the pipeline instead. Knows no rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::report::Outline;
use crate::store::{Manifest, OutputKey, OutputKind};
use crate::tables::TableKind;

/// The slot of the prompts that a node reads.
const PROMPTS: &str = "prompts";
/// The slot of the pairs, or of the user's preferences, that a node trains on.
const PAIRS: &str = "pairs";

/// A run as it is committed.
pub(super) struct State {
    /// The length of the journal.
    pub version: u64,
    /// Every output with a manifest.
    pub outputs: Vec<(OutputKey, Manifest)>,
    /// The pipeline.
    pub outline: Outline,
}

impl State {
    pub fn new(version: u64, outputs: Vec<(OutputKey, Manifest)>, outline: Outline) -> Self {
        Self { version, outputs, outline }
    }

    /// The manifests of the table `name`, by iteration.
    pub fn manifests<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a (OutputKey, Manifest)> {
        let name = name.to_string();
        self.outputs.iter().filter(move |(key, _)| key.kind == OutputKind::Table && key.name == name)
    }

    /// The names of the tables, sorted.
    pub fn tables(&self) -> Vec<&str> {
        let names = self.outputs.iter().filter(|(key, _)| key.kind == OutputKind::Table).map(|(key, _)| key.name.as_str());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The kind of a table; none for a table with the user's own columns.
    pub fn kind(&self, name: &str) -> Option<TableKind> {
        self.manifests(name).find_map(|(_, manifest)| manifest.table)
    }

    /// The iterations of a table; none for a table made once.
    pub fn iterations(&self, name: &str) -> Vec<u32> {
        self.manifests(name).filter_map(|(key, _)| key.iteration).collect()
    }

    /// The tables of prompts, or of the user's preferences, in the order of the pipeline.
    pub fn prompt_tables(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let loops = self.outline.nodes.iter().rev().flat_map(|node| &node.reads);
        let is_table = |name: &str| self.manifests(name).next().is_some();
        let is_brought = |name: &str| self.outline.node(name).is_some_and(|node| node.operator == "table");
        for read in loops.filter(|read| read.slot == PROMPTS || (read.slot == PAIRS && is_brought(&read.name))) {
            if !names.contains(&read.name.as_str()) && is_table(&read.name) {
                names.push(&read.name);
            }
        }
        // The table that most nodes read is the one to train on.
        let readers = |name: &str| self.tables().iter().filter(|table| self.prompts_of(table) == Some(name)).count();
        names.sort_by_cached_key(|name| std::cmp::Reverse(readers(name)));
        names
    }

    /// The table of prompts, or of preferences, that the rows of a table are about.
    pub fn prompts_of(&self, name: &str) -> Option<&str> {
        let by_fingerprint = self.by_fingerprint();
        let mut waiting: VecDeque<_> = self.manifests(name).collect();
        let mut seen = BTreeSet::new();
        while let Some((key, manifest)) = waiting.pop_front() {
            if !seen.insert(&manifest.fingerprint) {
                continue;
            }
            for (slot, fingerprints) in &manifest.recipe.inputs {
                let made = fingerprints.iter().find_map(|fingerprint| by_fingerprint.get(fingerprint.as_str()));
                if slot == PROMPTS || (slot == PAIRS && made.is_none()) {
                    // A score need not name its prompts: then those of its responses are meant.
                    let found = made.map(|(key, _)| key.name.as_str()).or_else(|| self.read_by(&key.name, slot));
                    if found.is_some() {
                        return found;
                    }
                }
            }
            waiting.extend(self.inputs(manifest, &by_fingerprint));
        }
        None
    }

    /// The tables about these prompts, themselves left out.
    pub fn about(&self, prompts: &str) -> Vec<&str> {
        self.tables().into_iter().filter(|table| *table != prompts && self.prompts_of(table) == Some(prompts)).collect()
    }

    /// The tables of a kind upstream of `name`.
    pub fn upstream(&self, name: &str, kind: TableKind) -> BTreeSet<&str> {
        let by_fingerprint = self.by_fingerprint();
        let mut waiting: VecDeque<_> = self.manifests(name).collect();
        let mut seen = BTreeSet::new();
        let mut found = BTreeSet::new();
        while let Some((key, manifest)) = waiting.pop_front() {
            if seen.insert(&manifest.fingerprint) {
                if manifest.table == Some(kind) && key.name != name {
                    found.insert(key.name.as_str());
                }
                waiting.extend(self.inputs(manifest, &by_fingerprint));
            }
        }
        found
    }

    /// The tables that a table's node reads in this slot.
    pub fn direct(&self, name: &str, slot: &str) -> BTreeSet<&str> {
        let by_fingerprint = self.by_fingerprint();
        let read = self.manifests(name).flat_map(|(_, manifest)| manifest.recipe.inputs.get(slot)).flatten();
        read.filter_map(|fingerprint| by_fingerprint.get(fingerprint.as_str())).map(|(key, _)| key.name.as_str()).collect()
    }

    /// The table about these prompts with their rewards: the pool, else an evaluation, else rewards
    /// as they were scored.
    pub fn rewards_of(&self, prompts: &str) -> Option<&str> {
        self.first_about(prompts, &[TableKind::Pool, TableKind::Evaluation, TableKind::Rewards])
    }

    /// The first table about these prompts of the first kind that there is.
    pub fn first_about(&self, prompts: &str, kinds: &[TableKind]) -> Option<&str> {
        let about = self.about(prompts);
        kinds.iter().find_map(|kind| about.iter().find(|table| self.kind(table) == Some(*kind)).copied())
    }

    /// The tables among the inputs of an output. Models are left out: what a policy learned from is
    /// not what it is asked.
    fn inputs<'a>(&self, manifest: &Manifest, by_fingerprint: &ByFingerprint<'a>) -> Vec<&'a (OutputKey, Manifest)> {
        manifest.recipe.inputs.values().flatten().filter_map(|fingerprint| by_fingerprint.get(fingerprint.as_str()).copied()).collect()
    }

    fn by_fingerprint(&self) -> ByFingerprint<'_> {
        let tables = self.outputs.iter().filter(|(key, _)| key.kind == OutputKind::Table);
        tables.map(|output| (output.1.fingerprint.as_str(), output)).collect()
    }

    /// The table from outside that the node of an output reads in this slot.
    fn read_by(&self, output: &str, slot: &str) -> Option<&str> {
        let reads = &self.outline.owner(output)?.reads;
        reads.iter().find(|read| read.slot == slot).map(|read| read.name.as_str())
    }
}

type ByFingerprint<'a> = BTreeMap<&'a str, &'a (OutputKey, Manifest)>;
