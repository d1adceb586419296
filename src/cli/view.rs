//! `optune view`: a local web page over runs.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::format;
use crate::store::{Run, Runs};
use crate::view::{ServeError, serve};

#[derive(Args)]
pub(super) struct View {
    /// The runs: their names, or their folders. Without one, all runs of the folder.
    #[arg(value_name = "RUN")]
    run: Vec<PathBuf>,
    /// The port, on this machine alone; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 8042)]
    port: u16,
}

impl View {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let folder = Runs::open(runs)?;
        let mut named: Vec<Run> = Vec::with_capacity(self.run.len());
        for name in &self.run {
            let run = folder.find(name)?;
            // A shell's pattern may repeat a named run.
            if named.iter().all(|other| other.folder() != run.folder()) {
                named.push(run);
            }
        }
        if named.is_empty() && folder.names()?.is_empty() {
            let problem = format!("expected a run in {}, found none; name a run, or its folder by --runs", folder.root().display());
            return Err(CliError::Input(problem));
        }
        let what = match named.as_slice() {
            [] => format!("all runs in {}", folder.root().display()),
            [run] => run.name().to_string(),
            several => format!("{} runs", several.len()),
        };
        Ok(serve(crate::view::View::new(folder, named), self.port, |address| listening(&what, address))?)
    }
}

/// Prints where to look. A closed standard output is no reason to refuse service.
fn listening(what: &str, address: &str) {
    let _ = format::print(&format!("{what}: {address}\nfor this machine only, with this token; end: Ctrl-C"));
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Listen { .. } => Self::Input(error.to_string()),
            ServeError::Start(_) => Self::Failed(error.to_string()),
        }
    }
}
