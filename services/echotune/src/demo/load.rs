use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use echotune_api::Users;
use echotune_model::Call;
use serde::{Deserialize, Serialize};

use super::{Demo, Shape, generate};
use crate::import::{Amount, Failure, ImportError, Place, Progress, Rejects, Row, Sink, Source, Summary, drive};

/// File in a data folder that says which world was loaded into it.
pub const MARKER_FILE: &str = "demo.json";

/// Which world a data folder holds: it stays the same on every later day.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    shape: Shape,
    seed: u64,
    now_ms: i64,
    /// Whether all of it arrived.
    complete: bool,
}

impl Marker {
    fn read(folder: &Path) -> Result<Option<Self>, ImportError> {
        let path = folder.join(MARKER_FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|cause| ImportError::Malformed {
                file: path.display().to_string(),
                line: cause.line() as u64,
                reason: format!("{cause}; delete the file to load the demo again"),
            }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(ImportError::io(path, cause)),
        }
    }

    /// Written beside and renamed, so that a crash leaves the old one or the new one.
    fn write(&self, folder: &Path) -> Result<(), ImportError> {
        let path = folder.join(MARKER_FILE);
        let beside = path.with_extension("json.new");
        let write = || {
            let mut file = File::create(&beside)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|cause| ImportError::io(&path, cause))
    }
}

/// Loads a generated world into a data folder's platform. A folder that has one keeps it: what is
/// missing of it is added, and nothing when it is complete; `shape`, `seed` and `now_ms` (milliseconds
/// since the Unix epoch) count only the first time.
///
/// # Errors
/// The folder cannot be written, or the platform refuses; loading again adds the rest.
pub async fn load(
    users: Arc<dyn Users>,
    call: &Call,
    folder: &Path,
    shape: &Shape,
    seed: u64,
    now_ms: i64,
    progress: &Progress,
) -> Result<Summary, Failure> {
    let mut marker = match Marker::read(folder)? {
        Some(Marker { complete: true, .. }) => return Ok(Summary { format: "demo".into(), ..Summary::default() }),
        Some(marker) => marker,
        None => {
            let marker = Marker { shape: *shape, seed, now_ms, complete: false };
            marker.write(folder)?;
            marker
        }
    };
    let (shape, seed, now_ms) = (marker.shape, marker.seed, marker.now_ms);
    let made = tokio::task::spawn_blocking(move || generate(&shape, seed, now_ms)).await;
    let demo = made.map_err(|_| ImportError::Stopped)?;
    let summary = drive(users, call, Box::new(Generated(demo)), "demo", Rejects::to(None)?, progress).await?;
    marker.complete = true;
    marker.write(folder).map_err(|cause| Failure { cause, summary: Box::new(summary.clone()) })?;
    Ok(summary)
}

struct Generated(Demo);

impl Source for Generated {
    fn total(&self) -> Amount {
        Amount::Rows(self.0.listen_count() as u64)
    }

    fn read(self: Box<Self>, sink: &mut Sink) -> Result<(), ImportError> {
        let file: Arc<str> = "demo".into();
        let mut line = 0;
        let mut place = || {
            line += 1;
            Place { file: Arc::clone(&file), line }
        };
        for listener in self.0.listeners() {
            let user: Arc<str> = listener.name.into();
            sink.advance(listener.listens.len() as u64);
            for listen in listener.listens {
                sink.row(&user, place(), Row::Listen(listen))?;
            }
            for tagging in listener.taggings {
                sink.row(&user, place(), Row::Tagging(tagging))?;
            }
            for friend in listener.friends {
                sink.row(&user, place(), Row::Friend(friend))?;
            }
        }
        Ok(())
    }
}
