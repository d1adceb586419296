//! The two parts of a table: prompts to train on, and prompts held out for evaluation.
//!
//! Knows prompts, no file.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;

use super::dataset_format::without_rows;
use super::error::ImportError;
use super::prompts::{contents, fingerprint};
use crate::pipeline::spec::input::{Part, Split};

/// The rows of one part. All rows of one prompt are in the same part. The held-out prompts are the
/// first ceil(share · prompts) by the hash of their content, whatever the order of the rows.
///
/// # Errors
/// A row without a prompt, or a part without a row.
pub(super) fn part(name: &str, split: Split, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, ImportError> {
    let failed = |problem: String| ImportError::Input(format!("table {name}: {problem}"));
    let hashes_of = |batch: &RecordBatch| -> Result<Vec<String>, ImportError> {
        contents(name, batch)?.into_iter().map(|content| content.map(|content| fingerprint(&content)).map_err(failed)).collect()
    };
    let hashes = batches.iter().map(hashes_of).collect::<Result<Vec<_>, _>>()?;
    let prompts: BTreeSet<&String> = hashes.iter().flatten().collect();
    let held_out_count = (split.held_out * prompts.len() as f64).ceil() as usize;
    if held_out_count >= prompts.len() {
        let found = prompts.len();
        return Err(failed(format!(
            "split: expected prompts for both parts, found {found} of them, of which {held_out_count} are held out"
        )));
    }
    let held_out: BTreeSet<&String> = prompts.into_iter().take(held_out_count).collect();
    let mut parts = Vec::with_capacity(batches.len());
    for (batch, hashes) in batches.iter().zip(&hashes) {
        let is_other = |hash: &String| held_out.contains(hash) != (split.take == Part::HeldOut);
        let others = hashes.iter().enumerate().filter(|(_, hash)| is_other(hash)).map(|(row, _)| row);
        parts.push(without_rows(batch, others)?);
    }
    Ok(parts)
}
