//! Text to token ids and back, with a checkpoint's own `tokenizer.json` and its settings. Knows
//! nothing of chat templates or tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use tokenizers::AddedToken;

use super::tokenizer_settings::TokenizerSettings;
use super::{ModelError, files};
use crate::catch_panic::catch_panic;

/// The longest text for a tokenizer, in bytes: longer than any model's context. A tokenizer takes a
/// hundred bytes a token, and a token may be one byte.
const MOST_TEXT_BYTES: usize = 8 << 20;

/// A Hugging Face tokenizer, without the truncation and padding of its file.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// One more than the largest token id in `tokenizer.json`.
    file_size: usize,
    /// The ids that the model has an embedding for are below it.
    limit: usize,
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

/// Token ids that become text one by one: the last ones, and the text of those at its start.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    text: String,
    written: usize,
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
    /// Reads `tokenizer.json`, for a model with `limit` embeddings, and adds to it what `settings`
    /// say, as transformers does.
    ///
    /// # Errors
    /// When the file cannot be read or is not a tokenizer.
    pub(super) fn from_file(path: &Path, settings: &TokenizerSettings, limit: usize) -> Result<Self, ModelError> {
        let bytes = files::read(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
        // The library panics at a decoder without valid JSON, and at some contradictions.
        serde_json::from_slice::<Json>(&bytes).map_err(|error| ModelError::invalid(path, error))?;
        let broken = |said| ModelError::invalid(path, format!("expected a tokenizer, found one that contradicts itself ({said})"));
        let read = catch_panic(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(broken)?;
        let mut inner = read.map_err(|error| ModelError::invalid(path, error))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| ModelError::invalid(path, error))?;
        let file_size = size(&inner);
        let add = || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
            let present: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
            inner.add_tokens(settings.tokens_to_add(&present))?;
            inner.set_encode_special_tokens(settings.splits_special_tokens);
            Ok(inner)
        };
        let inner = catch_panic(add).map_err(broken)?.map_err(|error| ModelError::invalid(path, error))?;
        Ok(Self { inner, file_size, limit })
    }

    /// One more than the largest token id in `tokenizer.json`.
    pub(super) fn file_size(&self) -> usize {
        self.file_size
    }

    /// One more than the largest token id.
    pub fn vocabulary_size(&self) -> usize {
        size(&self.inner)
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
        if let Some(id) = encoding.get_ids().iter().find(|id| **id as usize >= self.limit) {
            let (limit, token) = (self.limit, self.inner.id_to_token(*id).unwrap_or_default());
            return Err(ModelError::Text(format!("expected tokens below the model's vocab_size {limit}, found {id} ({token:?})")));
        }
        // The model's vocab_size fits i32.
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
                way_on(prompt, whole, special),
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

    /// A stream of text behind a prompt.
    pub fn stream_behind(&self, prompt: &[i32]) -> TextStream {
        TextStream { ids: prompt.iter().filter_map(|id| u32::try_from(*id).ok()).collect(), ..TextStream::default() }
    }

    /// The text of the next token of a stream, special tokens left out; `None` while a character is
    /// not complete.
    ///
    /// # Errors
    /// When the id is negative or the tokenizer's decoder fails.
    pub fn decode_next(&self, stream: &mut TextStream, id: i32) -> Result<Option<String>, ModelError> {
        let id = u32::try_from(id).map_err(|_| ModelError::Text(format!("expected token ids from 0 on, found {id}")))?;
        let step = |stream: &mut TextStream| {
            let TextStream { ids, text, written } = stream;
            catch_panic(|| tokenizers::tokenizer::step_decode_stream(&self.inner, vec![id], true, ids, text, written)).map_err(broken)
        };
        match step(stream)? {
            Ok(text) => Ok(text),
            // Bytes that are no text can change the text before them; the text starts anew then.
            Err(_) => {
                *stream = TextStream::default();
                step(stream)?.map_err(|error| ModelError::Text(error.to_string()))
            }
        }
    }

    /// A token as the vocabulary has it.
    pub fn token(&self, id: i32) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// The special tokens, by id.
    pub(super) fn special_tokens(&self) -> Vec<(i32, String)> {
        let added: BTreeMap<u32, AddedToken> = self.inner.get_added_tokens_decoder().into_iter().collect();
        let special = added.into_iter().filter(|(_, token)| token.special);
        special.filter_map(|(id, token)| Some((i32::try_from(id).ok()?, token.content))).collect()
    }

    /// The first added token that a text spells out, and those next to it, in order; none for a
    /// text that cannot be tokenized.
    pub(super) fn first_added_tokens(&self, text: &str) -> Vec<i32> {
        let added = self.inner.get_added_tokens_decoder();
        let ids = self.ids(text, SpecialTokens::Written).unwrap_or_default();
        // The unknown token is none that the text spells out.
        let is_written = |id: &i32| u32::try_from(*id).is_ok_and(|id| added.get(&id).is_some_and(|token| text.contains(&token.content)));
        ids.into_iter().skip_while(|id| !is_written(id)).take_while(is_written).collect()
    }

    /// The id of a token given as text, such as `</s>`; `None` for one outside the model's
    /// vocabulary.
    pub fn token_id(&self, token: &str) -> Option<i32> {
        self.inner.token_to_id(token).filter(|id| (*id as usize) < self.limit).and_then(|id| i32::try_from(id).ok())
    }
}

/// One more than the largest token id.
fn size(tokenizer: &tokenizers::Tokenizer) -> usize {
    tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
}

fn broken(said: String) -> ModelError {
    ModelError::Text(format!("tokenizer.json contradicts itself ({said})"))
}

/// The fix of a prompt whose last token goes on with the response.
fn way_on(prompt: &str, whole: &str, special: SpecialTokens) -> &'static str {
    let response = whole.strip_prefix(prompt).unwrap_or(whole);
    match special {
        _ if response.starts_with(char::is_whitespace) && prompt.ends_with(char::is_whitespace) => {
            "both meet in white space, which becomes one token; remove it from the response's start"
        }
        SpecialTokens::Written if response.starts_with(char::is_whitespace) => "remove the white space at the response's start",
        SpecialTokens::Written => "the chat template must end the prompt where a token ends whatever follows",
        SpecialTokens::Added | SpecialTokens::Opening if prompt.ends_with(char::is_whitespace) => {
            "move white space from the prompt's end to the response's start"
        }
        SpecialTokens::Added | SpecialTokens::Opening => "begin the response with white space, or end the prompt where a word ends",
    }
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
