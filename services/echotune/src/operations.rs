use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use echotune_agents::{EmbeddedRunStore, RunStore as _};
use echotune_api::{Operations, PlatformStatus, Recommendations as _, TraceSpan};
use echotune_kit::telemetry::SpanStore;
use echotune_model::{Call, ErrorKind, Fault, TraceId};
use echotune_recommendations::RecommendationsService;
use echotune_users::{EmbeddedUserStore, UserStore as _};

/// Status and traces of the platform in this process.
pub(crate) struct EmbeddedOperations {
    pub(crate) users: EmbeddedUserStore,
    pub(crate) recommendations: RecommendationsService,
    pub(crate) runs: EmbeddedRunStore,
    pub(crate) spans: SpanStore,
    /// Where the platform is reached, once it serves.
    pub(crate) addresses: Arc<OnceLock<BTreeMap<String, String>>>,
}

#[async_trait]
impl Operations for EmbeddedOperations {
    async fn trace(&self, call: &Call, trace: TraceId) -> Result<Vec<TraceSpan>, Fault> {
        call.check_deadline()?;
        // A trace names what somebody asked for.
        call.may_operate()?;
        let spans = self.spans.trace(trace);
        if spans.is_empty() {
            let message = format!(
                "trace {trace} is not held here; traces are kept while `echotune up` runs, the oldest go first"
            );
            return Err(Fault::new(ErrorKind::NotFound, message));
        }
        Ok(spans)
    }

    async fn status(&self, call: &Call) -> Result<PlatformStatus, Fault> {
        call.check_deadline()?;
        let mut counts = self.users.counts().await?;
        counts.extend(self.recommendations.counts(&Call::internal()).await?);
        counts.insert("runs".into(), self.runs.count().await?);
        Ok(PlatformStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            model_version: self.recommendations.model_version(),
            counts,
            addresses: self.addresses.get().cloned().unwrap_or_default(),
            model_notes: self.recommendations.model_notes(),
            cuts: self.recommendations.cut_audits(),
        })
    }
}
