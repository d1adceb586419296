//! Flags and notes: from the page's JSON to rows of the table `annotations`. Knows no route.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::error::ViewError;
use super::viewed::Viewed;
use crate::tables::annotations::Row;

/// The most characters of a note.
const MOST_CHARACTERS: usize = 20_000;

/// A flag and a note on a row. Both empty takes them off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotation {
    /// The table of the row.
    pub node: String,
    /// Its iteration, in a table with iterations.
    #[serde(default)]
    pub row_iteration: Option<i32>,
    /// The prompt.
    #[serde(default)]
    pub prompt_id: Option<String>,
    /// A response: the iteration it was sampled in.
    #[serde(default)]
    pub sampled_iteration: Option<i32>,
    /// A response: its number.
    #[serde(default)]
    pub response_index: Option<i32>,
    /// An item of a benchmark: its task.
    #[serde(default)]
    pub task: Option<String>,
    /// An item of a benchmark: its row.
    #[serde(default)]
    pub item: Option<i64>,
    /// The flag.
    #[serde(default)]
    pub flagged: bool,
    /// The note.
    #[serde(default)]
    pub note: Option<String>,
}

impl Viewed {
    /// Annotates the row of a request's body.
    ///
    /// # Errors
    /// The body is no annotation, or the annotations cannot be written.
    pub fn annotate(&self, body: &[u8]) -> Result<Annotation, ViewError> {
        let mut wanted: Annotation =
            serde_json::from_slice(body).map_err(|error| ViewError::Input(format!("expected an annotation as JSON, found {error}")))?;
        wanted.note = wanted.note.map(|note| note.trim().to_string()).filter(|note| !note.is_empty());
        let characters = wanted.note.as_deref().unwrap_or_default().chars().count();
        if characters > MOST_CHARACTERS {
            return Err(ViewError::Input(format!("note: expected at most {MOST_CHARACTERS} characters, found {characters}")));
        }
        let state = self.state()?;
        if state.manifests(&wanted.node).next().is_none() {
            return Err(ViewError::NotFound(format!("node: expected a table of the run, found {:?}", wanted.node)));
        }
        if wanted.prompt_id.is_none() && wanted.item.is_none() {
            return Err(ViewError::Input("expected a prompt_id or an item, found neither".to_string()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let row = wanted.clone();
        self.annotations().set(Row {
            node: row.node,
            row_iteration: row.row_iteration,
            prompt_id: row.prompt_id,
            sampled_iteration: row.sampled_iteration,
            response_index: row.response_index,
            task: row.task,
            item: row.item,
            flagged: row.flagged,
            note: row.note,
            changed_milliseconds: i64::try_from(now).unwrap_or(i64::MAX),
        })?;
        Ok(wanted)
    }
}
