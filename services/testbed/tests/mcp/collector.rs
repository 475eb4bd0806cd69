//! A collector of spans on the machine, where the gateway's pods reach it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::ensure;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use serde_json::{Value as Json, json};
use tokio::{net::TcpListener, task::JoinHandle, time};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::space::Space;

/// From the port of the cluster: where the gateway was told that its spans go.
const COLLECTOR: u16 = 8;
const LIMIT: Duration = Duration::from_secs(90);

/// Spans with the service that each is of.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(String, Span)>>>);

/// Keeps what it is sent until it is dropped.
pub(crate) struct Collector {
    kept: Kept,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    address: SocketAddr,
    /// Where it is.
    pub(crate) endpoint: String,
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("nobody panics with it");
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
            let mut names = attributes.filter(|one| one.key == "service.name").filter_map(|one| {
                match one.value.as_ref()?.value.as_ref()? {
                    Value::StringValue(name) => Some(name.clone()),
                    _ => None,
                }
            });
            let name = names.next().unwrap_or_default();
            kept.extend(resource.scope_spans.into_iter().flat_map(|of| of.spans).map(|span| (name.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn begin(space: &Space) -> anyhow::Result<Self> {
        let plan = space.cluster.plan();
        // The machine as pods of the real node see it.
        let address = SocketAddr::from((plan.addresses().host(), plan.port + COLLECTOR));
        let (listener, kept) = (TcpListener::bind(address).await?, Kept::default());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(kept.clone()));
        let serving = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(Self { kept, serving, address, endpoint: format!("http://{address}") })
    }

    /// Has the adapter in the pods of a server send its spans here, by this name.
    pub(crate) fn tell(&self, resource: &mut Json, name: &str) {
        resource["spec"]["env"] = json!([
            {"name": "ECHOTUNE__TELEMETRY__OTLP_ENDPOINT", "value": self.endpoint},
            {"name": "OTEL_SERVICE_NAME", "value": name},
        ]);
        let cidr = format!("{}/32", self.address.ip());
        resource["spec"]["egress"] = json!({"allow": [{"cidr": cidr, "ports": [self.address.port()]}]});
    }

    fn of(&self, trace: &[u8]) -> Vec<(String, Span)> {
        let kept = self.kept.0.lock().expect("nobody panics with it");
        kept.iter().filter(|(_, span)| span.trace_id == trace).cloned().collect()
    }

    /// The spans of a trace, once they are as wanted.
    pub(crate) async fn wait(
        &self,
        trace: u128,
        what: &str,
        yes: impl Fn(&[(String, Span)]) -> bool,
    ) -> anyhow::Result<Vec<(String, Span)>> {
        let start = Instant::now();
        loop {
            let spans = self.of(&trace.to_be_bytes());
            if yes(&spans) {
                return Ok(spans);
            }
            ensure!(start.elapsed() < LIMIT, "not {what} after {LIMIT:?}, but {}", shown(&spans));
            time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Those whose parent is not among them.
pub(crate) fn roots(spans: &[(String, Span)]) -> Vec<&Span> {
    let ids: BTreeSet<&[u8]> = spans.iter().map(|(_, span)| span.span_id.as_slice()).collect();
    let outside = |span: &&Span| !ids.contains(span.parent_span_id.as_slice());
    spans.iter().map(|(_, span)| span).filter(outside).collect()
}

/// Names of spans, each with its service, in the order in which they began.
pub(crate) fn shown(spans: &[(String, Span)]) -> String {
    let mut spans: Vec<_> = spans.iter().collect();
    spans.sort_by_key(|(_, span)| span.start_time_unix_nano);
    spans.iter().map(|(service, span)| format!("{service}: {}", span.name)).collect::<Vec<_>>().join(", ")
}
