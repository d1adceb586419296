//! `--push hf://org/name` of `optune export`: what was exported goes to the Hugging Face hub, with a
//! card.
//!
//! Knows the names of repositories, not how files get there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use glob::Pattern;

use super::error::CliError;
use super::format;
use super::interrupt::{is_stopped, listen};
use super::progress::watcher;
use crate::operators::OperatorError;
use crate::remote::{Hub, HubFiles, HubRepo};

/// The name of a card in its repository.
const CARD: &str = "README.md";
const MAIN: &str = "main";
const MEGABYTE: u64 = 1_000_000;

#[derive(Args)]
pub(super) struct Push {
    /// Push to this repository of the Hugging Face hub, with a card made from the run:
    /// `hf://org/name` for a model, `hf://datasets/org/name` for pairs; `@branch` may follow. A
    /// repository that is not there is made. The token is that of `HF_TOKEN`.
    #[arg(long = "push", id = "push", value_name = "HF")]
    to: Option<String>,
    /// Make a new repository private.
    #[arg(long, requires = "push")]
    private: bool,
}

/// The kind of a repository.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

/// Where something is pushed to.
pub(super) struct Target {
    kind: Kind,
    repo: String,
    branch: String,
    private: bool,
    /// No file of a dataset is wanted from there.
    none: Pattern,
    hub: Hub,
}

impl Push {
    /// The repository, if one is named.
    pub(super) fn target(self, kind: Kind) -> Result<Option<Target>, CliError> {
        let Some(written) = self.to else { return Ok(None) };
        let form = match kind {
            Kind::Model => "hf://org/name",
            Kind::Dataset => "hf://datasets/org/name",
        };
        let parsed = written.strip_prefix("hf://").and_then(|rest| parse(rest, kind));
        let (repo, branch) =
            parsed.ok_or_else(|| CliError::Input(format!("--push: expected {form} or {form}@branch, found {written:?}")))?;
        let hub = Hub::from_env().map_err(OperatorError::from)?;
        listen("ending; press Ctrl-C again to end at once")?;
        Ok(Some(Target { kind, repo, branch, private: self.private, none: Pattern::default(), hub }))
    }
}

/// Organisation and name, and the branch.
fn parse(rest: &str, kind: Kind) -> Option<(String, String)> {
    let rest = match (kind, rest.strip_prefix("datasets/")) {
        (Kind::Dataset, rest) => rest?,
        (Kind::Model, Some(_)) => return None,
        (Kind::Model, None) => rest,
    };
    let (repo, branch) = rest.split_once('@').unwrap_or((rest, MAIN));
    let plain = |part: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
        !part.is_empty() && part.len() <= 96 && part.chars().all(is_plain) && !part.starts_with(['-', '.']) && !part.contains("..")
    };
    let (organization, name) = repo.split_once('/')?;
    let is_branch = !branch.is_empty() && branch.chars().all(|c| c.is_ascii_graphic() && !"?#%\\~^:*[".contains(c));
    (plain(organization) && plain(name) && is_branch).then(|| (repo.to_string(), branch.to_string()))
}

impl Target {
    /// Organisation and name.
    pub(super) fn repo(&self) -> &str {
        &self.repo
    }

    /// Pushes a folder and the card, and prints where the commit is. Ctrl-C ends it; the same
    /// command does not send again what the hub has.
    pub(super) fn push(&self, folder: &Path, card: &str, summary: &str) -> Result<(), CliError> {
        let path = folder.join(CARD);
        fs::write(&path, card)?;
        let files = match self.kind {
            Kind::Model => HubFiles::Model,
            Kind::Dataset => HubFiles::Dataset(&self.none),
        };
        let repo = HubRepo { repo: &self.repo, revision: &self.branch, files };
        let progress = watcher(false);
        let node = "push";
        let (start, mut is_shown) = (Instant::now(), false);
        let mut observe = |sent: u64, total: u64| {
            if !std::mem::replace(&mut is_shown, true) {
                progress.started(node, "MB", 0, total / MEGABYTE);
            }
            progress.advanced(node, sent / MEGABYTE, 0);
        };
        let pushed = self.hub.push(repo, folder, self.private, summary, &is_stopped, &mut observe).map_err(OperatorError::from)?;
        if is_shown {
            progress.finished(node, "uploaded", start.elapsed().as_secs_f64());
        }
        format::print(&format!("commit {} at {}", pushed.commit, pushed.url))
    }
}

/// Something exported: where the user wants it, or in a folder that is removed afterwards.
pub(super) enum Made {
    /// At the user's path.
    Kept(PathBuf),
    /// In a folder beside the runs.
    Removed {
        /// The folder to remove.
        folder: PathBuf,
        /// The place in it.
        path: PathBuf,
    },
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Self::Removed { folder, .. } = self {
            // What is left of it is in nobody's way: its name begins with a dot.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

impl Made {
    /// A place for an export: `output`, or a new place called `name` beside the runs.
    pub(super) fn at(output: Option<PathBuf>, runs: &Path, name: &str) -> Result<Self, CliError> {
        if let Some(output) = output {
            return Ok(Self::Kept(output));
        }
        let folder = runs.join(format!(".export-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let path = folder.join(name);
        Ok(Self::Removed { folder, path })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Removed { path, .. } => path,
        }
    }

    /// The path, if it stays.
    pub(super) fn is_kept(&self) -> Option<&Path> {
        match self {
            Self::Kept(path) => Some(path),
            Self::Removed { .. } => None,
        }
    }
}
