//! `optune completions` and `optune man`: shell completions and manual pages, made from the
//! definition of the command line.

use std::path::PathBuf;

use clap::{Args, Command};

use super::error::CliError;

#[derive(Args)]
pub(super) struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn execute(self, mut definition: Command) -> Result<(), CliError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut definition, "optune", &mut text);
        super::format::print(String::from_utf8_lossy(&text).trim_end())
    }
}

#[derive(Args)]
pub(super) struct Man {
    /// The folder to write `optune.1` and a page for each command to; made if there is none.
    folder: PathBuf,
}

impl Man {
    pub(super) fn execute(self, definition: Command) -> Result<(), CliError> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(clap_mangen::generate_to(definition, &self.folder)?)
    }
}
