//! Reads a judge's answer: a score, or the better of two responses. An answer that says neither is
//! an error with its beginning.
//!
//! Knows answers, not questions.

use crate::pipeline::spec::judge::{Judge, Question, Read, Scale};
use crate::tables::judge_answers::Row;

/// The least probability of the scale's digits, or of the two letters, in the place of the first
/// token.
const LEAST_MASS: f64 = 0.5;

/// The shown length of an answer in an error.
const SHOWN_CHARACTERS: usize = 120;

/// The tokens shown in an error about logprobs.
const SHOWN_TOKENS: usize = 5;

/// Why an answer cannot be read.
pub type Unreadable = String;

/// The better one of two responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first.
    A,
    /// The second.
    B,
    /// Neither.
    Tie,
}

/// The score in an answer, on the judge's scale. `is_cut` tells of the limit of tokens.
///
/// # Errors
/// There is none, more than one, or one beyond the scale.
pub fn read_score(judge: &Judge, answer: &Row, is_cut: bool) -> Result<f64, Unreadable> {
    let scale = judge.scale.ok_or_else(|| "expected a scale of the judge, found none".to_string())?;
    let read = judge.read(Question::Score);
    if read == Read::Logprobs {
        return expected_digit(answer, scale);
    }
    check_whole(judge, Question::Score, answer, is_cut)?;
    let score = if read == Read::Json { json_score(&answer.text)? } else { one_number(&answer.text, scale)? };
    if scale.has(score) {
        return Ok(score);
    }
    let expected = format!("expected a score from {} to {}", scale.low, scale.high);
    Err(format!("{expected}, found {score} in the judge's answer {}", beginning(&answer.text)))
}

/// The better response in an answer.
///
/// # Errors
/// There is none.
pub fn read_choice(judge: &Judge, answer: &Row, is_cut: bool) -> Result<Choice, Unreadable> {
    match judge.read(Question::Pair) {
        Read::Logprobs => likelier_letter(answer),
        read => {
            check_whole(judge, Question::Pair, answer, is_cut)?;
            if read == Read::Json { json_choice(&answer.text) } else { one_choice(&answer.text) }
        }
    }
}

/// Refuses an answer without its end: the verdict is there.
fn check_whole(judge: &Judge, question: Question, answer: &Row, is_cut: bool) -> Result<(), Unreadable> {
    if !is_cut {
        return Ok(());
    }
    let limit = judge.max_tokens(question);
    Err(format!("the judge's answer is cut after {limit} tokens (raise `max_tokens`): {}", beginning(&answer.text)))
}

/// The last number in double brackets, or the only number of the text. `7/10` is 7 where 10 is the
/// highest score.
fn one_number(text: &str, scale: Scale) -> Result<f64, Unreadable> {
    if let Some(score) = bracketed(text).filter_map(number).last() {
        return Ok(score);
    }
    let mut found: Vec<f64> = Vec::new();
    for word in text.split(|c: char| !(c.is_alphanumeric() || "+-./".contains(c))) {
        let numbers: Vec<f64> = word.split('/').filter_map(number).collect();
        match numbers.as_slice() {
            [score, highest] if *highest == scale.high => found.push(*score),
            numbers => found.extend(numbers),
        }
    }
    match found.as_slice() {
        [score] => Ok(*score),
        [] => Err(format!("expected a number in the judge's answer, found none: {}", beginning(text))),
        several => {
            let several = several.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
            Err(format!("expected one number in the judge's answer, or one in [[ ]], found {several}: {}", beginning(text)))
        }
    }
}

/// The contents of double brackets, in order.
fn bracketed(text: &str) -> impl Iterator<Item = &str> {
    text.split("[[").skip(1).filter_map(|rest| rest.split_once("]]").map(|(inside, _)| inside.trim()))
}

/// A word as a number; a point at its end closes the sentence.
fn number(word: &str) -> Option<f64> {
    let word = word.trim_end_matches('.');
    let begins = word.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
    word.parse().ok().filter(|number: &f64| begins && number.is_finite())
}

/// The first JSON object of a text with this key: its value.
fn json_value(text: &str, key: &str) -> Option<serde_json::Value> {
    text.match_indices('{').find_map(|(at, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<serde_json::Value>();
        values.next()?.ok()?.get(key).cloned()
    })
}

fn json_score(text: &str) -> Result<f64, Unreadable> {
    let score = json_value(text, "score").and_then(|score| score.as_f64());
    score.ok_or_else(|| format!("expected an object with a number \"score\" in the judge's answer, found none: {}", beginning(text)))
}

fn json_choice(text: &str) -> Result<Choice, Unreadable> {
    let better = json_value(text, "better").and_then(|better| choice(better.as_str()?));
    better.ok_or_else(|| {
        format!("expected an object with \"better\": \"A\", \"B\" or \"tie\" in the judge's answer, found none: {}", beginning(text))
    })
}

fn one_choice(text: &str) -> Result<Choice, Unreadable> {
    let alone = choice(text.trim_matches(|c: char| !c.is_alphanumeric()));
    let found = bracketed(text).filter_map(choice).last().or(alone);
    found.ok_or_else(|| format!("expected [[A]], [[B]] or [[C]] in the judge's answer, found none: {}", beginning(text)))
}

fn choice(word: &str) -> Option<Choice> {
    match word.trim().to_ascii_lowercase().as_str() {
        "a" => Some(Choice::A),
        "b" => Some(Choice::B),
        "c" | "tie" => Some(Choice::Tie),
        _ => None,
    }
}

/// The mean of the scale's digits under the probabilities of the first token, divided by their sum.
fn expected_digit(answer: &Row, scale: Scale) -> Result<f64, Unreadable> {
    let digit = |token: &str| match token.trim().as_bytes() {
        [byte @ b'0'..=b'9'] => Some(f64::from(byte - b'0')).filter(|digit| scale.has(*digit)),
        _ => None,
    };
    let (mut mass, mut sum) = (0.0, 0.0);
    for (token, probability) in probabilities(answer)? {
        if let Some(digit) = digit(token) {
            mass += probability;
            sum += probability * digit;
        }
    }
    check_mass(answer, mass, &format!("the digits from {} to {}", scale.low, scale.high))?;
    Ok(sum / mass)
}

fn likelier_letter(answer: &Row) -> Result<Choice, Unreadable> {
    let (mut a, mut b) = (0.0, 0.0);
    for (token, probability) in probabilities(answer)? {
        match token.trim() {
            "A" => a += probability,
            "B" => b += probability,
            _ => {}
        }
    }
    check_mass(answer, a + b, "A and B")?;
    Ok(if a > b {
        Choice::A
    } else if b > a {
        Choice::B
    } else {
        Choice::Tie
    })
}

/// The most likely first tokens with their probabilities.
fn probabilities(answer: &Row) -> Result<impl Iterator<Item = (&str, f64)>, Unreadable> {
    let tokens = answer.first_token.as_ref();
    let tokens =
        tokens.ok_or_else(|| "expected top_logprobs of the judge's first token, found none; the server gives no logprobs".to_string())?;
    Ok(tokens.iter().map(|(token, logprob)| (token.as_str(), logprob.exp())))
}

fn check_mass(answer: &Row, mass: f64, of: &str) -> Result<(), Unreadable> {
    if mass >= LEAST_MASS {
        return Ok(());
    }
    let mut likeliest: Vec<(&str, f64)> = probabilities(answer)?.collect();
    likeliest.sort_by(|one, other| other.1.total_cmp(&one.1));
    let likeliest: Vec<String> = likeliest.iter().take(SHOWN_TOKENS).map(|(token, share)| format!("{token:?} {share:.3}")).collect();
    Err(format!(
        "expected {of} to have at least {LEAST_MASS} of the probability of the judge's first token, found {mass:.3}; the likeliest are {}",
        likeliest.join(", ")
    ))
}

/// The beginning of an answer, on one line.
fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = line.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < line.len() { format!("{shown:?} …") } else { format!("{shown:?}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Choice, Scale, bracketed, expected_digit, json_choice, json_score, likelier_letter, one_choice, one_number};
    use crate::tables::judge_answers::Row;

    const TEN: Scale = Scale { low: 1.0, high: 10.0 };

    fn tokens(tokens: &[(&str, f64)]) -> Row {
        let first_token: BTreeMap<String, f64> = tokens.iter().map(|(token, share)| (token.to_string(), share.ln())).collect();
        Row { key: [0; 32], text: String::new(), first_token: Some(first_token), prompt_tokens: 0, completion_tokens: 0 }
    }

    #[test]
    fn one_number_is_a_score() {
        for (text, score) in [
            ("7", 7.0),
            (" 7.5\n", 7.5),
            ("Score: 7.", 7.0),
            ("**8**", 8.0),
            ("7/10", 7.0),
            ("I counted 3 errors in 12 lines. [[4]]", 4.0),
            ("First [[2]], then [[ 9 ]]", 9.0),
            ("-1", -1.0),
        ] {
            assert_eq!(one_number(text, TEN), Ok(score), "{text}");
        }
        for text in ["", "good", "seven", "between 7 and 8", "7/5", "[[score]]", "GPT4 is nan", "inf"] {
            assert!(one_number(text, TEN).is_err(), "{text}");
        }
        assert_eq!(bracketed("a [[b]] c [[d]").collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn objects_are_found_in_text() {
        assert_eq!(json_score("```json\n{\"reason\": \"{good}\", \"score\": 7}\n```"), Ok(7.0));
        assert_eq!(json_score("{oops {\"score\": 2.5} and more"), Ok(2.5));
        assert!(json_score("{\"score\": \"7\"}").is_err());
        assert_eq!(json_choice("{\"better\": \"b\"}"), Ok(Choice::B));
        assert!(json_choice("{\"better\": \"both\"}").unwrap_err().contains("\\\"both\\\""));
    }

    #[test]
    fn the_last_letter_in_brackets_is_the_choice() {
        assert_eq!(one_choice("[[A]] or [[B]]? I say [[B]]"), Ok(Choice::B));
        assert_eq!(one_choice(" **C** "), Ok(Choice::Tie));
        assert!(one_choice("A is better than B").is_err());
        assert!(one_choice("").is_err());
    }

    #[test]
    fn probabilities_of_the_scale_are_renormalized() {
        let scale = Scale { low: 1.0, high: 5.0 };
        let found = expected_digit(&tokens(&[("4", 0.4), (" 5", 0.2), ("7", 0.3), ("no", 0.1)]), scale).unwrap();
        assert!((found - (0.4 * 4.0 + 0.2 * 5.0) / 0.6).abs() < 1e-12);
        let error = expected_digit(&tokens(&[("4", 0.3), ("no", 0.6)]), scale).unwrap_err();
        assert!(error.contains("found 0.300") && error.contains("\"no\" 0.600"), "{error}");
        assert_eq!(likelier_letter(&tokens(&[("A", 0.3), (" A", 0.2), ("B", 0.4)])), Ok(Choice::A));
        assert_eq!(likelier_letter(&tokens(&[("A", 0.4), ("B", 0.4)])), Ok(Choice::Tie));
        assert!(likelier_letter(&tokens(&[("a", 0.9)])).is_err());
    }
}
