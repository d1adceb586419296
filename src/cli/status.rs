//! `optune status`: how far a run is.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use super::format::print;
use crate::store::Runs;

#[derive(Args)]
pub(super) struct Status {
    /// The run: its name, or its folder.
    run: PathBuf,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let run = Runs::open(runs)?.find(&self.run)?;
        let mut lines = Vec::new();
        for (place, manifest) in run.manifests()? {
            let (done, of) = (manifest.parts.len(), manifest.part_count);
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
            lines.push(if run.is_locked()? { "running".to_string() } else { "not running".to_string() });
        }
        print(&lines.join("\n"))
    }
}
