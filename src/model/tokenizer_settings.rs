//! The settings of a tokenizer beside `tokenizer.json`, read as transformers reads them:
//! `tokenizer_config.json`, and where it does not describe the added tokens, the older
//! `special_tokens_map.json` and `added_tokens.json`. Knows nothing of text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::{ModelError, files};

pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const DECODER: &str = "added_tokens_decoder";

/// The special tokens with names of their own, in the order of transformers.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The lists of further special tokens; the first one with tokens counts.
const LISTS: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// What a folder says about its tokenizer.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenizerSettings {
    /// Special tokens by name. The known names are first, in their order.
    named: Vec<(String, AddedToken)>,
    /// Special tokens without a name.
    extra: Vec<AddedToken>,
    /// Added tokens by id; `None` where `tokenizer.json` alone describes them.
    decoder: Option<BTreeMap<u32, AddedToken>>,
    /// The tokens of `added_tokens.json`, by id.
    older: BTreeMap<u32, String>,
    /// Whether a special token spelled out in a text is split like other text.
    pub(super) splits_special_tokens: bool,
}

impl TokenizerSettings {
    /// Reads the settings of a checkpoint's folder. All of the files may be absent.
    ///
    /// # Errors
    /// When a file cannot be read, is not JSON, or has something other than a token in the place of
    /// one.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(TOKENIZER_CONFIG);
        let mut settings = object_in(&path)?.unwrap_or_default();
        let invalid = |path: &PathBuf| {
            let path = path.clone();
            move |problem: String| ModelError::invalid(&path, problem)
        };
        let mut read = Self::default();
        match settings.remove(DECODER).filter(|decoder| !decoder.is_null()) {
            Some(decoder) => read.decoder = Some(by_id(&decoder).map_err(invalid(&path))?),
            None => {
                let older = folder.join(SPECIAL_TOKENS_MAP);
                // A list in both files stays as in the newer one.
                let lists = LISTS.iter().any(|list| has_tokens(&settings, list));
                for (name, value) in object_in(&older)?.unwrap_or_default() {
                    if !(lists && LISTS.contains(&name.as_str())) {
                        settings.insert(name, value);
                    }
                }
                let older = folder.join(ADDED_TOKENS);
                for (token, id) in object_in(&older)?.unwrap_or_default() {
                    let problem = || format!("{token:?}: expected a token id, found {id}");
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    let id = id.ok_or_else(problem).map_err(invalid(&older))?;
                    read.older.insert(id, token);
                }
            }
        }
        read.take_tokens(&settings).map_err(invalid(&path))?;
        // add_bos_token and add_eos_token do not count beside a tokenizer.json.
        read.splits_special_tokens = settings.get("split_special_tokens").and_then(Value::as_bool).unwrap_or(false);
        Ok(read)
    }

    fn take_tokens(&mut self, settings: &Map<String, Value>) -> Result<(), String> {
        let known = NAMES.iter().map(|name| name.to_string());
        let others = settings.iter().filter(|(name, value)| {
            name.ends_with("_token") && !NAMES.contains(&name.as_str()) && (value.is_string() || value.get("content").is_some())
        });
        let others: Vec<String> = others.map(|(name, _)| name.clone()).collect();
        for name in known.chain(others) {
            if let Some(value) = settings.get(&name).filter(|value| !value.is_null()) {
                self.named.push((name.clone(), special(value).map_err(|problem| format!("{name}: {problem}"))?));
            }
        }
        let list = LISTS.iter().find(|list| has_tokens(settings, list)).and_then(|list| settings.get(*list));
        match list {
            Some(Value::Array(tokens)) => {
                for token in tokens {
                    self.extra.push(special(token).map_err(|problem| format!("{}: {problem}", LISTS[0]))?);
                }
            }
            Some(Value::Object(tokens)) => {
                for (name, token) in tokens {
                    self.named.push((name.clone(), special(token).map_err(|problem| format!("{name}: {problem}"))?));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The special tokens with a name, as text.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|(name, token)| (name.as_str(), token.content.as_str()))
    }

    /// The special token of this name, as text.
    pub(super) fn named(&self, name: &str) -> Option<&str> {
        self.names().find(|(other, _)| *other == name).map(|(_, token)| token)
    }

    /// The tokens that the settings add to those `present` in `tokenizer.json`, or describe in
    /// another way, in the order in which transformers adds them.
    pub(super) fn tokens_to_add(&self, present: &BTreeMap<u32, AddedToken>) -> Vec<AddedToken> {
        let mut described = match &self.decoder {
            Some(decoder) => decoder.clone(),
            None => present.clone(),
        };
        for (id, token) in &self.older {
            let is_special = self.special_tokens().any(|special| special.content == *token);
            described.entry(*id).or_insert_with(|| AddedToken::from(token.clone(), is_special));
        }
        let mut tokens: Vec<AddedToken> = described.into_values().collect();
        for token in self.special_tokens() {
            let is_known = present.values().chain(&tokens).any(|known| known.content == token.content);
            if !is_known {
                tokens.push(token.clone());
            }
        }
        for token in &mut tokens {
            token.special |= self.named.iter().any(|(_, named)| named.content == token.content);
        }
        tokens
    }

    fn special_tokens(&self) -> impl Iterator<Item = &AddedToken> {
        self.named.iter().map(|(_, token)| token).chain(&self.extra)
    }
}

/// The JSON object in a file; `None` where there is no file.
fn object_in(path: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    if !path.exists() {
        return Ok(None);
    }
    match files::read_json(path)? {
        Value::Object(settings) => Ok(Some(settings)),
        _ => Err(ModelError::invalid(path, "expected an object")),
    }
}

/// Whether a list of tokens is there and not empty.
fn has_tokens(settings: &Map<String, Value>, list: &str) -> bool {
    match settings.get(list) {
        Some(Value::Array(tokens)) => !tokens.is_empty(),
        Some(Value::Object(tokens)) => !tokens.is_empty(),
        _ => false,
    }
}

fn by_id(decoder: &Value) -> Result<BTreeMap<u32, AddedToken>, String> {
    let entries = decoder.as_object().ok_or_else(|| format!("{DECODER}: expected an object"))?;
    let entry = |(id, token): (&String, &Value)| {
        let number = id.parse().map_err(|_| format!("{DECODER}: expected a token id, found {id:?}"))?;
        Ok((number, added(token, false).map_err(|problem| format!("{DECODER}: {id}: {problem}"))?))
    };
    entries.iter().map(entry).collect()
}

fn special(token: &Value) -> Result<AddedToken, String> {
    added(token, true)
}

/// A token, written as text or as an object with its `content`.
fn added(token: &Value, is_special: bool) -> Result<AddedToken, String> {
    if let Some(content) = token.as_str() {
        return Ok(AddedToken::from(content, is_special));
    }
    let Some(content) = token.get("content").and_then(Value::as_str) else {
        return Err(format!("expected a token as text or with its content, found {token}"));
    };
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    let is_special = is_special || flag("special").unwrap_or(false);
    Ok(AddedToken::from(content, is_special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!is_special)))
}
