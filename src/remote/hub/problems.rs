//! What cannot be had from the hub, and what can be done about it.

use ureq::http::{HeaderMap, StatusCode};

use super::super::attempts::Trouble;
use super::super::error::RemoteError;
use super::repo::{HubFiles, HubRepo, is_config, is_within};
use super::{Hub, Sibling};

/// The longest list of a repository's files in an error.
const MOST_SHOWN: usize = 10;
/// From this number of files on, the hub's list of a repository may be cut.
const LONGEST_LIST: usize = 50_000;

impl Hub {
    /// Checks that the wanted files are there, and that their names stay within the cache.
    pub(super) fn check_wanted(&self, repo: HubRepo, all: &[Sibling], wanted: &[&Sibling]) -> Result<(), RemoteError> {
        let HubFiles::Dataset(pattern) = repo.files else {
            if wanted.iter().any(|sibling| is_config(&sibling.rfilename)) {
                return Ok(());
            }
            return Err(self.problem(repo, "expected a model in Hugging Face's format, found a repository without config.json", true));
        };
        if let Some(outside) = wanted.iter().find(|sibling| !is_within(&sibling.rfilename)) {
            return Err(self.problem(repo, &format!("expected names of files, found {:?}", outside.rfilename), false));
        }
        if repo.files.is_pattern() && all.len() >= LONGEST_LIST {
            let problem =
                format!("expected fewer than {LONGEST_LIST} files in the repository of a pattern, found {}; name each file", all.len());
            return Err(self.problem(repo, &problem, true));
        }
        if !wanted.is_empty() {
            return Ok(());
        }
        let written = pattern.as_str().trim_end_matches('/');
        let is_folder = all.iter().any(|sibling| sibling.rfilename.strip_prefix(written).is_some_and(|rest| rest.starts_with('/')));
        let problem = if is_folder {
            format!("expected a file, but \"{written}\" is a folder; to read all in it, end with /*")
        } else {
            let names: Vec<&str> = all.iter().map(|sibling| sibling.rfilename.as_str()).filter(|name| !name.starts_with('.')).collect();
            let more = if names.len() > MOST_SHOWN { format!(" and {} more", names.len() - MOST_SHOWN) } else { String::new() };
            let shown = names.iter().take(MOST_SHOWN).copied().collect::<Vec<_>>().join(", ");
            format!("expected a file or files \"{written}\", found {}{more}", if shown.is_empty() { "none at all" } else { &shown })
        };
        Err(self.problem(repo, &problem, true))
    }

    /// The meaning of a status. A header of the hub names the missing thing.
    pub(super) fn check_status(&self, repo: HubRepo, status: StatusCode, headers: &HeaderMap) -> Result<(), Trouble> {
        let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let how = if self.token.is_some() { "the token that was found has none" } else { "there is no token; put one into HF_TOKEN" };
        let page = self.page(repo);
        let noun = repo.files.noun();
        let problem = match (status.as_u16(), code) {
            (200..=299, _) => return Ok(()),
            (_, "RevisionNotFound") => {
                format!("expected a branch, tag or commit \"{}\", found none; see {page}/commits/main", repo.revision)
            }
            (_, "GatedRepo") => format!("expected access to a gated {noun}: {how}; ask for access at {page}"),
            (_, "RepoNotFound") | (404, "") => format!("expected a {noun} at {page}, found none, or a private one: {how}"),
            (401 | 403, _) => format!("expected access to {page}, found status {status}: {how}"),
            (408 | 416 | 425 | 429 | 500.., _) => return Err(Trouble::Again(format!("{page}: status {status}"))),
            (_, code) => format!("{page}: found status {status} {code}"),
        };
        Err(Trouble::Final(self.problem(repo, &problem, true)))
    }

    /// The error of the last attempt.
    pub(super) fn gave_up(&self, repo: HubRepo, problem: &str) -> RemoteError {
        self.problem(repo, &format!("{problem}; without a network, HF_HUB_OFFLINE=1 uses what is in the cache"), false)
    }

    pub(super) fn problem(&self, repo: HubRepo, problem: &str, input: bool) -> RemoteError {
        let shown = self.token.as_ref().map_or_else(|| problem.to_string(), |token| problem.replace(token, "***"));
        RemoteError::Fetch { address: repo.to_string(), problem: shown, input }
    }
}
