//! Tables: their rules, import from files, SQL over a run.

mod changing_files;
mod import;
mod import_errors;
mod messages;
mod preference_scores;
mod published_datasets;
mod random_tables;
mod readers;
mod rows_by_themselves;
mod sql_session;
mod table_files;
mod tables;
mod tensors;
mod views;
