//! The copies of external tables in the run folder: their recipes, and their parts.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::RecordBatch;
use serde_json::json;

use super::error::ImportError;
use super::table::{Imported, TableUse, import};
use crate::dag::fingerprint::{Fingerprint, Recipe};
use crate::pipeline::graph::{Graph, Source, SourceKind};
use crate::store::{self, OutputKey, OutputKind, RunLock, State};

impl Source {
    /// The output key of an input table in a run folder.
    pub fn output_key(&self) -> OutputKey {
        OutputKey { kind: OutputKind::Table, name: self.name.clone(), iteration: None }
    }
}

/// The recipe of the run folder's copy of the source at `index`; `files` are the fingerprints of
/// its files, in order.
pub fn recipe(graph: &Graph, index: usize, files: &[Fingerprint]) -> Recipe {
    let table_use = TableUse::from_graph(graph, index);
    let mut settings = BTreeMap::from([
        ("prompts".to_string(), json!(table_use.prompts)),
        ("responses".to_string(), json!(table_use.responses)),
        ("preferences".to_string(), json!(table_use.preferences)),
    ]);
    if table_use.gaps {
        settings.insert("gaps".to_string(), json!(true));
    }
    if let Some(SourceKind::Table { format, delimiter, header, columns, dataset_format, map, malformed, split, .. }) =
        graph.sources.get(index).map(|source| &source.kind)
    {
        let written = [
            ("format", json!(format)),
            ("delimiter", json!(delimiter)),
            ("header", json!(header)),
            ("columns", json!(columns)),
            ("dataset_format", json!(dataset_format)),
            ("map", json!(map)),
            ("malformed", json!(malformed)),
            ("split", json!(split)),
        ];
        settings.extend(written.map(|(key, value)| (key.to_string(), value)));
    }
    let inputs = BTreeMap::from([(FILES.to_string(), files.to_vec())]);
    Recipe { operator: "input".to_string(), version: 4, seed: None, settings, inputs }
}

/// The slot of a source's files in its recipe.
pub const FILES: &str = "files";

/// Rows in one part of an input table in the run folder.
const PART_ROWS: usize = 1 << 16;

/// Writes the graph's input tables into the run folder. Complete ones stay, cached ones are linked.
/// `files` are the fingerprints of each source's files.
///
/// # Errors
/// As [`import`].
pub fn import_tables(run: &RunLock, graph: &Graph, files: &[Vec<Fingerprint>]) -> Result<(), ImportError> {
    for (index, (source, files)) in graph.sources.iter().zip(files).enumerate() {
        if !matches!(source.kind, SourceKind::Table { .. }) {
            continue;
        }
        let recipe = recipe(graph, index, files);
        match run.state(&source.output_key(), &recipe)? {
            State::Complete => continue,
            State::Cached if run.cache().adopt(&source.output_key(), &recipe.fingerprint())?.0 => continue,
            _ => {}
        }
        let imported = import(graph, index)?;
        check_unchanged(source, files)?;
        let total = imported.rows();
        let mut writer = run.write_table(&source.output_key(), &recipe, None, total, PART_ROWS)?;
        for part in writer.missing() {
            writer.commit(part, &slice(&imported, writer.rows_of(part))?)?;
        }
        let dataset_format = imported.dataset_format.map(|dataset_format| (format!("rows_as_{}", dataset_format.name()), total as i64));
        let left_out = Some(("left_out".to_string(), imported.left_out.count() as i64)).filter(|(_, count)| *count > 0);
        writer.finish([("rows".to_string(), total as i64)].into_iter().chain(dataset_format).chain(left_out).collect())?;
    }
    Ok(())
}

/// Checks that the files still have the hashes that they had before their rows were read. Otherwise
/// the rows would be stored under the fingerprint of others.
fn check_unchanged(source: &Source, files: &[Fingerprint]) -> Result<(), ImportError> {
    let SourceKind::Table { paths, .. } = &source.kind else { return Ok(()) };
    for (path, hash) in paths.iter().zip(files) {
        let found = store::fingerprint_of(path)?;
        if found != *hash {
            let problem = format!(
                "expected the same content as at the beginning of the run (blake3 {}), found another one (blake3 {}): \
                 the file changed while it was read; run again when nothing writes to it",
                hash.short(),
                found.short()
            );
            return Err(ImportError::file(path, problem));
        }
    }
    Ok(())
}

/// These rows of a table as one batch.
fn slice(imported: &Imported, rows: Range<usize>) -> Result<RecordBatch, ImportError> {
    let mut before = 0;
    let mut pieces = Vec::new();
    for batch in &imported.batches {
        let begin = rows.start.max(before);
        let end = rows.end.min(before + batch.num_rows());
        if begin < end {
            pieces.push(batch.slice(begin - before, end - begin));
        }
        before += batch.num_rows();
    }
    Ok(arrow::compute::concat_batches(&imported.schema(), &pieces)?)
}
