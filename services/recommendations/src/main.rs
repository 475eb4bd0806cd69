//! Serves recommendations in a region.

use std::process::ExitCode;

use echotune_kit::process;
use echotune_recommendations::region::{ABOUT, serve};

fn main() -> ExitCode {
    process::run(&ABOUT, serve)
}
