//! SQL over a run: sessions, the views of every run, and the server for PostgreSQL clients.
//!
//! Reads the committed outputs of the store. Knows nothing of tensors, nor of the pipeline file.

mod condition;
mod live_session;
mod nesting;
pub mod postgres;
mod precedence;
mod prompt_groups;
mod scan;
mod session;
mod views;

pub use condition::Condition;
pub use live_session::LiveSession;
pub use prompt_groups::{PromptGroups, PromptRows};
pub use session::{RowStream, Rows, Session, TableInfo};
