//! The store: what is committed survives anything, what is damaged is never used, what is finished is never made twice.

mod clean;
mod crash;
mod damage;
mod input;
mod kept;
mod questions;
mod resume;
mod session;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow::array::RecordBatch;
use optune::dag::fingerprint::{Fingerprint, Recipe};
use optune::disk;
use optune::store::{OutputKey, Run, RunLock, Runs, StoreError};
use optune::tables::{TableKind, pool};
use tempfile::TempDir;

use crate::tables::{Draw, pool_rows};

/// A folder for runs that is gone after the test.
pub struct Space {
    folder: TempDir,
}

impl Space {
    pub fn new() -> Self {
        // Where there is a file system in memory, flushing costs nothing; these tests flush tens of thousands of times.
        Self { folder: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap() }
    }

    pub fn runs(&self) -> Runs {
        Runs::open(self.folder.path().join("runs")).unwrap()
    }

    pub fn run(&self, name: &str) -> Run {
        self.runs().run(name).unwrap()
    }

    pub fn lock(&self, name: &str) -> RunLock {
        locked(&self.run(name)).unwrap()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A recipe that differs from others by its `ratio`.
pub fn recipe(ratio: f64) -> Recipe {
    Recipe {
        operator: "merge".into(),
        version: 1,
        seed: Some((17, 1)),
        settings: [("ratio".to_string(), ratio.into())].into(),
        inputs: [("fresh".to_string(), vec![Fingerprint::from_contents(b"fresh")])].into(),
    }
}

pub const INPUT_ROWS: usize = 10;
pub const PART_ROWS: usize = 4;

/// The part of a pool that `recipe(ratio)` makes: two rows an input row.
pub fn part(ratio: f64, part: usize) -> RecordBatch {
    let rows = INPUT_ROWS.min((part + 1) * PART_ROWS) - part * PART_ROWS;
    let mut rows = pool_rows(&mut Draw((ratio * 1000.0) as u64 * 100 + part as u64), rows * 2);
    rows.iter_mut().for_each(|row| row.prompt_id.insert_str(0, &format!("{part} ")));
    pool::batch(&rows)
}

pub fn counts() -> BTreeMap<String, i64> {
    [("prompts".to_string(), 10)].into()
}

/// Commits up to `limit` missing parts and finishes if that is all of them. Returns the parts it made.
pub fn make_table(lock: &RunLock, place: &OutputKey, ratio: f64, limit: usize) -> Result<Vec<usize>, StoreError> {
    let mut writer = lock.write_table(place, &recipe(ratio), Some(TableKind::Pool), INPUT_ROWS, PART_ROWS)?;
    let made: Vec<usize> = writer.missing().into_iter().take(limit).collect();
    for index in &made {
        writer.commit(*index, &part(ratio, *index))?;
    }
    if writer.missing().is_empty() {
        writer.finish(counts())?;
    }
    Ok(made)
}

/// Writes a model of two files, one in a folder.
pub fn make_model(lock: &RunLock, place: &OutputKey, ratio: f64) -> Result<(), StoreError> {
    let writer = lock.write_model(place, &recipe(ratio))?;
    write(&writer.dir().join("config.json"), format!("{{\"ratio\": {ratio}}}").as_bytes())?;
    fs::create_dir(writer.dir().join("original")).unwrap();
    write(&writer.dir().join("original/model.safetensors"), &[7; 1000])?;
    writer.finish(counts()).map(drop)
}

/// A file as models and checkpoints write theirs.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    disk::write(path, bytes).map_err(|source| StoreError::Io { action: "write", path: path.into(), source })
}

/// Every file under a folder with its bytes.
pub fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().display().to_string(), fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Changes one bit in the middle of a file, in place.
pub fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

pub fn rows_of(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Locks a run. Other tests of this process start programs, and a child has the parent's files until it becomes another program: a lock
/// that this process has just given back may seem held for that moment.
pub fn locked(run: &Run) -> Result<RunLock, StoreError> {
    for _ in 0..1000 {
        match run.lock() {
            Err(StoreError::Locked { holder: Some(holder), .. }) if holder == std::process::id() => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            result => return result,
        }
    }
    run.lock()
}
