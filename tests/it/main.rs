//! All integration tests, in one program: linking costs more than compiling.

mod cli;
mod data;
mod docs;
mod durability;
mod fixtures;
mod floors;
mod generation;
mod hostile;
mod interop;
mod model;
mod pipeline;
mod training;
