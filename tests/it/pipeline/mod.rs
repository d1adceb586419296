//! Pipeline files, sweeps, the nodes without a model (select, merge and pair), and programs of the
//! user's own.

mod adaptive;
mod alarms;
mod benchmark;
mod broken_files;
mod checked_models;
#[cfg(unix)]
mod commands;
mod devices;
mod every;
mod expected_gain;
mod failing_nodes;
mod file;
mod losses;
mod quickstart;
mod relational_properties;
mod relational_sql;
mod replay;
mod sweep;
#[cfg(unix)]
mod train_elsewhere;
mod truncated;
mod yaml;
