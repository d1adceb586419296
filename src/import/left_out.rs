//! Rows that were left out: their number, by reason, with the place of the first.
//!
//! Knows texts only.

use std::collections::BTreeMap;

/// Reasons told apart; all further ones are one.
const MOST_REASONS: usize = 8;

/// The reason of rows beyond [`MOST_REASONS`].
const OTHERS: &str = "other reasons";

/// Rows that were left out, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<String, Reason>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reason {
    count: usize,
    /// The place of the first row.
    first: String,
}

impl LeftOut {
    /// Counts a row with this problem; `place` names the row.
    pub fn add(&mut self, problem: &str, place: impl FnOnce() -> String) {
        let mut reason = reason(problem);
        if self.0.len() >= MOST_REASONS && !self.0.contains_key(&reason) {
            reason = OTHERS.to_string();
        }
        self.0.entry(reason).or_insert_with(|| Reason { count: 0, first: place() }).count += 1;
    }

    /// The number of rows.
    pub fn count(&self) -> usize {
        self.0.values().map(|reason| reason.count).sum()
    }

    /// Number and reasons of the rows out of `total`, the most frequent reason first; `None`
    /// without any.
    pub fn text(&self, total: usize) -> Option<String> {
        let mut reasons: Vec<(&String, &Reason)> = self.0.iter().collect();
        reasons.sort_by_key(|(_, reason)| usize::MAX - reason.count);
        let reasons: Vec<String> =
            reasons.into_iter().map(|(text, Reason { count, first })| format!("{count} × {text} (first: {first})")).collect();
        (!reasons.is_empty()).then(|| format!("{} of {total} rows are left out: {}", self.count(), reasons.join("; ")))
    }
}

/// The part of a problem that is the same for all rows: without what was found, and without
/// numbers.
fn reason(problem: &str) -> String {
    let end = [", found", ", near"].iter().filter_map(|word| problem.find(word)).min().unwrap_or(problem.len());
    let mut reason = String::new();
    let mut was_digit = false;
    for character in problem[..end].chars() {
        let is_digit = character.is_ascii_digit();
        if !is_digit {
            reason.push(character);
        } else if !was_digit {
            reason.push('N');
        }
        was_digit = is_digit;
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::LeftOut;

    #[test]
    fn rows_are_counted_by_reason() {
        let mut left_out = LeftOut::default();
        assert_eq!(left_out.text(3), None);
        for (row, problem) in ["expected a response, found null", "the prompt's 17 tokens, near \"a\"", "the prompt's 5 tokens, near \"b\""]
            .iter()
            .enumerate()
        {
            left_out.add(problem, || format!("row {row}"));
        }
        let expected = "3 of 9 rows are left out: 2 × the prompt's N tokens (first: row 1); 1 × expected a response (first: row 0)";
        assert_eq!(left_out.text(9).as_deref(), Some(expected));
        (0..20).for_each(|row| left_out.add(&"x".repeat(row), || "one".to_string()));
        assert_eq!(left_out.count(), 23);
        assert!(
            left_out.text(23).is_some_and(|text| text.matches('×').count() == 9 && text.contains("14 × other reasons")),
            "{left_out:?}"
        );
    }
}
