//! The command `echotune`.

use std::process::ExitCode;

fn main() -> ExitCode {
    echotune::run()
}
