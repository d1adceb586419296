//! `generation_config.json`: the end tokens. Knows nothing of sampling.

use serde::Deserialize;
use serde_json::Value;

use super::ModelConfig;

/// One token id, or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum TokenIds {
    One(i32),
    Several(Vec<i32>),
}

impl TokenIds {
    pub(super) fn into_vec(self) -> Vec<i32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

/// The part of `generation_config.json` on the end of a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// The end tokens; any of them ends a response. Those of the checkpoint's other files are among
    /// them.
    pub eos_token_ids: Vec<i32>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`; where it is absent or names no end, `config`'s ends are
    /// used.
    ///
    /// # Errors
    /// A sentence without the file's name, when an id is not an integer or not in the vocabulary.
    pub fn from_json(json: Option<&Value>, config: &ModelConfig) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        struct Written {
            eos_token_id: Option<TokenIds>,
        }
        let written = match json {
            Some(json) => Written::deserialize(json).map_err(|error| error.to_string())?,
            None => Written::default(),
        };
        let eos_token_ids = written.eos_token_id.map_or_else(|| config.eos_token_ids.clone(), TokenIds::into_vec);
        match eos_token_ids.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < config.vocab_size)) {
            Some(outside) => Err(format!("eos_token_id is {outside}, expected a token from 0 to {}", config.vocab_size - 1)),
            None => Ok(Self { eos_token_ids }),
        }
    }
}
