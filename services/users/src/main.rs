//! Serves users in a region.

use std::process::ExitCode;

use echotune_kit::process;
use echotune_users::program::{ABOUT, serve};

fn main() -> ExitCode {
    process::run(&ABOUT, serve)
}
