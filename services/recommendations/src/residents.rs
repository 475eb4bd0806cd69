//! What is asked of users of another jurisdiction, of whom nothing is known here.

use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_api::{RecommendQuery, Recommendations, Residents};
use echotune_model::{
    Acceptance, Call, ErrorKind, ExportRecord, Fault, Feedback, Impression, Item, ItemId, ItemKind, Page, PageRequest,
    PastFeedback, Recommendations as List, SimilarItem,
};

use crate::RecommendationsService;

/// The service of a region within a jurisdiction: who asks of a user of another is told where to ask.
#[derive(Clone)]
pub(crate) struct ResidentRecommendations {
    local: RecommendationsService,
    residents: Residents,
}

impl ResidentRecommendations {
    pub(crate) const fn new(local: RecommendationsService, residents: Residents) -> Self {
        Self { local, residents }
    }

    /// Tells of a user who is not known where the user is, when that is elsewhere. Who may not know was refused before.
    async fn told<T>(&self, call: &Call, user: &str, answer: Result<T, Fault>) -> Result<T, Fault> {
        match answer {
            Err(unknown) if unknown.kind == ErrorKind::NotFound => {
                Err(self.residents.explain(call, user, unknown).await)
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl Recommendations for ResidentRecommendations {
    async fn recommend(&self, call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault> {
        self.told(call, user, self.local.recommend(call, user, query).await).await
    }

    async fn explain(&self, call: &Call, user: &str, item: ItemId) -> Result<List, Fault> {
        self.told(call, user, self.local.explain(call, user, item).await).await
    }

    async fn what_if(
        &self,
        call: &Call,
        user: &str,
        without: &[ItemId],
        query: &RecommendQuery,
    ) -> Result<List, Fault> {
        self.told(call, user, self.local.what_if(call, user, without, query).await).await
    }

    async fn similar(&self, call: &Call, item: ItemId, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        self.local.similar(call, item, limit).await
    }

    async fn trending(&self, call: &Call, kind: ItemKind, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        self.local.trending(call, kind, limit).await
    }

    async fn top_items(&self, call: &Call, user: &str, kind: ItemKind, limit: u32) -> Result<Vec<(Item, u64)>, Fault> {
        self.told(call, user, self.local.top_items(call, user, kind, limit).await).await
    }

    async fn find_items(&self, call: &Call, kind: ItemKind, text: &str, limit: u32) -> Result<Vec<Item>, Fault> {
        self.local.find_items(call, kind, text, limit).await
    }

    async fn get_item(&self, call: &Call, item: ItemId) -> Result<Item, Fault> {
        self.local.get_item(call, item).await
    }

    async fn record_impression(&self, call: &Call, user: &str, impression: Impression) -> Result<(), Fault> {
        self.told(call, user, self.local.record_impression(call, user, impression).await).await
    }

    async fn record_feedback(&self, call: &Call, user: &str, feedback: Feedback) -> Result<(), Fault> {
        self.told(call, user, self.local.record_feedback(call, user, feedback).await).await
    }

    async fn acceptance(&self, call: &Call) -> Result<Vec<Acceptance>, Fault> {
        self.local.acceptance(call).await
    }

    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        self.told(call, user, self.local.export_user(call, user, page).await).await
    }

    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        self.local.counts(call).await
    }

    async fn restore_feedback(&self, call: &Call, user: &str, past: PastFeedback) -> Result<(), Fault> {
        self.told(call, user, self.local.restore_feedback(call, user, past).await).await
    }
}
