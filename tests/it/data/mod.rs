//! Tables: their rules, import from files, SQL over a run.

mod import;
mod import_errors;
mod sql_session;
mod table_files;
mod tables;
mod tensors;
mod views;
