//! Verifies a whole run byte for byte against its manifests, checksums and file names. Changes
//! nothing.
//!
//! It skips harmless files:
//! - the lock's file: it only names a process;
//! - `.partial/tmp-*`: the next process removes them;
//! - `quarantine/` and files outside every manifest: nothing reads them;
//! - outputs and memoized rows of other runs in the cache: a run verifies them on use.

use std::collections::BTreeSet;

use super::inspect::inspect_output;
use super::manifest::Site;
use super::{Quarantined, Run, StoreError, checkpoint, files, memo};
use crate::dag::fingerprint::Fingerprint;
use crate::tables::TableKind;

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The number of compared outputs, checkpoints, cached outputs and single files.
    pub compared: usize,
    /// The damaged files, sorted by path within each of these.
    pub damaged: Vec<Quarantined>,
}

impl Verified {
    fn add(&mut self, reports: Vec<Quarantined>) {
        self.compared += 1;
        self.damaged.extend(reports);
    }

    /// Adds one file from the result of its reader.
    fn add_file<T>(&mut self, result: Result<T, StoreError>) -> Result<(), StoreError> {
        let report = |path, expected: &str, found| Quarantined { path, moved_to: None, expected: expected.to_string(), found };
        let reports = match result {
            Ok(_) => Vec::new(),
            Err(StoreError::Changed { path, found, .. }) => vec![report(path, "the file as it was written", found)],
            Err(StoreError::Journal { path, line, problem }) => vec![report(path, "an event", format!("in line {line}: {problem}"))],
            Err(error) => return Err(error),
        };
        self.add(reports);
        Ok(())
    }
}

impl Run {
    /// Compares all outputs, checkpoints, their copies in the cache, the journal, `sources.json`
    /// and `pipeline.yaml`. `Quarantine::verify` moves damage aside. While another process writes
    /// the run, its replaced files may be reported.
    ///
    /// # Errors
    /// A file or folder exists and cannot be read.
    pub fn verify_all(&self) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        let mut outputs: BTreeSet<Fingerprint> = BTreeSet::new();
        let mut inputs: BTreeSet<Fingerprint> = BTreeSet::new();
        for key in self.output_keys()? {
            verified.add(inspect_output(&self.site(&key))?);
            if let Ok(Some(manifest)) = self.manifest(&key) {
                inputs.extend(manifest.recipe.inputs.into_values().flatten());
                outputs.insert(manifest.fingerprint);
            }
        }
        for path in files::list(&self.partial())?.iter().filter(|path| checkpoint::is_checkpoint(path)) {
            verified.add(checkpoint::inspect(path)?);
        }
        for fingerprint in &outputs {
            for folder in [self.cache_entry(fingerprint), self.unfinished_cache_entry(fingerprint)].iter().filter(|folder| folder.is_dir())
            {
                verified.add(inspect_output(&Site::whole(folder))?);
            }
        }
        for source in &inputs {
            for path in self.runs().memo_parts(TableKind::Logprobs, source)? {
                verified.add(memo::inspect(&path, TableKind::Logprobs)?);
            }
        }
        verified.add_file(self.journal().read())?;
        verified.add_file(self.read_sources())?;
        verified.add_file(self.pipeline_file())?;
        Ok(verified)
    }
}
