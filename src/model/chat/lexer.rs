//! Words and string literals of a template's source. Knows no tags.

/// Copies `rest` up to `end`; returns the remainder.
pub(super) fn copy<'a>(rest: &'a str, end: usize, out: &mut String) -> &'a str {
    let (copied, left) = rest.split_at(end);
    out.push_str(copied);
    left
}

/// The first word of the tag at the start of `rest`, and the word's end.
pub(super) fn word_of_tag(rest: &str) -> Option<(&str, usize)> {
    let inner = rest.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
    let length = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    (length > 0).then(|| (&inner[..length], rest.len() - inner.len() + length))
}

/// The length of the string literal at the start of `rest`.
pub(super) fn end_of_string(rest: &str) -> usize {
    let quote = rest.as_bytes().first().copied();
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if Some(byte) == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Writes a string literal with the escapes that Python knows as the characters they stand for;
/// minijinja knows fewer and drops the backslash of unknown ones.
pub(super) fn string(literal: &str, out: &mut String) {
    let Some(mut rest) = literal.get(1..literal.len().saturating_sub(1)).filter(|inner| inner.contains('\\')) else {
        out.push_str(literal);
        return;
    };
    let write = |character: char, out: &mut String| match character {
        '"' | '\\' => out.extend(['\\', character]),
        // Errors must name the right line.
        '\n' => out.push_str("\\n"),
        other => out.push(other),
    };
    out.push('"');
    while let Some(character) = rest.chars().next() {
        let (character, length) = match escape(rest) {
            Some((escaped, length)) => (escaped, length),
            None => (Some(character), character.len_utf8()),
        };
        character.into_iter().for_each(|character| write(character, out));
        rest = &rest[length..];
    }
    out.push('"');
}

/// The character (none for an escaped line end) that an escape at the start of `rest` stands for,
/// and the escape's length.
fn escape(rest: &str) -> Option<(Option<char>, usize)> {
    let after = rest.strip_prefix('\\')?;
    let digits = |text: &str, count: usize, radix: u32| u32::from_str_radix(text.get(..count)?, radix).ok().and_then(char::from_u32);
    let hex = |count: usize| Some((Some(digits(&after[1..], count, 16)?), count + 2));
    match after.chars().next()? {
        '\n' => Some((None, 2)),
        same @ ('\\' | '\'' | '"') => Some((Some(same), 2)),
        'a' => Some((Some('\x07'), 2)),
        'b' => Some((Some('\x08'), 2)),
        'f' => Some((Some('\x0c'), 2)),
        'n' => Some((Some('\n'), 2)),
        'r' => Some((Some('\r'), 2)),
        't' => Some((Some('\t'), 2)),
        'v' => Some((Some('\x0b'), 2)),
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        '0'..='7' => {
            let count = after.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            Some((Some(digits(after, count, 8)?), count + 1))
        }
        _ => None,
    }
}
