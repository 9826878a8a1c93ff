//! The `xvs` command: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    xvs::cli::main()
}
