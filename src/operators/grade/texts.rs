//! Generated answers as texts: the part that counts, and whether it equals the right answer.
//!
//! As lm-evaluation-harness does it (`RegexFilter`, `exact_match`), with Python's `re`.

use std::collections::BTreeMap;

use fancy_regex::Regex;

use super::OperatorError;
use crate::operators::support::benchmark_items::{Item, Right};
use crate::pipeline::spec::benchmark::metric::{ExactMatch, Extract, Pick};
use crate::tables::answers;

/// The scores of one item, by metric.
pub(super) type Scores = BTreeMap<String, f64>;

/// The part of each answer to grade.
pub(super) fn extracted(extract: Option<&Extract>, answers: &[answers::Row]) -> Result<Vec<String>, OperatorError> {
    let Some(extract) = extract else { return Ok(answers.iter().map(|answer| answer.text.clone()).collect()) };
    let regex = compiled(&extract.regex)?;
    answers.iter().map(|answer| part(&regex, extract, &answer.text)).collect()
}

/// The part of one answer: of the first or the last match, the first group with a text, or all of
/// it without groups. White space around it is left out.
fn part(regex: &Regex, extract: &Extract, text: &str) -> Result<String, OperatorError> {
    let mut chosen = None;
    for found in regex.captures_iter(text) {
        chosen = Some(found.map_err(|error| failed(&extract.regex, &error))?);
        if extract.pick == Pick::First {
            break;
        }
    }
    let Some(found) = chosen else { return Ok(extract.otherwise.clone()) };
    let group = |index: usize| found.get(index).map_or("", |group| group.as_str());
    let groups = found.len() - 1;
    let part = match groups {
        0 | 1 => group(groups),
        _ => (1..=groups).map(group).find(|text| !text.is_empty()).unwrap_or(&extract.otherwise),
    };
    Ok(part.trim().to_string())
}

/// Adds 1 for each item whose text equals a right answer, else 0.
pub(super) fn exact_match(
    metric: &str,
    settings: &ExactMatch,
    extracted: &[String],
    items: &[Item],
    scores: &mut [Scores],
) -> Result<(), OperatorError> {
    let ignored = settings.ignore.iter().map(|regex| Ok((regex.as_str(), compiled(regex)?))).collect::<Result<Vec<_>, OperatorError>>()?;
    for ((text, item), scores) in extracted.iter().zip(items).zip(scores) {
        let Right::Texts(right) = &item.right else { continue };
        let text = comparable(text, settings, &ignored)?;
        let mut equal = false;
        for right in right {
            equal |= comparable(right, settings, &ignored)? == text;
        }
        scores.insert(metric.to_string(), f64::from(u8::from(equal)));
    }
    Ok(())
}

/// A text as it is compared.
fn comparable(text: &str, settings: &ExactMatch, ignored: &[(&str, Regex)]) -> Result<String, OperatorError> {
    let mut text = text.to_string();
    for (written, regex) in ignored {
        text = regex.try_replacen(&text, 0, "").map_err(|error| failed(written, &error))?.into_owned();
    }
    if settings.ignore_case {
        text = text.to_lowercase();
    }
    text.retain(|character| {
        let is_ignored =
            (settings.ignore_punctuation && character.is_ascii_punctuation()) || (settings.ignore_numbers && character.is_ascii_digit());
        !is_ignored
    });
    Ok(text)
}

fn compiled(regex: &str) -> Result<Regex, OperatorError> {
    Regex::new(regex).map_err(|error| failed(regex, &error))
}

fn failed(regex: &str, error: &fancy_regex::Error) -> OperatorError {
    OperatorError::Input(format!("regular expression {regex:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{comparable, compiled, part};
    use crate::pipeline::spec::benchmark::metric::{ExactMatch, Extract, Pick};

    #[test]
    fn a_part_is_that_of_python_findall() {
        let part = |regex: &str, pick: Pick, text: &str| {
            let extract = Extract { regex: regex.to_string(), pick, otherwise: "[invalid]".to_string() };
            part(&compiled(regex).unwrap(), &extract, text).unwrap()
        };
        let strict = r"#### (\-?[0-9\.\,]+)";
        let flexible = r"(-?[$0-9.,]{2,})|(-?[0-9]+)";
        // The values are those of lm_eval.filters.extraction.RegexFilter.
        assert_eq!(part(strict, Pick::First, "so 5\n#### 1,234.\n#### 7"), "1,234.");
        assert_eq!(part(strict, Pick::First, "the answer is 5"), "[invalid]");
        assert_eq!(part(flexible, Pick::Last, "I have 3 and then $12.50. It is 7"), "7");
        assert_eq!(part(flexible, Pick::Last, "costs $12.50."), "$12.50.");
        assert_eq!(part(r"a(b)?", Pick::First, "ac"), "");
        assert_eq!(part(r" \w+", Pick::First, "one two"), "two");
    }

    #[test]
    fn texts_are_compared_after_the_changes() {
        let settings = ExactMatch {
            ignore: [",", "\\$", "(?s).*#### ", "\\.$"].map(str::to_string).to_vec(),
            ignore_case: true,
            ..ExactMatch::default()
        };
        let ignored: Vec<_> = settings.ignore.iter().map(|regex| (regex.as_str(), compiled(regex).unwrap())).collect();
        assert_eq!(comparable("It is\n5 #### $1,234.", &settings, &ignored).unwrap(), "1234");
        let settings = ExactMatch { ignore_punctuation: true, ignore_numbers: true, ..ExactMatch::default() };
        assert_eq!(comparable("a-b_1 é!", &settings, &[]).unwrap(), "ab é");
    }
}
