//! The tokens that end a response: those of `config.json`, `generation_config.json`, the
//! tokenizer's settings and the chat template, joined. Knows nothing of sampling.
//!
//! Files of published models name different ones. A model that was taught one of them and is
//! stopped at another never stops.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, Conversation, Message, Tokenizer};

/// A turn to see how the chat template ends it.
const QUESTION: &str = "Hi";
const ANSWER: &str = "Hello.";

/// How a chat template ends the assistant's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// With an added token of the tokenizer.
    Token(i32),
    /// With a text of ordinary tokens, or, where it is empty, with nothing.
    Text(String),
    /// There is no template, or it refuses a plain conversation.
    Unknown,
}

/// The tokens that end a response.
#[derive(Clone, Debug)]
pub(super) struct EndTokens {
    /// The tokenizer's `eos_token`.
    pub(super) tokenizer: Option<i32>,
    /// The chat template's.
    pub(super) turn: TurnEnd,
    /// Where transformers stops: the ones of `generation_config.json`, or else of `config.json`.
    pub(super) stops: Vec<i32>,
    /// The ones of `config.json`.
    pub(super) in_config: Vec<i32>,
}

impl EndTokens {
    /// Those of the files `stops` (see [`EndTokens::stops`]) and `in_config`, the tokenizer's
    /// `eos_token`, and the one that `template` writes behind the assistant's message. Ids outside
    /// the model's vocabulary are left out.
    pub(super) fn new(
        stops: Vec<i32>,
        in_config: Vec<i32>,
        eos_token: Option<&str>,
        template: Option<&ChatTemplate>,
        tokenizer: &Tokenizer,
        vocab_size: usize,
    ) -> Self {
        let fits = |id: &i32| usize::try_from(*id).is_ok_and(|id| id < vocab_size);
        let in_config: Vec<i32> = in_config.into_iter().filter(fits).collect();
        let eos_token = eos_token.and_then(|token| tokenizer.token_id(token)).filter(fits);
        let known = |id: &i32| stops.contains(id) || in_config.contains(id) || eos_token == Some(*id);
        let turn = match turn_end(template, tokenizer, known) {
            TurnEnd::Token(id) if !fits(&id) => TurnEnd::Unknown,
            turn => turn,
        };
        Self { tokenizer: eos_token, turn, stops, in_config }
    }

    /// The chat template's, if it is a token.
    pub(super) fn turn_token(&self) -> Option<i32> {
        match self.turn {
            TurnEnd::Token(id) => Some(id),
            TurnEnd::Text(_) | TurnEnd::Unknown => None,
        }
    }

    /// All of them, each once: those where transformers stops come first.
    pub(super) fn joined(&self) -> Vec<i32> {
        let mut joined = Vec::new();
        for id in self.stops.iter().chain(&self.in_config).copied().chain(self.tokenizer).chain(self.turn_token()) {
            if !joined.contains(&id) {
                joined.push(id);
            }
        }
        joined
    }

    /// Those where transformers would not stop.
    pub(super) fn missing(&self) -> Vec<i32> {
        self.joined().into_iter().filter(|id| !self.stops.contains(id)).collect()
    }

    /// The end of a response to a plain text: the token that TRL appends.
    pub(super) fn of_text(&self) -> Option<i32> {
        self.tokenizer.or_else(|| self.joined().first().copied())
    }

    /// The end of the assistant's turn.
    pub(super) fn of_turn(&self) -> Option<i32> {
        self.turn_token().or_else(|| self.of_text())
    }

    /// `generation_config.json` with all of them; `None` where `written` has them already. Without
    /// such a file transformers takes the settings of `config`.
    pub(super) fn completed(&self, written: Option<&Value>, config: &Value) -> Option<Value> {
        if self.missing().is_empty() {
            return None;
        }
        let mut settings = written.and_then(Value::as_object).cloned().unwrap_or_else(|| {
            let kept = ["bos_token_id", "pad_token_id"].into_iter().filter_map(|key| Some((key.to_string(), config.get(key)?.clone())));
            kept.collect::<Map<String, Value>>()
        });
        settings.insert("eos_token_id".to_string(), json!(self.joined()));
        Some(Value::Object(settings))
    }
}

/// The added token behind the assistant's message; the text there if it has none.
///
/// Several added tokens may follow each other, such as the end of a response and the end of a turn:
/// the first one that is `known` as an end counts, else the first one. A token behind the last turn
/// only closes the conversation and is none of them.
fn turn_end(template: Option<&ChatTemplate>, tokenizer: &Tokenizer, known: impl Fn(&i32) -> bool) -> TurnEnd {
    let Some(mut template) = template.cloned() else { return TurnEnd::Unknown };
    // Some templates write the date.
    template.set_date(Some(chrono::NaiveDate::default()));
    let asked = Message::new("user", QUESTION);
    let answered = vec![asked.clone(), Message::assistant(ANSWER)];
    let behind = |messages: Vec<Message>| {
        let text = template.render(Conversation::from(messages), false).ok()?;
        text.rsplit_once(ANSWER).map(|(_, tail)| tail.to_string())
    };
    let Some(tail) = behind(answered.clone()) else { return TurnEnd::Unknown };
    let ends = tokenizer.first_added_tokens(&tail);
    let Some(first) = ends.first() else { return TurnEnd::Text(tail.trim().to_string()) };
    let goes_on = behind([answered, vec![asked]].concat()).map(|tail| tokenizer.first_added_tokens(&tail)).unwrap_or_default();
    let mut of_turn = ends.iter().zip(&goes_on).take_while(|(end, other)| end == other).map(|(end, _)| end);
    TurnEnd::Token(*of_turn.find(|id| known(id)).unwrap_or(first))
}
