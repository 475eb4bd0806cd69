//! The command line: what is asked, and what its answers look like.

mod arguments;
mod chart;
mod frontier;
mod ledger;
mod replay;
mod table;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::arguments::{Arguments, Command};
use crate::{
    study::{Found, Plan},
    trace::{Trace, TraceError},
};

/// An argument that is not as it should be (`EX_USAGE`).
const USAGE: u8 = 64;
/// A trace or ledger that is not as it should be.
const INVALID: u8 = 2;
/// A file that does not exist.
const NOT_FOUND: u8 = 3;

/// What was asked cannot be done.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// An argument.
    #[error("{0}")]
    Usage(String),
    /// A file of a ledger.
    #[error("{0}")]
    Invalid(String),
    /// A file that does not exist.
    #[error("{0} does not exist")]
    NotFound(std::path::PathBuf),
}

/// Runs the command and returns its exit code; `--help` tells them.
pub fn run() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => ended(execute(arguments.command)),
        Err(error) => {
            // Help and version are answers, not errors.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Replay(asked) => replay::run(&asked),
        Command::Frontier(asked) => frontier::run(&asked),
        Command::Ledger { action } => ledger::run(&action),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "echotune-simulator", &mut script);
            Ok(io::stdout().write_all(&script)?)
        }
    }
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.downcast_ref().is_some_and(|cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read this has seen enough.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    let code = match (error.downcast_ref::<TraceError>(), error.downcast_ref::<Fault>()) {
        (Some(TraceError::NotFound(_)), _) | (_, Some(Fault::NotFound(_))) => NOT_FOUND,
        (Some(TraceError::Line { .. } | TraceError::Empty(_)), _) | (_, Some(Fault::Invalid(_))) => INVALID,
        (_, Some(Fault::Usage(_))) => USAGE,
        _ => 1,
    };
    ExitCode::from(code)
}

/// Prints a line. That nobody reads any more is an error like any other, and ends the command without a word.
fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Replays a plan in so many threads, with a bar on standard error where that is a terminal.
fn studied(plan: &Plan, trace: &Trace, threads: usize) -> anyhow::Result<Found> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} replays, {per_sec}, {elapsed} elapsed") {
        bar.set_style(style);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let found = pool.install(|| plan.run(trace, &|| bar.inc(1)));
    bar.finish_and_clear();
    let found = found?;
    if found.is_empty() {
        let what = "no service of the trace is of a class that was asked for; --class names one, and --class rare those \
                    with fewer than 10 calls a day";
        return Err(Fault::Usage(what.into()).into());
    }
    Ok(found)
}
