//! `optune completions` and `optune man`: what shells and `man` know of the command line, made from its definition.

use std::path::PathBuf;

use clap::{Args, Command};

use super::CliError;

#[derive(Args)]
pub(super) struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn execute(self, command: &mut Command) -> Result<(), CliError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, command, "optune", &mut text);
        super::format::print(String::from_utf8_lossy(&text).trim_end())
    }
}

#[derive(Args)]
pub(super) struct Man {
    /// The folder to write `optune.1` and a page for each command to; made if there is none.
    folder: PathBuf,
}

impl Man {
    pub(super) fn execute(self, command: Command) -> Result<(), CliError> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(clap_mangen::generate_to(command, &self.folder)?)
    }
}
