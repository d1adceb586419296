//! Repositories of the hub: models and datasets, and which of their files are wanted.

use std::fmt;

use glob::{MatchOptions, Pattern};
use hf_hub::{Repo, RepoType};

/// The files of a model besides its weights.
const FILES: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
];

/// `*` ends at a `/`, as in local patterns.
const MATCHING: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Files of a repository at a revision.
#[derive(Clone, Copy, Debug)]
pub struct HubRepo<'a> {
    /// Organisation and name, with `/`.
    pub repo: &'a str,
    /// A branch, tag or commit.
    pub revision: &'a str,
    /// The kind of the repository, and the wanted files.
    pub files: HubFiles<'a>,
}

/// The kind of a repository, and the wanted files.
#[derive(Clone, Copy, Debug)]
pub enum HubFiles<'a> {
    /// A model: everything to load it.
    Model,
    /// A dataset: the file with this name, else all files of this pattern.
    Dataset(&'a Pattern),
}

impl HubRepo<'_> {
    /// The address of its page below the hub's.
    pub fn page(&self) -> String {
        match self.files {
            HubFiles::Model => self.repo.to_string(),
            HubFiles::Dataset(_) => format!("datasets/{}", self.repo),
        }
    }

    /// The repository in the cache.
    pub(super) fn in_cache(&self) -> Repo {
        let kind = match self.files {
            HubFiles::Model => RepoType::Model,
            HubFiles::Dataset(_) => RepoType::Dataset,
        };
        Repo::with_revision(self.repo.to_string(), kind, self.revision.to_string())
    }
}

impl fmt::Display for HubRepo<'_> {
    /// As in the pipeline file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.files {
            HubFiles::Model => write!(f, "hf://{}@{}", self.repo, self.revision),
            HubFiles::Dataset(pattern) => write!(f, "hf://datasets/{}@{}/{pattern}", self.repo, self.revision),
        }
    }
}

impl HubFiles<'_> {
    /// Whether a file is wanted.
    pub(super) fn wants(self, name: &str) -> bool {
        match self {
            HubFiles::Model => is_needed(name),
            HubFiles::Dataset(pattern) => name == pattern.as_str() || pattern.matches_with(name, MATCHING),
        }
    }

    /// Whether the names of the wanted files are known only from a list of all files.
    pub(super) fn is_pattern(self) -> bool {
        matches!(self, HubFiles::Dataset(pattern) if pattern.as_str().contains(['*', '?', '[']))
    }

    /// The kind in an error.
    pub(super) fn noun(self) -> &'static str {
        match self {
            HubFiles::Model => "model",
            HubFiles::Dataset(_) => "dataset",
        }
    }

    /// The kind in the API's addresses.
    pub(super) fn api(self) -> &'static str {
        match self {
            HubFiles::Model => "models",
            HubFiles::Dataset(_) => "datasets",
        }
    }
}

/// Whether a file of a repository is part of a model as it is loaded here and elsewhere from
/// safetensors.
fn is_needed(name: &str) -> bool {
    let is_shard = name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c));
    plain && (FILES.contains(&name) || name == "model.safetensors" || is_shard)
}

/// Whether a file describes the model; for an adapter, its base.
pub(super) fn is_config(name: &str) -> bool {
    matches!(name, "config.json" | "adapter_config.json")
}

/// Whether a name stays within a folder.
pub(super) fn is_within(name: &str) -> bool {
    let plain = |part: &str| !["", ".", ".."].contains(&part) && !part.contains(|c: char| c == '\\' || c.is_control());
    name.split('/').all(plain)
}
