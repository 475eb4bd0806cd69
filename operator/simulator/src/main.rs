//! The command `echotune-simulator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    echotune_simulator::command::run()
}
