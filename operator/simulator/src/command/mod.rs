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
    sync::Mutex,
    time::{Duration, Instant},
};

use clap::{CommandFactory as _, Parser as _};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::arguments::{Arguments, Command};
use crate::{
    study::{Class, Found, Plan},
    trace::{Trace, TraceError},
};

/// An argument that is not as it should be (`EX_USAGE`).
const USAGE: u8 = 64;
/// A trace or ledger that is not as it should be.
const INVALID: u8 = 2;
/// A file that does not exist.
const NOT_FOUND: u8 = 3;
/// Notes that are shown to people at the most.
const SHOWN_NOTES: usize = 25;
/// How often those who see no bar are told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(60);

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
        (Some(TraceError::Line { .. } | TraceError::Empty(_) | TraceError::Once(_)), _)
        | (_, Some(Fault::Invalid(_))) => INVALID,
        (_, Some(Fault::Usage(_))) => USAGE,
        _ => 1,
    };
    ExitCode::from(code)
}

/// Prints a line. That nobody reads any more is an error like any other, and ends the command without a word.
fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// What came of a plan, and what should be known to judge it.
struct Studied {
    found: Found,
    notes: Vec<String>,
}

/// Replays a plan in so many threads. Standard error tells how far it is: by a bar where that is a terminal, else by a
/// line now and then.
fn studied(plan: &Plan, trace: &Trace, threads: usize) -> anyhow::Result<Studied> {
    let mut plan = plan.clone();
    let mut survey = plan.survey(trace)?;
    if survey.taken.is_empty() && survey.rare > 0 {
        plan.class = Some(Class::Rare);
        survey = plan.survey(trace)?;
    }
    note(&survey.notes);
    if survey.taken.is_empty() {
        let what = "no service of the trace is of a class that was asked for; --class names one, and --class rare those \
                    with fewer than 10 calls a day";
        return Err(Fault::Usage(what.into()).into());
    }
    if let Some(fault) = survey.fault.take() {
        return Err(Fault::Usage(fault).into());
    }
    let found = replayed(&plan, trace, threads, survey.replays(&plan))?;
    Ok(Studied { found, notes: survey.notes })
}

/// Tells on standard error what should be known.
fn note(notes: &[String]) {
    for note in notes.iter().take(SHOWN_NOTES) {
        eprintln!("note: {note}");
    }
    if notes.len() > SHOWN_NOTES {
        eprintln!("note: there are {} more, which --output json tells", notes.len() - SHOWN_NOTES);
    }
}

fn replayed(plan: &Plan, trace: &Trace, threads: usize, replays: u64) -> anyhow::Result<Found> {
    let bar = ProgressBar::with_draw_target(Some(replays), ProgressDrawTarget::stderr());
    let template = "{spinner} {human_pos} of {human_len} replays, {per_sec}, {elapsed} elapsed, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let told = Mutex::new(Instant::now());
    let done = || {
        bar.inc(1);
        if bar.is_hidden()
            && let Ok(mut last) = told.try_lock()
            && last.elapsed() >= TOLD_EVERY
        {
            *last = Instant::now();
            eprintln!("{} of {replays} replays are done", bar.position());
        }
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let found = pool.install(|| plan.run(trace, &done));
    bar.finish_and_clear();
    Ok(found?)
}
