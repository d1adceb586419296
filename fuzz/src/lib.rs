//! What each fuzz target does with an input. The targets of `cargo fuzz` call it, and so does the main test program, over the seeds, what was
//! found before and mutations of them.
//!
//! A target may refuse its input, but must say why; it must not panic, take seconds, or memory out of proportion. Knows only what is public.

mod import;
mod model;
mod pipeline;
mod store;
mod template;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use import::import;
pub use model::model;
pub use pipeline::pipeline;
pub use store::store;
pub use template::template;

/// A target: takes any bytes, and panics only where something is wrong with the code.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 5] =
    [("pipeline", pipeline), ("import", import), ("store", store), ("model", model), ("template", template)];

/// The folder that a target has its files in: one for each process and target, in memory where there is such a file system.
fn folder(target: &str, fill: fn(&Path)) -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        // A library's panic that becomes an error is none, to libFuzzer either.
        optune::catch_panic::silence_caught_panics();
        let memory = Path::new("/dev/shm");
        let parent = if std::env::var_os("TMPDIR").is_none() && memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        parent.join(format!("optune-fuzz-{}", std::process::id()))
    });
    let folder = root.join(target);
    if !folder.is_dir() {
        fs::create_dir_all(&folder).unwrap();
        fill(&folder);
    }
    folder
}

/// The first line, which says what the rest is, and the rest.
fn headed(bytes: &[u8]) -> (&str, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    (std::str::from_utf8(line).unwrap_or_default(), rest.get(1..).unwrap_or_default())
}

/// That a refusal says something.
fn said(problem: impl std::fmt::Display) {
    assert!(!problem.to_string().trim().is_empty(), "refused without a word");
}
