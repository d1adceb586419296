//! The rows of a running query in asynchronous code, where nothing may block.
//!
//! Knows rows, not the protocol.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use futures::stream::{self, BoxStream, StreamExt};

use crate::sql::RowStream;
use crate::store::StoreError;

/// A stream of rows, dropped on a thread for blocking work: the drop of its session's runtime
/// blocks.
pub(super) struct BlockingDrop {
    streamed: Option<BoxStream<'static, Result<RecordBatch, StoreError>>>,
    schema: Arc<Schema>,
}

impl BlockingDrop {
    pub fn new(streamed: RowStream) -> Self {
        let schema = streamed.schema();
        let rows = stream::unfold(streamed, |mut streamed| async move { Some((streamed.next().await?, streamed)) });
        Self { schema, streamed: Some(rows.boxed()) }
    }

    pub fn schema(&self) -> Arc<Schema> {
        self.schema.clone()
    }

    /// The next rows; `None` at the end and after it.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, StoreError>> {
        let next = self.streamed.as_mut()?.next().await;
        if next.is_none() {
            self.end();
        }
        next
    }

    fn end(&mut self) {
        if let Some(streamed) = self.streamed.take() {
            tokio::task::spawn_blocking(move || drop(streamed));
        }
    }
}

impl Drop for BlockingDrop {
    fn drop(&mut self) {
        self.end();
    }
}
