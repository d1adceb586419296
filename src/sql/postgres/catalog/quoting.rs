//! PostgreSQL's quoted names and texts, and its function `format`.
//!
//! Knows words, no tables.

use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};

/// The widest padded text.
const LONGEST: usize = 1 << 16;

/// PostgreSQL's reserved words, which a name may be in quotes only.
const RESERVED: &str = " all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column \
    concurrently constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp current_user \
    default deferrable desc distinct do else end except false fetch for foreign freeze from full grant group having ilike in initially inner \
    intersect into is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer \
    overlaps placing primary references returning right select session_user similar some symmetric table tablesample then to trailing true union \
    unique user using variadic verbose when where window with ";

/// A name as SQL writes it: in quotes only where it must be.
pub(super) fn quoted(name: &str) -> String {
    let plain = name.chars().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_');
    let plain = plain && !name.starts_with(|sign: char| sign.is_ascii_digit()) && !name.is_empty();
    if plain && !RESERVED.contains(&format!(" {name} ")) { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text as SQL writes it.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// PostgreSQL's `format`: `%s` is a text, `%I` a name, `%L` a literal, each maybe with the position
/// of its argument and a width (<https://www.postgresql.org/docs/16/functions-string.html>).
pub(super) fn formatted(arguments: &[ScalarValue]) -> Result<Option<String>> {
    let Some(pattern) = arguments.first().and_then(|pattern| pattern.try_as_str().flatten()) else { return Ok(None) };
    let wrong = |problem: String| DataFusionError::Plan(format!("format: {problem}"));
    let (mut out, mut next, mut signs) = (String::new(), 1, pattern.chars().peekable());
    while let Some(sign) = signs.next() {
        if sign != '%' {
            out.push(sign);
            continue;
        }
        let mut specifier = String::new();
        let kind = loop {
            match signs.next() {
                Some(sign @ ('s' | 'I' | 'L' | '%')) => break sign,
                Some(sign @ ('0'..='9' | '$' | '-')) => specifier.push(sign),
                Some(sign) => return Err(wrong(format!("expected one of %s, %I, %L and %%, found %{specifier}{sign}"))),
                None => return Err(wrong("expected a type behind %, found the end".to_string())),
            }
        };
        if kind == '%' {
            out.push('%');
            continue;
        }
        let (position, width) = specifier.split_once('$').map_or((None, specifier.as_str()), |(position, width)| (Some(position), width));
        let index = position.map_or(Ok(next), |position| position.parse().map_err(|_| wrong(format!("{position} is no position"))))?;
        next = index + 1;
        let value = arguments.get(index).filter(|_| index > 0);
        let value = value.ok_or_else(|| wrong(format!("expected an argument {index}, found {}", arguments.len() - 1)))?;
        let text = match value.cast_to(&arrow::datatypes::DataType::Utf8)? {
            ScalarValue::Utf8(text) => text,
            other => Some(other.to_string()),
        };
        let text = match (kind, text) {
            ('s', text) => text.unwrap_or_default(),
            ('L', text) => text.map_or("NULL".to_string(), |text| literal(&text)),
            (_, Some(text)) => quoted(&text),
            (_, None) => return Err(wrong("null values cannot be formatted as an SQL identifier".to_string())),
        };
        let (is_left, width) = width.strip_prefix('-').map_or((false, width), |width| (true, width));
        let width = if width.is_empty() { 0 } else { width.parse().map_err(|_| wrong(format!("{width} is no width")))? };
        let padding = " ".repeat(usize::min(width, LONGEST).saturating_sub(text.chars().count()));
        out.push_str(&if is_left { text + &padding } else { padding + &text });
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted_where_they_must_be() {
        assert_eq!(quoted("prompt_id"), "prompt_id");
        assert_eq!(quoted("group"), "\"group\"");
        assert_eq!(quoted("Two \"words\""), "\"Two \"\"words\"\"\"");
        assert_eq!(quoted("1a"), "\"1a\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b"), "E'a\\\\b'");
    }

    #[test]
    fn formats_are_those_of_postgresql() {
        let texts = |texts: &[&str]| texts.iter().map(|text| ScalarValue::from(*text)).collect::<Vec<_>>();
        // The examples of PostgreSQL's documentation, and what its server 16 answers.
        for (arguments, expected) in [
            (texts(&["Hello %s, %1$s", "World"]), "Hello World, World"),
            (texts(&["Testing %s, %s, %s, %%", "one", "two", "three"]), "Testing one, two, three, %"),
            (texts(&["INSERT INTO %I VALUES(%L)", "Foo bar", "O'Reilly"]), "INSERT INTO \"Foo bar\" VALUES('O''Reilly')"),
            (texts(&["|%10s|", "foo"]), "|       foo|"),
            (texts(&["|%-10s|", "foo"]), "|foo       |"),
            (texts(&["|%1$-10s|%2$s", "foo", "bar"]), "|foo       |bar"),
            (texts(&["Testing %3$s, %2$s, %s", "one", "two", "three"]), "Testing three, two, three"),
            (vec![ScalarValue::from("%s %L"), ScalarValue::Int64(Some(7)), ScalarValue::Utf8(None)], "7 NULL"),
        ] {
            assert_eq!(formatted(&arguments).unwrap().as_deref(), Some(expected));
        }
        assert_eq!(formatted(&[ScalarValue::Utf8(None)]).unwrap(), None);
        for wrong in [texts(&["%s"]), texts(&["%d", "1"]), texts(&["%"]), texts(&["%0$s", "1"]), texts(&["%1-$s", "1"])] {
            assert!(formatted(&wrong).is_err(), "{wrong:?}");
        }
        assert!(formatted(&[ScalarValue::from("%I"), ScalarValue::Utf8(None)]).is_err());
    }
}
