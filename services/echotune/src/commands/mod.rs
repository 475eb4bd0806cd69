//! The command line.

mod accounts;
mod dlq;
mod experiments;
mod items;
pub(crate) mod mcp;
mod migrate;
mod models;
mod region;
mod regions;
mod runs;
mod spark;
mod tokens;
mod up;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind as ClapError};
use echotune_api::RecommendQuery;
use echotune_kit::{
    config::{Faults, Flag, Loaded},
    embedded::STORE_FILE,
    telemetry::{self, Telemetry},
};
use echotune_model::{Call, ErrorKind, Fault, ItemKind, Listen, Track};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::Instrument as _;

use crate::{
    Config, ConfigFlags, Connection,
    import::{self, Progress},
    output,
};

/// The usual data folder.
const DATA: &str = "data";
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 64 wrong configuration, 130 or 143 ended by SIGINT or SIGTERM.
`up` ends with 0 on the first such signal, and with 130 or 143 on a second one.
Data folder: $ECHOTUNE_DATA or ./data.";

/// Listens in, exactly explained recommendations out.
#[derive(Debug, Parser)]
#[command(name = "echotune", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Arguments {
    /// Folder that holds the data.
    #[arg(long, global = true, default_value = DATA, env = "ECHOTUNE_DATA")]
    data: PathBuf,
    /// How to print results.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    flags: ConfigFlags,
    #[command(subcommand)]
    command: Option<Command>,
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
        /// Where to listen; port 0 chooses a free one [default: 127.0.0.1:7420].
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// Fill the folder with generated listeners first, and show what is recommended to one.
        #[arg(long)]
        demo: bool,
    },
    /// Import an export of another service. Importing twice changes nothing.
    #[command(after_help = formats_help())]
    Import {
        /// Format of the export.
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(import::formats().map(|(name, _)| name)))]
        format: String,
        /// Files or folders.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Whose history it is; in an export of many users, the only one to import.
        #[arg(long)]
        user: Option<String>,
        /// Write every rejected row to this file, as JSON lines.
        #[arg(long, value_name = "FILE")]
        rejects: Option<PathBuf>,
    },
    /// Move the history of a data folder to a platform of several machines. Run again, it goes on where it was cut off.
    Migrate(migrate::MigrateArguments),
    /// Accounts.
    User {
        #[command(subcommand)]
        action: accounts::UserAction,
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
        /// When it began: seconds since the Unix epoch, or a time such as 2024-05-17T20:15:00Z; now when not given.
        #[arg(long, value_parser = moment)]
        at: Option<i64>,
        /// Mark the track as explicit, or as clean.
        #[arg(long, value_name = "true|false")]
        explicit: Option<bool>,
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
    /// Show why one item is scored as it is for a listener.
    Explain {
        /// For whom.
        #[arg(long)]
        user: String,
        /// The item: its id, an artist, a title, or "Artist - Title".
        item: String,
        /// What the item is.
        #[arg(long, value_enum, default_value = "artist")]
        kind: Kind,
    },
    /// Show the items nearest to one.
    Similar {
        /// The item: its id, an artist, a title, or "Artist - Title".
        item: String,
        /// What the item is.
        #[arg(long, value_enum, default_value = "artist")]
        kind: Kind,
        /// How many.
        #[arg(short = 'n', default_value_t = 10)]
        limit: u32,
    },
    /// Say what a listener makes of an item, and show what the list becomes.
    Feedback {
        /// Whose opinion it is.
        #[arg(long)]
        user: String,
        /// The item: its id, an artist, a title, or "Artist - Title".
        item: String,
        /// The opinion.
        #[arg(value_enum)]
        opinion: items::Opinion,
        /// What the item is.
        #[arg(long, value_enum, default_value = "artist")]
        kind: Kind,
    },
    /// Run a workflow for a listener and show what it made.
    Run(runs::RunArguments),
    /// List runs, or look after one.
    Runs {
        /// Only runs for this user.
        #[arg(long, default_value = "")]
        user: String,
        /// How many at the most.
        #[arg(short = 'n', default_value_t = 20)]
        limit: u32,
        #[command(subcommand)]
        action: Option<runs::RunsAction>,
    },
    /// Experiments on how lists are made.
    Experiment {
        #[command(subcommand)]
        action: experiments::ExperimentAction,
    },
    /// Train on Apache Spark what outgrows a machine.
    Spark {
        #[command(subcommand)]
        action: spark::SparkAction,
    },
    /// Releases of the recipe by which models are fitted: train, promote, roll back.
    Model {
        #[command(subcommand)]
        action: models::ModelAction,
    },
    /// MCP servers: the platform's own, and those of the catalogue.
    Mcp {
        #[command(subcommand)]
        action: mcp::McpAction,
    },
    /// Which region makes the writes of which users, where there are several.
    Region {
        #[command(subcommand)]
        action: regions::RegionAction,
    },
    /// Make or renew the tables of a region on its CQL servers. Done before, it changes nothing.
    Schema(region::Servers),
    /// Make the topics of a region on its brokers. Those that are there stay as they are.
    Topics(region::TopicArguments),
    /// Records of the event log that a consumer could not apply: list them, or hand them over again.
    #[command(after_help = region::WHERE)]
    Dlq(dlq::DlqArguments),
    /// Show a trace as a tree of spans with durations.
    Trace {
        /// 32 hexadecimal digits.
        id: String,
    },
    /// Show what runs and how much it holds.
    Status,
    /// Print the manual page.
    Man,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether the command is of use on a folder that holds nothing yet.
    const fn makes_data(&self) -> bool {
        matches!(self, Self::Up { .. } | Self::Import { .. } | Self::Listen { .. })
    }

    /// Flags of this command that configure.
    fn flags(&self) -> Vec<Flag> {
        match self {
            Self::Up { listen: Some(listen), .. } => {
                vec![Flag { name: "--listen".into(), key: "listen".into(), value: listen.to_string() }]
            }
            _ => Vec::new(),
        }
    }
}

fn formats_help() -> String {
    let lines = import::formats().map(|(name, description)| format!("  {name:<16}{description}\n"));
    format!("Formats:\n{}", lines.collect::<String>())
}

/// Runs the command and returns its exit code; `--help` tells them.
pub fn run() -> ExitCode {
    let mut arguments = Arguments::parse();
    match (arguments.command.take(), arguments.flags.print_config) {
        // They are told of servers, not of a platform.
        (Some(Command::Schema(_)), _) => ended(region::schema(&arguments.flags, arguments.output)),
        (Some(Command::Topics(asked)), _) => ended(region::topics(&arguments.flags, &asked, arguments.output)),
        (Some(Command::Dlq(wanted)), _) if wanted.servers => {
            ended(region::dlq(&arguments.flags, &wanted, arguments.output))
        }
        (command, true) => ended(print_config(&arguments, command)),
        (Some(command), false) => ended(configured(arguments, command)),
        (None, false) => {
            let missing = ClapError::MissingSubcommand;
            Arguments::command().error(missing, "a command is needed; `echotune --help` lists them").exit()
        }
    }
}

fn load(arguments: &Arguments, command: Option<&Command>) -> Result<Loaded<Config>, Faults> {
    Config::load(&arguments.data, &arguments.flags, command.map(Command::flags).unwrap_or_default())
}

fn print_config(arguments: &Arguments, command: Option<Command>) -> anyhow::Result<()> {
    output::say(load(arguments, command.as_ref())?.to_toml()?.trim_end())
}

fn configured(arguments: Arguments, command: Command) -> anyhow::Result<()> {
    let config = load(&arguments, Some(&command))?.config;
    let runtime = tokio::runtime::Runtime::new().context("threads cannot be started")?;
    runtime.block_on(traced(arguments, command, config))
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.downcast_ref().is_some_and(|cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read this has seen enough.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    if let Some(mcp::Stopped(signal)) = error.downcast_ref::<mcp::Stopped>() {
        return ExitCode::from(signal.exit_code());
    }
    if error.is::<Faults>() {
        return ExitCode::from(Faults::EXIT_CODE);
    }
    match error.downcast_ref::<Fault>().map(|fault| fault.kind) {
        Some(ErrorKind::InvalidArgument) => ExitCode::from(2),
        Some(ErrorKind::NotFound) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}

/// Executes within telemetry, and sends what is left of it at the end.
async fn traced(arguments: Arguments, command: Command, config: Config) -> anyhow::Result<()> {
    let telemetry = telemetry::start(&config.process.telemetry.options())?;
    let done = execute(&arguments, &command, &config, &telemetry).await;
    let patience = config.process.shutdown.flush_timeout.0;
    let flushed = tokio::task::spawn_blocking(move || telemetry.shutdown(patience)).await?;
    if let Err(cause) = flushed {
        tracing::warn!(cause, "the last spans were not sent");
    }
    done
}

async fn execute(
    arguments: &Arguments,
    command: &Command,
    config: &Config,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    match command {
        Command::Up { demo, .. } => up::up(arguments, config, *demo, telemetry).await,
        Command::Migrate(wanted) => migrate::run(wanted, arguments, config).await,
        Command::Mcp { action } if action.is_alone() => action.alone(&arguments.data, config, arguments.output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "echotune", &mut script);
            Ok(io::stdout().write_all(&script)?)
        }
        Command::Man => {
            let mut pages = Vec::new();
            render_man(Arguments::command(), "echotune", &mut pages)?;
            Ok(io::stdout().write_all(&pages)?)
        }
        command => {
            if !config.connect.is_elsewhere() && !command.makes_data() && !arguments.data.join(STORE_FILE).exists() {
                let message = format!(
                    "data folder {} holds no data; import a history, run `echotune up --demo`, or name another folder with --data",
                    arguments.data.display()
                );
                return Err(Fault::new(ErrorKind::NotFound, message).into());
            }
            let mut connection = Connection::to(config, &arguments.data, telemetry.spans.clone()).await?;
            let span = tracing::info_span!(target: "echotune", "command", otel.name = "echotune command");
            let done = with_connection(command, arguments, &mut connection).instrument(span).await;
            let closed = connection.close().await;
            done.and(closed)
        }
    }
}

/// The manual page of a command and of all below it, one after the other.
fn render_man(mut command: clap::Command, name: &str, pages: &mut Vec<u8>) -> io::Result<()> {
    command.build();
    let title = name.replace(' ', "-");
    clap_mangen::Man::new(command.clone().display_name(&title).bin_name(name)).title(title).render(pages)?;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        render_man(below.clone(), &format!("{name} {}", below.get_name()), pages)?;
    }
    Ok(())
}

/// The context of a call that this command makes within its own trace.
fn call() -> Call {
    let span = tracing::Span::current();
    Call { trace: telemetry::trace_of(&span), traceparent: telemetry::traceparent_of(&span), ..Call::internal() }
}

async fn with_connection(command: &Command, arguments: &Arguments, connection: &mut Connection) -> anyhow::Result<()> {
    let output = arguments.output;
    match command {
        Command::Listen { user, artist, title, album, at, explicit } => {
            let at_ms = at.unwrap_or_else(now_ms);
            let track = Track { title: title.clone(), artist: artist.clone(), album: album.clone() };
            let source = String::new();
            let listen = Listen { listened_at_ms: at_ms, track, played_ms: 0, source, explicit: *explicit };
            accounts::record(connection, user, listen, output).await
        }
        Command::Recommend { user, kind, limit, include_known, explain } => {
            let query = RecommendQuery { kind: (*kind).into(), limit: *limit, include_known: *include_known };
            let list = connection.recommendations.recommend(&call(), user, &query).await?;
            output::recommendations(&list, *explain, connection.is_remote(), output)
        }
        Command::Trace { id } => output::trace(&connection.operations.trace(&call(), id.parse()?).await?, output),
        Command::Status => output::status(&connection.operations.status(&call()).await?, output),
        Command::Import { format, paths, user, rejects } => {
            let (format, paths, user, rejects) = (format.clone(), paths.clone(), user.clone(), rejects.clone());
            import_history(connection, &import::Request { format, paths, user, rejects }, output).await
        }
        Command::User { action } => accounts::account(connection, action, output).await,
        Command::Explain { user, item, kind } => items::explain(connection, user, item, *kind, output).await,
        Command::Similar { item, kind, limit } => items::similar(connection, item, *kind, *limit, output).await,
        Command::Feedback { user, item, opinion, kind } => {
            items::feedback(connection, user, item, *opinion, *kind, output).await
        }
        Command::Run(wanted) => runs::start(connection, wanted, output).await,
        Command::Runs { user, limit, action } => runs::manage(connection, user, *limit, action.as_ref(), output).await,
        Command::Experiment { action } => experiments::manage(connection, action, output).await,
        Command::Spark { action } => spark::manage(connection, &arguments.data, action, output).await,
        Command::Model { action } => action.run(connection, output).await,
        Command::Mcp { action } => action.with(connection).await,
        Command::Region { action } => regions::manage(connection, action, output).await,
        Command::Dlq(wanted) => wanted.run(connection, output).await,
        Command::Up { .. }
        | Command::Migrate(_)
        | Command::Man
        | Command::Completions { .. }
        | Command::Schema(_)
        | Command::Topics(_) => {
            unreachable!("handled without a connection")
        }
    }
}

async fn import_history(connection: &mut Connection, request: &import::Request, output: Output) -> anyhow::Result<()> {
    let users = Arc::clone(&connection.users);
    match import::run(users, &call(), request, &Progress::stderr()).await {
        Ok(summary) => {
            connection.settle().await?;
            output::summary(&summary, output)
        }
        Err(failure) => {
            if output == Output::Json {
                output::summary(&failure.summary, output)?;
            } else if !failure.summary.rows.is_empty() {
                eprintln!("Before it failed:\n{}", failure.summary);
            }
            Err(Fault::from(failure).into())
        }
    }
}

/// Milliseconds since the Unix epoch, from seconds or from a time as in RFC 3339.
fn moment(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds.saturating_mul(1_000));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "expected seconds since the Unix epoch, or a time such as 2024-05-17T20:15:00Z".to_owned())?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|cause| cause.to_string())
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("clock")
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
