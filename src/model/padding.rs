//! The token that fills up the rows of a reward model's batches.
//!
//! transformers takes a conversation's score at its last token other than `pad_token_id`, and here
//! it is the same token. vLLM takes the last token. Both agree where padding never ends a
//! conversation, so a new reward model gets such a token. Knows nothing of tensors.

use serde_json::Value;

use super::families::padding::pad_token_id;
use super::tokenizer_settings::TokenizerSettings;
use super::{Checkpoint, Head, PromptContent, SpecialTokens, Tokenizer};

/// A conversation to see how the model's conversations end.
const SAMPLE: &str = "Hello";

/// The `pad_token_id` of a `config.json`, or its family's default.
fn in_config(config: &Value) -> Option<i32> {
    config.as_object().and_then(pad_token_id)
}

/// The first token to pad with among `config.json`'s own, the tokenizer's, those that have it in
/// their name, the unknown one, the first of a text, and other special tokens, that
/// `ends_conversations` is false for.
fn choose(
    config: &Value,
    bos: Option<i32>,
    settings: &TokenizerSettings,
    tokenizer: &Tokenizer,
    ends_conversations: impl Fn(i32) -> bool,
) -> Option<i32> {
    let named = |name: &str| settings.named(name).and_then(|token| tokenizer.token_id(token));
    let special = tokenizer.special_tokens();
    let like_padding = special.iter().filter(|(_, token)| token.to_lowercase().contains("pad")).map(|(id, _)| *id);
    let known = in_config(config).into_iter().chain(named("pad_token")).chain(like_padding).chain(named("unk_token")).chain(bos);
    let mut candidates = known.chain(special.iter().map(|(id, _)| *id));
    // A text may spell out any other token.
    candidates.find(|id| special.iter().any(|(special, _)| special == id) && !ends_conversations(*id))
}

impl Checkpoint {
    /// A conversation's ids up to the token with the score that is its reward: the last one other
    /// than `pad_token_id`, or the first one if there is no other. A language model has no such
    /// token.
    pub fn up_to_score(&self, mut token_ids: Vec<i32>) -> Vec<i32> {
        if self.config.head == Head::Reward
            && let Some(padding) = in_config(&self.config_json)
        {
            let scored = token_ids.iter().rposition(|id| *id != padding).unwrap_or(0);
            token_ids.truncate(scored + 1);
        }
        token_ids
    }

    /// The token to pad with in a reward model that starts from this policy, with its text; `None`
    /// if every special token may end a conversation.
    pub(super) fn reward_padding(&self) -> Option<(i32, String)> {
        let closing = self.closing_tokens();
        let ends = |id: i32| self.is_end(id) || closing.contains(&id) || usize::try_from(id).is_ok_and(|id| id >= self.config.vocab_size);
        let id = choose(&self.config_json, self.config.bos_token_id, &self.tokenizer_settings, &self.tokenizer, ends)?;
        Some((id, self.tokenizer.token(id)?))
    }

    /// A warning about the padding of this reward model, or of a reward model that starts from this
    /// policy.
    pub fn padding_warning(&self) -> Option<String> {
        let folder = self.folder.display();
        if self.config.head == Head::CausalLm {
            let problem = "every special token of the tokenizer may end a conversation, so the reward model has no token to pad with; \
                           its rewards are right in transformers one conversation at a time";
            return self.reward_padding().is_none().then(|| format!("{folder}: {problem}"));
        }
        let padding = in_config(&self.config_json).filter(|padding| self.is_end(*padding) || self.closing_tokens().contains(padding))?;
        Some(format!(
            "{folder}: the conversations may end with pad_token_id {padding} ({:?}); as in transformers, the reward is the score of the last \
             token before it, but vLLM takes that of the last token",
            self.tokenizer.token(padding).unwrap_or_default()
        ))
    }

    /// The last tokens of a conversation and of a plain text.
    fn closing_tokens(&self) -> Vec<i32> {
        let conversation = self.encode_conversation(&PromptContent::Text(SAMPLE.to_string()), SAMPLE);
        let text = self.tokenizer.encode(SAMPLE, SpecialTokens::Added);
        [conversation, text].into_iter().flatten().filter_map(|ids| ids.last().copied()).collect()
    }
}
