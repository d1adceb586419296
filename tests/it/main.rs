//! The one test binary; each topic is a file.

mod model;
