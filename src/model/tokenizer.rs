//! Text to token ids and back, with a checkpoint's own `tokenizer.json`. Knows nothing of chat
//! templates or tensors.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{ModelError, files};
use crate::catch_panic::catch_panic;

/// The longest text for a tokenizer, in bytes: longer than any model's context. A tokenizer takes a
/// hundred bytes a token, and a token may be one byte.
const MOST_TEXT_BYTES: usize = 8 << 20;

/// A Hugging Face tokenizer, without the truncation and padding of its file.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

/// The writer of the special tokens (such as a beginning-of-sequence token) around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// The tokenizer adds them, before and behind: for a complete plain text.
    Added,
    /// The tokenizer adds the opening ones and leaves out the closing ones: for a plain text to be
    /// continued.
    Opening,
    /// The text spells them out already: for the output of a chat template.
    Written,
}

/// A prompt and its response as one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPair {
    /// The prompt's ids, then the response's.
    pub token_ids: Vec<i32>,
    /// How many of them are the prompt's.
    pub prompt_token_count: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read or is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let bytes = files::read(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
        // The library panics at a decoder without valid JSON, and at some contradictions.
        serde_json::from_slice::<Json>(&bytes).map_err(|error| ModelError::invalid(path, error))?;
        let broken = |said| ModelError::invalid(path, format!("expected a tokenizer, found one that contradicts itself ({said})"));
        let read = catch_panic(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(broken)?;
        let mut inner = read.map_err(|error| ModelError::invalid(path, error))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| ModelError::invalid(path, error))?;
        Ok(Self { inner })
    }

    /// One more than the largest token id.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The token ids of a text.
    ///
    /// A text with the tokenizer's opening token does not get it twice. (Python's `tokenizer(text)`
    /// would give it twice; no model was trained on this.)
    ///
    /// # Errors
    /// When the tokenizer cannot represent the text, or makes no token of it.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<i32>, ModelError> {
        let ids = self.ids(text, special)?;
        if ids.is_empty() {
            let beginning: String = text.chars().take(60).collect();
            return Err(ModelError::Text(format!("expected at least one token, found none in {beginning:?}")));
        }
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], but a text may have no tokens.
    pub(super) fn ids(&self, text: &str, special: SpecialTokens) -> Result<Vec<i32>, ModelError> {
        if text.len() > MOST_TEXT_BYTES {
            let problem = format!("expected a text of at most {MOST_TEXT_BYTES} bytes, found {}", text.len());
            return Err(ModelError::Text(problem));
        }
        let encoding = catch_panic(|| self.inner.encode_fast(text, special != SpecialTokens::Written)).map_err(broken)?;
        let encoding = encoding.map_err(|error| ModelError::Text(error.to_string()))?;
        // The mask marks tokens added by the tokenizer. A special token spelled out in the text is
        // not marked.
        let added = |mask: &&u32| **mask == 1;
        let opening = encoding.get_special_tokens_mask().iter().take_while(added).count();
        let closing = encoding.get_special_tokens_mask()[opening..].iter().rev().take_while(added).count();
        // Ids are below the vocabulary size. This is checked against config.json, and fits i32.
        let mut ids: Vec<i32> = encoding.get_ids().iter().map(|id| *id as i32).collect();
        if special == SpecialTokens::Opening {
            ids.truncate(ids.len() - closing);
        }
        if opening > 0 && ids.get(opening) == ids.get(opening - 1) {
            ids.remove(opening);
        }
        Ok(ids)
    }

    /// The token ids of `whole`, a text with the prefix `prompt`, and the number of the prompt's
    /// ids.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; and when the response's first characters melt into the prompt's
    /// last token, because then generation from the prompt could never have produced the whole.
    pub fn encode_pair(&self, prompt: &str, whole: &str, special: SpecialTokens) -> Result<EncodedPair, ModelError> {
        let prompt_ids = self.encode(prompt, special)?;
        let token_ids = self.encode(whole, special)?;
        if !token_ids.starts_with(&prompt_ids) {
            let same = token_ids.iter().zip(&prompt_ids).take_while(|(left, right)| left == right).count();
            return Err(ModelError::Text(format!(
                "the prompt's {} tokens are not the first ones of prompt and response together (they part after {same}), near {:?} + {:?}; {}",
                prompt_ids.len(),
                ending(prompt),
                whole.strip_prefix(prompt).unwrap_or(whole).chars().take(20).collect::<String>(),
                match special {
                    SpecialTokens::Written => "the chat template must end the prompt where a token ends whatever follows",
                    SpecialTokens::Added | SpecialTokens::Opening => "move white space from the prompt's end to the response's start",
                },
            )));
        }
        Ok(EncodedPair { token_ids, prompt_token_count: prompt_ids.len() })
    }

    /// The text of token ids, special tokens left out.
    ///
    /// # Errors
    /// When an id is negative or the tokenizer's decoder fails.
    pub fn decode(&self, token_ids: &[i32]) -> Result<String, ModelError> {
        let ids: Result<Vec<u32>, _> = token_ids.iter().map(|id| u32::try_from(*id)).collect();
        let ids = ids.map_err(|_| ModelError::Text("expected token ids from 0 on, found a negative one".to_string()))?;
        catch_panic(|| self.inner.decode(&ids, true)).map_err(broken)?.map_err(|error| ModelError::Text(error.to_string()))
    }

    /// The id of a token given as text, such as `</s>`.
    pub fn token_id(&self, token: &str) -> Option<i32> {
        self.inner.token_to_id(token).and_then(|id| i32::try_from(id).ok())
    }
}

fn broken(said: String) -> ModelError {
    ModelError::Text(format!("tokenizer.json contradicts itself ({said})"))
}

/// The last characters of `text`, for an error message.
pub(super) fn ending(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(20);
    text.chars().skip(skipped).collect()
}

/// Any JSON value, checked and dropped. (serde's own `IgnoredAny` looks at neither depth nor
/// numbers.)
struct Json;

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Json {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}
