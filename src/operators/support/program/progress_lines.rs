//! Lines of a program about its progress, `progress: 12/100`, read from its log as it grows.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::Progress;
use crate::disk;

/// The beginning of a line about progress.
const PREFIX: &str = "progress:";

/// The longest line that can be one about progress, in bytes; the rest of a longer one is skipped.
const LONGEST_BYTES: usize = 4096;

/// The most bytes read at a time.
const READ_BYTES: usize = 1 << 16;

/// A log in growth.
pub(super) struct ProgressLines {
    path: PathBuf,
    /// The bytes read so far.
    read: u64,
    /// The beginning of an unfinished line.
    line: Vec<u8>,
    /// The last total.
    total: Option<u64>,
}

impl ProgressLines {
    /// The lines of a log from a place on.
    pub(super) fn new(path: &Path, begin: u64) -> Self {
        Self { path: path.to_path_buf(), read: begin, line: Vec::new(), total: None }
    }

    /// Tells the observer of `node` the newest progress, if there is any. Progress is for people:
    /// an unreadable log is no error here.
    pub(super) fn tell(&mut self, node: &str, progress: &dyn Progress) {
        let mut newest = None;
        while let Some(bytes) = self.more() {
            newest = self.add(&bytes).or(newest);
        }
        let Some((done, total)) = newest else { return };
        if self.total != Some(total) {
            progress.measured(node, total);
            self.total = Some(total);
        }
        progress.advanced(node, done, 0);
    }

    /// The next bytes; none at the end.
    fn more(&mut self) -> Option<Vec<u8>> {
        let mut file = disk::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.read)).ok()?;
        let mut bytes = vec![0; READ_BYTES];
        let count = file.read(&mut bytes).ok().filter(|count| *count > 0)?;
        bytes.truncate(count);
        self.read += count as u64;
        Some(bytes)
    }

    /// The last progress in these bytes, which follow the ones before.
    fn add(&mut self, bytes: &[u8]) -> Option<(u64, u64)> {
        let mut newest = None;
        for byte in bytes {
            if [b'\n', b'\r'].contains(byte) {
                newest = parse(&self.line).or(newest);
                self.line.clear();
            } else if self.line.len() < LONGEST_BYTES {
                self.line.push(*byte);
            }
        }
        newest
    }
}

/// The done and the total of a line `progress: 12/100`.
fn parse(line: &[u8]) -> Option<(u64, u64)> {
    let (done, total) = std::str::from_utf8(line).ok()?.trim().strip_prefix(PREFIX)?.split_once('/')?;
    let (done, total) = (done.trim().parse().ok()?, total.trim().parse().ok()?);
    (done <= total).then_some((done, total))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ProgressLines, parse};

    #[test]
    fn only_whole_lines_with_two_numbers_are_progress() {
        assert_eq!(parse(b"progress: 12/100"), Some((12, 100)));
        assert_eq!(parse(b"  progress:1 / 2 "), Some((1, 2)));
        for other in ["progress 12/100", "progress: 12", "progress: x/100", "progress: -1/3", "progress: 4/3", "in progress: 1/2"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
        let mut lines = ProgressLines::new(Path::new("none"), 0);
        assert_eq!(lines.add(b"loading\nprogr"), None);
        assert_eq!(lines.add(b"ess: 1/3\nprogress: 2/3\nprogress: 3/"), Some((2, 3)));
        assert_eq!(lines.add(b"3\r"), Some((3, 3)));
    }
}
