//! What takes long, one at a time: a job tells how far it is and can be cancelled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use echotune_model::{ErrorKind, Fault, ModelJob, ModelJobKind, ModelJobState};
use tokio_util::sync::CancellationToken;

use crate::RecommendationsService;

/// Why a job did not do what was asked.
#[derive(Debug)]
pub(super) enum Unfinished {
    Cancelled,
    Failed(Fault),
}

impl<E: Into<Fault>> From<E> for Unfinished {
    fn from(cause: E) -> Self {
        Self::Failed(cause.into())
    }
}

/// A job, as it is looked at and cancelled from elsewhere.
#[derive(Debug)]
pub(super) struct Job {
    told: Mutex<ModelJob>,
    /// Cancelled to end it.
    pub(super) stop: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

impl Job {
    fn held(&self) -> MutexGuard<'_, ModelJob> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn told(&self) -> ModelJob {
        self.held().clone()
    }

    /// Says how far it is: 0 to 1.
    pub(super) fn tell(&self, progress: f64, message: impl Into<String>) {
        let mut told = self.held();
        told.progress = progress.clamp(told.progress, 1.0);
        told.message = message.into();
    }

    pub(super) fn is_about(&self, version: &str) {
        version.clone_into(&mut self.held().version);
    }

    /// Done with work, or cancelled; whatever is cancelled is let go of.
    pub(super) async fn unless_cancelled<T>(&self, work: impl Future<Output = T> + Send) -> Result<T, Unfinished> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Unfinished::Cancelled),
            done = work => Ok(done),
        }
    }

    fn end(&self, now_ms: u64, done: Result<String, Unfinished>) {
        let mut told = self.held();
        told.ended_at_ms = now_ms;
        (told.state, told.message) = match done {
            Ok(message) => (ModelJobState::Done, message),
            Err(Unfinished::Cancelled) => (ModelJobState::Cancelled, "it was cancelled".to_owned()),
            Err(Unfinished::Failed(fault)) => (ModelJobState::Failed, fault.message),
        };
        told.progress = if told.state == ModelJobState::Done { 1.0 } else { told.progress };
        drop(told);
        self.ended.cancel();
    }
}

/// The newest job.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<Option<Arc<Job>>>);

impl Jobs {
    fn begin(&self, kind: ModelJobKind, version: &str, now_ms: u64) -> Result<Arc<Job>, Fault> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = newest.as_ref().map(|job| job.told());
        if let Some(running) = before.as_ref().filter(|job| job.state == ModelJobState::Running) {
            let (id, kind) = (running.id, running.kind.name());
            let message = format!("job {id} ({kind}) runs; wait for it, or cancel it");
            return Err(Fault::new(ErrorKind::FailedPrecondition, message));
        }
        let told = ModelJob {
            id: before.map_or(1, |job| job.id + 1),
            kind,
            state: ModelJobState::Running,
            progress: 0.0,
            message: "it begins".to_owned(),
            version: version.to_owned(),
            began_at_ms: now_ms,
            ended_at_ms: 0,
        };
        let (told, stop, ended) = (Mutex::new(told), CancellationToken::new(), CancellationToken::new());
        let job = Arc::new(Job { told, stop, ended });
        *newest = Some(Arc::clone(&job));
        Ok(job)
    }

    /// The job of an id, or the newest with 0.
    pub(super) fn find(&self, id: u64) -> Result<Arc<Job>, Fault> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = newest.filter(|job| id == 0 || job.told().id == id);
        found.ok_or_else(|| Fault::new(ErrorKind::NotFound, "no such job is known; only the newest since the start is"))
    }
}

impl RecommendationsService {
    /// Begins a job that goes on when the caller leaves.
    pub(super) fn begin_job<F>(
        &self,
        kind: ModelJobKind,
        version: &str,
        work: impl FnOnce(Self, Arc<Job>) -> F,
    ) -> Result<ModelJob, Fault>
    where
        F: Future<Output = Result<String, Unfinished>> + Send + 'static,
    {
        let job = self.0.releases.jobs.begin(kind, version, self.0.clock.wall_ms())?;
        let begun = job.told();
        let work = tokio::spawn(work(self.clone(), Arc::clone(&job)));
        let service = self.clone();
        tokio::spawn(async move {
            let panicked =
                |cause| Err(Fault::new(ErrorKind::Internal, format!("the work was cut off: {cause}")).into());
            let done = work.await.unwrap_or_else(panicked);
            if let Err(Unfinished::Failed(fault)) = &done {
                tracing::warn!(job = kind.name(), cause = %fault, "a job of models has failed");
            }
            job.end(service.0.clock.wall_ms(), done);
        });
        Ok(begun)
    }

    /// Cancels the job that runs, if any, and waits until it has let go of the store.
    pub async fn end_jobs(&self) {
        if let Ok(job) = self.0.releases.jobs.find(0) {
            job.stop.cancel();
            job.ended.cancelled().await;
        }
    }
}
