//! The one entry point of automation: `cargo xtask check` and `cargo xtask eval`.

mod edges;
mod eval;
mod limits;

use std::{
    env,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, bail};

type Check = fn() -> anyhow::Result<()>;

/// The checks in the order of their price.
const CHECKS: [(&str, Check); 6] = [
    ("fmt", || cargo(&["fmt", "--all", "--check"])),
    ("limits", limits::check),
    ("edges", edges::check),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])),
    ("docs", || cargo(&["doc", "--workspace", "--no-deps", "--locked"])),
    ("test", || cargo(&["test", "--workspace", "--locked"])),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => CHECKS.iter().try_for_each(|(name, check)| timed(name, *check)),
        ["check", wanted] => match CHECKS.iter().find(|(name, _)| name == wanted) {
            Some((name, check)) => timed(name, *check),
            None => Err(anyhow::anyhow!("no check is named '{wanted}'")),
        },
        ["eval", words @ ..] => eval::run(words),
        _ => {
            let names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
            eprintln!("usage: cargo xtask check [{}] | eval hetrec --data DIR", names.join("|"));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn timed(name: &str, check: Check) -> anyhow::Result<()> {
    let start = Instant::now();
    let done =
        check().with_context(|| format!("check '{name}' failed; repeat it alone with `cargo xtask check {name}`"));
    println!(
        "check {name}: {} in {:.1} s",
        if done.is_ok() { "passed" } else { "FAILED" },
        start.elapsed().as_secs_f64()
    );
    done
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(arguments).env("RUSTDOCFLAGS", "-D warnings").status()?;
    if !status.success() {
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
