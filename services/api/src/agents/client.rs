use async_trait::async_trait;
use echotune_kit::edge::Credentials;
use echotune_model::{Approval, Call, Fault, NewRun, Page, PageRequest, Run, RunEvent, RunId, WorkflowSummary};
use echotune_proto::agents::v1::{self as pb, agents_service_client::AgentsServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use super::{
    Agents, MAX_RESPONSE_BYTES,
    convert::{event_from_pb, run_from_pb, workflow_from_pb},
};
use crate::{
    convert::{ask, tell},
    status::read_fault,
};

/// `agents` elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct AgentsClient(AgentsServiceClient<InterceptedService<Channel, Credentials>>);

impl AgentsClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        let client = AgentsServiceClient::with_interceptor(channel, credentials);
        Self(client.max_decoding_message_size(MAX_RESPONSE_BYTES))
    }
}

#[async_trait]
impl Agents for AgentsClient {
    async fn list_workflows(&self, call: &Call) -> Result<Vec<WorkflowSummary>, Fault> {
        let answer = ask!(self, call, list_workflows, pb::ListWorkflowsRequest {});
        Ok(answer.workflows.into_iter().map(workflow_from_pb).collect())
    }

    async fn start_run(&self, call: &Call, run: NewRun) -> Result<Run, Fault> {
        let NewRun { workflow, user, input } = run;
        run_from_pb(tell!(self, call, start_run, pb::StartRunRequest { workflow, user_name: user, input }).run)
    }

    async fn get_run(&self, call: &Call, id: RunId) -> Result<Run, Fault> {
        run_from_pb(ask!(self, call, get_run, pb::GetRunRequest { run_id: id.to_string() }).run)
    }

    async fn list_runs(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Run>, Fault> {
        let request =
            pb::ListRunsRequest { user_name: user.to_owned(), page_size: page.size, page_token: page.token.clone() };
        let answer = ask!(self, call, list_runs, request);
        let rows = answer.runs.into_iter().map(|run| run_from_pb(Some(run))).collect::<Result<_, _>>()?;
        Ok(Page { rows, next: answer.next_page_token })
    }

    async fn watch_run(&self, call: &Call, id: RunId, sequence: u64) -> Result<Vec<RunEvent>, Fault> {
        let request = pb::WatchRunRequest { run_id: id.to_string(), after_sequence: sequence };
        let mut parts = ask!(self, call, watch_run, request);
        // One message is one answer; what follows is asked for again, from where the caller then is.
        let part = parts.message().await.map_err(|status| read_fault(call, &status))?;
        part.map_or_else(Vec::new, |part| part.events).into_iter().map(event_from_pb).collect()
    }

    async fn cancel_run(&self, call: &Call, id: RunId) -> Result<Run, Fault> {
        run_from_pb(tell!(self, call, cancel_run, pb::CancelRunRequest { run_id: id.to_string() }).run)
    }

    async fn decide(&self, call: &Call, id: RunId, approval: Approval) -> Result<Run, Fault> {
        let Approval { step, approved, comment } = approval;
        let request = pb::DecideApprovalRequest { run_id: id.to_string(), step, approved, comment };
        run_from_pb(tell!(self, call, decide_approval, request).run)
    }
}
