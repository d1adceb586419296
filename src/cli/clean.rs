//! `optune clean`: removes unneeded files.

use std::path::Path;

use clap::Args;

use super::error::CliError;
use super::format::print;
use crate::store::Runs;

#[derive(Args)]
pub(super) struct Clean {
    /// Say what would be removed, without removing it.
    #[arg(long)]
    dry_run: bool,
}

impl Clean {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let runs = Runs::open(runs)?;
        let garbage = runs.garbage()?;
        let mut bytes = 0;
        for piece in &garbage {
            bytes += piece.bytes;
            print(&format!("{} ({} bytes): {}", piece.path.display(), piece.bytes, piece.why))?;
        }
        if !self.dry_run {
            bytes = runs.remove(&garbage)?;
        }
        let what = if self.dry_run { "would be removed" } else { "removed" };
        print(&format!("{} of {:.1} MB {what}", counted(garbage.len()), bytes as f64 / 1e6))
    }
}

fn counted(count: usize) -> String {
    if count == 1 { "1 thing".to_string() } else { format!("{count} things") }
}
