//! `optune status`: the progress of a run.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::format::print;
use super::sweep;
use crate::store::{Quarantined, Run, Runs, Verified};

#[derive(Args)]
pub(super) struct Status {
    /// The run: its name, or its folder. The name of a sweep shows all its runs.
    run: PathBuf,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
    /// Compare every byte of the run, and of its outputs in the cache, with its hash; exit code 1
    /// where anything is damaged.
    #[arg(long)]
    verify: bool,
}

impl Status {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let runs = Runs::open(runs)?;
        if let Some(of_sweep) = sweep::runs_of(&runs, &self.run)? {
            if self.verify {
                return of_sweep.iter().try_for_each(|run| self.verify(run));
            }
            return sweep::show_status(&of_sweep, self.json);
        }
        let run = runs.find(&self.run)?;
        if self.verify {
            return self.verify(&run);
        }
        let mut lines = Vec::new();
        for (place, manifest) in run.manifests()? {
            let done = manifest.parts.len();
            let of = manifest.part_count;
            let label = manifest.iteration.map_or(manifest.node.clone(), |iteration| format!("{}[{iteration}]", manifest.node));
            let state = if manifest.complete { "done".to_string() } else { format!("{done} of {of} parts") };
            lines.push(if self.json {
                serde_json::json!({
                    "node": place.name, "kind": place.kind.name(), "iteration": manifest.iteration, "complete": manifest.complete,
                    "parts": done, "part_count": of, "counts": manifest.counts,
                })
                .to_string()
            } else {
                let counts: Vec<String> = manifest.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
                format!("{label:34} {state:18} {}", counts.join(", "))
            });
        }
        if !self.json {
            lines.push(match run.is_locked() {
                Some(true) => "running".to_string(),
                Some(false) => "not running".to_string(),
                None => "unknown whether it is running: no locks on this file system, or no right to read its lock".to_string(),
            });
        }
        print(&lines.join("\n"))
    }

    /// Prints the damaged files on standard output: they are the requested result.
    fn verify(&self, run: &Run) -> Result<(), CliError> {
        let Verified { compared, damaged } = run.verify_all()?;
        let line = |bad: &Quarantined| {
            if self.json {
                serde_json::json!({ "path": bad.path, "expected": bad.expected, "found": bad.found }).to_string()
            } else {
                bad.to_string()
            }
        };
        let mut lines: Vec<String> = damaged.iter().map(line).collect();
        if !self.json {
            lines.push(format!("{compared} outputs and files compared, {} damaged", damaged.len()));
        }
        print(&lines.join("\n"))?;
        let way_on = match damaged.len() {
            0 => return Ok(()),
            _ if run.is_locked() == Some(true) => "the run is being written; compare it again when that is done",
            _ => "run the pipeline again to set aside what is damaged and to make it anew",
        };
        Err(CliError::Failed(way_on.to_string()))
    }
}
