//! Other software: Hugging Face hubs, transformers, PyTorch, TensorBoard, MLflow, DuckDB, HTTP
//! servers.

mod benchmark;
mod chain;
mod connections;
mod duckdb_questions;
mod http_client;
mod hub_downloads;
mod hub_pushes;
mod hub_runs;
mod python_scripts;
mod remote_tables;
mod reward_functions;
mod s3_tables;
mod sql_clients;
mod stories;
mod table_folders;
mod tracking;
#[cfg(unix)]
mod trl_command;
#[cfg(unix)]
mod trl_weighted;
#[cfg(unix)]
mod wheel;
