//! The table of a node with a server: parts with rows to ask for, committed when they are whole.
//!
//! Knows rows, not requests.

use super::super::super::OperatorError;
use super::super::super::support::rows::unsigned;
use super::super::response_indices;
use super::job::{Item, PLACE, ServerJob};
use crate::store::TableWriter;
use crate::tables::responses;

/// The error of rows without a request so far.
const NOT_ASKED: &str = "not asked yet: the run was stopped";

/// The table so far.
pub(super) struct Parts<'a, 'w> {
    job: &'a ServerJob<'a>,
    pub(super) writer: TableWriter<'w>,
    parts: Vec<PartRows>,
}

/// The rows of one part.
struct PartRows {
    /// `None` for rows to ask for.
    rows: Vec<Option<responses::Row>>,
    /// Whether a row is not on disk yet.
    changed: bool,
}

impl<'a, 'w> Parts<'a, 'w> {
    /// The committed parts; their failed rows are to be asked for again.
    pub(super) fn read(job: &'a ServerJob<'a>, writer: TableWriter<'w>) -> Result<Self, OperatorError> {
        let mut parts = Vec::with_capacity(writer.part_count());
        for part in 0..writer.part_count() {
            let items: Vec<Item> = items_of(job, &writer, part);
            let committed = writer.committed_part(part)?.map(|batch| responses::rows(&batch)).transpose()?;
            let is_missing = committed.is_none();
            let committed: Vec<Option<responses::Row>> = match committed {
                Some(rows) => rows.into_iter().map(|row| if row.error.is_none() { Some(row) } else { None }).collect(),
                None => vec![None; items.len()],
            };
            if committed.len() != items.len() {
                let problem = format!("{}: expected {} responses, found {}", writer.name_of(part), items.len(), committed.len());
                return Err(OperatorError::internal(PLACE, problem));
            }
            let mut rows = Vec::with_capacity(items.len());
            for (item, committed) in items.iter().zip(committed) {
                rows.push(match (committed, &job.encoded[item.prompt]) {
                    (Some(row), _) => Some(row),
                    (None, Err(error)) => Some(job.failed(item.prompt, item.response_index, error.clone())?),
                    (None, Ok(_)) => None,
                });
            }
            let changed = is_missing && rows.iter().all(Option::is_some);
            parts.push(PartRows { rows, changed });
        }
        Ok(Self { job, writer, parts })
    }

    /// The responses to ask for, in order.
    pub(super) fn items(&self) -> Vec<Item> {
        let mut open = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let items = items_of(self.job, &self.writer, number);
            open.extend(items.into_iter().zip(&part.rows).filter(|(_, row)| row.is_none()).map(|(item, _)| item));
        }
        open
    }

    /// Takes in the answer for `item`. Returns its number of response tokens; `None` when the run
    /// was stopped before the answer.
    pub(super) fn store(
        &mut self,
        item: Option<&Item>,
        answer: Result<Option<responses::Row>, OperatorError>,
    ) -> Result<Option<u64>, OperatorError> {
        let Some(row) = answer? else { return Ok(None) };
        let item = item.ok_or_else(|| OperatorError::internal(PLACE, "an answer to a request of no response"))?;
        let tokens = row.token_ids.len().saturating_sub(unsigned(row.prompt_token_count, PLACE)?);
        self.fill(*item, row)?;
        Ok(Some(tokens as u64))
    }

    /// Fills in a row; a part with all its rows is committed.
    fn fill(&mut self, item: Item, row: responses::Row) -> Result<(), OperatorError> {
        let row_of_item = self.parts.get_mut(item.part).and_then(|part| part.rows.get_mut(item.row));
        let problem = || OperatorError::internal(PLACE, format!("no row {} in part {} for a response", item.row, item.part));
        *row_of_item.ok_or_else(problem)? = Some(row);
        let part = &mut self.parts[item.part];
        part.changed = true;
        if part.rows.iter().all(Option::is_some) { self.commit(item.part) } else { Ok(()) }
    }

    /// Commits incomplete parts with new rows, after a stop. Their open rows are errors; the next
    /// run asks for them.
    pub(super) fn commit_rest(&mut self) -> Result<(), OperatorError> {
        for part in 0..self.parts.len() {
            if self.parts[part].changed {
                self.commit(part)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, number: usize) -> Result<(), OperatorError> {
        let items = items_of(self.job, &self.writer, number);
        let part = &mut self.parts[number];
        let mut rows = Vec::with_capacity(items.len());
        for (item, row) in items.iter().zip(&part.rows) {
            rows.push(match row {
                Some(row) => row.clone(),
                None => self.job.failed(item.prompt, item.response_index, NOT_ASKED.to_string())?,
            });
        }
        part.changed = false;
        Ok(self.writer.replace(number, &responses::batch(&rows))?)
    }

    /// The number of failed responses to encoded prompts, and the first one's error.
    pub(super) fn first_failure(&self) -> Option<(usize, String)> {
        let per_prompt = self.job.per_prompt();
        let mut count = 0;
        let mut first = None;
        for (number, part) in self.parts.iter().enumerate() {
            let first_prompt = self.writer.rows_of(number).start;
            for (index, row) in part.rows.iter().enumerate() {
                let was_asked = self.job.encoded[first_prompt + index / per_prompt].is_ok();
                if let Some(error) = row.as_ref().and_then(|row| row.error.as_ref())
                    && was_asked
                {
                    count += 1;
                    first.get_or_insert_with(|| error.clone());
                }
            }
        }
        first.map(|first| (count, first))
    }
}

/// All responses of a part, in the order of its rows.
fn items_of(job: &ServerJob, writer: &TableWriter, part: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for prompt in writer.rows_of(part) {
        for response_index in response_indices(job.settings) {
            items.push(Item { part, row: items.len(), prompt, response_index });
        }
    }
    items
}
