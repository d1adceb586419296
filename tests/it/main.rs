//! All integration tests, in one program: linking costs more than compiling.

mod broken;
mod command_line;
mod floors;
mod generation;
mod import;
mod kills;
mod model;
mod pipeline;
mod store;
mod stories;
mod tables;
mod tasks;
mod tensors;
mod training;
mod workspace;
