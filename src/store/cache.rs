//! The cache: finished outputs by fingerprint, shared by all runs through hard links, and unfinished tables set aside.

use std::path::Path;

use super::manifest::{self, Manifest};
use super::{OutputKey, Quarantined, RunLock, StoreError, checkpoint, files};
use crate::dag::fingerprint::Fingerprint;

impl RunLock {
    /// Links the finished output `fingerprint` from the cache into the run, at once, replacing what is there.
    ///
    /// Returns whether it did: not if the cache has it no more, or has it damaged. Then the entry is set aside and reported, and the
    /// output is to be made.
    ///
    /// # Errors
    /// Files cannot be read or linked, or the fingerprint is that of another kind of output.
    pub fn adopt(&self, place: &OutputKey, fingerprint: &Fingerprint) -> Result<(bool, Vec<Quarantined>), StoreError> {
        place.check()?;
        let reports = self.verify_cached(place, fingerprint)?;
        let entry = self.cache_entry(fingerprint);
        let Some(mut manifest) = Manifest::read(&entry)? else { return Ok((false, reports)) };
        if manifest.kind != place.kind {
            let (fingerprint, expected) = (fingerprint.clone(), place.to_string());
            return Err(StoreError::TwoOutputs { fingerprint, expected, found: manifest.describe() });
        }
        manifest.node.clone_from(&place.name);
        manifest.iteration = place.iteration;
        let made = self.temporary()?;
        match link_all(&entry, &made, &manifest) {
            // Another run found it damaged just now, and moved it aside.
            Err(error) if error.is_not_found() => return Ok((false, reports)),
            linked => linked?,
        }
        manifest.write(&made, &self.temporary()?)?;
        self.put_in_place(&made, place)?;
        self.remember(&self.path(place), &manifest);
        checkpoint::remove(self, fingerprint)?;
        Ok((true, reports))
    }

    /// Shares a finished output; where the cache has it already, that stays. `folder` has the files that `manifest`, which says complete, lists.
    pub(super) fn publish(&self, place: &OutputKey, folder: &Path, manifest: &Manifest) -> Result<(), StoreError> {
        let entry = self.cache_entry(&manifest.fingerprint);
        self.verify_cached(place, &manifest.fingerprint)?;
        if let Some(there) = Manifest::read(&entry)? {
            if (there.kind, there.table) != (manifest.kind, manifest.table) {
                let (fingerprint, expected) = (manifest.fingerprint.clone(), manifest.describe());
                return Err(StoreError::TwoOutputs { fingerprint, expected, found: there.describe() });
            }
            return Ok(());
        }
        let made = self.cache_temporary()?;
        link_all(folder, &made, manifest)?;
        manifest.write(&made, &self.cache_temporary()?)?;
        match files::rename(&made, &entry) {
            // Another run published the same at the same time: the first stays.
            Err(_) if entry.is_dir() && made.is_dir() => files::remove(&made),
            result => result,
        }
    }

    /// Moves a folder made elsewhere to its place. What was there goes the way of [`Self::retire`].
    pub(super) fn put_in_place(&self, made: &Path, place: &OutputKey) -> Result<(), StoreError> {
        self.retire(place)?;
        let folder = self.path(place);
        if let Some(parent) = folder.parent() {
            files::create_folder(parent)?;
        }
        files::rename(made, &folder)
    }

    /// Empties a place without losing work: a finished output stays in the cache, the parts of an unfinished table are set aside there.
    ///
    /// A node that once ran once and now runs every iteration, or the other way round, has its old outputs in the way: they go too.
    ///
    /// # Errors
    /// Files cannot be linked or moved.
    pub fn retire(&self, place: &OutputKey) -> Result<(), StoreError> {
        place.check()?;
        let once = OutputKey { iteration: None, ..place.clone() };
        if place.iteration.is_none() || Manifest::read(&self.path(&once)).is_ok_and(|manifest| manifest.is_some()) {
            for folder in files::list(&self.path(&once))? {
                if let Some(iteration) = OutputKey::iteration_of(&files::file_name(&folder)) {
                    self.retire_one(&OutputKey { iteration: Some(iteration), ..place.clone() })?;
                }
            }
            self.retire_one(&once)?;
        }
        self.retire_one(place)
    }

    fn retire_one(&self, place: &OutputKey) -> Result<(), StoreError> {
        let folder = self.path(place);
        if !folder.exists() {
            return Ok(());
        }
        match Manifest::read(&folder) {
            Ok(Some(manifest)) if manifest.looks_complete(&folder) => self.publish(place, &folder, &manifest)?,
            Ok(Some(manifest)) if !manifest.parts.is_empty() && !self.cache_entry(&manifest.fingerprint).is_dir() => {
                return self.set_aside(&folder, &manifest);
            }
            Err(StoreError::Manifest { .. }) => return self.move_aside(&folder, &place.word()).map(drop),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        self.discard(&folder)
    }

    /// Moves an unfinished table's folder to the cache; where one is already, the one with more parts stays.
    fn set_aside(&self, folder: &Path, manifest: &Manifest) -> Result<(), StoreError> {
        let aside = self.aside(&manifest.fingerprint);
        files::create_folder(&self.runs().cache())?;
        let trash = self.temporary()?;
        let fewer = Manifest::read(&aside).ok().flatten().is_none_or(|there| there.parts.len() < manifest.parts.len());
        if aside.exists() && fewer {
            files::rename(&aside, &trash)?;
        } else if aside.exists() {
            files::rename(folder, &trash)?;
            return files::remove(&trash);
        }
        files::rename(folder, &aside)?;
        files::remove(&trash)
    }

    /// Brings an unfinished table back from the cache; whether there was one.
    pub(super) fn take_back(&self, place: &OutputKey, fingerprint: &Fingerprint) -> Result<bool, StoreError> {
        let (aside, folder) = (self.aside(fingerprint), self.path(place));
        if !aside.is_dir() {
            return Ok(false);
        }
        if let Some(parent) = folder.parent() {
            files::create_folder(parent)?;
        }
        match files::rename(&aside, &folder) {
            // Another run of the same recipe was faster.
            Err(error) if error.is_not_found() => return Ok(false),
            result => result?,
        }
        // The caller verifies what is not as it was.
        if let Ok(Some(mut manifest)) = Manifest::read(&folder) {
            manifest.node.clone_from(&place.name);
            manifest.iteration = place.iteration;
            manifest.write(&folder, &self.temporary()?)?;
        }
        Ok(true)
    }
}

/// Links every file that `manifest` lists from one folder into a new one, durably. The manifest itself is for the caller.
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
