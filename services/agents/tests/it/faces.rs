//! The two faces of one service, so that the same tests run on both.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use echotune_agents::{AgentsService, EmbeddedRunStore, LoadError, McpServer, Options};
use echotune_api::{Agents, AgentsClient, agents_server};
use echotune_kit::{
    auth::{Authenticator, Token},
    edge::{Credentials, Edge, Patience},
    embedded::Db,
    telemetry::{self, SpanStore},
};
use echotune_model::{
    Call, Clock, ErrorKind, Fault, NewRun, Principal, Role, Run, RunEvent, RunId, RunState, UserName,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

use crate::server::{Served, Toolbox, toolbox};

/// The spans of this process, held from before the first run on: the rest of one that began untraced would be a trace of
/// its own.
pub(crate) fn spans() -> SpanStore {
    static SPANS: OnceLock<SpanStore> = OnceLock::new();
    SPANS.get_or_init(|| telemetry::init("off")).clone()
}

/// Options under which tests need not wait.
pub(crate) fn quick() -> Options {
    Options { backoff: Duration::from_millis(1), grace: Duration::from_millis(50), ..Options::default() }
}

/// Knows users by secrets of the form `NAME:reader` or `NAME:writer`.
struct Doorman;

#[async_trait::async_trait]
impl Authenticator for Doorman {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        let (name, role) = secret.split_once(':').ok_or_else(|| Fault::new(ErrorKind::Unauthenticated, "nobody"))?;
        let role = if role == "writer" { Role::Writer } else { Role::Reader };
        Ok(user(name, role))
    }
}

pub(crate) fn user(name: &str, role: Role) -> Principal {
    let name: UserName = name.parse().expect("a name");
    Principal::User { id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id"), name, role }
}

/// One service over one folder and one MCP server, reachable both ways, with its worker.
pub(crate) struct Faces {
    pub(crate) object: AgentsService,
    pub(crate) remote: AgentsClient,
    pub(crate) channel: Channel,
    pub(crate) toolbox: Toolbox,
    _served: Served,
    stop: CancellationToken,
    worker: Option<JoinHandle<()>>,
    _folder: TempDir,
}

pub(crate) fn sources(texts: &[&str]) -> Vec<(String, String)> {
    (1..).zip(texts).map(|(number, text)| (format!("{number}.yaml"), (*text).to_owned())).collect()
}

pub(crate) async fn open(folder: &TempDir) -> EmbeddedRunStore {
    let db = Db::open(folder.path()).expect("open");
    crate::store::taken_over(db, Arc::new(Clock::default())).await
}

pub(crate) async fn load(
    folder: &TempDir,
    servers: Vec<McpServer>,
    texts: &[&str],
    options: Options,
) -> Result<AgentsService, LoadError> {
    drop(spans());
    let store = open(folder).await;
    AgentsService::load(store, servers, &sources(texts), options, CancellationToken::new()).await
}

impl Faces {
    pub(crate) async fn new(texts: &[&str]) -> Self {
        Self::with(texts, quick()).await
    }

    pub(crate) async fn with(texts: &[&str], options: Options) -> Self {
        Self::over(toolbox(), texts, options).await
    }

    pub(crate) async fn over(toolbox: Toolbox, texts: &[&str], options: Options) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let served = toolbox.serve("test", None).await;
        let object = load(&folder, vec![served.server()], texts, options).await;
        let object = object.unwrap_or_else(|error| panic!("{error}"));
        let token = Token::read_or_create(folder.path()).expect("token");
        let channel = serve(Arc::new(object.clone()), token.clone()).await;
        let remote = AgentsClient::new(channel.clone(), Credentials { token });
        let mut faces = Self {
            object,
            remote,
            channel,
            toolbox,
            _served: served,
            stop: CancellationToken::new(),
            worker: None,
            _folder: folder,
        };
        faces.resume();
        faces
    }

    /// Starts the worker.
    pub(crate) fn resume(&mut self) {
        self.stop = CancellationToken::new();
        let work = self.object.work(self.stop.clone());
        self.worker = Some(tokio::spawn(async move { work.await.expect("worked") }));
    }

    /// Stops the worker tidily.
    pub(crate) async fn pause(&mut self) {
        self.stop.cancel();
        if let Some(worker) = self.worker.take() {
            worker.await.expect("stopped");
        }
    }

    /// A client that presents another secret.
    pub(crate) fn with_secret(&self, secret: &str) -> AgentsClient {
        AgentsClient::new(self.channel.clone(), Credentials { token: Token::from(secret.to_owned()) })
    }

    /// Starts a run for Ann as the operator and follows it to its end.
    pub(crate) async fn run(&self, workflow: &str, input: &str) -> (Run, Vec<RunEvent>) {
        let run = self.object.start_run(&Call::internal(), new(workflow, input)).await.expect("started");
        follow(&self.object, run.id).await
    }
}

impl Drop for Faces {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn new(workflow: &str, input: &str) -> NewRun {
    NewRun { workflow: workflow.into(), user: "ann".into(), input: input.into() }
}

/// The run and its journal when it has ended.
pub(crate) async fn follow(agents: &dyn Agents, id: RunId) -> (Run, Vec<RunEvent>) {
    let mut events: Vec<RunEvent> = Vec::new();
    loop {
        let seen = events.last().map_or(0, |event| event.sequence);
        let more = agents.watch_run(&Call::internal(), id, seen).await.expect("watched");
        if more.is_empty() {
            return (agents.get_run(&Call::internal(), id).await.expect("read"), events);
        }
        events.extend(more);
    }
}

/// The run when it is in a state that passes.
pub(crate) async fn until(agents: &dyn Agents, id: RunId, passes: impl Fn(&Run) -> bool) -> Run {
    loop {
        let run = agents.get_run(&Call::internal(), id).await.expect("read");
        if passes(&run) {
            return run;
        }
        let has_ended = matches!(run.state, RunState::Succeeded | RunState::Failed | RunState::Cancelled);
        assert!(!has_ended, "it ended before that: {run:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn output(run: &Run) -> Value {
    assert!(run.state == RunState::Succeeded, "{run:?}");
    serde_json::from_str(&run.output).expect("JSON")
}

async fn serve(agents: Arc<dyn Agents>, token: Token) -> Channel {
    let listener = TcpListener::bind::<SocketAddr>("127.0.0.1:0".parse().expect("address")).await.expect("bound");
    let address = listener.local_addr().expect("address");
    let patience = Patience { default: Duration::from_secs(30), max: Duration::from_secs(60) };
    let edge = Edge::new(token, Some(Arc::new(Doorman)), patience);
    let server = Server::builder().layer(edge).add_service(agents_server(agents));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Endpoint::from_shared(format!("http://{address}")).expect("endpoint").connect().await.expect("connected")
}
