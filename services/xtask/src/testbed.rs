//! Real servers for what speaks to them: `cargo xtask testbed` runs the command of that crate.

/// Runs `echotune-testbed` with these words.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<()> {
    const COMMAND: [&str; 6] = ["run", "--quiet", "--locked", "--package", "echotune-testbed", "--"];
    crate::cargo(&[&COMMAND[..], words].concat())
}
