use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use echotune_kit::{edge::Credentials, telemetry::FinishedSpan};
use echotune_model::{Call, Fault, ItemKind, TraceId};
use echotune_proto::operations::v1::{
    self as pb,
    operations_service_client::OperationsServiceClient,
    operations_service_server::{OperationsService, OperationsServiceServer},
};
use tonic::{Request, Response, Status as GrpcStatus, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    convert::{call_of, request_of},
    status::{read_fault, to_status},
};

/// Longest answer, in bytes: every span that is held may belong to one trace.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// One finished span.
pub type TraceSpan = FinishedSpan;

/// What the cut of a model to its strongest links keeps of lists of 20.
#[derive(Debug, Clone, PartialEq)]
pub struct CutAudit {
    /// Kind of the lists.
    pub kind: ItemKind,
    /// Whether the listeners are some of those who asked between two fits, and not a sample of all.
    pub requests: bool,
    /// Listeners compared.
    pub listeners: u64,
    /// Mean share of the exact list that is found, 0 to 1.
    pub recall: f64,
    /// The true share is between this and `high` with a probability of 95 %.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Exact scores of what is found over those of the exact lists: 1 when nothing is lost.
    pub mass: f64,
}

/// What runs, and how much it holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Version of the serving model.
    pub model_version: String,
    /// Counts by name.
    pub counts: BTreeMap<String, u64>,
    /// Where what runs is reached, by name: grpc, mcp. Empty when nothing is served.
    pub addresses: BTreeMap<String, String>,
    /// What was made smaller or left out of the serving model for want of memory.
    pub model_notes: Vec<String>,
    /// What the serving model's cut keeps of lists; empty before the first blend.
    pub cuts: Vec<CutAudit>,
}

/// What operators ask a running platform.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The spans of one trace, for the operator. `NotFound` when none is held.
    async fn trace(&self, call: &Call, trace: TraceId) -> Result<Vec<TraceSpan>, Fault>;

    /// What runs, and how much it holds.
    async fn status(&self, call: &Call) -> Result<Status, Fault>;
}

struct Server<O: ?Sized>(Arc<O>);

/// The gRPC face of operations.
pub fn operations_server(operations: Arc<dyn Operations>) -> OperationsServiceServer<impl OperationsService> {
    OperationsServiceServer::new(Server(operations))
}

#[async_trait]
impl<O: Operations + ?Sized + 'static> OperationsService for Server<O> {
    async fn get_trace(
        &self,
        request: Request<pb::GetTraceRequest>,
    ) -> Result<Response<pb::GetTraceResponse>, GrpcStatus> {
        let call = call_of(&request)?;
        let trace = request.get_ref().trace_id.parse().map_err(|fault: Fault| to_status(&fault))?;
        let spans = self.0.trace(&call, trace).await.map_err(|fault| to_status(&fault))?;
        let spans = spans
            .into_iter()
            .map(|span| pb::Span {
                span_id: span.span_id,
                parent_span_id: span.parent_span_id,
                name: span.name,
                started_at_ns: span.started_at_ns,
                duration_ns: span.duration_ns,
                error: span.error,
                attributes: span.attributes.into_iter().collect(),
            })
            .collect();
        Ok(Response::new(pb::GetTraceResponse { spans }))
    }

    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, GrpcStatus> {
        let call = call_of(&request)?;
        let Status { version, model_version, counts, addresses, model_notes, cuts } =
            self.0.status(&call).await.map_err(|fault| to_status(&fault))?;
        let (counts, addresses) = (counts.into_iter().collect(), addresses.into_iter().collect());
        let cuts = cuts.into_iter().map(cut_to_message).collect();
        Ok(Response::new(pb::GetStatusResponse { version, model_version, counts, addresses, model_notes, cuts }))
    }
}

/// Operations of a platform elsewhere, over gRPC.
#[derive(Debug, Clone)]
pub struct OperationsClient(OperationsServiceClient<InterceptedService<Channel, Credentials>>);

impl OperationsClient {
    /// A client on this channel.
    pub fn new(channel: Channel, credentials: Credentials) -> Self {
        Self(
            OperationsServiceClient::with_interceptor(channel, credentials)
                .max_decoding_message_size(MAX_RESPONSE_BYTES),
        )
    }
}

#[async_trait]
impl Operations for OperationsClient {
    async fn trace(&self, call: &Call, trace: TraceId) -> Result<Vec<TraceSpan>, Fault> {
        let request = pb::GetTraceRequest { trace_id: trace.to_string() };
        let answer = self.0.clone().get_trace(request_of(call, request)?).await;
        let answer = answer.map_err(|status| read_fault(call, &status))?.into_inner();
        Ok(answer
            .spans
            .into_iter()
            .map(|span| TraceSpan {
                trace,
                span_id: span.span_id,
                parent_span_id: span.parent_span_id,
                name: span.name,
                started_at_ns: span.started_at_ns,
                duration_ns: span.duration_ns,
                error: span.error,
                attributes: span.attributes.into_iter().collect(),
            })
            .collect())
    }

    async fn status(&self, call: &Call) -> Result<Status, Fault> {
        let answer = self.0.clone().get_status(request_of(call, pb::GetStatusRequest {})?).await;
        let answer = answer.map_err(|status| read_fault(call, &status))?.into_inner();
        Ok(Status {
            version: answer.version,
            model_version: answer.model_version,
            counts: answer.counts.into_iter().collect(),
            addresses: answer.addresses.into_iter().collect(),
            model_notes: answer.model_notes,
            cuts: answer.cuts.into_iter().map(cut_of_message).collect(),
        })
    }
}

fn cut_to_message(cut: CutAudit) -> pb::CutAudit {
    let CutAudit { kind, requests, listeners, recall, low, high, mass } = cut;
    pb::CutAudit { tracks: kind == ItemKind::Track, requests, listeners, recall, low, high, mass }
}

const fn cut_of_message(cut: pb::CutAudit) -> CutAudit {
    let pb::CutAudit { tracks, requests, listeners, recall, low, high, mass } = cut;
    let kind = if tracks { ItemKind::Track } else { ItemKind::Artist };
    CutAudit { kind, requests, listeners, recall, low, high, mass }
}
