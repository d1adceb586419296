//! SQL over tables: of a run, in memory, or in files. Read-only: no statement changes the disk, and
//! a query reads only registered files.
//!
//! | file | contents |
//! |---|---|
//! | `engine.rs` | [`Session`]: memory limits, planning, the engine's threads |
//! | `register.rs` | adding tables, views, and all tables of a run |
//! | `query.rs` | results as a whole, and descriptions of tables and queries |
//! | `rows.rs` | results batch by batch |
//! | `extract.rs` | `EXTRACT` |
//! | `errors.rs` | the engine's errors in our words |

mod engine;
mod errors;
mod extract;
mod query;
mod register;
mod rows;

pub use engine::Session;
pub use query::TableInfo;
pub use rows::{RowStream, Rows};
