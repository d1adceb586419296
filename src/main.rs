//! The `optune` program: hands its arguments to the command line and its exit code to the shell.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    optune::cli::main()
}
