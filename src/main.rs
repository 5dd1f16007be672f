//! The `hookward` program: parses the command line, runs the command, exits with its code.

use std::process::ExitCode;

/// Many small short-lived allocations on a few threads: measured cheaper than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookward::cli::main()
}
