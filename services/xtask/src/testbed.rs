//! Real servers for what speaks to them: `cargo xtask testbed` runs the command of that crate.

use std::{
    fs::File,
    path::{self, PathBuf},
    process::Command,
};

use crate::e2e;

/// Runs `echotune-testbed` with these words.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<()> {
    const COMMAND: [&str; 6] = ["run", "--quiet", "--locked", "--package", "echotune-testbed", "--"];
    crate::cargo(&[&COMMAND[..], words].concat())
}

/// Runs it as it was built, and keeps what it prints in a file.
pub(crate) fn run_into(file: File, words: &[&str]) -> anyhow::Result<()> {
    e2e::run(Command::new(program()?).args(words).stdout(file))
}

/// Where it is once it was built.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    Ok(path::absolute(e2e::target().join("debug/echotune-testbed"))?)
}
