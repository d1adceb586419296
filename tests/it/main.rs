//! All integration tests, in one program: linking costs more than compiling.

// A test stops at the first surprise, and its names are its documentation.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli;
mod cluster;
mod data;
mod docs;
mod durability;
mod fixtures;
mod generation;
mod hostile;
mod interop;
mod judging;
mod model;
mod pipeline;
mod scale;
mod tidy;
mod training;
