//! The shell's commands: lines with a backslash at the beginning.

use std::path::PathBuf;

use clap::ValueEnum;

use super::super::error::CliError;
use super::super::format::{self, Format};
use crate::did_you_mean::suggestion;
use crate::sql::{LiveSession, Session, TableInfo};

const HELP: &str = "a query ends with a semicolon and may take several lines
\\d                     the tables and views, with their rows
\\d TABLE               the columns of one, with their types
\\format FORMAT [FILE]  how rows are printed: table, csv, json, parquet; into FILE, which parquet needs
\\timing                says how long a query took, or no more
\\?                     this
\\q                     leave";

/// The commands' names, for completion.
pub(super) const COMMANDS: [&str; 5] = ["\\d", "\\format", "\\timing", "\\?", "\\q"];

/// The state changed by commands.
pub(super) struct Settings {
    pub format: Format,
    /// The file for rows.
    pub output: Option<PathBuf>,
    pub timing: bool,
}

impl Settings {
    /// To the terminal, without times.
    pub fn new(format: Format) -> Self {
        Self { format, output: None, timing: false }
    }
}

/// Executes a command line; returns whether to leave the shell.
pub(super) fn execute(live: &LiveSession, line: &str, settings: &mut Settings) -> Result<bool, CliError> {
    // As psql has it, a semicolon behind a command does no harm.
    let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
    match words.as_slice() {
        ["\\q"] => return Ok(true),
        ["\\?"] => format::print(HELP)?,
        ["\\d"] => format::print(&tables(&*live.session()?)?)?,
        ["\\d", table] => format::print(&columns(&*live.session()?, table)?)?,
        ["\\timing"] => {
            settings.timing = !settings.timing;
            format::print(if settings.timing { "timing is on" } else { "timing is off" })?;
        }
        ["\\format"] => format::print(&described(settings))?,
        ["\\format", name, file @ ..] if file.len() < 2 => {
            choose(name, file.first().copied(), settings)?;
            format::print(&described(settings))?;
        }
        [command, ..] => {
            let known = if COMMANDS.contains(command) { String::new() } else { suggestion(command, &COMMANDS) };
            return Err(CliError::Input(format!("{line}: expected a command as below{known}\n{HELP}")));
        }
        [] => {}
    }
    Ok(false)
}

fn choose(name: &str, file: Option<&str>, settings: &mut Settings) -> Result<(), CliError> {
    let format = Format::from_str(name, true).map_err(|_| {
        let names: Vec<&str> = formats().collect();
        CliError::Input(format!("\\format {name}: no such format{}", suggestion(name, &names)))
    })?;
    if format == Format::Parquet && file.is_none() {
        return Err(CliError::Input("\\format parquet: expected a file behind it, found none".to_string()));
    }
    (settings.format, settings.output) = (format, file.map(PathBuf::from));
    Ok(())
}

fn described(settings: &Settings) -> String {
    let name = settings.format.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
    match &settings.output {
        Some(file) => format!("the rows of a query go to {} as {name}, in the place of what is there", file.display()),
        None => format!("rows are printed as {name}"),
    }
}

/// The names of the formats.
pub(super) fn formats() -> impl Iterator<Item = &'static str> {
    ["table", "csv", "json", "parquet"].into_iter()
}

/// One line for each table or view: its name, its kind, its rows.
fn tables(session: &Session) -> Result<String, CliError> {
    let mut lines = Vec::new();
    for TableInfo { name, view, .. } in session.describe_tables()? {
        let rows = session.count(&format!("SELECT count(*) FROM {}", quoted(&name)))?;
        lines.push(format!("{name:32} {:6} {rows:>10}", if view { "view" } else { "table" }));
    }
    Ok(lines.join("\n"))
}

fn columns(session: &Session, table: &str) -> Result<String, CliError> {
    // As SQL has it, a name in quotes is taken as it is.
    let name = table.strip_prefix('"').and_then(|table| table.strip_suffix('"')).unwrap_or(table);
    let tables = session.describe_tables()?;
    let Some(found) = tables.iter().find(|table| table.name == name) else {
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        return Err(CliError::Input(format!("\\d {table}: no such table{}", suggestion(name, &names))));
    };
    let columns = found.schema.fields().iter().map(|field| {
        let null = if field.is_nullable() { "" } else { " not null" };
        format!("{:28} {}{null}", field.name(), field.data_type())
    });
    Ok(columns.collect::<Vec<_>>().join("\n"))
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
