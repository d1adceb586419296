//! The SQL shell: a line editor around a run's session. The session is opened again after new
//! commits.

mod command;
mod complete;
mod history;

use std::io::IsTerminal;
use std::time::Instant;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::error::CliError;
use super::format::{self, Format};
use super::terminal::tell;
use crate::sql::LiveSession;
use command::Settings;
use complete::Words;

/// Reads queries and commands until the end of input; an error is shown and the shell goes on.
pub(super) fn run(live: &LiveSession, format: Format) -> Result<(), CliError> {
    let failed = |error: ReadlineError| CliError::Failed(format!("no terminal: {error}"));
    let config = Config::builder().history_ignore_space(true).build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).map_err(failed)?;
    // Piped input is not recorded.
    let history = std::io::stdin().is_terminal().then(history::file).flatten();
    if let Some(file) = &history {
        // The first time there is none, and an unreadable history is no reason to refuse queries.
        let _ = editor.load_history(file);
    }
    let mut settings = Settings::new(format);
    format::print("tables: \\d, help: \\?, leave: \\q")?;
    let mut query = String::new();
    loop {
        // Tables appear while a run goes on.
        if let Ok(session) = live.session() {
            editor.set_helper(Some(Words::of(&session, &query)));
        }
        match editor.readline(if query.is_empty() { "optune> " } else { "   ...> " }) {
            Ok(line) if query.is_empty() && line.trim_start().starts_with('\\') => {
                remember(&mut editor, history.as_deref(), &line);
                match command::execute(live, line.trim(), &mut settings) {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(error) => tell(&error),
                }
            }
            Ok(line) => {
                query.push_str(&line);
                query.push('\n');
                if is_whole(&query) {
                    let text = std::mem::take(&mut query);
                    remember(&mut editor, history.as_deref(), text.trim_end());
                    show(answer(live, &text, &settings));
                }
            }
            Err(ReadlineError::Interrupted) => query.clear(),
            Err(ReadlineError::Eof) => {
                show(answer(live, &query, &settings));
                return Ok(());
            }
            Err(error) => return Err(CliError::Failed(error.to_string())),
        }
    }
}

/// History is a convenience; a refused line or file is not worth an error.
fn remember(editor: &mut Editor<Words, FileHistory>, file: Option<&std::path::Path>, text: &str) {
    let _ = editor.add_history_entry(text);
    if let Some(file) = file {
        let _ = editor.append_history(file);
    }
}

fn show(result: Result<(), CliError>) {
    if let Err(error) = result {
        tell(&error);
    }
}

/// Whether a query ends with a semicolon outside texts, quoted names and comments.
fn is_whole(query: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, query).tokenize() else { return false };
    let last = tokens.iter().rev().find(|token| !matches!(token, Token::Whitespace(_)));
    match last {
        Some(token) => *token == Token::SemiColon,
        // An empty line, or a comment.
        None => true,
    }
}

fn answer(live: &LiveSession, query: &str, settings: &Settings) -> Result<(), CliError> {
    let query = query.trim().trim_end_matches(';');
    if query.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    let rows = live.session()?.query(query)?;
    let seconds = start.elapsed().as_secs_f64();
    format::write(&rows, settings.format, settings.output.as_deref())?;
    if let Some(file) = &settings.output {
        let count: usize = rows.iter().map(|batch| batch.num_rows()).sum();
        format::print(&format!("{}: {count} rows", file.display()))?;
    }
    if settings.timing { format::print(&format!("{seconds:.3} s")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn a_query_ends_with_its_own_semicolon() {
        for whole in ["SELECT 1;\n", "SELECT ';';", "SELECT 1; -- one\n", "\n", "-- a remark\n"] {
            assert!(is_whole(whole), "{whole:?}");
        }
        for part in ["SELECT 1\n", "SELECT ';\n", "SELECT 1 -- one;\n", "SELECT \"a;\n", "SELECT /* ; \n"] {
            assert!(!is_whole(part), "{part:?}");
        }
    }
}
