//! Import: external tables, read once from the user's files and stored in the run folder.
//!
//! ```text
//! files ─▶ formats ─▶ map ─▶ dataset_format ─▶ prompts, preferences ─▶ run folder
//!          Arrow      rename  our own columns   ids, row checks         Parquet parts
//! ```
//! SQL over a run therefore needs no file outside it, and a file that changes later does not change
//! the run.
//!
//! Knows the pipeline file, the store and the tables. Knows no operator, and nothing of how the
//! rows are used later.

pub(crate) mod conversations;
pub(crate) mod dataset_format;
mod error;
mod formats;
mod json_value;
mod left_out;
mod limits;
pub(crate) mod preferences;
pub(crate) mod prompts;
mod row_errors;
mod row_values;
mod run_folder;
mod scores;
mod split;
mod table;
pub(crate) mod texts;
mod variables;

pub use conversations::Conversations;
pub use error::ImportError;
pub use formats::{ColumnRules, ColumnType, InputFormat, Rows, json_field, read_input, read_inputs};
pub(crate) use json_value::whole_value_at;
pub use left_out::LeftOut;
pub use preferences::{Preference, Preferences};
pub use prompts::{Prompt, Prompts, Repeats};
pub use row_values::RowValues;
pub use run_folder::{FILES, import_tables, recipe};
pub use table::{Imported, import};
