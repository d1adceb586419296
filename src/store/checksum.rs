//! Checksummed texts: the hash of the text stands at its end.
//!
//! For files outside every manifest: the manifests themselves and the settings of a run. The
//! checksum finds accidents and edits by hand. It is no protection against forgery.
//!
//! On disk the checksum is called `seal`: a key in JSON, a comment in YAML.

/// How a text carries its checksum.
pub(super) struct ChecksummedText {
    /// The characters between the text and its checksum.
    begin: &'static str,
    /// The characters after the checksum.
    end: &'static str,
    /// The end of the text; `begin` and `end` replace it.
    replaced: &'static str,
    /// Hexadecimal digits of the checksum.
    digits: usize,
}

/// A pretty-printed JSON object with at least one field; the checksum is one more field.
pub(super) const JSON: ChecksummedText = ChecksummedText { begin: ",\n  \"seal\": \"", end: "\"\n}\n", replaced: "\n}\n", digits: 64 };
/// A JSON object in one line with at least one field; the checksum is one more field. It is short,
/// because the journal has many lines and decides nothing.
pub(super) const LINE: ChecksummedText = ChecksummedText { begin: ",\"seal\":\"", end: "\"}", replaced: "}", digits: 12 };
/// A YAML file; the checksum is a comment.
pub(super) const YAML: ChecksummedText = ChecksummedText { begin: "\n# seal: ", end: "\n", replaced: "\n", digits: 64 };

impl ChecksummedText {
    /// The text with its checksum.
    pub(super) fn add(&self, text: &str) -> String {
        let body = text.strip_suffix(self.replaced).unwrap_or(text);
        format!("{body}{}{}{}", self.begin, self.hash(body), self.end)
    }

    /// The text without its checksum.
    ///
    /// # Errors
    /// A description of the actual bytes, to stand after "found": no text, no checksum, or a wrong
    /// checksum.
    pub(super) fn verify(&self, bytes: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("bytes outside UTF-8 ({error})"))?;
        let parts = text.strip_suffix(self.end).and_then(|text| text.rsplit_once(self.begin));
        let (body, checksum) = parts.ok_or("one without its checksum (`seal`) at the end")?;
        let hash = self.hash(body);
        if hash == checksum {
            return Ok(format!("{body}{}", self.replaced));
        }
        let short = |hash: &str| hash.chars().take(LINE.digits).collect::<String>();
        let checksum = short(checksum);
        let hash = short(&hash);
        Err(format!("one that was changed after it was written (its checksum is {checksum}, the hash of its text {hash})"))
    }

    fn hash(&self, body: &str) -> String {
        blake3::hash(body.as_bytes()).to_hex().chars().take(self.digits).collect()
    }
}
