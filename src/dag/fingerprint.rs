//! Fingerprints: one hash for everything behind an output.
//!
//! Two nodes with the same recipe make the same output, so both can use either one. Knows nothing
//! of files, Arrow or burn.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The blake3 hash of a [`Recipe`] or of an outside file, in lower-case hexadecimal. It names files
/// and folders; deserialization accepts nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_hash = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hash { Ok(Self(text)) } else { Err(format!("expected a fingerprint of 64 hexadecimal digits, found {text:?}")) }
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

impl Fingerprint {
    /// The hash of `bytes`.
    pub fn from_contents(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// All 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people to read.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl From<blake3::Hash> for Fingerprint {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything with an effect on the output of a node, and nothing else: no paths, no names, no
/// resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The operator's name, as in the pipeline file.
    pub operator: String,
    /// Raised whenever the operator's output changes for the same inputs and settings.
    pub version: u32,
    /// The seed and the iteration, for operators with random draws.
    pub seed: Option<(u64, u32)>,
    /// The operator's settings with every default written out.
    pub settings: BTreeMap<String, Value>,
    /// The fingerprints of the inputs, by slot.
    pub inputs: BTreeMap<String, Vec<Fingerprint>>,
}

impl Recipe {
    /// The hash of the whole recipe. Maps are ordered and JSON numbers print shortest-round-trip,
    /// so the text is canonical.
    pub fn fingerprint(&self) -> Fingerprint {
        let text = serde_json::to_string(self);
        debug_assert!(text.is_ok(), "strings, numbers and maps with string keys always serialize");
        Fingerprint::from_contents(text.unwrap_or_default().as_bytes())
    }

    /// The differences from an `older` recipe, one readable phrase each; empty for equal recipes.
    pub fn differences_from(&self, older: &Recipe) -> Vec<String> {
        let mut differences = Vec::new();
        if self.operator != older.operator {
            differences.push(format!("operator was {}, is {}", older.operator, self.operator));
        }
        if self.version != older.version {
            differences.push(format!("operator version was {}, is {}", older.version, self.version));
        }
        if self.seed != older.seed {
            differences.push("seed or iteration changed".to_string());
        }
        for (name, value) in &self.settings {
            match older.settings.get(name) {
                Some(old) if old == value => {}
                Some(old) => differences.push(format!("{name} was {old}, is {value}")),
                None => differences.push(format!("{name} is new: {value}")),
            }
        }
        for name in older.settings.keys().filter(|name| !self.settings.contains_key(*name)) {
            differences.push(format!("{name} is gone"));
        }
        let slots = self.inputs.keys().chain(older.inputs.keys().filter(|slot| !self.inputs.contains_key(*slot)));
        for slot in slots.filter(|slot| self.inputs.get(*slot) != older.inputs.get(*slot)) {
            differences.push(format!("input {slot} changed"));
        }
        differences
    }
}
