//! Manifests: which files an output consists of, byte for byte, and what it was made of.
//!
//! No times and no absolute paths, so that equal outputs have equal manifests. Sealed, so that an edited one is found.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::output_key::check_name;
use super::{OutputKey, OutputKind, StoreError, files, checksum};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::tables::TableKind;

/// The manifest's name in the folder of its output.
pub(super) const FILE: &str = "manifest.json";
/// Raised when a manifest's fields change their meaning.
const VERSION: u32 = 2;
/// More parts than any table has; a manifest that says so lies.
const MOST_PARTS: u64 = 1 << 24;

/// What is in a table's or model's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub manifest_version: u32,
    /// The node that made it.
    pub node: String,
    /// The iteration, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// Table or model.
    pub kind: OutputKind,
    /// The hash of `recipe`.
    pub fingerprint: Fingerprint,
    /// What it was made of.
    pub recipe: Recipe,
    /// Which fixed schema a table has; none for a table of the user's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<TableKind>,
    /// The rows of the input that parts are slices of; 0 for a model.
    pub input_rows: u64,
    /// Input rows a part; the last part may have fewer. 0 for a model.
    pub part_rows: u64,
    /// How many parts there are when all are done. At least one, so that an empty table has a file that states its schema; 0 for a model.
    pub part_count: u64,
    /// The parts that are committed, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// A model's files, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ModelFile>,
    /// What the node counted, for reports.
    pub counts: BTreeMap<String, i64>,
    /// Whether all is there.
    pub complete: bool,
}

/// One Parquet file of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number, from 0.
    pub index: u64,
    /// Its file name.
    pub file: String,
    /// Its rows.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Its hash, hexadecimal.
    pub blake3: String,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Its name within the folder, with `/`.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash, hexadecimal.
    pub blake3: String,
}

/// What a manifest says of one file.
#[derive(Clone, Debug)]
pub(super) struct Listed<'a> {
    pub file: &'a str,
    pub bytes: u64,
    pub blake3: &'a str,
}

impl Manifest {
    /// The manifest of an output that has nothing yet.
    pub(super) fn new(key: &OutputKey, recipe: &Recipe) -> Self {
        Self {
            manifest_version: VERSION,
            node: key.name.clone(),
            iteration: key.iteration,
            kind: key.kind,
            fingerprint: recipe.fingerprint(),
            recipe: recipe.clone(),
            table: None,
            input_rows: 0,
            part_rows: 0,
            part_count: 0,
            parts: Vec::new(),
            files: Vec::new(),
            counts: BTreeMap::new(),
            complete: false,
        }
    }

    /// The rows of all committed parts.
    pub fn rows(&self) -> u64 {
        self.parts.iter().fold(0, |rows, part| rows.saturating_add(part.rows))
    }

    /// The numbers of the parts that are not committed, ascending.
    pub fn missing(&self) -> Vec<usize> {
        let done: Vec<u64> = self.parts.iter().map(|part| part.index).collect();
        (0..self.part_count).filter(|index| done.binary_search(index).is_err()).filter_map(|index| usize::try_from(index).ok()).collect()
    }

    /// The input rows of a part.
    pub(super) fn rows_of(&self, part: usize) -> Range<usize> {
        let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        let start = part.saturating_mul(count(self.part_rows)).min(count(self.input_rows));
        start..start.saturating_add(count(self.part_rows)).min(count(self.input_rows))
    }

    /// Adds a part in its order.
    pub(super) fn add(&mut self, part: Part) {
        self.parts.push(part);
        self.parts.sort_by_key(|part| part.index);
    }

    /// Forgets a file: the output is not complete any more.
    pub(super) fn forget(&mut self, file: &str) {
        self.parts.retain(|part| part.file != file);
        self.files.retain(|other| other.file != file);
        self.complete = false;
    }

    /// All files, of a table or a model.
    pub(super) fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        let parts = self.parts.iter().map(|part| Listed { file: &part.file, bytes: part.bytes, blake3: &part.blake3 });
        parts.chain(self.files.iter().map(|file| Listed { file: &file.file, bytes: file.bytes, blake3: &file.blake3 }))
    }

    /// How many of the listed files are there with the right length: a glance, not a verification.
    pub(super) fn present(&self, folder: &Path) -> u64 {
        let there = |listed: &Listed| folder.join(listed.file).metadata().is_ok_and(|metadata| metadata.len() == listed.bytes);
        self.listed().filter(there).count() as u64
    }

    /// Whether all is there at a glance.
    pub(super) fn looks_complete(&self, folder: &Path) -> bool {
        self.complete && self.present(folder) == self.listed().count() as u64
    }

    /// What the output is, for messages: `table responses`, `model`.
    pub(super) fn describe(&self) -> String {
        match self.table {
            Some(table) => format!("{} {table}", self.kind.name()),
            None => self.kind.name().to_string(),
        }
    }

    /// Reads the manifest in `folder`; `None` if there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(FILE);
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        let failed = |problem: String| StoreError::Manifest { path: path.clone(), problem };
        let none = |found: String| failed(format!("expected a manifest, found {found}"));
        let text = checksum::JSON.open(&bytes).map_err(none)?;
        let manifest: Self = serde_json::from_str(&text).map_err(|error| none(error.to_string()))?;
        if manifest.manifest_version != VERSION {
            return Err(failed(format!("expected manifest version {VERSION}, found {}", manifest.manifest_version)));
        }
        if manifest.part_count > MOST_PARTS {
            return Err(failed(format!("expected at most {MOST_PARTS} parts, found a part_count of {}", manifest.part_count)));
        }
        for listed in manifest.listed() {
            listed.file.split('/').try_for_each(|name| check_name("file", name)).map_err(|error| failed(error.to_string()))?;
        }
        Ok(Some(manifest))
    }

    /// Replaces the manifest in `folder` at once.
    pub(super) fn write(&self, folder: &Path, temporary: &Path) -> Result<(), StoreError> {
        let path = folder.join(FILE);
        let text =
            serde_json::to_string_pretty(self).map_err(|error| StoreError::Manifest { path: path.clone(), problem: error.to_string() })?;
        files::replace(&path, checksum::JSON.seal(&format!("{text}\n")).as_bytes(), temporary)
    }
}
