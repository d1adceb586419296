//! What a chat template ignores of the conversations of a node, told once a node.
//!
//! Knows neither templates nor the use of the conversations.

use std::collections::BTreeSet;

use super::Context;
use crate::model::{Answer, Checkpoint, PromptContent};

/// Warns of the fields of messages, and of the variables, that the checkpoint's chat template
/// ignores.
pub fn warn<'a>(context: &Context, checkpoint: &Checkpoint, conversations: impl Iterator<Item = (&'a PromptContent, Option<Answer<'a>>)>) {
    let mut tried = BTreeSet::new();
    let mut ignored = BTreeSet::new();
    for (asked, answer) in conversations {
        ignored.extend(checkpoint.ignored(asked, answer, &mut tried));
    }
    if !ignored.is_empty() {
        let names = ignored.into_iter().collect::<Vec<_>>().join(", ");
        let template = format!("the chat template of {}", checkpoint.folder().display());
        context.progress.warned(&context.task.label(), &format!("{template} ignores {names}: the model reads nothing of it"));
    }
}
