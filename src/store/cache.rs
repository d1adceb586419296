//! The cache: finished outputs by fingerprint, shared by all runs through hard links, and
//! unfinished tables.

use std::path::Path;

use super::manifest::{self, Manifest, Site};
use super::name::check_key;
use super::{OutputKey, Quarantined, RunLock, StoreError, files};
use crate::dag::fingerprint::Fingerprint;

/// The cache, as used by a locked run.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    run: &'a RunLock,
}

impl RunLock {
    /// The cache of all runs.
    pub fn cache(&self) -> Cache<'_> {
        Cache { run: self }
    }
}

impl Cache<'_> {
    /// Links the finished output `fingerprint` from the cache into the run, atomically. It replaces
    /// the output there.
    ///
    /// Returns whether it did. It did not if the entry is missing or damaged; a damaged entry is
    /// moved aside and reported.
    ///
    /// # Errors
    /// Files cannot be read or linked, or the fingerprint belongs to another kind of output.
    pub fn adopt(&self, key: &OutputKey, fingerprint: &Fingerprint) -> Result<(bool, Vec<Quarantined>), StoreError> {
        check_key(key)?;
        let run = self.run;
        let reports = run.quarantine().verify_cached(key, fingerprint)?;
        let entry = run.cache_entry(fingerprint);
        let Some(mut manifest) = Manifest::read(&Site::whole(&entry))? else { return Ok((false, reports)) };
        if manifest.kind != key.kind {
            return Err(two_outputs(fingerprint, key.to_string(), &manifest));
        }
        manifest.node.clone_from(&key.name);
        manifest.iteration = key.iteration;
        let made = run.temporary()?;
        match link_all(&entry, &made, &manifest) {
            // Another run just found damage there and moved the entry aside.
            Err(error) if error.is_not_found() => return Ok((false, reports)),
            linked => linked?,
        }
        manifest.write(&Site::whole(&made), &run.temporary()?)?;
        self.put_in_place(&made, key)?;
        run.remember(&run.path(key), &manifest);
        run.checkpoints().remove(fingerprint)?;
        Ok((true, reports))
    }

    /// Shares a finished output through the cache. An existing entry stays. `folder` has the files
    /// of `manifest`, and the manifest is complete.
    pub(super) fn publish(&self, key: &OutputKey, folder: &Path, manifest: &Manifest) -> Result<(), StoreError> {
        let run = self.run;
        let entry = run.cache_entry(&manifest.fingerprint);
        run.quarantine().verify_cached(key, &manifest.fingerprint)?;
        if let Some(there) = Manifest::read(&Site::whole(&entry))? {
            if (there.kind, there.table) != (manifest.kind, manifest.table) {
                return Err(two_outputs(&manifest.fingerprint, manifest.describe(), &there));
            }
            return Ok(());
        }
        let made = run.cache_temporary()?;
        link_all(folder, &made, manifest)?;
        manifest.write(&Site::whole(&made), &run.cache_temporary()?)?;
        match files::rename(&made, &entry) {
            // Another run published the same output at the same time: the first entry stays.
            Err(_) if entry.is_dir() && made.is_dir() => files::remove(&made),
            result => result,
        }
    }

    /// Moves a finished folder to the output's folder. The old output there is retired.
    pub(super) fn put_in_place(&self, made: &Path, key: &OutputKey) -> Result<(), StoreError> {
        self.retire(key)?;
        let folder = self.run.path(key);
        if let Some(parent) = folder.parent() {
            files::create_folder(parent)?;
        }
        files::rename(made, &folder)?;
        self.run.site(key).take_out()
    }

    /// Removes an output from the run without loss of work: a finished output stays in the cache,
    /// and the parts of an unfinished table move there.
    ///
    /// After a node moved into the loop or out of it, its old outputs use the same folder. They are
    /// retired too.
    ///
    /// # Errors
    /// Files cannot be linked or moved.
    pub fn retire(&self, key: &OutputKey) -> Result<(), StoreError> {
        check_key(key)?;
        let once = OutputKey { iteration: None, ..key.clone() };
        if key.iteration.is_none() || Manifest::read(&self.run.site(&once)).is_ok_and(|manifest| manifest.is_some()) {
            for folder in files::list(&self.run.path(&once))? {
                if let Some(iteration) = OutputKey::iteration_of(&files::file_name(&folder)) {
                    self.retire_one(&OutputKey { iteration: Some(iteration), ..key.clone() })?;
                }
            }
            self.retire_one(&once)?;
        }
        self.retire_one(key)
    }

    fn retire_one(&self, key: &OutputKey) -> Result<(), StoreError> {
        let folder = self.run.path(key);
        let site = self.run.site(key);
        if !folder.exists() {
            return site.take_in();
        }
        let read = Manifest::read(&site);
        if let Ok(Some(manifest)) = &read
            && manifest.looks_complete(&folder)
        {
            self.publish(key, &folder, manifest)?;
        }
        site.take_in()?;
        match read {
            Ok(Some(manifest)) if manifest.looks_complete(&folder) => {}
            Ok(Some(manifest)) if !manifest.parts.is_empty() && !self.run.cache_entry(&manifest.fingerprint).is_dir() => {
                return self.keep_unfinished(&folder, &manifest);
            }
            Err(StoreError::Manifest { .. }) => return self.run.quarantine().move_aside(&folder, &key.word()).map(drop),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        self.run.discard(&folder)
    }

    /// Moves an unfinished table's folder to the cache. Of two such folders, the one with more
    /// parts stays.
    fn keep_unfinished(&self, folder: &Path, manifest: &Manifest) -> Result<(), StoreError> {
        let entry = self.run.unfinished_cache_entry(&manifest.fingerprint);
        files::create_folder(&self.run.runs().cache_folder())?;
        let trash = self.run.temporary()?;
        let fewer = Manifest::read(&Site::whole(&entry)).ok().flatten().is_none_or(|there| there.parts.len() < manifest.parts.len());
        if entry.exists() && fewer {
            files::rename(&entry, &trash)?;
        } else if entry.exists() {
            files::rename(folder, &trash)?;
            return files::remove(&trash);
        }
        files::rename(folder, &entry)?;
        files::remove(&trash)
    }

    /// Moves an unfinished table back from the cache. Returns whether there was one.
    pub(super) fn take_back(&self, key: &OutputKey, fingerprint: &Fingerprint) -> Result<bool, StoreError> {
        let entry = self.run.unfinished_cache_entry(fingerprint);
        let folder = self.run.path(key);
        if !entry.is_dir() {
            return Ok(false);
        }
        if let Some(parent) = folder.parent() {
            files::create_folder(parent)?;
        }
        match files::rename(&entry, &folder) {
            // Another run of the same recipe was faster.
            Err(error) if error.is_not_found() => return Ok(false),
            result => result?,
        }
        // The caller verifies the folder, including an unreadable manifest.
        let site = self.run.site(key);
        if let Ok(Some(mut manifest)) = Manifest::read(&site) {
            manifest.node.clone_from(&key.name);
            manifest.iteration = key.iteration;
            manifest.write(&site, &self.run.temporary()?)?;
        }
        Ok(true)
    }
}

fn two_outputs(fingerprint: &Fingerprint, expected: String, found: &Manifest) -> StoreError {
    StoreError::TwoOutputs { fingerprint: fingerprint.clone(), expected, found: found.describe() }
}

/// Links every file of `manifest` from one folder into a new one, durably. The caller writes the
/// manifest itself.
fn link_all(from: &Path, to: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    files::remove(to)?;
    files::create_folder(to)?;
    for listed in manifest.listed().filter(|listed| listed.file != manifest::FILE) {
        let target = to.join(listed.file);
        if let Some(parent) = target.parent() {
            files::create_folder(parent)?;
        }
        files::link(&from.join(listed.file), &target)?;
    }
    files::sync_folders(to)
}
