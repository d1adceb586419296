//! What to know about the ends of a checkpoint's responses before a run. Knows nothing of files.

use super::Checkpoint;
use super::end_tokens::TurnEnd;

impl Checkpoint {
    /// A warning about end tokens that `generation_config.json`, or else `config.json`, does not
    /// name.
    pub fn end_token_warning(&self) -> Option<String> {
        let ends = &self.ends;
        let missing = ends.missing();
        if missing.is_empty() {
            return None;
        }
        let named = |id: i32| format!("{id} ({:?})", self.tokenizer.token(id).unwrap_or_default());
        let list =
            |ids: &[i32]| if ids.is_empty() { "none".to_string() } else { ids.iter().map(|id| named(*id)).collect::<Vec<_>>().join(", ") };
        let sources = [
            ("the tokenizer's eos_token is", ends.tokenizer),
            ("the chat template ends a turn with", ends.turn_token()),
            ("config.json has", ends.in_config.iter().find(|id| missing.contains(id)).copied()),
        ];
        let others: Vec<String> = sources
            .into_iter()
            .filter_map(|(words, id)| id.filter(|id| missing.contains(id)).map(|id| format!("{words} {}", named(id))))
            .collect();
        Some(format!(
            "{}: the files differ in the end token: transformers stops at {}, but {}; here each of them ends a response, and saved models name them all",
            self.folder.display(),
            list(&ends.stops),
            others.join(", and ")
        ))
    }

    /// A warning about responses to messages that are learned without an end; `None` if they have
    /// one.
    pub fn unended_warning(&self) -> Option<String> {
        let TurnEnd::Text(text) = &self.ends.turn else { return None };
        let written = if text.is_empty() { "nothing".to_string() } else { format!("{text:?}, which is no token,") };
        Some(format!(
            "{}: the chat template writes {written} behind the assistant's message, so responses to messages are learned without an end, as \
             in TRL, and the model does not learn to stop; write {{{{ eos_token }}}} behind the message in chat_template.jinja",
            self.folder.display()
        ))
    }

    /// Why responses to messages, or else to plain texts, would have no end; `None` if they have
    /// one.
    pub fn endless(&self, messages: bool) -> Option<String> {
        let folder = self.folder.display();
        if self.generation.eos_token_ids.is_empty() {
            return Some(format!(
                "{folder}: expected an end token, found none in config.json, generation_config.json, tokenizer_config.json and the chat \
                 template; add eos_token_id to generation_config.json"
            ));
        }
        let TurnEnd::Text(text) = &self.ends.turn else { return None };
        // Other texts between turns are no promise of an end.
        let is_like_a_token = ["<", "[", "\u{ff5c}"].iter().any(|opening| text.starts_with(opening));
        (messages && is_like_a_token).then(|| {
            format!(
                "{folder}: expected a chat template that ends a turn with a token of the tokenizer, found {text:?}, which the tokenizer splits \
                 like other text, so no response ends; add it to the tokenizer as a special token"
            )
        })
    }
}
