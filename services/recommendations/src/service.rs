use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use echotune_api::{MAX_LIMIT, RecommendQuery, Recommendations};
use echotune_kit::embedded::StoreError;
use echotune_model::{Call, ErrorKind, Fault, Hlc, UserName};

use crate::{rank::rank, state::State, store::EmbeddedRecommendationStore};

/// recommendations, over a store.
#[derive(Debug, Clone)]
pub struct RecommendationsService {
    store: EmbeddedRecommendationStore,
    state: Arc<RwLock<State>>,
}

impl RecommendationsService {
    /// Loads the view of this store. Time linear in it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: EmbeddedRecommendationStore) -> Result<Self, StoreError> {
        let state = Arc::new(RwLock::new(store.load()?));
        Ok(Self { store, state })
    }

    pub(crate) const fn store(&self) -> &EmbeddedRecommendationStore {
        &self.store
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Hybrid time of the newest event applied.
    pub fn watermark(&self) -> Hlc {
        self.read(|state| state.watermark)
    }

    /// Place in the log up to which, exclusively, events show in answers.
    pub fn position(&self) -> u64 {
        self.read(|state| state.position)
    }

    /// Version of the serving model.
    pub fn model_version(&self) -> String {
        self.read(version)
    }

    /// Artists and tracks in the catalogue.
    pub fn item_counts(&self) -> (u64, u64) {
        self.read(|state| (state.artists.items.len() as u64, state.tracks.items.len() as u64))
    }

    /// Fits the graphs on the histories as they are now, beside serving, and swaps them in. Does
    /// nothing when nothing has changed.
    pub async fn refit(&self) {
        let training = self.read(State::training);
        let Some(training) = training else { return };
        match tokio::task::spawn_blocking(move || training.fit()).await {
            Ok(fitted) => self.update(|state| state.swap(fitted)),
            Err(cause) => tracing::error!(%cause, "a refit failed; the model before it goes on serving"),
        }
    }
}

fn version(state: &State) -> String {
    format!("item-graph-{:016x}", state.version)
}

#[async_trait]
impl Recommendations for RecommendationsService {
    #[tracing::instrument(name = "recommendations.recommend", skip_all, fields(limit = query.limit), err(level = "debug"))]
    async fn recommend(
        &self,
        call: &Call,
        user: &str,
        query: &RecommendQuery,
    ) -> Result<echotune_model::Recommendations, Fault> {
        call.check_deadline()?;
        if query.limit == 0 || query.limit > MAX_LIMIT {
            return Err(Fault::new(
                ErrorKind::InvalidArgument,
                format!("limit is {}; ask for 1 to {MAX_LIMIT} items", query.limit),
            ));
        }
        let name: UserName = user.parse()?;
        self.read(|state| {
            let of = state.by_name(&name).ok_or_else(|| Fault::unknown_user(user))?;
            let ranked = rank(state.shelf(query.kind), query.kind, of, query.limit as usize, query.include_known);
            Ok(echotune_model::Recommendations {
                model_version: version(state),
                watermark: state.watermark,
                trace: call.trace,
                cold_start: ranked.cold_start,
                items: ranked.items,
            })
        })
    }
}
