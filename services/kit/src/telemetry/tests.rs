use opentelemetry::trace::{Tracer as _, TracerProvider as _};

use super::*;

/// Longer than a busy machine takes.
const LONG: Duration = Duration::from_secs(60);

fn end_span(telemetry: &Telemetry, name: &'static str) -> TraceId {
    let span = telemetry.provider.tracer("test").start(name);
    TraceId(u128::from_be_bytes(opentelemetry::trace::Span::span_context(&span).trace_id().to_bytes()))
}

fn collector(endpoint: String, queue: usize) -> Options {
    let otlp = OtlpOptions { endpoint, authorization: Secret::from("Bearer hunter2".to_owned()), queue, timeout: LONG };
    Options { otlp: Some(otlp), ..Options::default() }
}

#[test]
fn the_oldest_spans_go_first() {
    let telemetry = prepare(&Options { spans_kept: 2, ..Options::default() }).unwrap();
    let traces: Vec<_> = ["one", "two", "three"].into_iter().map(|name| end_span(&telemetry, name)).collect();
    assert!(telemetry.spans.trace(traces[0]).is_empty());
    assert_eq!(telemetry.spans.trace(traces[1])[0].name, "two");
    assert_eq!(telemetry.spans.trace(traces[2])[0].name, "three");
}

#[test]
fn filters_and_endpoints_are_checked() {
    assert!(check_filter("warn,echotune=debug").is_ok());
    assert!(check_filter("echotune=loudly").is_err());
    for refused in ["", "collector:4317", "https://collector:4317", "http://", "127.0.0.1:4317", "ftp://x"] {
        let error = prepare(&collector(refused.into(), 1)).unwrap_err();
        assert!(matches!(error, TelemetryError::Endpoint { .. }), "{refused}: {error}");
    }
    #[cfg(not(feature = "otlp"))]
    assert!(matches!(prepare(&collector("http://127.0.0.1:4317".into(), 1)).unwrap_err(), TelemetryError::NotBuilt));
}

#[cfg(feature = "otlp")]
mod with_a_collector {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::{
        collector::{
            metrics::v1::{
                ExportMetricsServiceRequest, ExportMetricsServiceResponse,
                metrics_service_server::{MetricsService, MetricsServiceServer},
            },
            trace::v1::{
                ExportTraceServiceRequest, ExportTraceServiceResponse,
                trace_service_server::{TraceService, TraceServiceServer},
            },
        },
        metrics::v1::{metric::Data, number_data_point::Value},
    };
    use tokio::{
        net::{TcpListener, TcpSocket},
        sync::{Notify, mpsc},
        task::spawn_blocking,
    };
    use tonic::{Request, Response, Status, transport::server::TcpIncoming};

    use super::*;

    /// A collector that hands on what it receives, after `held` allows it.
    struct Collector {
        received: mpsc::UnboundedSender<(Option<String>, ExportTraceServiceRequest)>,
        held: Option<Arc<Notify>>,
    }

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
            let header = header.map(ToOwned::to_owned);
            self.received.send((header, request.into_inner())).map_err(|_| Status::internal("the test is over"))?;
            if let Some(held) = &self.held {
                held.notified().await;
            }
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    type Received = mpsc::UnboundedReceiver<(Option<String>, ExportTraceServiceRequest)>;

    async fn serve(held: Option<Arc<Notify>>) -> (String, Received) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (received, receiver) = mpsc::unbounded_channel();
        let service = TraceServiceServer::new(Collector { received, held });
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)),
        );
        (endpoint, receiver)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_is_sent_on_the_way_down() {
        let (endpoint, mut received) = serve(None).await;
        let telemetry = prepare(&collector(endpoint, 16)).unwrap();
        let trace = end_span(&telemetry, "record_listens");
        assert_eq!(telemetry.spans.trace(trace).len(), 1);
        let flushed = spawn_blocking(move || telemetry.shutdown(LONG)).await.unwrap();
        flushed.unwrap();
        let (header, request) = received.recv().await.unwrap();
        assert_eq!(header.as_deref(), Some("Bearer hunter2"));
        let resource = &request.resource_spans[0];
        let span = &resource.scope_spans[0].spans[0];
        assert_eq!(span.name, "record_listens");
        assert_eq!(span.trace_id, trace.0.to_be_bytes());
        let named = resource.resource.as_ref().unwrap().attributes.iter().any(|pair| pair.key == "service.name");
        assert!(named, "{resource:?}");
    }

    /// A collector of metrics that hands on what it receives.
    struct Metrics(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

    #[tonic::async_trait]
    impl MetricsService for Metrics {
        async fn export(
            &self,
            request: Request<ExportMetricsServiceRequest>,
        ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
            assert_eq!(request.metadata().get("authorization").expect("a header"), "Bearer hunter2");
            self.0.send(request.into_inner()).map_err(|_| Status::internal("the test is over"))?;
            Ok(Response::new(ExportMetricsServiceResponse::default()))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_latest_value_of_a_metric_is_sent_on_the_way_down() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sent, mut received) = mpsc::unbounded_channel();
        let service = MetricsServiceServer::new(Metrics(sent));
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)),
        );
        let telemetry = prepare(&collector(endpoint, 16)).unwrap();
        let gauge = telemetry.meter().gauge(metrics::DRIFT);
        assert!(gauge.is_sent());
        let counter = telemetry.meter().counter(metrics::DEAD_LETTERS);
        [2, 3].iter().for_each(|more| counter.add(*more, &[("messaging.consumer.group.name", "agents")]));
        let histogram = telemetry.meter().histogram(metrics::MCP_SERVER_OPERATION, &metrics::MCP_BOUNDS);
        [0.004, 0.3].iter().for_each(|took| histogram.record(*took, &[("mcp.method.name", "tools/call")]));
        for value in [0.5, 0.25] {
            gauge.record(value, &[("feature", "score"), ("kind", "track")]);
        }
        let last = telemetry.clone();
        let down = spawn_blocking(move || last.shutdown(LONG)).await.unwrap();
        // The library waits for five seconds alone, which are too few on a busy machine, and sends all the same.
        assert!(down.as_ref().err().is_none_or(|why| why.contains("[Timeout(5s)]")), "{down:?}");
        let request = received.recv().await.unwrap();
        let sent = &request.resource_metrics[0].scope_metrics[0].metrics;
        let metric = sent.iter().find(|one| one.name == "echotune.recommendations.drift").expect("sent");
        assert_eq!(metric.unit, "1");
        let counted = sent.iter().find(|one| one.name == "echotune.consumer.dead_letters").expect("sent");
        let Some(Data::Sum(sum)) = &counted.data else { panic!("{counted:?}") };
        assert_eq!((sum.is_monotonic, sum.data_points[0].value), (true, Some(Value::AsInt(5))));
        let Some(Data::Gauge(gauge)) = &metric.data else { panic!("{metric:?}") };
        assert_eq!((gauge.data_points.len(), gauge.data_points[0].value), (1, Some(Value::AsDouble(0.25))));
        let timed = sent.iter().find(|one| one.name == "mcp.server.operation.duration").expect("sent");
        let Some(Data::Histogram(timed)) = &timed.data else { panic!("{timed:?}") };
        let point = &timed.data_points[0];
        assert_eq!((point.count, point.explicit_bounds.as_slice()), (2, &metrics::MCP_BOUNDS[..]));
        assert_eq!((point.bucket_counts[0], point.bucket_counts[5]), (1, 1));
        let names: Vec<_> = gauge.data_points[0].attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn without_a_collector_metrics_go_nowhere() {
        let gauge = prepare(&Options::default()).unwrap().meter().gauge(metrics::DRIFT);
        gauge.record(1.0, &[]);
        assert!(!gauge.is_sent());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_stalls_costs_spans_and_no_waiting() {
        let held = Arc::new(Notify::new());
        let (endpoint, mut received) = serve(Some(Arc::clone(&held))).await;
        let telemetry = prepare(&collector(endpoint, 8)).unwrap();
        // More than fit: none of these may wait for the collector, which answers nothing.
        for _ in 0..1_000 {
            end_span(&telemetry, "busy");
        }
        let (_, first) = received.recv().await.unwrap();
        assert!(first.resource_spans[0].scope_spans[0].spans.len() <= 8);
        for _ in 0..1_000 {
            end_span(&telemetry, "busy");
        }
        let mut flushing = spawn_blocking(move || telemetry.shutdown(LONG));
        let mut sent = first.resource_spans[0].scope_spans[0].spans.len();
        held.notify_one();
        let flushed = loop {
            tokio::select! {
                Some((_, more)) = received.recv() => {
                    sent += more.resource_spans[0].scope_spans[0].spans.len();
                    held.notify_one();
                }
                flushed = &mut flushing => break flushed,
            }
        };
        flushed.unwrap().unwrap();
        assert!(sent < 2_000, "{sent} spans were kept by a queue of 8");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_not_there_costs_spans_and_no_waiting() {
        // An address that nobody else is given, and where nobody answers.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let endpoint = format!("http://{}", socket.local_addr().unwrap());
        let telemetry = prepare(&collector(endpoint, 4)).unwrap();
        let traces: Vec<_> = (0..100).map(|_| end_span(&telemetry, "alone")).collect();
        // The store of this process does not depend on the collector.
        assert!(traces.iter().all(|trace| telemetry.spans.trace(*trace).len() == 1));
        let last = telemetry.clone();
        spawn_blocking(move || last.shutdown(LONG)).await.unwrap().unwrap();
        let refused = telemetry.refused();
        assert!((1..=100).contains(&refused), "{refused}");
    }
}
