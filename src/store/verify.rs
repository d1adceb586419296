//! A whole run compared, byte for byte, with what its manifests, seals and names say. Changes nothing.
//!
//! What is not looked at can do no harm: the lock's file, which only names a process; `.partial/tmp-*`, which the next process removes;
//! `quarantine/`, which is never read; in the cache, the outputs and logprobs of other runs, which are compared when a run takes them; and
//! files that nothing lists, which are never read.

use std::collections::BTreeSet;

use super::quarantine::{Quarantined, inspect_output};
use super::{Run, StoreError, checkpoint, files, kept};
use crate::dag::fingerprint::Fingerprint;
use crate::tables::TableKind;

/// What was looked at, and what was not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many outputs, checkpoints, cached outputs and single files were compared.
    pub compared: usize,
    /// The damage, by path within each.
    pub damaged: Vec<Quarantined>,
}

impl Verified {
    fn add(&mut self, reports: Vec<Quarantined>) {
        self.compared += 1;
        self.damaged.extend(reports);
    }

    /// A file that is right or has an error that says what is wrong.
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
    /// Compares all outputs, checkpoints, what the cache has of them, the journal, `sources.json` and `pipeline.yaml` with what they should
    /// be. [`super::RunLock::verify`] sets damage aside. While another process writes the run, what it replaces may be reported.
    ///
    /// # Errors
    /// A file or folder is there and cannot be read.
    pub fn verify_all(&self) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        let (mut made, mut inputs): (BTreeSet<Fingerprint>, BTreeSet<Fingerprint>) = Default::default();
        for key in self.keys()? {
            verified.add(inspect_output(&self.path(&key))?);
            if let Ok(Some(manifest)) = self.manifest(&key) {
                inputs.extend(manifest.recipe.inputs.into_values().flatten());
                made.insert(manifest.fingerprint);
            }
        }
        for path in files::list(&self.partial())?.iter().filter(|path| checkpoint::is_checkpoint(path)) {
            verified.add(checkpoint::inspect(path)?);
        }
        for fingerprint in &made {
            for folder in [self.cache_entry(fingerprint), self.aside(fingerprint)].iter().filter(|folder| folder.is_dir()) {
                verified.add(inspect_output(folder)?);
            }
        }
        for of in &inputs {
            for path in self.runs().kept_parts(TableKind::Logprobs, of)? {
                verified.add(kept::inspect(&path, TableKind::Logprobs)?);
            }
        }
        verified.add_file(self.journal().read())?;
        verified.add_file(self.read_sources())?;
        verified.add_file(self.pipeline_file())?;
        Ok(verified)
    }
}
