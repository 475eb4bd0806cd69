//! Model files in the life of a platform: each whole fit is kept, what is kept serves at the next start, and what
//! was fitted with somebody who is being forgotten is gone before they are.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use echotune_model::ErrorKind;
use tracing::warn;

use crate::{
    candidate,
    mapped::{ModelFolder, ModelFolderError, open},
    model::{Ids, Model, Parts},
    releases::Serving,
    state::State,
    store::RecommendationStoreError,
};

/// Versions kept: the newest, and the one before it, should the newest be damaged.
const KEPT: usize = 2;

/// How models are fitted and kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitting {
    /// Folder of the model files; none keeps models in memory alone.
    pub models: Option<PathBuf>,
    /// Folder of the candidates that were trained elsewhere, which need not be there.
    pub candidates: Option<PathBuf>,
    /// Bytes that fits may allocate, all that run at one time together, beside the models that are fitted and the view.
    pub memory_max: u64,
    /// Share of the requests for lists, 0 to 1, whose listeners' lists the next fit compares with those by the weights
    /// that its links were cut from.
    pub audit_share: f64,
}

impl Default for Fitting {
    /// Without a folder, with 1 GiB, and a request in a thousand.
    fn default() -> Self {
        Self { models: None, candidates: None, memory_max: 1 << 30, audit_share: 0.001 }
    }
}

/// When a training was taken, as far as forgetting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Era(u64);

impl Era {
    /// Whether nobody was forgotten between then and now, and nobody was just being forgotten then.
    const fn lasts(self, now: u64) -> bool {
        self.0 == now && self.0.is_multiple_of(2)
    }
}

/// The model files of a view.
///
/// Whoever is forgotten moves the era on twice: to an odd number before the store is told, together with the removal
/// of every file, and to an even one when nothing that is taken afterwards knows of them. A fit is kept only if its
/// training was taken in an even era that lasts still.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    folder: Option<ModelFolder>,
    candidates: Option<PathBuf>,
    /// Held while files are written or removed.
    era: Mutex<u64>,
}

impl ModelFiles {
    /// Opens the folder, or does without one where it cannot be made.
    ///
    /// # Errors
    /// The folder is there and cannot be read: models of people who are to be forgotten could stay in it.
    pub(crate) fn open(fitting: &Fitting) -> Result<Self, RecommendationStoreError> {
        let folder = match fitting.models.as_ref().map(|path| (path, ModelFolder::open(path, KEPT))) {
            Some((path, Err(error))) if path.exists() => return Err(unusable(&error)),
            Some((_, Err(error))) => {
                warn!(%error, "models are kept in memory alone, and fitted anew after each start");
                None
            }
            Some((_, Ok(folder))) => Some(folder),
            None => None,
        };
        Ok(Self { folder, candidates: fitting.candidates.clone(), era: Mutex::new(0) })
    }

    fn era(&self) -> MutexGuard<'_, u64> {
        self.era.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The era now; to be asked for before a training is taken.
    pub(crate) fn now(&self) -> Era {
        Era(*self.era())
    }

    /// Whether nobody was forgotten since a training was taken.
    pub(crate) fn lasts(&self, taken: Era) -> bool {
        taken.lasts(*self.era())
    }

    /// The newest model that can be read, is of this view, and was fitted by this release. Time O(bytes). Blocks on the disk.
    pub(crate) fn newest(&self, state: &State, release: &Arc<Serving>, now_ms: i64) -> Option<Model> {
        let folder = self.folder.as_ref()?;
        let read = folder.newest(|file| Model::read(file, state, release, now_ms));
        let (_, model) = read.inspect_err(|error| warn!(%error, "models are fitted anew")).ok()??;
        Some(model)
    }

    /// Writes a fitted model and answers it as it is lent by its file. A model that cannot be written is answered as
    /// it is, with a warning; one whose training somebody has left since is answered as it is. Blocks on the disk.
    pub(crate) fn keep(&self, fitted: Model, ids: &Ids, taken: Era) -> Model {
        let Some(folder) = &self.folder else { return fitted };
        // To the end, so that whoever is forgotten meanwhile finds the file and removes it.
        let era = self.era();
        if !taken.lasts(*era) {
            tracing::info!(model = fitted.version(), "a model is not kept: somebody was forgotten during its fit");
            return fitted;
        }
        match write(folder, &fitted, ids) {
            Ok(lent) => lent,
            Err(cause) => {
                warn!(cause, "a model cannot be kept and serves from memory");
                fitted
            }
        }
    }

    /// Removes every file, candidates included, and keeps no fit until [`ModelFiles::forgotten`]. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be removed; whoever is to be forgotten must not be yet.
    pub(crate) fn forget(&self) -> Result<(), RecommendationStoreError> {
        let mut era = self.era();
        *era = (*era + 1) | 1;
        let candidates = || match &self.candidates {
            Some(path) if path.exists() => ModelFolder::open(path, candidate::KEPT)?.clear(),
            _ => Ok(()),
        };
        let cleared = self.folder.as_ref().map_or(Ok(()), ModelFolder::clear).and_then(|()| candidates());
        cleared.map_err(|error| unusable(&error))
    }

    /// [`ModelFiles::forget`] beside the tasks that serve, unless there is no disk to wait for.
    ///
    /// # Errors
    /// As of [`ModelFiles::forget`].
    pub(crate) async fn forget_aside(self: &Arc<Self>) -> Result<(), RecommendationStoreError> {
        if self.folder.is_none() && self.candidates.is_none() {
            return self.forget();
        }
        let files = Arc::clone(self);
        let removed = tokio::task::spawn_blocking(move || files.forget()).await;
        removed.map_err(|cause| RecommendationStoreError {
            kind: ErrorKind::Internal,
            message: format!("its model files: {cause}"),
        })?
    }

    /// Says that nothing taken from now on knows of those who were forgotten.
    pub(crate) fn forgotten(&self) {
        *self.era() += 1;
    }
}

fn write(folder: &ModelFolder, fitted: &Model, ids: &Ids) -> Result<Model, String> {
    let parts = Parts::of(fitted, ids).map_err(|cause| cause.to_string())?;
    let file = parts.file(fitted).map_err(|cause| cause.to_string())?;
    let stored = folder.write(&file).map_err(|cause| cause.to_string())?;
    let file = open(&stored.path).map_err(|cause| cause.to_string())?;
    let lent = fitted.clone().lent_by(&file).map_err(|cause| cause.to_string())?;
    tracing::info!(model = lent.version(), bytes = stored.bytes, path = %stored.path.display(), "a model is kept");
    Ok(lent)
}

fn unusable(error: &ModelFolderError) -> RecommendationStoreError {
    RecommendationStoreError { kind: ErrorKind::Internal, message: format!("its model files: {error}") }
}

#[cfg(test)]
mod tests;
