//! All integration tests, in one program: linking costs more than compiling.

mod cli;
mod data;
mod durability;
mod fixtures;
mod generation;
mod hostile;
mod interop;
mod model;
mod pipeline;
mod tidy;
mod training;
