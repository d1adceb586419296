//! Event files, a folder a node: TensorBoard shows each as a run, and lays curves with a common tag
//! over each other.
//!
//! A process begins its own files with all committed points and removes those of the process
//! before: each step is there once, and none is missing. Then it appends.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::TrackingError;
use super::event_file;
use super::series::Series;
use super::sink::{Ended, Sink};
use crate::disk;

/// The ending of this program's files; others in the folder are left alone.
const SUFFIX: &str = ".optune";

pub(super) struct TensorBoard {
    folder: PathBuf,
    /// The file of each node that has one.
    files: BTreeMap<String, Written>,
}

struct Written {
    path: PathBuf,
    /// How many points of each tag it has.
    points: BTreeMap<String, usize>,
}

impl TensorBoard {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, files: BTreeMap::new() }
    }

    /// Appends the points missing in a node's file. After a failed write the next call begins the
    /// file anew.
    fn append(&mut self, node: &str, series: &Series) -> Result<(), TrackingError> {
        let written = match self.files.remove(node) {
            Some(written) => written,
            None => self.begin(node)?,
        };
        let Written { path, mut points } = written;
        let mut bytes = Vec::new();
        // In the order of their steps, as a reader expects.
        let mut fresh: Vec<_> = series
            .iter()
            .filter(|(name, _)| name.node == node)
            .flat_map(|(name, all)| {
                all.iter().skip(points.get(&name.tag).copied().unwrap_or(0)).map(|point| (point.step, &name.tag, point))
            })
            .collect();
        fresh.sort_by_key(|(step, tag, _)| (*step, *tag));
        for (step, tag, point) in fresh {
            bytes.extend(event_file::scalar(point.at as f64 / 1000.0, step, tag, point.value));
            *points.entry(tag.clone()).or_default() += 1;
        }
        if !bytes.is_empty() {
            let failed = |source| TrackingError::Write { path: path.clone(), source };
            disk::File::open(&path).and_then(|mut file| file.write_all(&bytes)).map_err(failed)?;
        }
        self.files.insert(node.to_string(), Written { path, points });
        Ok(())
    }

    /// A new file for a node, in the place of those of earlier processes.
    fn begin(&self, node: &str) -> Result<Written, TrackingError> {
        let folder = self.folder.join(node);
        let failed = |source| TrackingError::Write { path: folder.clone(), source };
        disk::create_folder(&self.folder).and_then(|()| disk::create_folder(&folder)).map_err(failed)?;
        let old: Vec<PathBuf> = disk::list(&folder).map_err(failed)?.into_iter().filter(|path| is_ours(path)).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = folder.join(format!("events.out.tfevents.{}.{}{SUFFIX}", now.as_secs(), now.subsec_nanos()));
        for old in old {
            disk::remove(&old).map_err(failed)?;
        }
        let seconds = now.as_secs_f64();
        let bytes = [event_file::version(seconds), event_file::start(seconds)].concat();
        disk::File::open(&path).and_then(|mut file| file.write_all(&bytes)).map_err(failed)?;
        Ok(Written { path, points: BTreeMap::new() })
    }
}

fn is_ours(path: &std::path::Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("events.out.tfevents.") && name.ends_with(SUFFIX)
}

impl Sink for TensorBoard {
    fn name(&self) -> &'static str {
        "tensorboard"
    }

    fn show(&mut self, series: &Series) -> Result<(), TrackingError> {
        let mut nodes: Vec<&str> = series.keys().map(|name| name.node.as_str()).collect();
        nodes.dedup();
        nodes.into_iter().try_for_each(|node| self.append(node, series))
    }

    fn end(&mut self, _: Ended) -> Result<(), TrackingError> {
        Ok(())
    }
}
