//! The cursors of one client: a query each, read a few rows at a time.
//!
//! Knows names and rows, not statements.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use tokio::sync::Mutex;

use super::stream::BlockingDrop;
use crate::store::StoreError;

/// The most open cursors of a client: each holds a query.
const MOST_CURSORS: usize = 16;

/// The open cursors of a client.
#[derive(Default)]
pub(super) struct Cursors(Mutex<HashMap<String, Cursor>>);

struct Cursor {
    streamed: BlockingDrop,
    /// Rows read and not yet fetched.
    pending: Option<RecordBatch>,
    /// Whether it outlives its transaction.
    hold: bool,
}

impl Cursors {
    /// Opens a cursor.
    ///
    /// # Errors
    /// There is one of this name, or there are too many.
    pub async fn open(&self, name: &str, streamed: BlockingDrop, hold: bool) -> Result<(), String> {
        let mut cursors = self.0.lock().await;
        if cursors.contains_key(name) {
            return Err(format!("cursor \"{name}\" already exists"));
        }
        if cursors.len() >= MOST_CURSORS {
            return Err(format!("expected at most {MOST_CURSORS} open cursors, found one more; close some"));
        }
        cursors.insert(name.to_string(), Cursor { streamed, pending: None, hold });
        Ok(())
    }

    /// The columns of a cursor.
    pub async fn schema(&self, name: &str) -> Result<SchemaRef, String> {
        let cursors = self.0.lock().await;
        cursors.get(name).map(|cursor| cursor.streamed.schema()).ok_or_else(|| missing(name))
    }

    /// The next rows of a cursor: at most `count`, fewer at its end.
    pub async fn fetch(&self, name: &str, count: usize) -> Result<(Arc<Schema>, Vec<RecordBatch>), FetchError> {
        let mut cursors = self.0.lock().await;
        let cursor = cursors.get_mut(name).ok_or_else(|| FetchError::Name(missing(name)))?;
        let mut batches = Vec::new();
        let mut left = count;
        while left > 0 {
            let batch = match cursor.pending.take() {
                Some(batch) => batch,
                None => match cursor.streamed.next().await {
                    Some(batch) => batch.map_err(FetchError::Query)?,
                    None => break,
                },
            };
            let taken = batch.num_rows().min(left);
            left -= taken;
            if taken < batch.num_rows() {
                cursor.pending = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            batches.push(batch.slice(0, taken));
        }
        Ok((cursor.streamed.schema(), batches))
    }

    /// Closes a cursor, or all of them.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn close(&self, name: Option<&str>) -> Result<(), String> {
        let mut cursors = self.0.lock().await;
        match name {
            None => cursors.clear(),
            Some(name) => drop(cursors.remove(name).ok_or_else(|| missing(name))?),
        }
        Ok(())
    }

    /// Closes the cursors that end with their transaction.
    pub async fn end_transaction(&self) {
        self.0.lock().await.retain(|_, cursor| cursor.hold);
    }
}

/// Why no rows are fetched.
pub(super) enum FetchError {
    /// There is no such cursor.
    Name(String),
    /// Its query failed.
    Query(StoreError),
}

fn missing(name: &str) -> String {
    format!("cursor \"{name}\" does not exist")
}
