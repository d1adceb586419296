//! Where the cache of the Hugging Face hub has a model: the layout and the environment of its
//! Python library. Looks only; `remote` fetches. Knows nothing of a model's content.

use std::fs;
use std::path::PathBuf;

/// The branch that is meant where none is named.
pub(super) const MAIN: &str = "main";

/// The folder of the cache by the environment: HF_HUB_CACHE, HF_HOME or XDG_CACHE_HOME; `None`
/// where there is no home directory either.
fn folder() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || path("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache"))).map(|cache| cache.join("huggingface"));
    let home = || path("HF_HOME").or_else(user);
    path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home()?.join("hub")))
}

/// Whether it has the form of a repository's name: `org/name`.
pub(super) fn is_repo(name: &str) -> bool {
    let is_part = |part: &str| {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c));
        plain && part.starts_with(|c: char| c.is_ascii_alphanumeric())
    };
    name.matches('/').count() == 1 && name.split('/').all(is_part)
}

/// Whether it has the form of a branch, tag or commit.
pub(super) fn is_revision(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.', '/'].contains(&c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) && !name.contains("..")
}

/// The snapshot of a model at a branch, tag or commit; `None` where the cache has none.
pub(super) fn snapshot(repo: &str, revision: &str) -> Option<PathBuf> {
    let folder = folder()?.join(format!("models--{}", repo.replace('/', "--")));
    let noted = fs::read_to_string(folder.join("refs").join(revision)).ok();
    let commit = noted.as_deref().map_or(revision, str::trim);
    let snapshot = folder.join("snapshots").join(commit);
    snapshot.is_dir().then_some(snapshot)
}
