//! `optune report`: an HTML file about a run, or about several compared.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::format::print;
use crate::report::{ReportError, html};
use crate::store::Runs;

#[derive(Args)]
pub(super) struct Report {
    /// The runs: their names, or their folders. One is shown in full, several are compared.
    #[arg(required = true, value_name = "RUN")]
    run: Vec<PathBuf>,
    /// The file to write; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

impl Report {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let folder = Runs::open(runs)?;
        let mut found = Vec::with_capacity(self.run.len());
        for name in &self.run {
            let run = folder.find(name)?;
            // A shell's pattern may repeat a named run.
            if found.iter().all(|other: &crate::store::Run| other.folder() != run.folder()) {
                found.push(run);
            }
        }
        let page = html(&found)?;
        if self.output.as_os_str() == "-" {
            return print(&page);
        }
        std::fs::write(&self.output, &page)
            .map_err(|error| CliError::Failed(format!("{}: cannot write: {error}", self.output.display())))?;
        let what = if found.len() == 1 { "1 run".to_string() } else { format!("{} runs", found.len()) };
        print(&format!("{what} in {} ({:.1} MB)", self.output.display(), page.len() as f64 / 1e6))
    }
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Store(error) => error.into(),
            ReportError::Pipeline(error) => error.into(),
            ReportError::Import(error) => error.into(),
            ReportError::Form { .. } | ReportError::Page(_) => Self::Failed(error.to_string()),
        }
    }
}
