//! Keys of runs: each start makes one, and it goes with the run. They are kept apart from what they seal and are sealed
//! themselves by the master keys, so that a copy of the runs tells nothing without a copy of the keys of the same time.

use async_trait::async_trait;
use echotune_kit::{
    cql::{CqlSession, Read, Write, WriteClock},
    keys::{DataKey, KeyError, MasterKeys, SubjectKeys},
};
use echotune_model::{ErrorKind, RunId};
use uuid::Uuid;

/// Run and who started it → its sealed key. A row is written before the head that names the same starter; it must be
/// kept out of backups of what the keys seal.
pub(super) const SEALS: &str = "CREATE TABLE IF NOT EXISTS run_seals (run_id uuid, starter uuid, wrapped blob, \
    PRIMARY KEY (run_id, starter))";
const PUT: &str = "INSERT INTO run_seals (run_id, starter, wrapped) VALUES (?, ?, ?)";
const READ: &str = "SELECT wrapped FROM run_seals WHERE run_id = ? AND starter = ?";
const DROP: &str = "DELETE FROM run_seals WHERE run_id = ? AND starter = ?";

/// The keys of runs on the CQL servers of one region. Nobody else makes the key of a starter, so that none has to be
/// agreed upon.
pub(super) struct RunKeys {
    session: CqlSession,
    master: MasterKeys,
    times: WriteClock,
    put: Write,
    read: Read,
    drop: Write,
}

/// By which subject the key of a started run is known.
pub(super) fn subject(run: RunId, starter: Uuid) -> String {
    format!("{run} {starter}")
}

fn parts(subject: &str) -> Result<(Uuid, Uuid), KeyError> {
    let parts = subject.split_once(' ').and_then(|(run, starter)| Some((run.parse().ok()?, starter.parse().ok()?)));
    let message = || format!("'{subject}' is not a run and its starter");
    parts.ok_or_else(|| KeyError::Failed { kind: ErrorKind::Internal, message: message() })
}

impl RunKeys {
    pub(super) async fn connect(session: CqlSession, master: MasterKeys, times: WriteClock) -> Result<Self, KeyError> {
        let put = session.write("keep the key of a run", PUT).await?;
        let read = session.read("read the key of a run", READ).await?;
        let drop = session.write("destroy the key of a run", DROP).await?;
        Ok(Self { session, master, times, put, read, drop })
    }
}

#[async_trait]
impl SubjectKeys for RunKeys {
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
        if let Some(key) = self.existing(subject).await? {
            return Ok(key);
        }
        let (run, starter) = parts(subject)?;
        let key = DataKey::random()?;
        let wrapped = self.master.wrap(subject, &key)?;
        self.session.put(&self.put, (run, starter, wrapped), self.times.now()).await?;
        Ok(key)
    }

    /// In the region of a run the key is there as long as the run is. Elsewhere it may come a moment after the run, which
    /// is not there until then.
    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        let row: Option<(Vec<u8>,)> = self.session.one(&self.read, parts(subject)?).await?;
        row.map(|(wrapped,)| self.master.unwrap(subject, &wrapped)).transpose()
    }

    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        Ok(self.session.put_at(&self.drop, parts(subject)?, self.times.now().ahead()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_run_and_its_starter() {
        let (run, starter) = (RunId::new(7), Uuid::new_v4());
        assert_eq!(parts(&subject(run, starter)).expect("read"), (run.0, starter));
        assert_eq!(parts("ann").expect_err("no run").kind(), ErrorKind::Internal);
    }
}
