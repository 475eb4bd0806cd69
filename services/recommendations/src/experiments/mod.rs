//! Experiments: who takes part, what was served to whom, and when to stop.

mod draft;
mod explore;
mod judge;
mod part;
mod rules;
mod serve;
mod served;
mod service;
mod watch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use echotune_engine::trials::{InvalidInput, bandit::Posterior};
use echotune_model::{ErrorKind, Experiment, ExperimentState, ItemId, ServedModel, TraceId, UserId};

use self::{part::Running, served::ServedLog};
use crate::{
    RecommendationStoreError,
    model::Model,
    policy::Policy,
    store::{ListNote, RecommendationStore, Served},
};

#[cfg(feature = "cache")]
pub(crate) use self::serve::Made;
pub use self::watch::watch_experiments;
pub(crate) use self::{explore::Explorer, part::Part};

/// What serving knows of experiments.
pub(crate) struct Trials {
    /// By what lists are made where no variant changes it.
    base: ArcSwap<Policy>,
    running: ArcSwap<Vec<Arc<Running>>>,
    /// What was learnt from everybody of what was explored.
    posterior: ArcSwap<Posterior>,
    /// The model before the newest, while a variant asks for it.
    previous: ArcSwapOption<Model>,
    served: Mutex<ServedLog>,
    /// Lists made that the store does not know of yet.
    notes: Mutex<HashMap<(UserId, String), ListNote>>,
    /// Held while notes are on their way to the store: whoever reads there what was counted waits for them.
    noting: tokio::sync::Mutex<()>,
    /// Held from the look at the traffic until an experiment has its part of it.
    changing: tokio::sync::Mutex<()>,
}

fn meaningless(cause: &InvalidInput) -> RecommendationStoreError {
    let message = format!("what is kept of experiments has no meaning: {cause}");
    RecommendationStoreError { kind: ErrorKind::DataLoss, message }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trials {
    /// From what a store holds.
    pub(crate) async fn load(store: &dyn RecommendationStore, base: Policy) -> Result<Self, RecommendationStoreError> {
        let posterior = explore::posterior(&store.learnt().await?).map_err(|cause| meaningless(&cause))?;
        let trials = Self {
            base: ArcSwap::from_pointee(base),
            running: ArcSwap::default(),
            posterior: ArcSwap::from_pointee(posterior),
            previous: ArcSwapOption::empty(),
            served: Mutex::default(),
            notes: Mutex::default(),
            noting: tokio::sync::Mutex::new(()),
            changing: tokio::sync::Mutex::new(()),
        };
        trials.run(&store.experiments().await?)?;
        Ok(trials)
    }

    /// By what lists are made where no variant changes it.
    pub(crate) fn base(&self) -> Policy {
        **self.base.load()
    }

    /// Has lists made with another weight of popularity where no variant changes it.
    pub(crate) fn rebase(&self, trending: f64, experiments: &[Experiment]) -> Result<(), RecommendationStoreError> {
        self.base.store(Arc::new(self.base().with_trending(trending)));
        self.run(experiments)
    }

    /// Serves by those of the experiments that run, and by no other.
    fn run(&self, experiments: &[Experiment]) -> Result<(), RecommendationStoreError> {
        let base = self.base();
        let running = experiments.iter().filter(|one| one.state == ExperimentState::Running);
        let running = running.map(|one| Running::new(one.clone(), base).map(Arc::new)).collect::<Result<Vec<_>, _>>();
        self.running.store(Arc::new(running.map_err(|cause| meaningless(&cause))?));
        if !self.asks_for_previous() {
            self.previous.store(None);
        }
        Ok(())
    }

    /// Serves by an experiment no longer.
    fn leave_out(&self, name: &str) {
        let others = self.running.load().iter().filter(|one| one.experiment().spec.name != name).cloned().collect();
        self.running.store(Arc::new(others));
    }

    /// The part that a listener takes in an experiment, if any.
    pub(crate) fn part_of(&self, user: UserId) -> Option<Part> {
        self.running.load().iter().find_map(|running| running.part_of(user))
    }

    fn asks_for_previous(&self) -> bool {
        let running = self.running.load();
        running.iter().any(|one| one.policies().iter().any(|policy| policy.model == ServedModel::Previous))
    }

    /// Takes note of the model that served until now, when a variant asks for it.
    pub(crate) fn replaced(&self, model: Arc<Model>) {
        self.previous.store(self.asks_for_previous().then_some(model));
    }

    /// How a list was made whose items were shown; nothing when it was not part of an experiment or is no
    /// longer known.
    pub(crate) fn served(&self, user: UserId, trace: TraceId, shown: &[ItemId]) -> Option<Served> {
        held(&self.served).find(user, trace, shown)
    }

    /// Forgets what was served to a listener.
    pub(crate) fn forget(&self, user: UserId) {
        held(&self.served).forget(user);
        held(&self.notes).retain(|(noted, _), _| *noted != user);
    }
}
