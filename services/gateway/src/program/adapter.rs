//! The adapter of a pod: one server that is a program, served over HTTP.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    serve::ListenerExt as _,
};
use clap::{Args, Parser as _};
use echotune_kit::{
    auth::{Callers, Token},
    config::{Period, Size},
    lifecycle::{self, Exit, Life, Patience},
    process::{ConfigFlags, Failure},
    telemetry::{self, OtlpOptions, Telemetry},
};
use http::{HeaderValue, header::AUTHORIZATION};
use tokio::net::TcpListener;

use super::{ABOUT, close, told};
use crate::{
    AccessConfig, Confinement, EraChoice, Gateway, GatewayConfig, Keys, Limits, ProcessConfig, Reach, RegionsConfig,
    ServerConfig, Sharing,
};

/// The variable with the token that callers must have.
const TOKEN: &str = "ECHOTUNE_ADAPTER_TOKEN";
/// The variable with what is shown where spans and metrics are sent.
const OTLP_AUTHORIZATION: &str = "ECHOTUNE__TELEMETRY__OTLP_AUTHORIZATION";
/// How the server is called in logs, and at `/servers/NAME/mcp`.
const NAME: &str = "server";
/// How long what is left of spans has to be sent at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// Spans kept in memory: nobody asks an adapter for them.
const SPANS: usize = 1_000;
/// Requests of one caller at once: the gateway before it is the only one there is.
const PER_CALLER: usize = 1 << 20;

const AFTER_HELP: &str = "\
Served are http://ADDRESS/mcp in both eras of the protocol, /health/live, and /health/ready, which is so when the \
program has been started and has said what it is. Callers are asked for no token unless ECHOTUNE_ADAPTER_TOKEN holds one.\n\
On SIGTERM it is no longer ready, answers what is under way, and ends the program by the end of its input.\n\
Exit codes: 0 stopped when asked, 1 failed, 2 wrong usage, 130 or 143 ended by a second signal.";

/// Serves one MCP server that speaks on its standard input and output.
#[derive(Debug, clap::Parser)]
#[command(name = "echotune-gateway adapter", version, after_help = AFTER_HELP)]
struct Adapter {
    /// Where to listen; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    server: ServerArguments,
    /// Between "not ready" and taking no more requests.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    notice: Period,
    /// How long requests under way have to be answered at the end.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    drain_timeout: Period,
    /// Copy this program into a folder, where a pod shares it with a container that has none, and end.
    #[arg(long, value_name = "FOLDER")]
    install: Option<PathBuf>,
    /// Which log lines are written.
    #[arg(long, value_name = "FILTER", env = "ECHOTUNE__TELEMETRY__LOG", default_value = "warn")]
    log: String,
    /// Where spans and metrics are sent over OTLP/gRPC.
    #[arg(long, value_name = "URL", env = "ECHOTUNE__TELEMETRY__OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// The program and its arguments.
    #[arg(last = true, required_unless_present = "install", value_name = "COMMAND")]
    command: Vec<String>,
}

/// How the program is used.
#[derive(Debug, Args)]
struct ServerArguments {
    /// Who shares a process: all, the sessions of a caller, or nobody but a session's own requests.
    #[arg(long, value_name = "all|caller|session", default_value = "session", value_parser = sharing)]
    sharing: Sharing,
    /// Processes at once.
    #[arg(long, default_value_t = 64)]
    children: usize,
    /// Requests at once; those beyond wait.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// After how much silence a process is ended.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    idle: Period,
    /// How long a process may take to answer its first request.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    start: Period,
    /// How long a process has to end by itself, and again when it is asked to.
    #[arg(long, value_name = "TIME", default_value = "2s")]
    grace: Period,
    /// How long a request may take at the most.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    deadline_max: Period,
    /// Which revisions it speaks.
    #[arg(long, value_name = "auto|modern|legacy", default_value = "auto", value_parser = era)]
    era: EraChoice,
    /// Variables that the processes get from this one beside PATH, HOME and LANG; all of them but its secrets where
    /// none is named.
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// Address space of a process.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Where the processes run.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
    /// Whether they are confined: not at all, as far as the system can, or else not started. They get at the whole
    /// pod's files, which are theirs, but not at this process and what only it is told.
    #[arg(long, value_name = "none|auto|required", default_value = "auto", value_parser = confinement)]
    confinement: Confinement,
    /// Let them make namespaces, as browsers do for a sandbox of their own.
    #[arg(long)]
    namespaces: bool,
}

fn confinement(text: &str) -> Result<Confinement, String> {
    match text {
        "none" => Ok(Confinement::None),
        "auto" => Ok(Confinement::Auto),
        "required" => Ok(Confinement::Required),
        _ => Err("expected none, auto or required".to_owned()),
    }
}

fn sharing(text: &str) -> Result<Sharing, String> {
    match text {
        "all" => Ok(Sharing::All),
        "caller" => Ok(Sharing::Caller),
        "session" => Ok(Sharing::Session),
        _ => Err("expected all, caller or session".to_owned()),
    }
}

fn era(text: &str) -> Result<EraChoice, String> {
    match text {
        "auto" => Ok(EraChoice::Auto),
        "modern" => Ok(EraChoice::Modern),
        "legacy" => Ok(EraChoice::Legacy),
        _ => Err("expected auto, modern or legacy".to_owned()),
    }
}

/// Runs the adapter by the command line of this process.
pub fn run() -> ExitCode {
    // The first two are the program and `adapter`, which together are its name.
    let name = std::ffi::OsString::from("echotune-gateway adapter");
    let adapter = Adapter::parse_from(std::iter::once(name).chain(std::env::args_os().skip(2)));
    if let Some(folder) = &adapter.install {
        return match install(folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(cause) => told(&cause, 1),
        };
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(cause) => return told(&format!("threads cannot be started: {cause}"), 1),
    };
    match runtime.block_on(adapter.serve()) {
        Ok(Exit::Clean) => ExitCode::SUCCESS,
        // Whatever still works is not waited for.
        Ok(exit @ Exit::Now(_)) => std::process::exit(exit.code().into()),
        Ok(exit) => told(&exit, exit.code()),
        Err(cause) => told(&cause, 1),
    }
}

/// Copies this program into a folder, whole or not at all.
fn install(folder: &Path) -> io::Result<()> {
    let (draft, place) = (folder.join(format!(".{}", ABOUT.name)), folder.join(ABOUT.name));
    let named = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", place.display()));
    fs::copy(std::env::current_exe()?, &draft).map_err(named)?;
    fs::rename(&draft, &place).map_err(named)
}

impl Adapter {
    fn telemetry(&self) -> Result<Telemetry, Failure> {
        let otlp = self.otlp_endpoint.as_ref().filter(|endpoint| !endpoint.is_empty()).map(|endpoint| OtlpOptions {
            endpoint: endpoint.clone(),
            authorization: std::env::var(OTLP_AUTHORIZATION).unwrap_or_default().into(),
            queue: 2_048,
            timeout: Duration::from_secs(10),
        });
        Ok(telemetry::start(&telemetry::Options { log: self.log.clone(), spans_kept: SPANS, otlp })?)
    }

    /// Whether the program gets a variable of this process. Secrets of this one are not for programs of others.
    fn passes(&self, name: &str) -> bool {
        let named = &self.server.env;
        ![TOKEN, OTLP_AUTHORIZATION].contains(&name) && (named.is_empty() || named.iter().any(|passed| passed == name))
    }

    fn server(&self) -> ServerConfig {
        let arguments = &self.server;
        let (program, args) = self.command.split_first().expect("a command is required");
        let process = ProcessConfig {
            env: ConfigFlags::environment().into_iter().filter(|(name, _)| self.passes(name)).collect(),
            folder: arguments.folder.clone(),
            sharing: arguments.sharing,
            children: arguments.children.max(1),
            idle: arguments.idle.0,
            start: arguments.start.0,
            grace: arguments.grace.0,
            memory: arguments.memory.map(|size| size.0),
            confinement: arguments.confinement,
            // A pod is its server's alone.
            writes: if arguments.confinement == Confinement::None { Vec::new() } else { vec![PathBuf::from("/")] },
            namespaces: arguments.namespaces,
            unix_sockets: arguments.confinement != Confinement::None,
            file_size: None,
            ..ProcessConfig::new(program, args)
        };
        ServerConfig {
            era: arguments.era,
            concurrency: arguments.concurrency.max(1),
            per_caller: PER_CALLER,
            deadline: arguments.deadline_max.0,
            deadline_max: arguments.deadline_max.0,
            ..ServerConfig::new(NAME, Reach::Process(process))
        }
    }

    async fn serve(self) -> Result<Exit, Failure> {
        let signals = lifecycle::signals()?;
        let telemetry = self.telemetry()?;
        let listener = TcpListener::bind(self.listen).await;
        let listener = listener.map_err(|cause| format!("cannot listen on {}: {cause}", self.listen))?;
        let mut life = Life::new(Patience { notice: self.notice.0, drain: self.drain_timeout.0 });
        let (token, is_open) = match std::env::var(TOKEN).ok().filter(|token| !token.is_empty()) {
            Some(token) => (Token::from(token), false),
            None => (drawn()?, true),
        };
        let gateway = Gateway::start(
            GatewayConfig {
                servers: vec![self.server()],
                callers: Callers::new(token.clone(), None),
                keys: Keys::random()?,
                advertise: String::new(),
                // Its address is whatever the pod has got.
                hosts: vec!["*".to_owned()],
                origins: Vec::new(),
                authorities: None,
                limits: Limits::default(),
                regions: RegionsConfig::default(),
                meter: telemetry.meter(),
                access: AccessConfig::default(),
                metering: None,
            },
            life.drain(),
        )?;
        let router = gateway.router_of(NAME);
        let router = if is_open { known(router, &token)? } else { router };
        println!("{} adapter speaks MCP on http://{}/mcp", ABOUT.name, listener.local_addr()?);
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let drained = life.drain().cancelled_owned();
        life.server(
            "the MCP server",
            async move { axum::serve(listener, router).with_graceful_shutdown(drained).await },
        );
        gateway.unready_after(life.not_ready());
        let drain = life.drain();
        life.server("the program", close(gateway, drain, self.drain_timeout.0));
        let exit = life.until(signals).await;
        let flushed = tokio::task::spawn_blocking(move || telemetry.shutdown(FLUSH)).await?;
        if let Err(cause) = flushed {
            tracing::warn!(cause, "the last spans were not sent");
        }
        Ok(exit)
    }
}

/// A token that nobody else has.
fn drawn() -> Result<Token, Failure> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(Token::from(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))))
}

/// Everybody who gets here is the one caller that there is: who does is for the network of the pod to say.
fn known(router: Router, token: &Token) -> Result<Router, Failure> {
    let header = Arc::new(HeaderValue::from_str(&token.header())?);
    Ok(router.layer(middleware::from_fn(move |mut request: Request, next: Next| {
        let header = Arc::clone(&header);
        async move {
            request.headers_mut().insert(AUTHORIZATION, (*header).clone());
            next.run(request).await
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_runs_is_installed_whole_and_needs_no_command_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        install(folder.path()).expect("installed");
        // Again, as when a pod starts anew on what it had.
        install(folder.path()).expect("installed");
        let own = std::env::current_exe().expect("a program");
        let bytes = |path: &Path| fs::metadata(path).expect("there").len();
        assert_eq!(bytes(&folder.path().join(ABOUT.name)), bytes(&own));
        assert_eq!(folder.path().read_dir().expect("a folder").count(), 1);
        assert!(install(&folder.path().join("none")).is_err());
        assert!(Adapter::try_parse_from(["adapter", "--install", "/x"]).is_ok());
        assert!(Adapter::try_parse_from(["adapter"]).is_err());
    }

    #[test]
    fn a_program_is_confined_to_its_pod_unless_it_is_not_to_be() {
        let server = |more: &[&str]| {
            let line = [&["adapter"][..], more, &["--", "program"]].concat();
            let server = Adapter::try_parse_from(line).expect("right").server();
            assert_eq!(server.check(), Vec::<String>::new());
            let Reach::Process(process) = server.reach else { panic!("a program") };
            (process.confinement, process.writes)
        };
        assert_eq!(server(&[]), (Confinement::Auto, vec![PathBuf::from("/")]));
        assert_eq!(server(&["--confinement", "required"]).0, Confinement::Required);
        assert_eq!(server(&["--confinement", "none"]), (Confinement::None, Vec::new()));
    }

    #[test]
    fn a_program_gets_the_variables_that_it_is_to_have_and_no_secret() {
        let passes = |more: &[&str], name: &str| {
            let line = [&["adapter"][..], more, &["--", "program"]].concat();
            Adapter::try_parse_from(line).expect("right").passes(name)
        };
        assert!(passes(&[], "TZ") && passes(&["--env", "TZ"], "TZ") && !passes(&["--env", "TZ"], "OTHER"));
        for secret in [TOKEN, OTLP_AUTHORIZATION] {
            assert!(!passes(&[], secret) && !passes(&["--env", secret], secret), "{secret}");
        }
    }
}
