//! The SQL shell: a line editor around a session.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::CliError;
use super::format::{self, Format};
use crate::store::Session;

const HELP: &str = "a query ends with a semicolon and may take several lines
\\d         the tables
\\d TABLE   the columns of one
\\q         leave";

/// Reads queries until the end of input; an error is shown and the shell goes on.
pub(super) fn run(session: &Session, format: Format) -> Result<(), CliError> {
    let mut editor = DefaultEditor::new().map_err(|error| CliError::Failed(format!("no terminal: {error}")))?;
    format::print("tables: \\d, help: \\?, leave: \\q")?;
    let mut query = String::new();
    loop {
        match editor.readline(if query.is_empty() { "optune> " } else { "   ...> " }) {
            Ok(line) => {
                // History is a convenience; a line it refuses is not worth an error.
                let _ = editor.add_history_entry(&line);
                let line = line.trim();
                if query.is_empty() && line.starts_with('\\') {
                    if line == "\\q" {
                        return Ok(());
                    }
                    show(command(session, line, format));
                    continue;
                }
                query.push_str(line);
                query.push('\n');
                if line.ends_with(';') {
                    let text = std::mem::take(&mut query);
                    show(answer(session, &text, format));
                }
            }
            Err(ReadlineError::Interrupted) => query.clear(),
            Err(ReadlineError::Eof) => {
                if !query.trim().is_empty() {
                    show(answer(session, &query, format));
                }
                return Ok(());
            }
            Err(error) => return Err(CliError::Failed(error.to_string())),
        }
    }
}

fn show(result: Result<(), CliError>) {
    if let Err(error) = result {
        eprintln!("{error}");
    }
}

fn answer(session: &Session, query: &str, format: Format) -> Result<(), CliError> {
    let query = query.trim().trim_end_matches(';');
    if query.is_empty() {
        return Ok(());
    }
    format::write(&session.query(query)?, format, None)
}

fn command(session: &Session, line: &str, format: Format) -> Result<(), CliError> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some("\\d"), None) => format::print(&session.tables().join("\n")),
        (Some("\\d"), Some(table)) => {
            let quoted = table.replace('"', "\"\"");
            let schema = session.schema_of(&format!("SELECT * FROM \"{quoted}\""))?;
            let columns: Vec<String> = schema.fields().iter().map(|field| format!("{:28} {}", field.name(), field.data_type())).collect();
            format::print(&columns.join("\n"))
        }
        (Some("\\?"), _) => format::print(HELP),
        (Some(other), _) => Err(CliError::Input(format!("unknown command {other}\n{HELP}"))),
        (None, _) => answer(session, "", format),
    }
}
