//! All integration tests, in one program: linking costs more than compiling.

mod broken;
mod command_line;
mod fetch;
mod floors;
mod generation;
mod hub;
mod kills;
mod model;
mod pipeline;
mod remote;
mod server;
mod store;
mod stories;
mod tables;
mod tasks;
mod tensors;
mod training;
mod workspace;
