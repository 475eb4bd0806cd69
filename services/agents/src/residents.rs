//! Runs within a jurisdiction: none is kept for a user of another.

use async_trait::async_trait;
use echotune_api::{Agents, Residents};
use echotune_model::{
    Approval, Call, ErrorKind, Fault, NewRun, Page, PageRequest, Run, RunEvent, RunId, UserName, WorkflowSummary,
};

use crate::AgentsService;

/// The service of a region within a jurisdiction: whoever asks of a user of another is told where to ask.
#[derive(Clone)]
pub(crate) struct ResidentAgents {
    local: AgentsService,
    residents: Residents,
}

impl ResidentAgents {
    pub(crate) const fn new(local: AgentsService, residents: Residents) -> Self {
        Self { local, residents }
    }
}

#[async_trait]
impl Agents for ResidentAgents {
    async fn list_workflows(&self, call: &Call) -> Result<Vec<WorkflowSummary>, Fault> {
        self.local.list_workflows(call).await
    }

    /// A run keeps the name and what it learns of its user: for whom nobody knows it is not begun either.
    async fn start_run(&self, call: &Call, run: NewRun) -> Result<Run, Fault> {
        call.check_deadline()?;
        let user: UserName = run.user.parse()?;
        call.may_write(&user)?;
        self.residents.check(call, user.as_str()).await?;
        self.local.start_run(call, run).await
    }

    async fn get_run(&self, call: &Call, id: RunId) -> Result<Run, Fault> {
        self.local.get_run(call, id).await
    }

    async fn list_runs(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Run>, Fault> {
        let runs = self.local.list_runs(call, user, page).await?;
        if user.is_empty() || !(runs.rows.is_empty() && runs.next.is_empty()) {
            return Ok(runs);
        }
        // Runs of who was erased are none, and so are those of who is elsewhere: only the latter is told.
        match self.residents.check(call, user).await {
            Err(elsewhere) if elsewhere.kind == ErrorKind::FailedPrecondition => Err(elsewhere),
            _ => Ok(runs),
        }
    }

    async fn watch_run(&self, call: &Call, id: RunId, sequence: u64) -> Result<Vec<RunEvent>, Fault> {
        self.local.watch_run(call, id, sequence).await
    }

    async fn cancel_run(&self, call: &Call, id: RunId) -> Result<Run, Fault> {
        self.local.cancel_run(call, id).await
    }

    async fn decide(&self, call: &Call, id: RunId, approval: Approval) -> Result<Run, Fault> {
        self.local.decide(call, id, approval).await
    }
}
