//! The type of a csv column, found from its values, and its array.
//!
//! A type is found only if no value loses anything by it: `007` and `2024-01-05` stay text. Knows
//! no file.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, NullArray, StringBuilder};
use arrow::datatypes::{DataType, Field};

use super::records;
use crate::import::formats::columns::{ColumnType, json_field};
use crate::import::formats::json;

/// Decimal digits that a 64-bit float keeps.
const FLOAT_DIGITS: usize = 17;

/// The types that fit all values so far.
#[derive(Clone, Copy)]
pub(super) struct Guess {
    empty: bool,
    integer: bool,
    number: bool,
    boolean: bool,
}

impl Default for Guess {
    fn default() -> Self {
        Self { empty: true, integer: true, number: true, boolean: true }
    }
}

impl Guess {
    pub(super) fn add(&mut self, value: records::Field) {
        let records::Field::Text(text) = value else { return };
        if text.is_empty() {
            return;
        }
        self.empty = false;
        self.integer = self.integer && is_integer(text) && text.parse::<i64>().is_ok();
        self.number = self.number && is_number(text);
        self.boolean = self.boolean && boolean(text).is_some();
    }

    /// The type; `None` if there are no values.
    pub(super) fn column_type(self) -> Option<ColumnType> {
        match self {
            Guess { empty: true, .. } => None,
            Guess { integer: true, .. } => Some(ColumnType::Integer),
            Guess { number: true, .. } => Some(ColumnType::Number),
            Guess { boolean: true, .. } => Some(ColumnType::Boolean),
            _ => Some(ColumnType::Text),
        }
    }
}

/// Whether a text is an integer in its only spelling.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits == "0" && text == "0" || !digits.starts_with('0') && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is a number that a 64-bit float keeps.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_digits = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    if !digits(whole) || whole.len() > 1 && whole.starts_with('0') || !fraction.is_none_or(digits) || !exponent_digits.is_none_or(digits) {
        return false;
    }
    if fraction.is_none() && exponent.is_none() {
        return json::has_equal_float(text);
    }
    let significant = mantissa.bytes().filter(u8::is_ascii_digit).skip_while(|byte| *byte == b'0').count();
    significant <= FLOAT_DIGITS && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// The builder of a column.
pub(super) enum Column {
    Null(usize),
    Integer(Int64Builder),
    Number(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Json(StringBuilder),
    /// Left out.
    Skip,
}

impl Column {
    /// The builder of a column of this type; of nulls without one.
    pub(super) fn new(column_type: Option<ColumnType>) -> Self {
        match column_type {
            None => Self::Null(0),
            Some(ColumnType::Integer) => Self::Integer(Int64Builder::new()),
            Some(ColumnType::Number) => Self::Number(Float64Builder::new()),
            Some(ColumnType::Boolean) => Self::Boolean(BooleanBuilder::new()),
            Some(ColumnType::Text) => Self::Text(StringBuilder::new()),
            Some(ColumnType::Json) => Self::Json(StringBuilder::new()),
            Some(ColumnType::Skip) => Self::Skip,
        }
    }

    /// Appends a value. Fails if it has not the column's type.
    pub(super) fn append(&mut self, value: records::Field) -> Result<(), String> {
        let text = match value {
            records::Field::Missing => None,
            records::Field::Text("") if !matches!(self, Self::Text(_)) => None,
            records::Field::Text(text) => Some(text),
        };
        let wrong = |column_type: ColumnType| format!("expected {}, found {:?}", column_type.expected(), text.unwrap_or_default());
        match (self, text) {
            (Self::Skip, _) => {}
            (Self::Null(length), _) => *length += 1,
            (Self::Integer(values), None) => values.append_null(),
            (Self::Number(values), None) => values.append_null(),
            (Self::Boolean(values), None) => values.append_null(),
            (Self::Text(values) | Self::Json(values), None) => values.append_null(),
            (Self::Integer(values), Some(text)) => values.append_value(text.parse().map_err(|_| wrong(ColumnType::Integer))?),
            (Self::Number(values), Some(text)) => values.append_value(text.parse().map_err(|_| wrong(ColumnType::Number))?),
            (Self::Boolean(values), Some(text)) => values.append_value(boolean(text).ok_or_else(|| wrong(ColumnType::Boolean))?),
            (Self::Text(values), Some(text)) => values.append_value(text),
            (Self::Json(values), Some(text)) => {
                json::check(text).map_err(|problem| format!("expected JSON: {problem}"))?;
                values.append_value(text);
            }
        }
        Ok(())
    }

    /// The array of all values so far; `None` for a column left out. The builder is empty again.
    pub(super) fn finish(&mut self) -> Option<ArrayRef> {
        Some(match self {
            Self::Null(length) => Arc::new(NullArray::new(std::mem::take(length))),
            Self::Integer(values) => Arc::new(values.finish()),
            Self::Number(values) => Arc::new(values.finish()),
            Self::Boolean(values) => Arc::new(values.finish()),
            Self::Text(values) | Self::Json(values) => Arc::new(values.finish()),
            Self::Skip => return None,
        })
    }
}

/// The Arrow field of a column of this type; of nulls without one, `None` for one left out.
pub(super) fn field(name: &str, column_type: Option<ColumnType>) -> Option<Field> {
    match column_type {
        None => Some(Field::new(name, DataType::Null, true)),
        Some(ColumnType::Skip) => None,
        Some(ColumnType::Json) => Some(json_field(name)),
        Some(column_type) => Some(Field::new(name, column_type.data_type(), true)),
    }
}

#[cfg(test)]
mod tests {
    use super::Guess;
    use super::records::Field;
    use crate::import::formats::columns::ColumnType;

    #[test]
    fn a_type_is_found_only_if_it_keeps_every_value() {
        use ColumnType::{Boolean, Integer, Number, Text};
        let cases: [(&[&str], ColumnType); 18] = [
            (&["1", "-20", "0"], Integer),
            (&["007"], Text),
            (&["-0"], Number),
            (&["+1"], Text),
            (&["1.50", "2"], Number),
            (&["1e5", "-1.5E-3"], Number),
            (&[".5"], Text),
            (&["00.5"], Text),
            (&["1e999"], Text),
            (&["9223372036854775807"], Integer),
            (&["9223372036854775808", "1"], Number),
            (&["9007199254740993", "1.5"], Text),
            (&["9007199254740992", "1.5"], Number),
            (&["0.12345678901234567891"], Text),
            (&["True", "false"], Boolean),
            (&["true", "1"], Text),
            (&["2024-01-05 10:00:00"], Text),
            (&["nan"], Text),
        ];
        for (values, expected) in cases {
            let mut guess = Guess::default();
            values.iter().for_each(|value| guess.add(Field::Text(value)));
            assert_eq!(guess.column_type(), Some(expected), "{values:?}");
        }
        assert_eq!(Guess::default().column_type(), None);
    }
}
