//! The one test binary; each topic is a file.

mod generation;
mod model;
