//! All tests that need more than one module, in one binary: linking costs more than compiling.

mod store;
mod tables;
