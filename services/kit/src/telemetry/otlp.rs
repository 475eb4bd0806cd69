//! Sending spans by OTLP over gRPC, from a bounded queue that never makes a request wait, and metrics now and then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_otlp::{MetricExporter, RetryPolicy, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::PeriodicReader,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter as Export},
};
use tonic::metadata::{MetadataMap, MetadataValue};

use super::{OtlpOptions, TelemetryError};

/// Spans in one export at the most.
const BATCH: usize = 512;
/// How long a span waits for others before it is sent.
const DELAY: Duration = Duration::from_secs(1);

/// How often metrics are sent.
const EVERY: Duration = Duration::from_secs(15);

fn fault(options: &OtlpOptions, why: String) -> TelemetryError {
    TelemetryError::Exporter { endpoint: options.endpoint.clone(), why }
}

/// What the collector wants to see of who sends.
fn metadata(options: &OtlpOptions) -> Result<MetadataMap, TelemetryError> {
    let mut metadata = MetadataMap::new();
    if let Some(header) = options.authorization.reveal() {
        // The value is not named: it is a secret.
        let value = MetadataValue::try_from(header)
            .map_err(|_| fault(options, "the authorization header has characters that no header may have".into()))?;
        metadata.insert("authorization", value);
    }
    Ok(metadata)
}

/// What sends metrics to the collector. Must be called within the runtime that will send.
pub(super) fn reader(options: &OtlpOptions) -> Result<PeriodicReader<MetricExporter>, TelemetryError> {
    let exporter = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(&options.endpoint)
        .with_timeout(options.timeout)
        .with_metadata(metadata(options)?)
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|cause| fault(options, cause.to_string()))?;
    Ok(PeriodicReader::builder(exporter).with_interval(EVERY).build())
}

/// A processor that sends to the collector. Must be called within the runtime that will send.
pub(super) fn processor(options: &OtlpOptions, refused: &Arc<AtomicU64>) -> Result<BatchSpanProcessor, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&options.endpoint)
        .with_timeout(options.timeout)
        .with_metadata(metadata(options)?)
        // The queue holds what is not sent yet; waiting between retries would hold up its flush.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|cause| fault(options, cause.to_string()))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(options.queue)
        .with_max_export_batch_size(BATCH.min(options.queue))
        .with_scheduled_delay(DELAY)
        .build();
    Ok(BatchSpanProcessor::builder(Counting {
        exporter,
        endpoint: options.endpoint.clone(),
        refused: Arc::clone(refused),
    })
    .with_batch_config(batches)
    .build())
}

/// Counts what the collector does not take, and says so the first time.
#[derive(Debug)]
struct Counting {
    exporter: SpanExporter,
    endpoint: String,
    refused: Arc<AtomicU64>,
}

impl Export for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        if let Err(cause) = &sent
            && self.refused.fetch_add(spans, Ordering::Relaxed) == 0
        {
            tracing::warn!(endpoint = self.endpoint, %cause, "spans cannot be sent; they are dropped and counted");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
