use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use echotune_model::{Approval, Call, ErrorKind, Fault, NewRun, PageRequest, RunEvent, RunId};
use echotune_proto::agents::v1::{
    self as pb,
    agents_service_server::{AgentsService, AgentsServiceServer},
};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Agents,
    convert::{event_to_pb, run_to_pb, workflow_to_pb},
};
use crate::{
    convert::{call_of, serve},
    status::to_status,
};

/// Messages of a journal that wait for a slow reader.
const PARTS_AHEAD: usize = 2;

struct Server(Arc<dyn Agents>);

/// The gRPC face of `agents`.
pub fn agents_server(agents: Arc<dyn Agents>) -> AgentsServiceServer<impl AgentsService> {
    AgentsServiceServer::new(Server(agents))
}

/// Follows a journal until it ends, the reader leaves, or nobody waits any longer.
async fn follow(
    agents: Arc<dyn Agents>,
    call: Call,
    id: RunId,
    mut seen: u64,
    send: mpsc::Sender<Result<pb::WatchRunResponse, Status>>,
) {
    loop {
        let waited = async {
            let Some(deadline) = call.deadline else { return agents.watch_run(&call, id, seen).await };
            tokio::time::timeout_at(deadline.into(), agents.watch_run(&call, id, seen)).await.unwrap_or_else(|_| {
                Err(Fault::new(ErrorKind::DeadlineExceeded, "nothing more happened until the deadline; watch again"))
            })
        };
        let part: Result<Vec<RunEvent>, Fault> = tokio::select! {
            part = waited => part,
            () = send.closed() => return,
        };
        let message = match part {
            Ok(events) if events.is_empty() => return,
            Ok(events) => {
                seen = events.last().map_or(seen, |event| event.sequence);
                Ok(pb::WatchRunResponse { events: events.into_iter().map(event_to_pb).collect() })
            }
            Err(fault) => Err(to_status(&fault)),
        };
        let ends = message.is_err();
        if send.send(message).await.is_err() || ends {
            return;
        }
    }
}

#[async_trait]
impl AgentsService for Server {
    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<pb::WatchRunResponse, Status>> + Send>>;

    async fn list_workflows(
        &self,
        request: Request<pb::ListWorkflowsRequest>,
    ) -> Result<Response<pb::ListWorkflowsResponse>, Status> {
        let agents = &self.0;
        serve(request, |call, m| async move {
            let pb::ListWorkflowsRequest {} = m;
            let workflows = agents.list_workflows(&call).await?.into_iter().map(workflow_to_pb).collect();
            Ok(pb::ListWorkflowsResponse { workflows })
        })
        .await
    }

    async fn start_run(&self, request: Request<pb::StartRunRequest>) -> Result<Response<pb::StartRunResponse>, Status> {
        let agents = &self.0;
        serve(request, |call, m| async move {
            let run = NewRun { workflow: m.workflow, user: m.user_name, input: m.input };
            Ok(pb::StartRunResponse { run: Some(run_to_pb(agents.start_run(&call, run).await?)) })
        })
        .await
    }

    async fn get_run(&self, request: Request<pb::GetRunRequest>) -> Result<Response<pb::GetRunResponse>, Status> {
        let agents = &self.0;
        serve(request, |call, m| async move {
            Ok(pb::GetRunResponse { run: Some(run_to_pb(agents.get_run(&call, m.run_id.parse()?).await?)) })
        })
        .await
    }

    async fn list_runs(&self, request: Request<pb::ListRunsRequest>) -> Result<Response<pb::ListRunsResponse>, Status> {
        let agents = &self.0;
        serve(request, |call, m| async move {
            let page = PageRequest { size: m.page_size, token: m.page_token };
            let page = agents.list_runs(&call, &m.user_name, &page).await?;
            let runs = page.rows.into_iter().map(run_to_pb).collect();
            Ok(pb::ListRunsResponse { runs, next_page_token: page.next })
        })
        .await
    }

    async fn watch_run(&self, request: Request<pb::WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let call = call_of(&request)?;
        let pb::WatchRunRequest { run_id, after_sequence } = request.into_inner();
        let id: RunId = run_id.parse().map_err(|fault: Fault| to_status(&fault))?;
        // The run is looked up here, so that a refusal is the answer and not part of a stream.
        self.0.get_run(&call, id).await.map_err(|fault| to_status(&fault))?;
        let (send, receive) = mpsc::channel(PARTS_AHEAD);
        tokio::spawn(follow(Arc::clone(&self.0), call, id, after_sequence, send));
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn cancel_run(
        &self,
        request: Request<pb::CancelRunRequest>,
    ) -> Result<Response<pb::CancelRunResponse>, Status> {
        let agents = &self.0;
        serve(request, |call, m| async move {
            let run = agents.cancel_run(&call, m.run_id.parse()?).await?;
            Ok(pb::CancelRunResponse { run: Some(run_to_pb(run)) })
        })
        .await
    }

    async fn decide_approval(
        &self,
        request: Request<pb::DecideApprovalRequest>,
    ) -> Result<Response<pb::DecideApprovalResponse>, Status> {
        let agents = &self.0;
        serve(request, |call, m| async move {
            let approval = Approval { step: m.step, approved: m.approved, comment: m.comment };
            let run = agents.decide(&call, m.run_id.parse()?, approval).await?;
            Ok(pb::DecideApprovalResponse { run: Some(run_to_pb(run)) })
        })
        .await
    }
}
