//! A server's words for people: one line, without characters that change a terminal.
//!
//! Knows nothing of their meaning.

/// The text on one line. Control characters, those of an escape sequence among them, and characters
/// of writing direction become `�`.
pub(super) fn printable(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().map(|c| if c.is_control() || turns(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character is invisible and changes the order of others (Bidi_Control of Unicode Annex
/// 9).
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn no_escape_sequence_is_left() {
        assert_eq!(printable("\u{1b}[31mred\u{1b}[0m\r\n \tword"), "\u{fffd}[31mred\u{fffd}[0m word");
        assert_eq!(printable("\u{9b}2J \u{202e}cba \u{7}é 字"), "\u{fffd}2J \u{fffd}cba \u{fffd}é 字");
        assert_eq!(printable(" \n "), "");
    }
}
