//! Carries out runs in a region.

use std::process::ExitCode;

use echotune_agents::program::{ABOUT, serve};
use echotune_kit::process;

fn main() -> ExitCode {
    process::run(&ABOUT, serve)
}
