//! A session with a server, over streamable HTTP or with a child process.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use echotune_gateway::catalogue::Launched;
use echotune_model::{ErrorKind, Fault};
use rmcp::{
    model::{CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, Implementation, Tool},
    service::{ClientLifecycleMode, ClientServiceExt as _, RoleClient, RunningService},
    transport::{
        StreamableHttpClientTransport, TokioChildProcess, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::{process::Command, time::timeout};

/// Tools of one server that are shown at the most.
const MAX_TOOLS: usize = 5_000;
/// How long a server may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// Variables of this process that a child gets.
const KEPT: [&str; 2] = ["PATH", "HOME"];

/// A server that answers.
pub(super) struct Session {
    client: RunningService<RoleClient, ClientConfig>,
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
    pub(super) async fn open(launched: &Launched, patience: Duration, verbose: bool) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let opening = async {
            match launched {
                Launched::Http { url, headers } => over_http(url, headers).await,
                Launched::Stdio { command, args, env } => with_child(command, args, env, verbose).await,
            }
        };
        let client = timeout(patience, opening).await.map_err(|_| {
            let why = format!("it did not answer within {}; give it more with --timeout", humane(patience));
            Fault::new(ErrorKind::DeadlineExceeded, why)
        })??;
        Ok(Self { client, patience, connected: begun.elapsed() })
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
    pub(super) async fn tools(&self) -> anyhow::Result<(Vec<Tool>, Duration)> {
        let begun = Instant::now();
        let listed = timeout(self.patience, self.client.peer().list_all_tools()).await.map_err(|_| self.late())?;
        let tools = listed.context("its list of tools cannot be had")?;
        anyhow::ensure!(tools.len() <= MAX_TOOLS, "it has {} tools; {MAX_TOOLS} are shown at the most", tools.len());
        Ok((tools, begun.elapsed()))
    }

    /// Calls a tool, and tells how long that took.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: serde_json::Map<String, serde_json::Value>,
    ) -> anyhow::Result<(CallToolResult, Duration)> {
        let begun = Instant::now();
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let called = timeout(self.patience, self.client.peer().call_tool(params)).await.map_err(|_| self.late())?;
        Ok((called.with_context(|| format!("tool '{tool}' was not called"))?, begun.elapsed()))
    }

    fn late(&self) -> Fault {
        let why = format!("it did not answer within {}; give it more with --timeout", humane(self.patience));
        Fault::new(ErrorKind::DeadlineExceeded, why)
    }

    /// Ends the session, and the child with it.
    pub(super) async fn close(self) {
        drop(timeout(ENDING, self.client.cancel()).await);
    }
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

async fn with_child(
    command: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
    verbose: bool,
) -> anyhow::Result<RunningService<RoleClient, ClientConfig>> {
    let mut process = Command::new(command);
    process.args(args).env_clear().envs(env).kill_on_drop(true);
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            process.env(name, value);
        }
    }
    let stderr = if verbose { Stdio::inherit() } else { Stdio::null() };
    let (child, _) = TokioChildProcess::builder(process)
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("'{command}' cannot be started; install it, or put it on the PATH"))?;
    let served = me().serve_with_lifecycle(child, lifecycle()).await;
    served.with_context(|| {
        let more = if verbose { "" } else { "; --verbose shows what it writes to its standard error" };
        format!("'{command}' does not answer as an MCP server{more}")
    })
}
