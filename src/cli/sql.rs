//! `optune sql`: questions to a run's tables, one or in a shell.

use std::path::{Path, PathBuf};

use clap::Args;

use super::format::{self, Format};
use super::{CliError, shell};
use crate::store::{Runs, Session};

#[derive(Args)]
pub(super) struct Sql {
    /// The run: its name, or its folder.
    run: PathBuf,
    /// The query; a shell is opened without one.
    #[arg(allow_hyphen_values = true)]
    query: Option<String>,
    /// How to print the rows.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// A file to write the rows to, instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A Parquet file to ask about too, as NAME=FILE. May be given several times.
    #[arg(long = "table", value_name = "NAME=FILE")]
    tables: Vec<String>,
}

impl Sql {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let session = open(runs, &self.run)?;
        for table in &self.tables {
            let (name, file) = table.split_once('=').ok_or_else(|| CliError::Input(format!("expected NAME=FILE, found {table}")))?;
            session.register_files(name, &[(None, std::path::absolute(file)?)])?;
        }
        match self.query {
            Some(query) => format::write(&session.query(&query)?, self.format, self.output.as_deref()),
            None => shell::run(&session, self.format),
        }
    }
}

/// A session over a run's committed tables.
pub(super) fn open(runs: &Path, run: &Path) -> Result<Session, CliError> {
    Ok(Session::over_run(&Runs::open(runs)?.find(run)?)?)
}
