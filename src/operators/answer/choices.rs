//! Multiple choice: the logprob of each choice behind the question.
//!
//! Question and choice are tokenized together, and the choice's tokens are those behind as many as
//! the question alone has. White space at the question's end belongs to the choice. Too long a
//! sequence loses its beginning.

use super::asked::{Answered, Asked, AskedTask, empty_row};
use super::context;
use crate::model::{Checkpoint, SpecialTokens};
use crate::operators::OperatorError;
use crate::operators::support::broken_model;
use crate::operators::support::model_work::{Found, Job, Logprobs};
use crate::operators::support::rows::signed;
use crate::tables::answers;
use crate::token_lists::TokenLists;

/// This module in internal errors.
const PLACE: &str = "operators::answer::choices";

/// Sequences in one batch of the model, unless the node's resources set another number.
const BATCH_SIZE: usize = 32;

/// A question with one choice.
struct Encoded {
    ids: Vec<i32>,
    prompt_token_count: usize,
    cut: usize,
}

/// All choices of some items of one task, in order.
pub(super) struct Choices(Vec<Encoded>);

impl Choices {
    pub(super) fn new(checkpoint: &Checkpoint, task: &AskedTask, asked: &[Asked]) -> Result<Self, OperatorError> {
        let delimiter = if task.question.chat { "" } else { task.question.delimiter.as_str() };
        let mut encoded = Vec::new();
        for asked in asked {
            let of_item = |error: OperatorError| error.of(&format!("item {}", asked.item.id));
            let (text, special) = context::text(checkpoint, asked).map_err(of_item)?;
            for choice in &asked.item.choices {
                encoded.push(encode(checkpoint, &text, special, &format!("{delimiter}{choice}")).map_err(of_item)?);
            }
        }
        Ok(Self(encoded))
    }

    /// The computation of their logprobs.
    pub(super) fn job(&self, batch_size: Option<usize>) -> Result<Job, OperatorError> {
        let rows: Vec<&[i32]> = self.0.iter().map(|encoded| encoded.ids.as_slice()).collect();
        let prompt_token_counts = self.0.iter().map(|encoded| encoded.prompt_token_count).collect();
        let sequences = TokenLists::from_rows(&rows)?;
        Ok(Job::Logprobs(Logprobs { sequences, prompt_token_counts, batch_size: batch_size.unwrap_or(BATCH_SIZE) }))
    }

    /// The rows of the items, with the logprobs of their choices.
    pub(super) fn answers(&self, task: &AskedTask, asked: &[Asked], found: Found) -> Result<Answered, OperatorError> {
        let logprobs = found.numbers(self.0.len())?;
        broken_model::check(&logprobs, "logprob", |_| format!("a choice of task {}", task.name))?;
        let mut rest = logprobs.values.as_slice();
        let mut encoded = self.0.as_slice();
        let mut rows = Vec::with_capacity(asked.len());
        for asked in asked {
            let count = asked.item.choices.len();
            let (Some((own, others)), Some((own_encoded, others_encoded))) =
                (rest.split_at_checked(count), encoded.split_at_checked(count))
            else {
                return Err(OperatorError::internal(PLACE, "fewer logprobs than choices"));
            };
            (rest, encoded) = (others, others_encoded);
            let cut = own_encoded.iter().map(|encoded| encoded.cut).max().unwrap_or(0);
            rows.push(answers::Row { logprobs: Some(own.to_vec()), cut_tokens: signed(cut, PLACE)?, ..empty_row(asked) });
        }
        Ok(Answered { rows, tokens: self.0.iter().map(|encoded| encoded.ids.len() as u64).sum() })
    }
}

/// The ids of a question followed by a choice.
fn encode(checkpoint: &Checkpoint, context: &str, special: SpecialTokens, choice: &str) -> Result<Encoded, OperatorError> {
    let tokenizer = &checkpoint.tokenizer;
    let question = context.trim_end();
    let choice = format!("{}{choice}", &context[question.len()..]);
    let (mut ids, mut prompt_token_count) = if question.is_empty() {
        let ids = tokenizer.encode(&choice, SpecialTokens::Written)?;
        let none = || OperatorError::Input("expected a question, found an empty text, and the tokenizer has no bos_token".to_string());
        let opening = checkpoint.opening_token().ok_or_else(none)?;
        let opening = if ids.first() == Some(&opening) { None } else { Some(opening) };
        (opening.into_iter().chain(ids).collect::<Vec<_>>(), 1)
    } else {
        let mut ids = tokenizer.encode(question, special)?;
        let count = ids.len();
        let whole = tokenizer.encode(&format!("{question}{choice}"), special)?;
        ids.extend(whole.get(count..).unwrap_or_default());
        (ids, count)
    };
    if ids.len() <= prompt_token_count {
        let problem = format!("expected at least one token of the choice {choice:?} behind the question, found none");
        return Err(OperatorError::Input(problem));
    }
    // The last token is predicted, not read.
    let longest = checkpoint.config.longest_sequence().0.saturating_add(1);
    let cut = ids.len().saturating_sub(longest);
    if cut >= prompt_token_count {
        let length = ids.len() - prompt_token_count;
        return Err(OperatorError::Input(format!("expected a choice of fewer than {longest} tokens, found one of {length}")));
    }
    ids.drain(..cut);
    prompt_token_count -= cut;
    Ok(Encoded { ids, prompt_token_count, cut })
}
