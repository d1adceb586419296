//! The items of a benchmark as a model is asked, and its answers.
//!
//! Knows neither choices nor generated texts.

use super::super::support::benchmark_items::Item;
use crate::pipeline::spec::benchmark::answer::Question;
use crate::tables::answers;

/// One task with its items.
pub(super) struct AskedTask<'a> {
    pub(super) name: &'a str,
    pub(super) question: &'a Question,
    pub(super) items: Vec<Item>,
    /// The items of the table of examples; `None` where they are the task's own.
    pub(super) examples: Option<Vec<Item>>,
}

/// An item to answer.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) task: &'a AskedTask<'a>,
    pub(super) item: &'a Item,
}

/// Rows of a part, and the tokens computed for them.
pub(super) struct Answered {
    pub(super) rows: Vec<answers::Row>,
    pub(super) tokens: u64,
}

/// The row of an item without its answer.
pub(super) fn empty_row(asked: &Asked) -> answers::Row {
    answers::Row {
        task: asked.task.name.to_string(),
        item: asked.item.row as i64,
        item_id: asked.item.id.clone(),
        logprobs: None,
        token_ids: Vec::new(),
        prompt_token_count: 0,
        text: String::new(),
        finish_reason: None,
        cut_tokens: 0,
    }
}
