//! Manifests: the files of an output with their hashes, and the recipe of the output.
//!
//! A manifest has no times and no absolute paths, so equal outputs have equal manifests. It is
//! checksummed, so edits are found.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::name::check_name;
use super::{ModelFile, OutputKey, OutputKind, StoreError, checksum, files};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::tables::TableKind;

/// The manifest's name in the folder of its output.
pub(super) const FILE: &str = "manifest.json";
/// The folder of a run with the manifests of its tables.
const FOLDER: &str = "manifests";
/// Raised when a manifest's fields change their meaning.
const VERSION: u32 = 2;
/// More parts than any table has; a larger number in a manifest is an error.
const MOST_PARTS: u64 = 1 << 24;

/// The contents of a table's or model's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub manifest_version: u32,
    /// The node.
    pub node: String,
    /// The iteration, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// Table or model.
    pub kind: OutputKind,
    /// The hash of `recipe`.
    pub fingerprint: Fingerprint,
    /// Operator, settings and inputs of the output.
    pub recipe: Recipe,
    /// The fixed schema of a table; `None` for a table with the user's own columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<TableKind>,
    /// Input rows in all; each part covers a slice of them. 0 for a model.
    pub input_rows: u64,
    /// Input rows in a part; the last part may have fewer. 0 for a model.
    pub part_rows: u64,
    /// Parts of the finished table. At least one: an empty table has a file with its schema. 0 for
    /// a model.
    pub part_count: u64,
    /// The committed parts, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// A model's files, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ModelFile>,
    /// Counters of the node, for reports.
    pub counts: BTreeMap<String, i64>,
    /// Whether the output is finished.
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
    /// Its length in bytes.
    pub bytes: u64,
    /// Its blake3 hash, hexadecimal.
    pub blake3: String,
}

/// One file of a manifest, of a table or a model.
#[derive(Clone, Debug)]
pub(crate) struct ListedFile<'a> {
    pub file: &'a str,
    pub bytes: u64,
    pub blake3: &'a str,
}

impl Manifest {
    /// The manifest of an output without files.
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

    /// The length in bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.listed().fold(0, |bytes, listed| bytes.saturating_add(listed.bytes))
    }

    /// The numbers of the missing parts, ascending.
    pub fn missing(&self) -> Vec<usize> {
        let done: Vec<u64> = self.parts.iter().map(|part| part.index).collect();
        (0..self.part_count).filter(|index| done.binary_search(index).is_err()).map(as_index).collect()
    }

    /// The input rows of a part.
    pub(super) fn rows_of(&self, part: usize) -> Range<usize> {
        let start = part.saturating_mul(as_index(self.part_rows)).min(as_index(self.input_rows));
        start..start.saturating_add(as_index(self.part_rows)).min(as_index(self.input_rows))
    }

    /// Adds a part; parts stay sorted by index.
    pub(super) fn add(&mut self, part: Part) {
        self.parts.push(part);
        self.parts.sort_by_key(|part| part.index);
    }

    /// Removes a file from the list, so the output is no longer complete.
    pub(super) fn forget(&mut self, file: &str) {
        self.parts.retain(|part| part.file != file);
        self.files.retain(|other| other.file != file);
        self.complete = false;
    }

    /// All files, of a table or a model.
    pub(crate) fn listed(&self) -> impl Iterator<Item = ListedFile<'_>> {
        let parts = self.parts.iter().map(|part| ListedFile { file: &part.file, bytes: part.bytes, blake3: &part.blake3 });
        parts.chain(self.files.iter().map(|file| ListedFile { file: &file.file, bytes: file.bytes, blake3: &file.blake3 }))
    }

    /// The number of listed files with the right length. It does not compare bytes.
    pub(super) fn present(&self, folder: &Path) -> u64 {
        let is_there = |listed: &ListedFile| folder.join(listed.file).metadata().is_ok_and(|metadata| metadata.len() == listed.bytes);
        self.listed().filter(is_there).count() as u64
    }

    /// Whether the output is complete and all its files have the right length.
    pub(super) fn looks_complete(&self, folder: &Path) -> bool {
        self.complete && self.present(folder) == self.listed().count() as u64
    }

    /// The output for messages: `table responses`, `model`.
    pub(super) fn describe(&self) -> String {
        match self.table {
            Some(table) => format!("{} {table}", self.kind.name()),
            None => self.kind.name().to_string(),
        }
    }

    /// Reads the manifest of a folder; `None` if there is none.
    pub(super) fn read(site: &Site) -> Result<Option<Self>, StoreError> {
        let mut path = site.path();
        let mut bytes = files::read(&path)?;
        if bytes.is_none() {
            // A writer may have taken it in or out since.
            path = site.path();
            bytes = files::read(&path)?;
        }
        // The manifest of a folder removed by hand is none.
        let Some(bytes) = bytes.filter(|_| site.folder.is_dir()) else { return Ok(None) };
        let failed = |problem: String| StoreError::Manifest { path: path.clone(), problem };
        let none = |found: String| failed(format!("expected a manifest, found {found}"));
        let text = checksum::JSON.verify(&bytes).map_err(none)?;
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

    /// Replaces the manifest of a folder atomically.
    pub(super) fn write(&self, site: &Site, temporary: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| StoreError::internal("Manifest::write", error))?;
        let text = checksum::JSON.add(&format!("{text}\n"));
        let within = site.within();
        let Some(beside) = &site.beside else { return files::replace(&within, text.as_bytes(), temporary) };
        beside.parent().map_or(Ok(()), files::create_folder)?;
        files::replace(beside, text.as_bytes(), temporary)?;
        // From here on the one beside the folder counts.
        if within.exists() { files::remove(&within) } else { Ok(()) }
    }
}

/// The folder of an output, and the place of its manifest.
///
/// The manifest of a run's table is beside the folder, in `manifests/`: readers take every file in
/// the folder for a part. While the folder moves, its manifest moves along within it. One rename
/// takes it in or out, so a kill leaves it in one of the two places.
#[derive(Clone, Debug)]
pub(super) struct Site {
    folder: PathBuf,
    /// The place beside the folder, if it has one.
    beside: Option<PathBuf>,
}

impl Site {
    /// A folder with its manifest in it: of the cache, of a model, or on its way.
    pub(super) fn whole(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), beside: None }
    }

    /// The folder of an output in the folder of a run.
    pub(super) fn of_run(run: &Path, key: &OutputKey) -> Self {
        let name = match key.iteration {
            Some(iteration) => format!("{}/iteration={iteration}.json", key.name),
            None => format!("{}.json", key.name),
        };
        let beside = (key.kind == OutputKind::Table).then(|| run.join(FOLDER).join(name));
        Self { folder: run.join(key.relative_path()), beside }
    }

    /// The folder of the output.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of the manifest that counts; where it belongs if there is none.
    pub(super) fn path(&self) -> PathBuf {
        let within = self.within();
        match &self.beside {
            Some(beside) if beside.exists() || !within.exists() => beside.clone(),
            _ => within,
        }
    }

    fn within(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Takes the manifest into the folder, which may then move as a whole.
    pub(super) fn take_in(&self) -> Result<(), StoreError> {
        match &self.beside {
            Some(beside) if beside.exists() && self.folder.is_dir() => files::rename(beside, &self.within()),
            Some(beside) if beside.exists() => files::remove(beside),
            _ => Ok(()),
        }
    }

    /// Ends a move of the manifest that a kill cut off. Where there are two, the one beside the
    /// folder is the newer one.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        match &self.beside {
            Some(beside) if beside.exists() && self.within().exists() => files::remove(&self.within()),
            Some(_) => self.take_out(),
            None => Ok(()),
        }
    }

    /// Takes the manifest out of a folder that has arrived.
    pub(super) fn take_out(&self) -> Result<(), StoreError> {
        let within = self.within();
        let Some(beside) = self.beside.as_ref().filter(|_| within.exists()) else { return Ok(()) };
        beside.parent().map_or(Ok(()), files::create_folder)?;
        files::rename(&within, beside)
    }
}

/// A number of a manifest as an index into memory.
pub(super) fn as_index(number: u64) -> usize {
    debug_assert!(usize::try_from(number).is_ok(), "addresses have 64 bits");
    usize::try_from(number).unwrap_or(usize::MAX)
}
