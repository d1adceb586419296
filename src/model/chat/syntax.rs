//! From a template's source for Python's Jinja to one with the same meaning for minijinja.
//!
//! The text around tags, strings, comments and raw blocks stay as they are; [`super::tag`]
//! translates tags. Knows no values.

use super::lexer::{copy, word_of_tag};
use super::tag::tag;

/// The source with one kind of line ending, `{% generation %}` as the scope that it is, and every
/// named value passed through a function.
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

fn end_of_comment(rest: &str) -> usize {
    rest.find("#}").map_or(rest.len(), |at| at + 2)
}

/// Copies a raw block, whose first newline is part of it even where tags swallow the one that
/// follows; gives what follows the block.
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
    // Never closed: the template engine reports the error.
    copy(&rest[begin..], rest.len() - begin, out)
}
