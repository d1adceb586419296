//! The tables between nodes: fixed Arrow schemas, their keys, and the rules of every row.
//!
//! ```text
//! prompts ─▶ selection ─▶ responses ─▶ rewards ─▶ pool ─▶ pairs ─▶ training, evaluation
//! ranking: of a reward model     answers ─▶ items ─▶ benchmark     judgments: of a judge
//! logprobs, judge_answers: shared by all runs of a folder
//! annotations: of a person, outside the data flow
//! ```
//!
//! One file a table. A table file lists its columns once, as the fields of a `Row`. The schema,
//! `batch` (rows to Arrow) and `rows` (Arrow to rows) follow from this list, so they cannot
//! disagree. Schemas are never inferred from data. The `iteration` of a table is not a column here:
//! it is the partition folder of the file.
//!
//! Knows nothing of files, SQL, tensors or the graph.

mod ascent;
mod cell;
mod check;
mod columns;
mod conform;
mod definitions;
mod error;
mod in_order;
mod kind;
mod memory;
#[macro_use]
mod table;

pub mod annotations;
pub mod answers;
pub mod benchmark;
pub mod evaluation;
pub mod items;
pub mod judge_answers;
pub mod judgments;
pub mod logprobs;
pub mod pairs;
pub mod pool;
pub mod prompts;
pub mod ranking;
pub mod responses;
pub mod rewards;
pub mod selection;
pub mod training;

pub use cell::{FinishReason, Message, Outcome};
pub use columns::{ColumnMeaning, column};
pub use error::TableError;
pub use in_order::InOrder;
pub use kind::{SCHEMA_VERSION_KEY, TABLE_KEY, TableKind};
pub(crate) use memory::batch_bytes;
