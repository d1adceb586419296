//! Texts that end a response, found while it grows. Knows nothing of logits.
//!
//! As in vLLM's incremental detokenizer: after each token that is no end token, the response's text
//! so far is searched where it is new. The tokens stay up to the one that completes a stop string,
//! and the text is cut before the stop string.

use std::sync::Arc;

use crate::model::{ModelError, TextStream, Tokenizer};

/// Texts that end a response, and the tokenizer for the text of tokens.
#[derive(Clone, Debug)]
pub struct StopStrings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokenizer: Tokenizer,
    strings: Vec<String>,
    /// No response ends by a stop string within so many tokens.
    min_new_tokens: usize,
}

/// The text of a response, so far.
#[derive(Debug)]
pub struct ResponseText {
    stop: StopStrings,
    stream: TextStream,
    tokens: usize,
    text: String,
}

impl StopStrings {
    /// `strings` for responses of at least `min_new_tokens`; `None` without any.
    pub fn new(tokenizer: &Tokenizer, strings: &[String], min_new_tokens: usize) -> Option<Self> {
        let inner = || Inner { tokenizer: tokenizer.clone(), strings: strings.to_vec(), min_new_tokens };
        (!strings.is_empty()).then(|| Self(Arc::new(inner())))
    }

    /// The text of a response to `prompt` without a token.
    pub fn behind(&self, prompt: &[i32]) -> ResponseText {
        ResponseText { stop: self.clone(), stream: self.0.tokenizer.stream_behind(prompt), tokens: 0, text: String::new() }
    }
}

impl ResponseText {
    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes the next token, which is no end token. Returns the end of the text that is to be cut,
    /// from the stop string on, if this token completes one.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, token: i32) -> Result<Option<String>, ModelError> {
        let Inner { tokenizer, strings, min_new_tokens } = &*self.stop.0;
        let searched = self.text.len();
        if let Some(text) = tokenizer.decode_next(&mut self.stream, token)? {
            self.text.push_str(&text);
        }
        self.tokens += 1;
        if self.tokens <= *min_new_tokens {
            return Ok(None);
        }
        let found = strings.iter().filter_map(|string| first_ending_behind(&self.text, string, searched).map(|at| (at + string.len(), at)));
        // The one that is complete first; of several, the first of the list.
        Ok(found.min_by_key(|(end, _)| *end).map(|(_, at)| self.text[at..].to_string()))
    }
}

/// Where the first `string` begins in `text` that ends behind the first `searched` bytes.
fn first_ending_behind(text: &str, string: &str, searched: usize) -> Option<usize> {
    let mut start = (searched + 1).saturating_sub(string.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    text.get(start..)?.match_indices(string).map(|(at, _)| start + at).find(|at| at + string.len() > searched)
}

#[cfg(test)]
mod tests {
    use super::first_ending_behind;

    #[test]
    fn a_stop_string_is_found_once_its_last_character_is_new() {
        for (text, string, searched, expected) in [
            ("ab##", "##", 3, Some(2)),
            ("ab##", "##", 4, None),
            ("##ab##", "##", 2, Some(4)),
            ("a###", "##", 3, Some(2)),
            ("a###", "##", 0, Some(1)),
            ("\u{e9}\u{e9}x", "\u{e9}x", 4, Some(2)),
            ("ab", "abc", 0, None),
            ("", "a", 0, None),
            ("x", "x", 0, Some(0)),
        ] {
            assert_eq!(first_ending_behind(text, string, searched), expected, "{text:?} {string:?} {searched}");
        }
    }
}
