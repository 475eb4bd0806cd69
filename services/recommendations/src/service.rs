use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

#[cfg(feature = "cache")]
use std::sync::OnceLock;

use arc_swap::ArcSwap;
use echotune_api::{
    CutAudit,
    events::{Event, Payload},
};
use echotune_engine::{Scores, budget::FitTooLarge};
use echotune_eventlog::{Pace, Positions};
#[cfg(feature = "cache")]
use echotune_kit::cache::SharedTier;
use echotune_kit::failpoint;
use echotune_model::{Clock, Fault, Feedback, Hlc, UserId};
use futures::FutureExt as _;
use tokio::sync::{Notify, watch};

#[cfg(feature = "cache")]
use crate::near::Lists;
use crate::{
    asked::Asked,
    experiments::Trials,
    files::{Era, Fitting, ModelFiles},
    fit_memory::FitMemory,
    mapped::give_back_freed,
    model::{Depth, Model, Training},
    policy::Policy,
    releases::{Materials, ReleaseLimits, Releases},
    state::State,
    store::{EmbeddedRecommendationStore, Named, Progress, RecommendationStore, RecommendationStoreError},
};

/// How old the snapshot of what is popular may be while events come in.
const POPULARITY_AGE: Duration = Duration::from_secs(1);
/// Sets of sums kept for the next lists at the most.
const SPARE: usize = 64;

/// recommendations, over a store. Clones share one view.
#[derive(Clone)]
pub struct RecommendationsService(pub(crate) Arc<Inner>);

impl fmt::Debug for RecommendationsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecommendationsService")
    }
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn RecommendationStore>,
    pub(crate) clock: Clock,
    pub(crate) state: RwLock<State>,
    pub(crate) model: ArcSwap<Model>,
    /// Held from before a write to the store until memory agrees with it.
    writing: tokio::sync::Mutex<Progress>,
    applied: watch::Sender<Positions>,
    /// Revision that the serving graphs were fitted on.
    fitted: watch::Sender<u64>,
    /// Revision from which on a model makes ready: of what the store held at load, or of the file that serves.
    loaded: u64,
    pub(crate) changed: Notify,
    /// Held while a quick and while a whole fit runs.
    fitting: [tokio::sync::Mutex<()>; 2],
    refreshed: Mutex<Option<Instant>>,
    spare: Mutex<Vec<Scores>>,
    pub(crate) trials: Trials,
    pub(crate) releases: Releases,
    files: Arc<ModelFiles>,
    fit_memory: FitMemory,
    pub(crate) asked: Asked,
    pace: Pace,
    /// Lists kept near, where they are.
    #[cfg(feature = "cache")]
    pub(crate) lists: OnceLock<Lists>,
    /// What is kept of users elsewhere and is told of their changes, where there is such.
    #[cfg(feature = "cache")]
    pub(crate) told: OnceLock<SharedTier>,
}

impl RecommendationsService {
    /// Loads the view of this store. Time linear in it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: EmbeddedRecommendationStore) -> Result<Self, RecommendationStoreError> {
        Self::load_with(store, Policy::default(), ReleaseLimits::default(), &Fitting::default())
    }

    /// [`Self::load`], with lists made by a policy where no experiment changes it, and models fitted and kept as
    /// is told. Blocks on the disk.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn load_with(
        store: EmbeddedRecommendationStore,
        policy: Policy,
        limits: ReleaseLimits,
        fitting: &Fitting,
    ) -> Result<Self, RecommendationStoreError> {
        let opened = Self::open(Arc::new(store), policy, limits, fitting).now_or_never();
        opened.expect("the embedded store answers reads at once")
    }

    /// Loads the view of a store, with lists made by a policy where no experiment changes it, and releases held to
    /// limits. The weight of popularity is that of the release that serves, once there is one. The newest model file
    /// that is of this view and that release serves at once. Time linear in the view and the file.
    ///
    /// # Errors
    /// The store or the folder of the model files cannot be read, or the release that serves is another program's. A
    /// file that cannot be read is no error: it is passed over.
    pub async fn open(
        store: Arc<dyn RecommendationStore>,
        policy: Policy,
        limits: ReleaseLimits,
        fitting: &Fitting,
    ) -> Result<Self, RecommendationStoreError> {
        let mut state = State::default();
        let progress = store.load(&mut |row| state.take(row)).await?;
        (state.watermark, state.revision) = (progress.watermark, progress.revision);
        let releases = Releases::load(&*store, policy.trending_weight, limits).await?;
        let policy = policy.with_trending(releases.serving().recipe.trending);
        let trials = Trials::load(&*store, policy).await?;
        let clock = Clock::default();
        clock.observe(progress.watermark);
        let now_ms = i64::try_from(clock.wall_ms()).unwrap_or(i64::MAX);
        let files = ModelFiles::open(fitting)?;
        let release = releases.serving();
        let (loaded, model) = match files.newest(&state, &release, now_ms) {
            Some(model) => (model.revision, model),
            None => (progress.revision, Model::unfitted(release).with_warmth(state.warmth(now_ms))),
        };
        Ok(Self(Arc::new(Inner {
            store,
            clock,
            state: RwLock::new(state),
            fitted: watch::Sender::new(model.revision),
            model: ArcSwap::from_pointee(model),
            applied: watch::Sender::new(progress.positions.clone()),
            writing: tokio::sync::Mutex::new(progress),
            loaded,
            changed: Notify::new(),
            fitting: Default::default(),
            refreshed: Mutex::new(None),
            spare: Mutex::new(Vec::new()),
            trials,
            releases,
            files: Arc::new(files),
            fit_memory: FitMemory::new(fitting.memory_max),
            asked: Asked::new(fitting.audit_share),
            pace: Pace::default(),
            #[cfg(feature = "cache")]
            lists: OnceLock::new(),
            #[cfg(feature = "cache")]
            told: OnceLock::new(),
        })))
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lends sums that were used before, if there are any.
    pub(crate) fn with_scores<T>(&self, work: impl FnOnce(&mut Scores) -> T) -> T {
        let spare = || self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scores = spare().pop().unwrap_or_default();
        let done = work(&mut scores);
        let mut spare = spare();
        if spare.len() < SPARE {
            spare.push(scores);
        }
        done
    }

    /// Hybrid time of the newest event applied.
    pub fn watermark(&self) -> Hlc {
        self.read(|state| state.watermark)
    }

    /// Positions in the log after the last events applied: what this answers has seen every record before them.
    pub fn positions(&self) -> Positions {
        self.0.applied.borrow().clone()
    }

    /// Waits until everything before these positions has been applied. With the ends of the log, the next
    /// answer has seen all that was published.
    pub async fn caught_up(&self, positions: &Positions) {
        // The sender lives in `self`, so that waiting cannot fail.
        drop(self.0.applied.subscribe().wait_for(|applied| applied.covers(positions)).await);
    }

    /// Whether a model serves that is at least as new as what the store held at load, or that of a file, whose
    /// version tells how new it is. Until then lists rest on tags and what is popular alone.
    pub fn ready(&self) -> bool {
        *self.0.fitted.borrow() >= self.0.loaded
    }

    /// Done as soon as [`Self::ready`].
    pub async fn fitted(&self) {
        let loaded = self.0.loaded;
        // The sender lives in `self`, so that waiting cannot fail.
        drop(self.0.fitted.subscribe().wait_for(|fitted| *fitted >= loaded).await);
    }

    /// Version of the serving model.
    pub fn model_version(&self) -> String {
        self.0.model.load().version()
    }

    /// What was made smaller or left out of the serving model for want of memory; empty when nothing was.
    pub fn model_notes(&self) -> Vec<String> {
        self.0.model.load().card.notes.clone()
    }

    /// What the cut of the serving model to its strongest links keeps of lists.
    pub fn cut_audits(&self) -> Vec<CutAudit> {
        self.0.model.load().card.cuts.iter().map(CutAudit::from).collect()
    }

    /// Artists and tracks in the catalogue.
    pub fn item_counts(&self) -> (u64, u64) {
        self.read(|state| (state.artists.len(), state.tracks.len()))
    }

    /// Whether an event that is replayed would bring back settings that others came after: who is private now must not
    /// become public by it.
    pub(crate) fn is_overtaken(&self, event: &Event) -> bool {
        let settings_at = || self.read(|state| state.by_id(event.user).map(|person| person.settings_at));
        matches!(event.payload, Payload::SettingsChanged { .. }) && settings_at() > Some(event.written_at)
    }

    /// How far events were applied, and what was set aside.
    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Applies events that end before `positions` in the log: first to the store, then to memory. Between them were
    /// `dead` records that were set aside.
    pub(crate) async fn apply(
        &self,
        events: Vec<Event>,
        dead: u64,
        positions: Positions,
    ) -> Result<(), RecommendationStoreError> {
        let mut progress = self.0.writing.lock().await;
        let newest = events.iter().map(|event| event.written_at).max().unwrap_or_default();
        let next = Progress {
            positions: positions.clone(),
            watermark: progress.watermark.max(newest),
            revision: progress.revision + events.len() as u64,
        };
        let forgets = self.forget_if_told(&events).await?;
        self.0.store.apply(events.clone(), dead, next.clone()).await?;
        failpoint::reach("recommendations.events.applied");
        // One event at a time, so that lists are made between them.
        let mut changed = false;
        for event in &events {
            changed |= self.update(|state| {
                state.watermark = state.watermark.max(event.written_at);
                state.apply(event)
            });
            if event.payload == Payload::UserErased {
                self.0.trials.forget(event.user);
                self.0.releases.window.forget(event.user);
                self.0.asked.forget(event.user);
            }
        }
        self.update(|state| (state.watermark, state.revision) = (next.watermark, next.revision));
        if forgets {
            self.0.files.forgotten();
        }
        let watermark = next.watermark;
        *progress = next;
        drop(progress);
        #[cfg(feature = "cache")]
        self.tell_of_changes(&events).await;
        self.0.clock.observe(watermark);
        if changed {
            self.refresh_popularity(false);
            self.0.changed.notify_one();
        }
        self.0.applied.send_replace(positions);
        Ok(())
    }

    /// Removes the model files when events take somebody away from what models are fitted on: before the store is
    /// told, so that a crash between the two leaves no file that knows more people than the store. Answers whether
    /// they do.
    pub(crate) async fn forget_if_told(&self, events: &[Event]) -> Result<bool, RecommendationStoreError> {
        // Somebody new may become public and private again within these events, and be met by a fit in between.
        let public = |user| self.read(|state| state.by_id(user).is_none_or(|person| !person.private));
        let forgets = events.iter().any(|event| match &event.payload {
            Payload::UserErased => true,
            Payload::SettingsChanged { settings } => settings.private && public(event.user),
            _ => false,
        });
        if forgets {
            self.0.files.forget_aside().await?;
        }
        Ok(forgets)
    }

    /// Writes feedback that was given then, or now, and lets it take effect.
    pub(crate) async fn note_feedback(
        &self,
        user: UserId,
        feedback: Feedback,
        item: Named,
        at: Option<Hlc>,
    ) -> Result<(), Fault> {
        let mut progress = self.0.writing.lock().await;
        let at = at.unwrap_or_else(|| self.0.clock.now());
        let next = Progress { revision: progress.revision + 1, ..progress.clone() };
        self.0.store.record_feedback(user, feedback.clone(), item.clone(), at, next.clone()).await?;
        *progress = next;
        let revision = progress.revision;
        let changed = self.update(|state| {
            state.revision = revision;
            // An account that was erased meanwhile leaves nothing behind.
            state.by_id(user).is_some() && state.feedback(user, &feedback, &item, at)
        });
        if changed {
            self.0.changed.notify_one();
        }
        Ok(())
    }

    /// Takes a snapshot of what is popular, when the last one is old or the catalogue was empty.
    fn refresh_popularity(&self, at_once: bool) {
        let mut refreshed = self.0.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
        if !at_once && refreshed.is_some_and(|last| last.elapsed() < POPULARITY_AGE) {
            return;
        }
        *refreshed = Some(Instant::now());
        let now_ms = i64::try_from(self.0.clock.wall_ms()).unwrap_or(i64::MAX);
        let warm = Model::default().with_warmth(self.read(|state| state.warmth(now_ms)));
        self.0.model.rcu(|model| model.with_popularity_of(&warm));
        self.model_changed();
    }

    /// Fits the graphs on the histories as they are now, beside serving, and swaps them in. Does
    /// nothing when nothing has changed. Two whole fits never run at once. Answers whether the serving model
    /// is that of the histories as they were; when a fit fails, the model before it goes on serving.
    pub async fn refit(&self) -> bool {
        self.refit_by(Depth::Whole, Training::fit).await
    }

    /// [`Self::refit`] by co-listening alone, in a fraction of the time: what serves until the whole model
    /// is there. Does nothing when any model of the histories as they are serves, or a blend that knows most items.
    pub async fn refit_quickly(&self) -> bool {
        self.refit_by(Depth::Quick, Training::fit).await
    }

    /// What a recipe is judged with.
    pub(crate) fn materials(&self) -> Materials {
        let mut materials = self.read(State::materials);
        materials.training.memory = self.0.fit_memory.clone();
        materials
    }

    pub(crate) async fn refit_by(
        &self,
        depth: Depth,
        fit: impl FnOnce(Training, Depth) -> Result<Model, FitTooLarge> + Send + 'static,
    ) -> bool {
        let _one = self.0.fitting[usize::from(depth == Depth::Whole)].lock().await;
        // In this order: what is taken after somebody was forgotten does not know them.
        let era = self.0.files.now();
        let (release, memory) = (self.0.releases.serving(), self.0.fit_memory.clone());
        let mut training = Training { release, memory, ..self.read(State::training) };
        let serving = self.0.model.load();
        let is_known = training.revision == serving.revision && training.release == serving.release;
        let serves = match depth {
            Depth::Quick => {
                is_known || (training.release == serving.release && serving.is_blend_of_most(&training.items))
            }
            Depth::Whole => is_known && !serving.is_provisional(&training.release, self.0.fit_memory.max()),
        };
        if serves {
            return true;
        }
        drop(serving);
        if depth == Depth::Whole {
            training.asked = self.0.asked.take();
        }
        let files = Arc::clone(&self.0.files);
        let kept = move || match depth {
            Depth::Quick => fit(training, depth),
            Depth::Whole => {
                let ids = training.ids();
                fit(training, depth).map(|fitted| files.keep(fitted, &ids, era))
            }
        };
        match beside(kept).await.and_then(|fitted| fitted.map_err(|cause| cause.to_string())) {
            Ok(fitted) => {
                self.serve_fitted(&fitted, depth, era);
                // What the fit and the model before it took; serving goes on meanwhile.
                drop(tokio::task::spawn_blocking(give_back_freed).await);
                self.0.fitted.send_modify(|newest| *newest = fitted.revision.max(*newest));
                true
            }
            Err(cause) => {
                tracing::error!(%cause, "a refit failed; the model before it goes on serving");
                false
            }
        }
    }

    /// Has a fitted model serve, where it is better than what serves: newer, or whole where that is quick. A whole
    /// fit may have begun long before the quick one that serves; it takes its place by the rule that keeps a quick
    /// fit from taking the place of a whole one, unless somebody was forgotten since it began.
    fn serve_fitted(&self, fitted: &Model, depth: Depth, era: Era) {
        let items = || self.read(State::public_items);
        let is_preferred = depth == Depth::Whole && self.0.files.lasts(era) && fitted.is_blend_of_most(&items());
        let better = |model: &Model| {
            let is_whole_for_quick = model.depth == Some(Depth::Quick) && model.release == fitted.release;
            fitted.revision > model.revision
                || (fitted.revision == model.revision && depth == Depth::Whole)
                || (is_preferred && is_whole_for_quick)
        };
        if better(&self.0.model.load()) {
            self.0.trials.replaced(self.0.model.load_full());
        }
        self.0.model.rcu(
            |model| {
                if better(model) { Arc::new(fitted.with_popularity_of(model)) } else { Arc::clone(model) }
            },
        );
        self.model_changed();
        self.refresh_popularity(true);
    }

    /// Lists that are kept near are of another model from now on.
    fn model_changed(&self) {
        #[cfg(feature = "cache")]
        if let Some(lists) = self.0.lists.get() {
            lists.model_changed();
        }
    }
}

/// Does heavy work on threads of its own: one less than there are processors, so that serving keeps one. A
/// process that ends does not wait for it.
///
/// # Errors
/// The work panicked, or no thread can be started.
pub(crate) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let threads = std::thread::available_parallelism().map_or(1, |all| all.get().saturating_sub(1).max(1));
    let (done, result) = tokio::sync::oneshot::channel();
    let start = move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("fit-{n}")).build();
        // Nobody may be waiting any more.
        drop(done.send(match pool {
            Ok(pool) => Ok(pool.install(work)),
            Err(cause) => Err(cause.to_string()),
        }));
    };
    std::thread::Builder::new().name("fit".into()).spawn(start).map_err(|cause| cause.to_string())?;
    result.await.unwrap_or_else(|_| Err("the work panicked".into()))
}

#[cfg(test)]
mod tests;
