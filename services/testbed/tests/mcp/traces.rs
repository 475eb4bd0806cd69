//! One trace from whoever calls, through the gateway, into the pod.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use serde_json::json;
use tokio::{net::TcpListener, time};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::{
    client::Outcome,
    place::{NODE, Place, row},
};

/// From the port of the cluster: where the gateway was told that its spans go.
const COLLECTOR: u16 = 8;
const LIMIT: Duration = Duration::from_secs(45);

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("nobody panics with it");
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
            let name = attributes.filter(|one| one.key == "service.name").find_map(|one| one.value.clone());
            let name = name.map(|value| format!("{:?}", value.value)).unwrap_or_default();
            kept.extend(resource.scope_spans.into_iter().flat_map(|of| of.spans).map(|span| (name.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn of(&self, trace: &[u8]) -> Vec<(String, Span)> {
        let kept = self.0.lock().expect("nobody panics with it");
        kept.iter().filter(|(_, span)| span.trace_id == trace).cloned().collect()
    }
}

#[tokio::test]
async fn a_call_is_one_trace() -> anyhow::Result<()> {
    let place = Place::new("trace").await?;
    let plan = place.space.cluster.plan();
    // The machine as pods of the real node see it.
    let listener = TcpListener::bind(SocketAddr::from((plan.addresses().host(), plan.port + COLLECTOR))).await?;
    let collector = Collector::default();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let serving = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let name = place.route("trace");
    place.space.apply(&NODE.resource(&name, &json!({"minPods": 1, "maxPods": 1}))?.to_string()).await?;
    place.until(&name, "1", |ready, _| ready == 1).await?;
    let trace: u128 = 0x4bf9_2f35_77b3_4da6_0000_0000_0000_0000 | u128::from(std::process::id());
    let parent: u64 = 0x00f0_67aa_0ba9_02b7;
    let told = format!("00-{trace:032x}-{parent:016x}-01");
    let answered = place.client.call(&name, NODE.tool, &json!({"message": "traced"}), Some(&told)).await;
    ensure!(matches!(answered, Outcome::Answered(_)), "{answered:?}");

    let start = Instant::now();
    let spans = loop {
        let spans = collector.of(&trace.to_be_bytes());
        // What the gateway was asked, and what it asked.
        if spans.len() >= 2 {
            break spans;
        }
        ensure!(start.elapsed() < LIMIT, "{} spans of the trace after {LIMIT:?}: {spans:?}", spans.len());
        time::sleep(Duration::from_millis(200)).await;
    };
    let ids: BTreeSet<&[u8]> = spans.iter().map(|(_, span)| span.span_id.as_slice()).collect();
    let roots: Vec<_> = spans.iter().filter(|(_, span)| !ids.contains(span.parent_span_id.as_slice())).collect();
    ensure!(roots.len() == 1 && roots[0].1.parent_span_id == parent.to_be_bytes(), "not one trace: {spans:?}");
    let shown: Vec<String> = spans.iter().map(|(service, span)| format!("{} ({service})", span.name)).collect();
    row("spans of one call", &shown.join(", "))?;
    serving.abort();
    drop(serving.await.err().context("served until it was ended")?);
    Ok(())
}
