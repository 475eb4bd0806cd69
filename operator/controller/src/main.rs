//! Keeps as many pods of each MCP server as its calls need.

use std::{env, process::ExitCode};

use echotune_controller::{
    crd,
    program::{ABOUT, serve},
};
use echotune_kit::process;

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() != Some("crds") {
        return process::run(&ABOUT, serve);
    }
    match crd::yaml() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(cause) => {
            eprintln!("error: the definitions cannot be written: {cause}");
            ExitCode::FAILURE
        }
    }
}
