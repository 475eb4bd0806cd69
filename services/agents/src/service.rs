use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use echotune_api::Agents;
use echotune_kit::telemetry;
use echotune_model::{
    Approval, Call, ErrorKind, Fault, MAX_PAGE, NewRun, Page, PageRequest, Run, RunEvent, RunId, UserName,
    WorkflowSummary,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::instrument;

use crate::{
    expr::{Language, apart},
    run::Shared,
    store::{Decision, Idempotency, PinnedText, RunDraft, RunRecord, RunStore, RunStoreError},
    tools::{McpServer, Tools, ToolsError},
    worker,
    workflow::{Workflow, WorkflowFault, Workflows, digest, with_defaults},
};

/// Largest input of a run, in bytes.
const MAX_INPUT: usize = 64 << 10;
/// Longest comment of a decision, in bytes.
const MAX_COMMENT: usize = 4_096;
/// Longest idempotency key.
const MAX_KEY: usize = 128;
/// Evaluations of expressions at one time.
const EVALUATIONS: usize = 4;
/// Rows in a page when nothing is said.
const DEFAULT_PAGE: u32 = 100;

/// How the service works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Runs that are carried out at one time; the others wait. At least 1.
    pub concurrent: usize,
    /// For how long ended runs and their journals are kept.
    pub retention: Duration,
    /// How long a run stays with an owner that says nothing. Several seconds at least.
    pub lease: Duration,
    /// First pause before a call that failed without harm is made again; doubled each time up to 5 s.
    pub backoff: Duration,
    /// How long calls under way may go on after a stop.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrent: 4,
            retention: Duration::from_secs(90 * 24 * 3_600),
            lease: Duration::from_secs(15),
            backoff: Duration::from_millis(200),
            grace: Duration::from_secs(2),
        }
    }
}

/// Why the service cannot start.
#[derive(Debug, Clone, Error)]
pub enum LoadError {
    /// Workflow files have faults: all of them.
    #[error("{}", listed(.0))]
    Workflows(Vec<WorkflowFault>),
    /// The tools cannot be used.
    #[error(transparent)]
    Tools(#[from] ToolsError),
    /// Reading broke off.
    #[error("the workflow files were not read to their end: {0}")]
    Broken(String),
}

fn listed(faults: &[WorkflowFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// agents, over a store and MCP servers.
#[derive(Clone)]
pub struct AgentsService {
    shared: Arc<Shared>,
    workflows: Arc<Workflows>,
    options: Options,
    drain: CancellationToken,
}

impl fmt::Debug for AgentsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentsService")
    }
}

impl AgentsService {
    /// Connects to the servers and reads the workflows, each a file name and its text; see
    /// [`bundled`](crate::bundled) for those that come along. When `drain` is cancelled, callers that
    /// watch a run are sent away.
    ///
    /// # Errors
    /// A server cannot be used, or workflows have faults: all of them are told.
    pub async fn load(
        store: impl RunStore + 'static,
        servers: Vec<McpServer>,
        sources: &[(String, String)],
        options: Options,
        drain: CancellationToken,
    ) -> Result<Self, LoadError> {
        let tools = Arc::new(Tools::connect(servers).await?);
        let language = Language::new();
        let texts: Vec<PinnedText> =
            sources.iter().map(|(file, text)| PinnedText { file: file.clone(), text: text.clone() }).collect();
        let (known, reading) = (tools.known(), language.clone());
        let workflows = apart(move || Workflows::read(&texts, &reading, Some(&known)))
            .await
            .map_err(LoadError::Broken)?
            .map_err(LoadError::Workflows)?;
        let shared = Shared {
            store: Arc::new(store),
            tools,
            language,
            evaluations: Arc::new(Semaphore::new(EVALUATIONS)),
            lease: options.lease.max(Duration::from_millis(300)),
            backoff: options.backoff,
            grace: options.grace,
        };
        Ok(Self { shared: Arc::new(shared), workflows: Arc::new(workflows), options, drain })
    }

    /// Resumes unfinished runs and carries out new ones until `stop` is cancelled. Then no further step
    /// begins; calls under way may go on for [`Options::grace`], and what is not done is resumed later.
    ///
    /// # Errors
    /// The store cannot be used at all.
    pub fn work(&self, stop: CancellationToken) -> impl Future<Output = Result<(), RunStoreError>> + Send + use<> {
        let (shared, options) = (Arc::clone(&self.shared), self.options.clone());
        async move {
            let working = worker::work(Arc::clone(&shared), options.concurrent.max(1), stop.clone());
            let sweeping = worker::sweep(&shared, options.retention, stop);
            let (done, ()) = tokio::join!(working, sweeping);
            done
        }
    }

    /// A run that the caller may read. To others it does not exist.
    async fn readable(&self, call: &Call, id: RunId) -> Result<RunRecord, Fault> {
        call.check_deadline()?;
        let record = self.shared.store.run(id).await?.ok_or(RunStoreError::UnknownRun(id))?;
        let owner: UserName = record.user.parse()?;
        call.may_read(&owner).map_err(|_| RunStoreError::UnknownRun(id))?;
        Ok(record)
    }

    async fn writable(&self, call: &Call, id: RunId) -> Result<RunRecord, Fault> {
        let record = self.readable(call, id).await?;
        call.may_write(&record.user.parse()?)?;
        Ok(record)
    }

    fn workflow(&self, name: &str) -> Result<&Arc<Workflow>, Fault> {
        self.workflows.0.get(name).ok_or_else(|| {
            let known = self.workflows.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let shown: String = name.chars().take(64).collect();
            let message = format!("workflow '{}' does not exist; there are {known}", shown.escape_debug());
            Fault::new(ErrorKind::NotFound, message)
        })
    }
}

/// The input of a run with the defaults of its workflow.
fn input_of(workflow: &Workflow, text: &str) -> Result<Map<String, Value>, Fault> {
    if text.len() > MAX_INPUT {
        return Err(Fault::invalid(format!("the input has {} bytes; at most {MAX_INPUT} are taken", text.len())));
    }
    let given: Map<String, Value> = if text.is_empty() {
        Map::new()
    } else {
        serde_json::from_str(text).map_err(|why| Fault::invalid(format!("the input is no JSON object: {why}")))?
    };
    let input = with_defaults(&workflow.input, &given);
    let checked = workflow.input_schema.check(&Value::Object(input.clone()));
    checked.map_err(|why| Fault::invalid(format!("the input of '{}' is not what it takes: {why}", workflow.name)))?;
    Ok(input)
}

fn check_key(key: &str) -> Result<(), Fault> {
    if key.len() <= MAX_KEY && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Ok(());
    }
    Err(Fault::invalid(format!("the idempotency key is not 1 to {MAX_KEY} printable ASCII characters")))
}

/// The trace of a run: that of its caller, or a new one.
fn trace_of(call: &Call) -> String {
    let current = telemetry::traceparent_of(&tracing::Span::current());
    [call.traceparent.clone(), current].into_iter().find(|trace| !trace.is_empty()).unwrap_or_else(|| {
        let (trace, span) = (uuid::Uuid::new_v4().simple().to_string(), uuid::Uuid::new_v4().simple().to_string());
        format!("00-{trace}-{}-01", &span[..16])
    })
}

#[async_trait]
impl Agents for AgentsService {
    #[instrument(name = "agents.list_workflows", skip_all, err(level = "debug"))]
    async fn list_workflows(&self, call: &Call) -> Result<Vec<WorkflowSummary>, Fault> {
        call.check_deadline()?;
        let summary = |one: &Arc<Workflow>| WorkflowSummary {
            name: one.name.clone(),
            description: one.description.clone(),
            input_schema: one.input.to_string(),
        };
        Ok(self.workflows.0.values().map(summary).collect())
    }

    #[instrument(name = "agents.start_run", skip_all, fields(workflow = run.workflow), err(level = "debug"))]
    async fn start_run(&self, call: &Call, run: NewRun) -> Result<Run, Fault> {
        call.check_deadline()?;
        let user: UserName = run.user.parse()?;
        call.may_write(&user)?;
        check_key(&call.idempotency_key)?;
        let workflow = self.workflow(&run.workflow)?;
        let input = Value::Object(input_of(workflow, &run.input)?).to_string();
        let request = json!(["start_run", run.workflow, user.folded(), input]).to_string();
        let request = Sha256::digest(request.as_bytes()).into();
        let idempotency = Some(Idempotency { key: call.idempotency_key.clone(), request });
        let texts = self.workflows.sources_of(workflow);
        let detail = json!({
            "workflow": workflow.name,
            "version": workflow.version,
            "digests": texts.iter().map(|text| digest(&text.text)).collect::<Vec<_>>(),
            "input": serde_json::from_str::<Value>(&input).unwrap_or(Value::Null),
        });
        let draft = RunDraft {
            id: RunId::new(self.shared.store.now_ms()),
            workflow: workflow.name.clone(),
            user,
            input,
            traceparent: trace_of(call),
            texts,
            detail: detail.to_string(),
        };
        let idempotency = idempotency.filter(|one| !one.key.is_empty());
        Ok(self.shared.store.start(draft, idempotency).await?.into())
    }

    #[instrument(name = "agents.get_run", skip_all, err(level = "debug"))]
    async fn get_run(&self, call: &Call, id: RunId) -> Result<Run, Fault> {
        Ok(self.readable(call, id).await?.into())
    }

    #[instrument(name = "agents.list_runs", skip_all, err(level = "debug"))]
    async fn list_runs(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Run>, Fault> {
        call.check_deadline()?;
        let user: Option<UserName> = if user.is_empty() { None } else { Some(user.parse()?) };
        match &user {
            Some(user) => call.may_read(user)?,
            None => call.may_operate()?,
        }
        let size = if page.size == 0 { DEFAULT_PAGE } else { page.size };
        if size > MAX_PAGE {
            return Err(Fault::invalid(format!("page size {size} is too large; ask for at most {MAX_PAGE}")));
        }
        let page = self.shared.store.runs(user, PageRequest { size, token: page.token.clone() }).await?;
        Ok(Page { rows: page.rows.into_iter().map(Run::from).collect(), next: page.next })
    }

    async fn watch_run(&self, call: &Call, id: RunId, sequence: u64) -> Result<Vec<RunEvent>, Fault> {
        let mut changes = self.shared.store.changes();
        loop {
            changes.borrow_and_update();
            // The run is read before its journal: a run seen to have ended has its last entry by then.
            let record = self.readable(call, id).await?;
            let entries = self.shared.store.journal(id, sequence).await?;
            if !entries.is_empty() || record.state.is_final() {
                return Ok(entries.into_iter().map(RunEvent::from).collect());
            }
            let late = async {
                match call.deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => {
                    changed.map_err(|_| Fault::new(ErrorKind::Unavailable, "the store is closed; watch again later"))?;
                }
                () = late => {
                    let message = "nothing more happened until the deadline; watch again";
                    return Err(Fault::new(ErrorKind::DeadlineExceeded, message));
                }
                () = self.drain.cancelled() => {
                    let message = "the service goes down; watch again when it is back";
                    return Err(Fault::new(ErrorKind::Unavailable, message));
                }
            }
        }
    }

    #[instrument(name = "agents.cancel_run", skip_all, err(level = "debug"))]
    async fn cancel_run(&self, call: &Call, id: RunId) -> Result<Run, Fault> {
        self.writable(call, id).await?;
        check_key(&call.idempotency_key)?;
        Ok(self.shared.store.cancel(id, call.idempotency_key.clone()).await?.into())
    }

    #[instrument(name = "agents.decide", skip_all, err(level = "debug"))]
    async fn decide(&self, call: &Call, id: RunId, approval: Approval) -> Result<Run, Fault> {
        self.writable(call, id).await?;
        check_key(&call.idempotency_key)?;
        let Approval { step, approved, comment } = approval;
        if comment.len() > MAX_COMMENT {
            let bytes = comment.len();
            return Err(Fault::invalid(format!("the comment has {bytes} bytes; at most {MAX_COMMENT} are taken")));
        }
        let decision = Decision { step, approved, comment, key: call.idempotency_key.clone() };
        Ok(self.shared.store.decide(id, decision).await?.into())
    }
}
