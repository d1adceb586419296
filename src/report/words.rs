//! Numbers as people read them.

use super::statistics::Interval;

/// Four significant digits, without zeros at the end.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_string();
    }
    if value == 0.0 {
        return "0".to_string();
    }
    let size = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = (3.0 - size).clamp(0.0, 7.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A number that may be missing.
pub fn maybe(value: Option<f64>) -> String {
    value.map_or_else(missing, number)
}

/// The text for a missing value.
pub fn missing() -> String {
    "–".to_string()
}

/// Digits in groups of three.
pub fn whole(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("−{text}") } else { text }
}

/// A number with its sign.
pub fn signed(value: f64) -> String {
    match number(value.abs()) {
        zero if zero == "0" => zero,
        text if value < 0.0 => format!("−{text}"),
        text => format!("+{text}"),
    }
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { missing() }
}

/// A time in suitable units.
pub fn seconds(value: f64) -> String {
    match value {
        value if !value.is_finite() => missing(),
        value if value < 60.0 => format!("{value:.1} s"),
        value if value < 3600.0 => format!("{} min {:.0} s", (value / 60.0).floor(), (value % 60.0).floor()),
        value => format!("{} h {:.0} min", (value / 3600.0).floor(), (value % 3600.0 / 60.0).floor()),
    }
}

/// A mean with its interval, both with as many digits as the interval's width justifies.
pub fn interval(of: Option<Interval>) -> String {
    let Some(Interval { mean, low, high, count }) = of else { return missing() };
    if count == 1 {
        return number(mean);
    }
    let digits = if high > low { (1.0 - (high - low).log10().floor()).clamp(0.0, 6.0) as usize } else { 3 };
    format!("{mean:.digits$} [{low:.digits$}, {high:.digits$}]")
}

/// `1 pair`, `2 pairs`.
pub fn counted(count: i64, noun: &str) -> String {
    format!("{} {noun}{}", whole(count), if count == 1 { "" } else { "s" })
}

/// The beginning of a text, with a sign for the rest.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    }
}
