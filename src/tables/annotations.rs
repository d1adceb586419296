//! Annotations: flags and notes of a person on rows of a run. No node makes or reads them.

use super::check::{at_least, not_empty};

table! {
    Annotations, version 1, key [node, row_iteration, prompt_id, sampled_iteration, response_index, task, item];
    /// A flag or a note on one row of a table. The columns of the row's key are filled in, the
    /// others are null.
    pub struct Row {
        /// The table of the row.
        pub node: String,
        /// The iteration of the row, in a table with iterations. Null for a response: it has
        /// `sampled_iteration`.
        pub row_iteration: Option<i32>,
        /// The prompt.
        pub prompt_id: Option<String>,
        /// A response: the iteration it was sampled in.
        pub sampled_iteration: Option<i32>,
        /// A response: its number among the prompt's responses of that iteration, from 0.
        pub response_index: Option<i32>,
        /// An item of a benchmark: its task.
        pub task: Option<String>,
        /// An item of a benchmark: its row in the table of items, from 0.
        pub item: Option<i64>,
        /// Whether the row is flagged.
        pub flagged: bool,
        /// The note.
        pub note: Option<String>,
        /// The time of the last change, as Unix time in milliseconds.
        pub changed_milliseconds: i64,
    }
}

impl View<'_> {
    /// A row named by a prompt or an item, and a flag or a note.
    fn check(&self) -> Result<(), String> {
        not_empty("node", self.node)?;
        if self.prompt_id.is_none() && self.item.is_none() {
            return Err("expected a prompt_id or an item, found neither".to_string());
        }
        self.prompt_id.map_or(Ok(()), |id| not_empty("prompt_id", id))?;
        self.row_iteration.map_or(Ok(()), |number| at_least("row_iteration", 0, number))?;
        self.sampled_iteration.map_or(Ok(()), |number| at_least("sampled_iteration", 0, number))?;
        self.response_index.map_or(Ok(()), |number| at_least("response_index", 0, number))?;
        self.task.map_or(Ok(()), |task| not_empty("task", task))?;
        self.item.map_or(Ok(()), |item| at_least("item", 0, item))?;
        self.note.map_or(Ok(()), |note| not_empty("note", note))?;
        if self.flagged || self.note.is_some() { Ok(()) } else { Err("expected a flag or a note, found neither".to_string()) }
    }
}
