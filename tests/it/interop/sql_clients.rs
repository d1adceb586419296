//! `optune sql RUN --serve`, asked by PostgreSQL's clients as they are: drivers of Python, SQLAlchemy, pandas, Polars, connectorx,
//! ADBC, pgcli, psql, PgJDBC, and the queries of DuckDB, Grafana and Metabase.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixtures::python::run_script;
use crate::fixtures::workspace::Workspace;

/// A server over the run `small`; ends with this.
struct Server {
    process: Child,
    port: String,
}

impl Server {
    fn start(workspace: &Workspace) -> Self {
        let mut process = workspace.command(&["sql", "small", "--serve", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(',').next());
        Self { process, port: port.unwrap_or_else(|| panic!("no port in {line:?}")).to_string() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn every_client_lists_describes_binds_and_reads_a_finished_run() {
    let workspace = Workspace::finished();
    std::fs::create_dir(workspace.path("expected")).unwrap();
    for table in ["prompts", "responses", "rewards", "selection", "pool", "pairs", "evaluation"] {
        let file = format!("expected/{table}.parquet");
        workspace.succeed(&["sql", "small", &format!("SELECT * FROM {table}"), "--format", "parquet", "--output", &file]);
    }
    let server = Server::start(&workspace);
    let expected = workspace.path("expected");
    let arguments = [OsStr::new(&server.port), OsStr::new("small"), expected.as_os_str()];
    let Some(said) = run_script("sql_clients.py", &arguments) else { return };
    let said = String::from_utf8(said).unwrap();
    eprintln!("{said}");
    for client in ["psycopg2", "psycopg", "pg8000", "asyncpg", "sqlalchemy", "connectorx", "polars", "adbc", "pgcli", "queries", "crowd"] {
        assert!(said.contains(&format!("{client}: right")), "{client}");
    }
}

#[test]
fn clients_ask_a_run_while_it_goes_on() {
    let workspace = Workspace::new();
    // Some minutes of work, planned at once.
    workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 500");
    workspace.edit("pipeline.yaml", "batch_size: 4, epochs: 2", "batch_size: 4, epochs: 40");
    let mut run = workspace.start(&["run", "pipeline.yaml"]);
    let begun = Instant::now();
    while !workspace.path("runs/small/tables/prompts").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no prompts");
        std::thread::sleep(Duration::from_millis(5));
    }
    let server = Server::start(&workspace);
    let folder = workspace.path("nothing");
    std::fs::create_dir(&folder).unwrap();
    let clients =
        ["psycopg2", "psycopg", "pg8000", "asyncpg", "sqlalchemy", "connectorx", "polars", "adbc", "pgcli", "psql"].map(OsStr::new);
    let arguments = [[OsStr::new(&server.port), OsStr::new("small"), folder.as_os_str()].as_slice(), &clients].concat();
    let said = run_script("sql_clients.py", &arguments);
    let is_running = run.try_wait().unwrap().is_none();
    run.kill().unwrap();
    run.wait().unwrap();
    if said.is_some() {
        assert!(is_running, "the run ended before its clients");
    }
}

#[test]
fn the_jdbc_driver_reads_its_metadata() {
    let Some(driver) = std::env::var_os("OPTUNE_PGJDBC") else {
        eprintln!("skipped: OPTUNE_PGJDBC, a postgresql-42.*.jar for `java`, is not set");
        return;
    };
    let workspace = Workspace::finished();
    let server = Server::start(&workspace);
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/SqlClient.java");
    let mut java = Command::new("java");
    java.arg("-cp").arg(driver).arg(program).arg(format!("jdbc:postgresql://127.0.0.1:{}/small", server.port));
    let output = java.output().unwrap_or_else(|error| panic!("java: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "PgJDBC: right");
}
