//! The main function of a program that serves one service.

use std::process::ExitCode;

use clap::{Arg, Args as _, Command, FromArgMatches as _};
use tokio::sync::mpsc;

use super::{ConfigFlags, Face, Settings, Ways};
use crate::{
    config::{Config, Faults, Flag, Loaded},
    edge::Edge,
    lifecycle::{self, Exit, Life, Signal},
    telemetry::{self, Telemetry},
};

/// Why a program ends; its text is for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a program is.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Every setting there is with its default: what is its own, then [`super::DEFAULTS`].
    pub defaults: &'static str,
}

/// A configuration of a program that serves.
pub trait Configured: Config {
    /// The settings that all of them have.
    fn settings(&self) -> &Settings;
}

/// A program that runs, with the addresses that it listens on.
pub struct Process {
    /// Its background work, and the way down.
    pub life: Life,
    /// Its spans and metrics.
    pub telemetry: Telemetry,
    name: &'static str,
    ways: Ways,
    signals: Option<mpsc::Receiver<Signal>>,
}

impl Process {
    /// Takes signals from now on, which [`Process::serve`] heeds; before, they end the process at once. To be called
    /// before anything is said or answered elsewhere: whoever has heard of it may ask for the end.
    ///
    /// # Errors
    /// The operating system refuses to hand them over.
    pub fn take_signals(&mut self) -> Result<(), Failure> {
        if self.signals.is_none() {
            self.signals = Some(lifecycle::signals()?);
        }
        Ok(())
    }

    /// Answers by `services` behind `edge` until a signal comes or a task fails, and then goes down in order.
    ///
    /// # Errors
    /// What failed.
    pub async fn serve(
        mut self,
        edge: &Edge,
        descriptors: &'static [u8],
        services: impl Fn(Face) -> Face,
    ) -> Result<Exit, Failure> {
        let signals = match self.signals.take() {
            Some(signals) => signals,
            None => lifecycle::signals()?,
        };
        let (address, tls) = (self.ways.address, self.ways.over_tls());
        self.ways.answer(|| Ok(services(Face::new(edge.clone(), descriptors)?)), &mut self.life).await?;
        let tls = tls.map(|at| format!(", over TLS on {at}")).unwrap_or_default();
        println!("{} serves gRPC on {address}{tls}; stop it with Ctrl-C", self.name);
        Ok(self.life.until(signals).await)
    }
}

const EXIT_CODES: &str = "Exit codes: 0 stopped when asked, 1 failed, 2 wrong usage, 64 wrong configuration, 130 or \
    143 ended by a second signal.\n\
    Every key can be set by the environment too: ECHOTUNE__SECTION__KEY.";

/// The flag and the key of where gRPC is answered.
const LISTEN: &str = "listen";

/// Runs a program: loads its configuration, starts telemetry, listens, and hands over to `body`, which ends by
/// [`Process::serve`]. Sends at the end what is left of the spans.
pub fn run<C: Configured, F>(about: &About, body: impl FnOnce(C, Process) -> F) -> ExitCode
where
    F: Future<Output = Result<Exit, Failure>>,
{
    let command = Command::new(about.name).version(about.version).after_help(EXIT_CODES);
    let listen = Arg::new(LISTEN).long(LISTEN).value_name("ADDRESS").help("Where to listen; port 0 chooses a free one");
    // What the flags are would stand in the place of what the program is.
    let found = ConfigFlags::augment_args(command.arg(listen)).about(about.about).get_matches();
    let flags = ConfigFlags::from_arg_matches(&found).unwrap_or_else(|wrong| wrong.exit());
    let listen = found.get_one::<String>(LISTEN).map(|address| Flag {
        name: format!("--{LISTEN}"),
        key: LISTEN.to_owned(),
        value: address.clone(),
    });
    if flags.print_config {
        return shown::<C>(&flags, about.defaults, listen);
    }
    let loaded: Loaded<C> = match flags.load(about.defaults, listen) {
        Ok(loaded) => loaded,
        Err(faults) => return told(&faults, Faults::EXIT_CODE),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(cause) => return told(&format!("threads cannot be started: {cause}"), 1),
    };
    match runtime.block_on(live(about.name, loaded.config, body)) {
        Ok(Exit::Clean) => ExitCode::SUCCESS,
        // Whatever still works is not waited for.
        Ok(exit @ Exit::Now(_)) => std::process::exit(exit.code().into()),
        Ok(exit) => told(&exit, exit.code()),
        Err(cause) => told(&cause, 1),
    }
}

/// Prints all settings. Who does not know yet what a program needs reads it there, so that what is missing is told
/// beside them and hinders nobody.
fn shown<C: Configured>(flags: &ConfigFlags, defaults: &str, listen: Option<Flag>) -> ExitCode {
    let (loaded, missing) = match flags.look::<C>(defaults, listen) {
        Ok(looked) => looked,
        Err(faults) => return told(&faults, Faults::EXIT_CODE),
    };
    match loaded.to_toml() {
        Ok(text) => print!("{text}"),
        Err(faults) => return told(&faults, 1),
    }
    for fault in missing {
        eprintln!("note: it does not start yet: {}", fault.message);
    }
    ExitCode::SUCCESS
}

fn told(why: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(code)
}

async fn live<C: Configured, F>(
    name: &'static str,
    config: C,
    body: impl FnOnce(C, Process) -> F,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<Exit, Failure>>,
{
    let settings = config.settings().clone();
    let telemetry = telemetry::start(&settings.telemetry.options())?;
    let ways = Ways::bind(&settings).await?;
    let life = Life::new(settings.shutdown.patience());
    let done = body(config, Process { life, telemetry: telemetry.clone(), name, ways, signals: None }).await;
    let patience = settings.shutdown.flush_timeout.0;
    let flushed = tokio::task::spawn_blocking(move || telemetry.shutdown(patience)).await?;
    if let Err(cause) = flushed {
        tracing::warn!(cause, "the last spans were not sent");
    }
    done
}
