//! Serves recommendations in a region.

use std::process::ExitCode;

use echotune_kit::process;
use echotune_recommendations::program::{ABOUT, serve};

fn main() -> ExitCode {
    process::run(&ABOUT, serve)
}
