//! The `optune` program: hands its arguments to the command line and its exit code to the shell.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    optune::cli::main()
}
