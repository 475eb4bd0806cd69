use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use echotune_api::RecommendQuery;
use echotune_kit::telemetry::{self, SpanStore};
use echotune_model::{Call, ErrorKind, Fault, ItemKind, Listen, TraceId, Track};
use tracing::Instrument as _;

use crate::{Connection, Platform, output};

/// Listens in, exactly explained recommendations out.
#[derive(Debug, Parser)]
#[command(name = "echotune", version, arg_required_else_help = true)]
struct Arguments {
    /// Folder that holds the data.
    #[arg(long, global = true, default_value = "data", env = "ECHOTUNE_DATA")]
    data: PathBuf,
    /// How to print results.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// How to print results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Artist,
    Track,
}

impl From<Kind> for ItemKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Artist => Self::Artist,
            Kind::Track => Self::Track,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the data folder until stopped.
    Up {
        /// Where to listen. Port 0 chooses a free one.
        #[arg(long, default_value = "127.0.0.1:7420")]
        listen: SocketAddr,
    },
    /// Record one listen; the account is created when it does not exist.
    Listen {
        /// Whose listen it is.
        #[arg(long)]
        user: String,
        /// Artist.
        #[arg(long)]
        artist: String,
        /// Track title.
        #[arg(long)]
        title: String,
        /// Album.
        #[arg(long, default_value = "")]
        album: String,
        /// Start, in seconds since the Unix epoch; now when not given.
        #[arg(long)]
        at: Option<i64>,
    },
    /// Recommend artists or tracks, with the reasons that make up each score.
    Recommend {
        /// For whom.
        #[arg(long)]
        user: String,
        /// What to recommend.
        #[arg(long, value_enum, default_value = "artist")]
        kind: Kind,
        /// How many.
        #[arg(short = 'n', default_value_t = 10)]
        limit: u32,
        /// Include items the user already knows.
        #[arg(long)]
        include_known: bool,
        /// Show every reason below each item.
        #[arg(long)]
        explain: bool,
    },
    /// Show a trace as a tree of spans with durations.
    Trace {
        /// 32 hexadecimal digits.
        id: String,
    },
    /// Show what runs and how much it holds.
    Status,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command and returns its exit code: 0 done, 1 failed, 2 wrong usage, 3 not found.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let spans = telemetry::init("warn");
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(cause) => {
            eprintln!("error: threads cannot be started: {cause}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(execute(arguments, spans)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<Fault>().map(|fault| fault.kind) {
                Some(ErrorKind::InvalidArgument) => ExitCode::from(2),
                Some(ErrorKind::NotFound) => ExitCode::from(3),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn execute(arguments: Arguments, spans: SpanStore) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Up { listen } => up(&arguments, *listen, spans).await,
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "echotune", &mut std::io::stdout());
            Ok(())
        }
        _ => {
            let connection = Connection::to(&arguments.data, spans).await?;
            let span = tracing::info_span!(target: "echotune", "command", otel.name = "echotune command");
            let done = with_connection(&arguments, &connection).instrument(span).await;
            let closed = connection.close().await;
            done.and(closed)
        }
    }
}

async fn up(arguments: &Arguments, listen: SocketAddr, spans: SpanStore) -> anyhow::Result<()> {
    let serving = Platform::open(&arguments.data, spans)?.serve(listen).await?;
    println!("EchoTune serves {} on {}; stop it with Ctrl-C", arguments.data.display(), serving.address);
    serving.until(stop_signal()).await
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        tracing::error!("SIGTERM cannot be listened for");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    // A second signal ends the process at once.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        std::process::exit(130);
    });
}

/// The context of a call that this command makes within its own trace.
fn call() -> Call {
    let span = tracing::Span::current();
    Call { trace: telemetry::trace_of(&span), traceparent: telemetry::traceparent_of(&span), ..Call::internal() }
}

async fn with_connection(arguments: &Arguments, connection: &Connection) -> anyhow::Result<()> {
    let output = arguments.output;
    match &arguments.command {
        Command::Listen { user, artist, title, album, at } => {
            let at_ms = at.map_or_else(now_ms, |seconds| seconds.saturating_mul(1_000));
            let track = Track { title: title.clone(), artist: artist.clone(), album: album.clone() };
            let listen = Listen { listened_at_ms: at_ms, track, played_ms: 0, source: String::new() };
            record(connection, user, listen, output).await
        }
        Command::Recommend { user, kind, limit, include_known, explain } => {
            let query = RecommendQuery { kind: (*kind).into(), limit: *limit, include_known: *include_known };
            let list = connection.recommendations.recommend(&call(), user, &query).await?;
            output::recommendations(&list, *explain, output)
        }
        Command::Trace { id } => {
            let trace = u128::from_str_radix(id, 16).ok().filter(|_| id.len() == 32);
            let trace = trace
                .ok_or_else(|| Fault::invalid(format!("'{id}' is not a trace id: expected 32 hexadecimal digits")))?;
            output::trace(&connection.operations.trace(&call(), TraceId(trace)).await?, output)
        }
        Command::Status => output::status(&connection.operations.status(&call()).await?, output),
        Command::Up { .. } | Command::Completions { .. } => unreachable!("handled without a connection"),
    }
}

async fn record(connection: &Connection, user: &str, listen: Listen, output: Output) -> anyhow::Result<()> {
    match connection.users.create_user(&call(), user).await {
        Ok(_) => {}
        Err(fault) if fault.kind == ErrorKind::AlreadyExists => {}
        Err(fault) => return Err(fault.into()),
    }
    let receipt = connection.users.record_listens(&call(), user, vec![listen]).await?;
    if let Some(rejection) = receipt.rejections.first() {
        return Err(Fault::invalid(format!("the listen was not recorded: {}", rejection.reason)).into());
    }
    output::receipt(&receipt, output)
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("clock")
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
