//! Texts that tell by themselves whether they are what was written: the last thing in them is the hash of all before it.
//!
//! For what no manifest lists: manifests themselves, and files that a run goes by. A seal finds accidents and edits by hand, not a forger.

/// How a text ends.
pub(super) struct Form {
    /// What stands between the text and its seal.
    begin: &'static str,
    /// What stands behind the seal.
    end: &'static str,
    /// What `begin` and `end` replace of the text's end.
    replaced: &'static str,
    /// Hexadecimal digits of the seal.
    digits: usize,
}

/// A pretty-printed JSON object, which has a field; the seal is one more.
pub(super) const JSON: Form = Form { begin: ",\n  \"seal\": \"", end: "\"\n}\n", replaced: "\n}\n", digits: 64 };
/// A JSON object in one line, which has a field; the seal is one more. Short: lines are many, and decide nothing.
pub(super) const LINE: Form = Form { begin: ",\"seal\":\"", end: "\"}", replaced: "}", digits: 12 };
/// A YAML file; the seal is a remark.
pub(super) const YAML: Form = Form { begin: "\n# seal: ", end: "\n", replaced: "\n", digits: 64 };

impl Form {
    /// The text with its seal.
    pub(super) fn seal(&self, text: &str) -> String {
        let body = text.strip_suffix(self.replaced).unwrap_or(text);
        format!("{body}{}{}{}", self.begin, self.hash(body), self.end)
    }

    /// The text without its seal, or what was found in the place of a sealed one.
    pub(super) fn open(&self, bytes: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("bytes that are no text ({error})"))?;
        let parts = text.strip_suffix(self.end).and_then(|text| text.rsplit_once(self.begin));
        let (body, seal) = parts.ok_or("one without its seal at the end")?;
        let hash = self.hash(body);
        if hash == seal {
            return Ok(format!("{body}{}", self.replaced));
        }
        let short = |hash: &str| hash.chars().take(LINE.digits).collect::<String>();
        Err(format!("one that was changed after it was written (its seal is {}, its hash {})", short(seal), short(&hash)))
    }

    fn hash(&self, body: &str) -> String {
        blake3::hash(body.as_bytes()).to_hex().chars().take(self.digits).collect()
    }
}
