//! All integration tests, in one program: linking costs more than compiling.

mod command_line;
mod floors;
mod kills;
mod model;
mod pipeline;
mod stories;
mod training;
mod workspace;
