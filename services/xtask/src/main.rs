//! The one entry point of automation: `cargo xtask check`, `coverage`, `e2e`, `eval`, `faults`, `image`, `spark` and
//! `testbed`.

mod cache;
mod charts;
mod conformance;
mod contracts;
mod conventions;
mod coverage;
mod data;
mod e2e;
mod edges;
mod eval;
mod faults;
mod image;
mod kubernetes;
mod limits;
mod mcp;
mod spark;
mod testbed;

use std::{
    env,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, bail};

type Check = fn(&mut Excluded) -> anyhow::Result<()>;

/// What could not be checked here. Printed and counted, so that nothing is left out silently.
#[derive(Default)]
pub(crate) struct Excluded(Vec<String>);

impl Excluded {
    fn add(&mut self, what: &str) {
        println!("EXCLUDED {what}");
        self.0.push(what.to_owned());
    }
}

/// Seeds of simulated runs.
const SEEDS: &str = "2000";

/// The checks in the order of their price.
const CHECKS: [(&str, Check); 13] = [
    ("fmt", |_| cargo(&["fmt", "--all", "--check"])),
    ("limits", |_| limits::check()),
    ("edges", |_| edges::check()),
    ("conventions", |_| conventions::check()),
    ("proto", contracts::check),
    ("python", spark::check),
    ("clippy", |_| cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])),
    ("docs", |_| cargo(&["doc", "--workspace", "--no-deps", "--locked"])),
    ("test", |_| cargo(&["test", "--workspace", "--locked"])),
    // More seeds than `test` runs, of what it has built.
    ("simulation", |_| {
        let one = ["test", "--workspace", "--locked", "--test", "it", "--", "whatever_fails"];
        cargo_with(&one, &[("ECHOTUNE_SEEDS", SEEDS)])
    }),
    ("features", |_| features()),
    ("charts", charts::check),
    // Whoever sends no spans need not build the sending.
    ("minimal", |_| cargo(&["check", "-p", "echotune", "--no-default-features", "--locked"])),
];

/// All features of all packages: for each selection of its own Cargo would build most of what they depend on anew.
const ALL: [&str; 4] = ["--workspace", "--all-features", "--locked", "--quiet"];

/// Lints and tests what features add, as far as it needs no servers.
fn features() -> anyhow::Result<()> {
    cargo(&[&["clippy", "--all-targets"], &ALL[..], &["--", "-D", "warnings"]].concat())?;
    cargo(&[&["test", "--lib", "--bin", "echotune-eval", "--test", "eval", "--test", "identity"], &ALL[..]].concat())?;
    let of_features = ["--", "identity", "policy", "program", "spark", "tls", "tracking"];
    cargo(&[&["test", "--test", "it"], &ALL[..], &of_features].concat())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut excluded = Excluded::default();
    let done = match words.as_slice() {
        ["check"] => CHECKS.iter().try_for_each(|(name, check)| timed(name, *check, &mut excluded)),
        ["check", wanted] => match CHECKS.iter().find(|(name, _)| name == wanted) {
            Some((name, check)) => timed(name, *check, &mut excluded),
            None => Err(anyhow::anyhow!("no check is named '{wanted}'; there are {}", names(", "))),
        },
        ["coverage"] => coverage::run(),
        ["e2e"] => e2e::run_all(None, &[]),
        ["e2e", wanted, words @ ..] => e2e::run_all(Some(wanted), words),
        ["eval", words @ ..] => eval::run(words),
        ["faults", words @ ..] => faults::run(words),
        ["image", words @ ..] => image::run(words),
        ["spark", words @ ..] => spark::run(words),
        ["testbed", words @ ..] => testbed::run(words),
        _ => {
            let names = names("|");
            let commands = "coverage | e2e [SUITE] | e2e data --hetrec DIR | e2e conformance [--write] | \
                            e2e mcp [PIECE…] [--quick] [--only PROOF] [--keep] [--reuse] [--write] | eval --help | \
                            faults [--quick] | image NAME|all | spark --data DIR | testbed --help";
            eprintln!("usage: cargo xtask check [{names}] | {commands}");
            return ExitCode::from(2);
        }
    };
    if words.first() == Some(&"check") {
        println!("excluded: {}", excluded.0.len());
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The names of all checks.
fn names(between: &str) -> String {
    CHECKS.map(|(name, _)| name).join(between)
}

fn timed(name: &str, check: Check, excluded: &mut Excluded) -> anyhow::Result<()> {
    let start = Instant::now();
    let done = check(excluded)
        .with_context(|| format!("check '{name}' failed; repeat it alone with `cargo xtask check {name}`"));
    println!(
        "check {name}: {} in {:.1} s",
        if done.is_ok() { "passed" } else { "FAILED" },
        start.elapsed().as_secs_f64()
    );
    done
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    cargo_with(arguments, &[])
}

/// Runs cargo with these variables besides those that are set.
fn cargo_with(arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).env("RUSTDOCFLAGS", "-D warnings").envs(variables.iter().copied());
    let status = command.status()?;
    if !status.success() {
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
