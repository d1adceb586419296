//! Numbers of type numeric, in PostgreSQL's binary form and as text.
//!
//! Knows digits, not columns and parameters.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use pgwire::api::Type;
use pgwire::types::ToSqlText;
use pgwire::types::format::FormatOptions;
use postgres_types::{IsNull, ToSql, to_sql_checked};

/// A number in decimal digits, maybe with a sign and a point.
#[derive(Debug)]
pub(super) struct Numeric(pub String);

impl ToSqlText for Numeric {
    fn to_sql_text(&self, _: &Type, out: &mut BytesMut, _: &FormatOptions) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

impl ToSql for Numeric {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let (unsigned, sign) = match self.0.strip_prefix('-') {
            Some(unsigned) => (unsigned, 0x4000),
            None => (self.0.as_str(), 0_u16),
        };
        if unsigned == "NaN" {
            [0, 0, 0xC000, 0].into_iter().for_each(|word| out.put_u16(word));
            return Ok(IsNull::No);
        }
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let whole = format!("{}{whole}", "0".repeat(whole.len().wrapping_neg() % 4));
        let padded = format!("{fraction}{}", "0".repeat(fraction.len().wrapping_neg() % 4));
        let digits = format!("{whole}{padded}")
            .as_bytes()
            .chunks(4)
            .map(|group| std::str::from_utf8(group)?.parse().map_err(Box::from))
            .collect::<Result<Vec<u16>, Box<dyn Error + Sync + Send>>>()?;
        // Groups of zeros at both ends are not written.
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        let weight = i16::try_from(whole.len() / 4)? - 1 - i16::try_from(leading)?;
        let digits = digits.get(leading..).unwrap_or_default();
        let trailing = digits.iter().rev().take_while(|digit| **digit == 0).count();
        let digits = digits.get(..digits.len() - trailing).unwrap_or_default();
        out.put_i16(i16::try_from(digits.len())?);
        out.put_i16(if digits.is_empty() { 0 } else { weight });
        out.put_u16(sign);
        out.put_u16(u16::try_from(fraction.len())?);
        digits.iter().for_each(|digit| out.put_u16(*digit));
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::NUMERIC
    }

    to_sql_checked!();
}

/// PostgreSQL's binary numeric as text: digits to the base 10,000 after their count, the power of
/// the first, the sign, and the number of decimals.
pub(super) fn decimal(bytes: &[u8]) -> Option<String> {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, weight, sign, decimals, digits @ ..] = words.as_slice() else { return None };
    if *sign == 0xC000 {
        return Some("NaN".to_string());
    }
    if usize::from(*count) != digits.len() {
        return None;
    }
    let weight = i32::from(weight.cast_signed());
    let digit = |power: i32| usize::try_from(weight - power).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0);
    let whole: String = (0..=weight.max(0)).rev().map(|power| format!("{:04}", digit(power))).collect();
    let groups = (i32::from(*decimals) + 3) / 4;
    let fraction: String = (1..=groups).map(|power| format!("{:04}", digit(-power))).collect();
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.get(..usize::from(*decimals)).unwrap_or(&fraction);
    let sign = if *sign == 0x4000 { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use pgwire::api::Type;
    use postgres_types::ToSql;

    use super::{Numeric, decimal};

    #[test]
    fn binary_numerics_are_read_digit_by_digit() {
        let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        // As PostgreSQL's numeric_send writes them.
        for (words, expected) in [
            (&[2, 0, 0, 2, 12, 3400][..], "12.34"),
            (&[1, 0xFFFF, 0x4000, 4, 5], "-0.0005"),
            (&[1, 1, 0, 0, 3], "30000"),
            (&[0, 0, 0, 0], "0"),
            (&[0, 0, 0xC000, 0], "NaN"),
            (&[3, 1, 0, 3, 1, 2345, 6780], "12345.678"),
        ] {
            assert_eq!(decimal(&bytes(words)).as_deref(), Some(expected));
        }
        assert_eq!(decimal(&bytes(&[2, 0, 0, 0, 1])), None);
        assert_eq!(decimal(&[0, 1]), None);
    }

    #[test]
    fn numerics_are_written_as_they_are_read() {
        for text in [
            "0",
            "1",
            "-1",
            "12.34",
            "-0.0005",
            "30000",
            "10000",
            "12345.678",
            "0.00010000",
            "-99999999999999999999.123456789",
            "NaN",
            "5.10",
        ] {
            let mut bytes = BytesMut::new();
            Numeric(text.to_string()).to_sql(&Type::NUMERIC, &mut bytes).unwrap();
            assert_eq!(decimal(&bytes).as_deref(), Some(text));
        }
    }
}
