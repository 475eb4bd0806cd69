//! `cargo xtask coverage`: which lines the tests run.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// Percent of the lines that tests must run.
const LINES: &str = "85";
const REPORT: &str = "target/coverage/lines.txt";

/// Runs all tests with coverage, prints the report and stores it.
pub(crate) fn run() -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = |arguments: &[&str]| Command::new(&cargo).arg("llvm-cov").args(arguments).output();
    let found = output(&["--version"])?;
    ensure!(
        found.status.success(),
        "cargo-llvm-cov is needed: `cargo install cargo-llvm-cov --locked` and `rustup component add llvm-tools`"
    );
    // Generated code and automation are not what the tests are for.
    let ignored = "--ignore-filename-regex=(xtask|/out/|main\\.rs)";
    // Tests start these examples as their children, and are run here without building examples.
    let example = |package, name| ["run", "--package", package, "--example", name, "--locked", "--no-report"];
    let servers = [&example("echotune-mcp-servers", "in_memory")[..], &["--", "status"]].concat();
    let child = [&example("echotune-gateway", "stdio_server")[..], &["--", "child", "modern"]].concat();
    let folder = env::temp_dir().join(format!("echotune-ledger-{}", std::process::id()));
    let folder = folder.to_str().context("the folder for temporary files has a name that is text")?.to_owned();
    let writer = [&example("echotune-gateway", "ledger_writer")[..], &["--", &folder, "1024", "1"]].concat();
    let tests = ["--workspace", "--locked", "--exclude", "echotune-xtask", "--no-report"];
    for arguments in [&servers[..], &child, &writer, &tests] {
        let mut command = Command::new(&cargo);
        // Coverage needs no line tables, which are most of what a build leaves on the disk.
        command.arg("llvm-cov").args(arguments).env("CARGO_PROFILE_DEV_DEBUG", "none").stdin(Stdio::null());
        let done = command.status()?;
        ensure!(done.success(), "cargo llvm-cov {} ended with {done}", arguments.join(" "));
    }
    let report = output(&["report", "--summary-only", ignored, "--fail-under-lines", LINES])?;
    let text = String::from_utf8_lossy(&report.stdout);
    let folder = Path::new(REPORT).parent().context("the report has a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(REPORT, text.as_bytes())?;
    print!("{text}");
    ensure!(report.status.success(), "less than {LINES} % of the lines are run by tests (see {REPORT})");
    Ok(())
}
