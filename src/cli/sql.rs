//! `optune sql`: queries over a run's tables: one, in a shell, or by clients of PostgreSQL.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::format::{self, Format};
use super::shell;
use crate::sql::LiveSession;
use crate::sql::postgres::serve;
use crate::store::Runs;

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
    /// A further Parquet file to query, as NAME=FILE. May be given several times.
    #[arg(long = "table", value_name = "NAME=FILE")]
    tables: Vec<String>,
    /// Answer clients of PostgreSQL (psql, drivers) at an address of this machine, as the run goes
    /// on, until Ctrl-C.
    #[arg(long, value_name = "HOST:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:5432", conflicts_with_all = ["query", "format", "output"])]
    serve: Option<String>,
}

impl Sql {
    pub(super) fn execute(self, runs: &Path) -> Result<(), CliError> {
        let named = |table: &String| {
            let (name, file) = table.split_once('=').ok_or_else(|| CliError::Input(format!("expected NAME=FILE, found {table}")))?;
            Ok((name.to_string(), std::path::absolute(file)?))
        };
        let live = LiveSession::new(Runs::open(runs)?.find(&self.run)?, self.tables.iter().map(named).collect::<Result<_, CliError>>()?);
        // Faults of the run or the files are reported before the first query.
        let session = live.session()?;
        match (self.query, self.serve) {
            (Some(query), _) => format::write(&session.query(&query)?, self.format, self.output.as_deref()),
            (None, Some(address)) => {
                let name = live.run().name().to_string();
                Ok(serve(live, &address, |address| listening(&name, address))?)
            }
            (None, None) => shell::run(&live, self.format),
        }
    }
}

/// Prints how to connect. A closed standard error is no reason to refuse service.
fn listening(run: &str, address: SocketAddr) {
    let host = address.ip();
    let port = address.port();
    let _ =
        format::print(&format!("{run} at {address}, for this machine only; psql: psql -h {host} -p {port} -d {run} -U any; end: Ctrl-C"));
}
