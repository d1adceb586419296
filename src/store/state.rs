//! How complete an output is, for plans.

use std::path::Path;

use super::checkpoint;
use super::manifest::{Manifest, Site};
use super::{OutputKey, OutputKind, Run, StoreError};
use crate::dag::fingerprint::Recipe;

/// How complete an output is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Finished, in the run's folder.
    Complete,
    /// Finished by another run or earlier, in the cache. `Cache::adopt` links it into the run.
    Cached,
    /// Some parts exist (for a model: the steps of its last checkpoint).
    Partial {
        /// Finished parts or steps.
        done: u64,
        /// Parts or steps in all.
        of: u64,
    },
    /// The folder has the output of another recipe. [`Recipe::differences_from`] lists the
    /// differences.
    Stale {
        /// The recipe of the existing output.
        old: Box<Recipe>,
    },
    /// No output.
    Absent,
}

impl Run {
    /// How complete the output of `recipe` is. It checks names and lengths only;
    /// `Quarantine::verify` compares the bytes.
    ///
    /// # Errors
    /// A manifest cannot be read.
    pub fn state(&self, key: &OutputKey, recipe: &Recipe) -> Result<State, StoreError> {
        let fingerprint = recipe.fingerprint();
        let folder = self.path(key);
        let here = self.manifest(key)?;
        let ours = here.as_ref().filter(|manifest| manifest.fingerprint == fingerprint);
        if ours.is_some_and(|manifest| manifest.looks_complete(&folder)) {
            return Ok(State::Complete);
        }
        let entry = self.cache_entry(&fingerprint);
        if let Ok(Some(manifest)) = Manifest::read(&Site::whole(&entry))
            && manifest.kind == key.kind
            && manifest.looks_complete(&entry)
        {
            return Ok(State::Cached);
        }
        if let (OutputKind::Table, Some(manifest)) = (key.kind, ours) {
            return Ok(partial(manifest, &folder));
        }
        let unfinished = self.unfinished_cache_entry(&fingerprint);
        if let (OutputKind::Table, Ok(Some(manifest))) = (key.kind, Manifest::read(&Site::whole(&unfinished))) {
            return Ok(partial(&manifest, &unfinished));
        }
        if let Some(checkpoint) = checkpoint::newest(self, &fingerprint)? {
            return Ok(State::Partial { done: checkpoint.done, of: checkpoint.of });
        }
        match here {
            Some(manifest) if manifest.fingerprint != fingerprint => Ok(State::Stale { old: Box::new(manifest.recipe) }),
            _ => Ok(State::Absent),
        }
    }
}

fn partial(manifest: &Manifest, folder: &Path) -> State {
    State::Partial { done: manifest.present(folder), of: manifest.part_count }
}
