//! Pipeline files, sweeps, and the nodes without a model: select, merge and pair.

mod benchmark;
mod broken_files;
mod checked_models;
mod failing_nodes;
mod file;
mod quickstart;
mod relational_properties;
mod relational_sql;
mod replay;
mod sweep;
