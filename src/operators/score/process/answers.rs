//! Answers of a process: rewards and errors, by the ids of responses.
//!
//! Knows one answer, not the responses in hand.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::response::Score;
use super::super::score_error::ScoreError;

/// Something said by a process.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// The score of the response with this id, or the reason why it has none.
    Answer(String, Result<Score, ScoreError>),
    /// The reason why nothing can be scored.
    Fatal(String),
}

/// The characters shown of a line.
const SHOWN_CHARACTERS: usize = 120;

/// A line of JSON as it may come.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    reward: Option<Value>,
    components: Option<BTreeMap<String, Value>>,
    error: Option<String>,
    fatal: Option<String>,
}

/// A given value, null included.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The answer in a line of JSON. `scorer` names the reward in errors of its value.
///
/// # Errors
/// The expected and the found content.
pub(super) fn parse(scorer: &str, line: &[u8]) -> Result<Word, String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let beginning = || {
        let more = if text.chars().count() > SHOWN_CHARACTERS { "…" } else { "" };
        format!("the line {:?}{more}", text.chars().take(SHOWN_CHARACTERS).collect::<String>())
    };
    let parsed = serde_json::from_str::<Line>(text).or_else(|error| match quoted_numbers(text) {
        Some(quoted) => serde_json::from_str(&quoted),
        None => Err(error),
    });
    let line = parsed.map_err(|error| {
        let expected = "expected answers such as {\"id\": \"p-1/1/0\", \"reward\": 1.0} on standard output";
        format!("{expected}, found {} ({error}); write anything else to standard error", beginning())
    })?;
    let wrong = |problem: String| format!("{problem} in {}", beginning());
    if let Some(fatal) = line.fatal {
        return Ok(Word::Fatal(fatal));
    }
    let id = match line.id {
        Some(Value::String(id)) => id,
        Some(other) => return Err(wrong(format!("expected the id of a response as text, found {other}"))),
        None => return Err(wrong("expected the id of a response, found none".to_string())),
    };
    let components = line.components.unwrap_or_default();
    match (line.reward, line.error) {
        (None | Some(Value::Null), Some(error)) => Ok(Word::Answer(id, Err(ScoreError::Other(format!("{scorer}: {error}"))))),
        (Some(_), Some(_)) => Err(wrong("expected a reward or an error, found both".to_string())),
        (None, None) => Err(wrong("expected a reward or an error, found neither".to_string())),
        (Some(reward), None) => {
            let reward = number(&reward).map_err(|found| wrong(format!("expected a number or null as reward, found {found}")))?;
            let mut numbers = BTreeMap::new();
            for (name, value) in components {
                let value = number(&value).map_err(|found| wrong(format!("expected a number as component {name}, found {found}")))?;
                numbers.extend(value.map(|value| (name, value)));
            }
            Ok(Word::Answer(id, score(scorer, reward, numbers)))
        }
    }
}

/// The score of a reward and its components; an error unless all of them are finite.
pub(super) fn score(scorer: &str, reward: Option<f64>, components: BTreeMap<String, f64>) -> Result<Score, ScoreError> {
    let reward = reward.ok_or_else(|| ScoreError::not_finite(scorer, "null"))?;
    let score = Score::plain(scorer, reward)?;
    match components.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(ScoreError::not_finite(scorer, format!("{value} as its component {name}"))),
        None => Ok(Score { components, ..score }),
    }
}

/// A number, or null, or a word for a number that JSON has not.
fn number(value: &Value) -> Result<Option<f64>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(word) => match word.as_str() {
            "NaN" => Ok(Some(f64::NAN)),
            "Infinity" => Ok(Some(f64::INFINITY)),
            "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
            _ => Err(value.to_string()),
        },
        value => value.as_f64().map(Some).ok_or_else(|| value.to_string()),
    }
}

/// The text with quotes around `NaN`, `Infinity` and `-Infinity`, as Python writes them. `None` if
/// it has none of them.
fn quoted_numbers(text: &str) -> Option<String> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut quoted = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut found = false;
    let mut in_text = false;
    while let Some(first) = rest.chars().next() {
        let word = if in_text { None } else { WORDS.into_iter().find(|word| rest.starts_with(word)) };
        let taken = match word {
            Some(word) => {
                found = true;
                quoted.extend(["\"", word, "\""]);
                word.len()
            }
            // An escaped character belongs to the text, whatever it is.
            None if in_text && first == '\\' => {
                let escaped = rest.chars().take(2).map(char::len_utf8).sum();
                quoted.push_str(rest.get(..escaped).unwrap_or(rest));
                escaped
            }
            None => {
                in_text ^= first == '"';
                quoted.push(first);
                first.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    found.then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::{Word, parse};

    fn said(line: &str) -> String {
        match parse("reward command", line.as_bytes()) {
            Ok(Word::Answer(id, Ok(score))) => format!("{id}: {} {:?}", score.reward, score.components),
            Ok(Word::Answer(id, Err(error))) => format!("{id}: {error}"),
            Ok(Word::Fatal(fatal)) => format!("fatal: {fatal}"),
            Err(problem) => problem,
        }
    }

    #[test]
    fn answers_are_rewards_or_errors() {
        assert_eq!(said(r#"{"id": "a/1/0", "reward": 1.5, "components": {"x": 2, "y": null}}"#), r#"a/1/0: 1.5 {"x": 2.0}"#);
        assert_eq!(said(r#"{"reward": null, "id": "a"}"#), "a: reward command: expected a finite reward, found null");
        assert_eq!(said(r#"{"id": "a", "reward": NaN}"#), "a: reward command: expected a finite reward, found NaN");
        assert_eq!(said(r#"{"id": "NaN", "reward": -Infinity}"#), "NaN: reward command: expected a finite reward, found -inf");
        assert_eq!(said(r#"{"id": "\"NaN", "reward": "Infinity"}"#), "\"NaN: reward command: expected a finite reward, found inf");
        assert_eq!(
            said(r#"{"id": "a", "reward": 1, "components": {"x": NaN}}"#),
            "a: reward command: expected a finite reward, found NaN as its component x"
        );
        assert_eq!(said(r#"{"id": "a", "error": "no compiler"}"#), "a: reward command: no compiler");
        assert_eq!(said(r#"{"id": "a", "error": "no", "reward": null}"#), "a: reward command: no");
        assert_eq!(said(r#"{"fatal": "no license"}"#), "fatal: no license");
    }

    #[test]
    fn other_lines_are_told_what_is_wrong() {
        for (line, expected) in [
            (
                "hello",
                "on standard output, found the line \"hello\" (expected value at line 1 column 1); write anything else to standard error",
            ),
            (r#"{"id": "a"}"#, "expected a reward or an error, found neither in the line"),
            (r#"{"id": "a", "reward": 1, "error": "b"}"#, "expected a reward or an error, found both"),
            (r#"{"reward": 1}"#, "expected the id of a response, found none"),
            (r#"{"id": 3, "reward": 1}"#, "expected the id of a response as text, found 3"),
            (r#"{"id": "a", "reward": "good"}"#, "expected a number or null as reward, found \"good\""),
            (r#"{"id": "a", "reward": true}"#, "expected a number or null as reward, found true"),
            (r#"{"id": "a", "reward": 1, "components": {"x": []}}"#, "expected a number as component x, found []"),
            (r#"{"id": "a", "score": 1}"#, "unknown field `score`"),
            ("[1, 2", "found the line \"[1, 2\""),
            (&"x".repeat(200), "xxx\"… (expected"),
        ] {
            let found = said(line);
            assert!(found.contains(expected), "{line}: {found}");
        }
    }
}
