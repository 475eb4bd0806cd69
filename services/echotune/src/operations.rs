use async_trait::async_trait;
use echotune_api::{Operations, PlatformStatus, TraceSpan};
use echotune_kit::telemetry::SpanStore;
use echotune_model::{Call, ErrorKind, Fault, TraceId};
use echotune_recommendations::RecommendationsService;
use echotune_users::{EmbeddedUserStore, UserStore as _};

/// Status and traces of the platform in this process.
pub(crate) struct EmbeddedOperations {
    users: EmbeddedUserStore,
    recommendations: RecommendationsService,
    spans: SpanStore,
}

impl EmbeddedOperations {
    pub(crate) const fn new(
        users: EmbeddedUserStore,
        recommendations: RecommendationsService,
        spans: SpanStore,
    ) -> Self {
        Self { users, recommendations, spans }
    }
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
        let (artists, tracks) = self.recommendations.item_counts();
        counts.insert("artists".into(), artists);
        counts.insert("tracks".into(), tracks);
        counts.insert("items".into(), artists + tracks);
        Ok(PlatformStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            model_version: self.recommendations.model_version(),
            counts,
        })
    }
}
