//! The scale of a judge's scores.
//!
//! Knows its ends, not the judge.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The lowest and the highest score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The lowest score.
    pub low: f64,
    /// The highest score, above the lowest.
    pub high: f64,
}

impl Scale {
    /// Checks that every score is one digit, the first token of an answer in every vocabulary.
    ///
    /// # Errors
    /// It has other scores too.
    pub(super) fn check_digits(self) -> Result<(), String> {
        let is_digit = |end: f64| end.fract() == 0.0 && (0.0..=9.0).contains(&end);
        if is_digit(self.low) && is_digit(self.high) {
            return Ok(());
        }
        Err(format!(
            "expected a scale of digits for `read: logprobs`, such as [1, 5] or [0, 9], found [{}, {}]; other numbers may be several tokens",
            self.low, self.high
        ))
    }

    /// Whether a score is on the scale.
    pub fn has(self, score: f64) -> bool {
        (self.low..=self.high).contains(&score)
    }
}

impl Serialize for Scale {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.low, self.high].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scale {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ends = Vec::<f64>::deserialize(deserializer)?;
        let expected = "expected the lowest and the highest score, such as [1, 10]";
        match ends.as_slice() {
            &[low, high] if !(low.is_finite() && high.is_finite()) => Err(D::Error::custom(format!("{expected}, found [{low}, {high}]"))),
            &[low, high] if low >= high => Err(D::Error::custom(format!("{expected}, found the higher one first: [{low}, {high}]"))),
            &[low, high] => Ok(Self { low, high }),
            other => Err(D::Error::custom(format!("{expected}, found a list of {}", other.len()))),
        }
    }
}

impl JsonSchema for Scale {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Scale".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 })
    }
}
