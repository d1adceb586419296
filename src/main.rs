//! The `optune` program: hands its arguments to the command line and its exit code to the shell.

use std::process::ExitCode;

/// Keeps freed memory instead of giving it back to the kernel between tensor operations: page faults cost a third of a training step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    optune::cli::main()
}
