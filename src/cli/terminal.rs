//! What the terminal gets: lines that never end a command, control characters shown and not sent,
//! and words quoted for a shell.
//!
//! Knows nothing of the text.

use std::borrow::Cow;
use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write};

use super::error::CliError;

/// Writes a line to standard error. A closed or full one is no reason to stop a run.
pub(super) fn tell(line: impl fmt::Display) {
    let line = line.to_string();
    let _ = writeln!(std::io::stderr().lock(), "{}", visible(&line));
}

/// Writes bytes to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn write_out(bytes: &[u8]) -> Result<(), CliError> {
    let mut output = std::io::stdout().lock();
    let text = std::str::from_utf8(bytes).ok().filter(|_| output.is_terminal()).map(visible);
    let bytes = text.as_ref().map_or(bytes, |text| text.as_bytes());
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Failed(format!("standard output: cannot write: {error}"))),
        _ => Ok(()),
    }
}

/// The text with every character that moves the cursor, colours the screen or turns the direction
/// of writing as `\u001b`. In a text of JSON this is the same character. Lines and tabs stay.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn is_hidden(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && !['\n', '\t'].contains(&c))
}

/// A word of a command, quoted where a shell would take it apart.
pub(super) fn word(word: impl fmt::Display) -> String {
    let word = word.to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The option for the folder of runs, with a space in front; nothing for the usual folder.
pub(super) fn runs_option(runs: &std::path::Path) -> String {
    if runs == std::path::Path::new("runs") { String::new() } else { format!(" --runs {}", word(runs.display())) }
}

/// Whether the terminal can move its cursor.
pub(super) fn moves_the_cursor() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|name| name != "dumb" && !name.is_empty())
}

/// Whether the terminal shows UTF-8, by the first locale variable with a value.
pub(super) fn shows_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// The time left for `remaining` of the work at a rate in a second; nothing without work left, or
/// before anything is known.
pub(super) fn time_left(remaining: u64, rate: f64) -> Option<String> {
    if remaining == 0 || !rate.is_finite() || rate <= 0.0 {
        return None;
    }
    let seconds = (remaining as f64 / rate).ceil().max(1.0);
    Some(match seconds {
        seconds if seconds < 600.0 => format!("{seconds:.0} s left"),
        seconds if seconds < 36_000.0 => format!("{:.0} min left", seconds / 60.0),
        seconds => format!("{:.1} h left", seconds / 3600.0),
    })
}

#[cfg(test)]
mod tests {
    use super::{time_left, visible, word};

    #[test]
    fn control_characters_are_shown_and_lines_stay() {
        assert_eq!(visible("plain é 漢\n\t|"), "plain é 漢\n\t|");
        assert_eq!(visible("\u{1b}]0;title\u{7}\r\u{9b}2J\u{7f}\u{202e}x"), "\\u001b]0;title\\u0007\\u000d\\u009b2J\\u007f\\u202ex");
        let json = serde_json::json!({ "text": "\u{1b}[31m \u{9b}" }).to_string();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&visible(&json)).unwrap()["text"], "\u{1b}[31m \u{9b}");
    }

    #[test]
    fn a_shell_reads_the_word_back() {
        for text in ["plain", "runs/a-b_1.2", "with space", "it's", "$HOME", "a;b", "*", "", "ü", "-x", "a\nb", "`id`", "\"q\"", "~"] {
            let command = format!("printf %s {}", word(text));
            let output = std::process::Command::new("sh").arg("-c").arg(command).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
        assert_eq!(word("runs/quickstart"), "runs/quickstart");
    }

    #[test]
    fn time_left_is_never_nothing_while_work_is_left() {
        assert_eq!(time_left(1, 1e9).as_deref(), Some("1 s left"));
        assert_eq!(time_left(3, 0.1).as_deref(), Some("30 s left"));
        assert_eq!(time_left(1000, 1.0).as_deref(), Some("17 min left"));
        assert_eq!(time_left(360_000, 1.0).as_deref(), Some("100.0 h left"));
        assert_eq!(time_left(5, 0.0), None);
        assert_eq!(time_left(0, 1.0), None);
    }
}
