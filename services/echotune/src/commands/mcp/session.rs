//! A session with a server, over streamable HTTP or with a child process, which is started as a gateway starts it.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use echotune_gateway::{Listed, Running, Started};
use echotune_kit::lifecycle::{Signal, signals};
use echotune_model::{ErrorKind, Fault};
use rmcp::{
    model::{CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, Implementation, Tool},
    service::{ClientLifecycleMode, ClientServiceExt as _, RoleClient, RunningService},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::output::printable;

/// Tools of one server that are shown at the most.
const MAX_TOOLS: usize = 5_000;
/// How long a session may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// How long the last lines of a program that has ended are waited for: what it left elsewhere may hold its pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Of a line of standard error that is shown, in bytes.
const ERROR_LINE: u64 = 2 << 10;

/// This process was asked to stop while a server was waited for.
#[derive(Debug, thiserror::Error)]
#[error("it was not waited for, as a signal came")]
pub(crate) struct Stopped(pub(crate) Signal);

/// How a server is got at.
pub(super) enum Way {
    /// Where it runs already.
    Http { url: String, headers: BTreeMap<String, String> },
    /// As a child, which goes with the session.
    Program(Box<Listed>),
}

/// A server that answers.
pub(super) struct Session {
    client: RunningService<RoleClient, ClientConfig>,
    program: Option<Program>,
    /// What asks this process to stop, which is for the session to see: a child does not get it from the terminal.
    signals: mpsc::Receiver<Signal>,
    patience: Duration,
    /// How long it took from the start to the end of the handshake.
    pub(super) connected: Duration,
}

/// What a server says of itself.
#[derive(Debug, Default)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) title: String,
    pub(crate) revision: String,
    pub(crate) instructions: String,
    pub(crate) capabilities: Vec<String>,
}

impl Session {
    /// Starts or reaches a server and greets it, in the newest revision that it speaks. What a child writes to its
    /// standard error is shown where somebody looks for it.
    pub(super) async fn open(way: &Way, patience: Duration, verbose: bool) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let mut signals = signals()?;
        let (opened, program) = match way {
            Way::Http { url, headers } => (within(patience, &mut signals, over_http(url, headers)).await, None),
            Way::Program(listed) => {
                let (program, pipes) = Program::start(listed, verbose)?;
                (within(patience, &mut signals, with_program(pipes, verbose)).await, Some(program))
            }
        };
        match opened.flatten() {
            Ok(client) => Ok(Self { client, program, signals, patience, connected: begun.elapsed() }),
            Err(why) => {
                if let Some(program) = program {
                    unless_asked(&mut signals, program.end()).await;
                }
                Err(why)
            }
        }
    }

    pub(super) fn about(&self) -> About {
        let Some(info) = self.client.peer().peer_info() else { return About::default() };
        let capabilities = serde_json::to_value(&info.capabilities).unwrap_or_default();
        let server = info.server_info.clone();
        let of = |part: fn(&Implementation) -> Option<String>| server.as_ref().and_then(part).unwrap_or_default();
        About {
            name: of(|server| Some(server.name.clone())),
            version: of(|server| Some(server.version.clone())),
            title: of(|server| server.title.clone()),
            revision: info.protocol_version.to_string(),
            instructions: info.instructions.clone().unwrap_or_default(),
            capabilities: capabilities.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Its tools, and how long the list took.
    pub(super) async fn tools(&mut self) -> anyhow::Result<(Vec<Tool>, Duration)> {
        let begun = Instant::now();
        let listed = within(self.patience, &mut self.signals, self.client.peer().list_all_tools()).await?;
        let tools = listed.context("its list of tools cannot be had")?;
        anyhow::ensure!(tools.len() <= MAX_TOOLS, "it has {} tools; {MAX_TOOLS} are shown at the most", tools.len());
        Ok((tools, begun.elapsed()))
    }

    /// Calls a tool, and tells how long that took.
    pub(super) async fn call(
        &mut self,
        tool: &str,
        arguments: serde_json::Map<String, serde_json::Value>,
    ) -> anyhow::Result<(CallToolResult, Duration)> {
        let begun = Instant::now();
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let called = within(self.patience, &mut self.signals, self.client.peer().call_tool(params)).await?;
        Ok((called.with_context(|| format!("tool '{tool}' was not called"))?, begun.elapsed()))
    }

    /// Ends the session, and the child with it.
    pub(super) async fn close(self) {
        let Self { client, program, mut signals, .. } = self;
        let ending = async {
            drop(timeout(ENDING, client.cancel()).await);
            if let Some(program) = program {
                program.end().await;
            }
        };
        unless_asked(&mut signals, ending).await;
    }
}

/// A child, and who reads what it writes to its standard error.
struct Program {
    running: Running,
    errors: JoinHandle<()>,
}

impl Program {
    /// Starts it, with the pipes by which it is spoken to.
    fn start(listed: &Listed, verbose: bool) -> anyhow::Result<(Self, (ChildStdout, ChildStdin))> {
        let Started { running, input, output, errors } = listed.start().map_err(|cause| {
            let is_absent = cause.kind() == io::ErrorKind::NotFound;
            let way_out = if is_absent { "; install it, or put it on the PATH" } else { "" };
            anyhow::anyhow!("{cause}{way_out}")
        })?;
        Ok((Self { running, errors: tokio::spawn(hear(errors, verbose)) }, (output, input)))
    }

    /// Ends it, after its pipes were closed. Dropped meanwhile, it is killed.
    async fn end(self) {
        if let Err(cause) = self.running.end().await {
            tracing::warn!(%cause, "the program of an MCP server could not be waited for");
        }
        drop(timeout(LAST_WORDS, self.errors).await);
    }
}

/// Reads what a program writes to its standard error, also where nobody wants to see it: else it would wait for that.
async fn hear(errors: impl AsyncRead + Unpin, verbose: bool) {
    let mut errors = BufReader::new(errors);
    loop {
        let mut line = Vec::new();
        match (&mut errors).take(ERROR_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if verbose => {
                // What would steer a terminal is not shown.
                let text = String::from_utf8_lossy(line.trim_ascii_end()).replace('\t', "    ");
                // Also where nobody reads that any more it goes on.
                let _unseen = writeln!(io::stderr(), "{}", printable(&text));
            }
            Ok(_) => {}
        }
    }
}

/// Waits for an end, and no longer once this process is asked to stop, be it once more.
async fn unless_asked(signals: &mut mpsc::Receiver<Signal>, ending: impl Future<Output = ()>) {
    tokio::select! {
        () = ending => {}
        Some(_) = signals.recv() => {}
    }
}

/// Waits for a server, but not for too long, nor when this process is asked to stop.
async fn within<T>(
    patience: Duration,
    signals: &mut mpsc::Receiver<Signal>,
    work: impl Future<Output = T>,
) -> anyhow::Result<T> {
    let done = tokio::select! {
        done = timeout(patience, work) => done,
        Some(signal) = signals.recv() => return Err(Stopped(signal).into()),
    };
    done.map_err(|_| {
        let why = format!("it did not answer within {}; give it more with --timeout", humane(patience));
        Fault::new(ErrorKind::DeadlineExceeded, why).into()
    })
}

fn humane(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{} s", time.as_secs()) } else { format!("{} ms", time.as_millis()) }
}

fn me() -> ClientConfig {
    ClientConfig::new(ClientCapabilities::default(), Implementation::new("echotune", env!("CARGO_PKG_VERSION")))
}

fn lifecycle() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![rmcp::model::ProtocolVersion::V_2026_07_28],
        legacy_version: Some(rmcp::model::ProtocolVersion::V_2025_11_25),
    }
}

async fn over_http(
    url: &str,
    headers: &BTreeMap<String, String>,
) -> anyhow::Result<RunningService<RoleClient, ClientConfig>> {
    if !url.starts_with("http://") {
        let why = format!("'{url}' is not http://HOST[:PORT]/PATH; this build speaks no TLS to MCP servers");
        return Err(Fault::invalid(why).into());
    }
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    let mut custom = HashMap::new();
    for (name, value) in headers {
        let named = name.parse().ok().zip(value.parse().ok());
        let (header, value) =
            named.ok_or_else(|| Fault::invalid(format!("'{name}' is no header, or its value is none")))?;
        custom.insert(header, value);
    }
    config = config.custom_headers(custom);
    // What it sends carries a token: no proxy of the environment and no other place sees it.
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let served = me().serve_with_lifecycle(transport, lifecycle()).await;
    served.with_context(|| format!("{url} does not answer as an MCP server"))
}

async fn with_program(
    pipes: (ChildStdout, ChildStdin),
    verbose: bool,
) -> anyhow::Result<RunningService<RoleClient, ClientConfig>> {
    let served = me().serve_with_lifecycle(pipes, lifecycle()).await;
    served.with_context(|| {
        let more = if verbose { "" } else { "; --verbose shows what it writes to its standard error" };
        format!("it does not answer as an MCP server{more}")
    })
}
