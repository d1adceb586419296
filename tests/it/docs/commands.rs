//! The commands in `sh` blocks, read by the parser of the program itself.
//!
//! A line is checked if it begins with `optune` or `cargo run --release -- `. Pipes, redirections
//! and comments end a command.

use super::markdown::{Page, blocks};

/// The commands of a page: the line of each, and its words without the program.
pub fn commands(page: &Page) -> Vec<(usize, Vec<String>)> {
    let mut commands = Vec::new();
    for block in blocks(&page.text).into_iter().filter(|block| block.kind == "sh") {
        let joined = block.text.replace("\\\n", " ");
        for (index, line) in joined.lines().enumerate() {
            let arguments = line.strip_prefix("cargo run --release -- ").or_else(|| line.strip_prefix("optune "));
            if let Some(arguments) = arguments {
                commands.push((block.line + 1 + index, words(arguments)));
            }
        }
    }
    commands
}

/// Every command with an unknown name or flag, a missing argument, or an invalid value.
pub fn faults(page: &Page) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, words) in commands(page) {
        let shown = words.join(" ");
        if let Err(error) = optune::cli::command().try_get_matches_from(std::iter::once("optune".to_string()).chain(words)) {
            faults.push(format!("{}:{line}: optune {shown}: {error}", page.path));
        }
    }
    faults
}

/// The words of a command, as a shell has them: quotes removed, up to a pipe, a redirection or a
/// comment.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None if "|>&;".contains(c) || (c == '#' && word.is_none()) => break,
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
