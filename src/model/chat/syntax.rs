//! A template's source, with what only Python's Jinja reads written so that minijinja reads it the same way.
//!
//! The text around tags, strings, comments and raw blocks stay as they are; what becomes of a tag is [`super::tag`]'s to say. Knows no values.

use super::tag::tag;

/// The source with one kind of line ending, `{% generation %}` as the scope that it is, dictionary literals as calls of a function,
/// and every value that gets a name passed through one.
pub(super) fn translate(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + 64);
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = match rest.as_bytes().get(1) {
            Some(b'#') => copy(rest, end_of_comment(rest), &mut out),
            Some(b'{') => tag(rest, "}}", &mut out),
            Some(b'%') if matches!(word_of_tag(rest), Some(("raw", _))) => raw(rest, &mut out),
            Some(b'%') => tag(rest, "%}", &mut out),
            _ => copy(rest, 1, &mut out),
        };
    }
    out.push_str(rest);
    out
}

/// Copies `rest` up to `end`; gives what is left.
pub(super) fn copy<'a>(rest: &'a str, end: usize, out: &mut String) -> &'a str {
    let (copied, left) = rest.split_at(end);
    out.push_str(copied);
    left
}

fn end_of_comment(rest: &str) -> usize {
    rest.find("#}").map_or(rest.len(), |at| at + 2)
}

/// Copies a raw block, whose first newline is part of it even where tags swallow the one that follows; gives what follows the block.
fn raw<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let Some(begin) = rest.find("%}") else { return copy(rest, rest.len(), out) };
    if !rest[..begin].ends_with(['-', '+']) {
        out.push_str(&rest[..begin]);
        out.push('+');
    } else {
        out.push_str(&rest[..begin]);
    }
    let mut from = begin + 2;
    while let Some(at) = rest[from..].find("{%") {
        let start = from + at;
        if let Some(("endraw", after)) = word_of_tag(&rest[start..])
            && let Some(end) = rest[start + after..].find("%}")
        {
            return copy(&rest[begin..], start + after + end + 2 - begin, out);
        }
        from = start + 2;
    }
    // Never closed: an error, which is for the template engine to report.
    copy(&rest[begin..], rest.len() - begin, out)
}

/// The first word of the tag that `rest` begins with, and where it ends.
pub(super) fn word_of_tag(rest: &str) -> Option<(&str, usize)> {
    let inner = rest.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
    let length = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    (length > 0).then(|| (&inner[..length], rest.len() - inner.len() + length))
}

/// The length of the string literal that `rest` begins with.
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

/// Writes a string literal with the escapes that Python knows as the characters they stand for; minijinja knows fewer and drops the
/// backslash of unknown ones.
pub(super) fn string(literal: &str, out: &mut String) {
    let Some(mut rest) = literal.get(1..literal.len().saturating_sub(1)).filter(|inner| inner.contains('\\')) else {
        out.push_str(literal);
        return;
    };
    let write = |character: char, out: &mut String| match character {
        '"' | '\\' => out.extend(['\\', character]),
        // So that errors name the right line.
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

/// The character (none for an escaped line end) that an escape at the start of `rest` stands for, and the escape's length.
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
