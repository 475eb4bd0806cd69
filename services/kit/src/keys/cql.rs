use async_trait::async_trait;

use super::{DataKey, KeyError, MasterKeys, SubjectKeys};
use crate::cql::{CqlError, CqlSession, Decide, Migration, Migrations, Read, Scope, Seen, Write, WriteClock};

/// Subject → its sealed key; a row a partition. It must be kept out of backups of what the keys seal.
const MIGRATIONS: Migrations = Migrations {
    owner: "keys",
    steps: &[Migration {
        version: 1,
        name: "keys of subjects",
        statements: &["CREATE TABLE IF NOT EXISTS subject_keys (subject text PRIMARY KEY, wrapped blob)"],
    }],
};

impl From<CqlError> for KeyError {
    fn from(error: CqlError) -> Self {
        Self::Failed { kind: error.kind(), message: error.to_string() }
    }
}

/// Keys on CQL servers, for all regions. A key is made by agreement of most copies in the world, so that a subject has one;
/// it is destroyed when most copies of every region have confirmed, and not before: a region that is cut off holds up
/// an erasure, and nothing else.
#[derive(Debug)]
pub struct CqlSubjectKeys {
    session: CqlSession,
    master: MasterKeys,
    times: WriteClock,
    make: Decide,
    made: Read,
    read: Read,
    destroy: Write,
}

impl CqlSubjectKeys {
    /// Makes or renews the table. For one process at a time.
    ///
    /// # Errors
    /// The servers refuse, or the table is of a newer or changed EchoTune.
    pub async fn migrate(session: &CqlSession) -> Result<Vec<i32>, KeyError> {
        Ok(session.migrate(&MIGRATIONS).await?)
    }

    /// The keys that this session reaches, sealed by master keys.
    ///
    /// # Errors
    /// The servers cannot be reached, or the table is not there.
    pub async fn connect(session: CqlSession, master: MasterKeys, times: WriteClock) -> Result<Self, KeyError> {
        let insert = "INSERT INTO subject_keys (subject, wrapped) VALUES (?, ?) IF NOT EXISTS";
        let select = "SELECT wrapped FROM subject_keys WHERE subject = ?";
        let delete = "DELETE FROM subject_keys WHERE subject = ?";
        let make = session.conditional("make a key", insert, Scope::Everywhere).await?;
        let made = session.look("see a key", select, Scope::Everywhere).await?;
        let read = session.read("read a key", select).await?;
        let destroy = session.write_everywhere("destroy a key", delete).await?;
        Ok(Self { session, master, times, make, made, read, destroy })
    }

    async fn kept(&self, read: &Read, subject: &str) -> Result<Option<Vec<u8>>, CqlError> {
        let row: Option<(Vec<u8>,)> = self.session.one(read, (subject,)).await?;
        Ok(row.map(|(wrapped,)| wrapped))
    }
}

#[async_trait]
impl SubjectKeys for CqlSubjectKeys {
    async fn key(&self, subject: &str) -> Result<DataKey, KeyError> {
        if let Some(key) = self.near(subject).await? {
            return Ok(key);
        }
        let new = DataKey::random()?;
        let wrapped = self.master.wrap(subject, &new)?;
        let look = || async {
            Ok(match self.kept(&self.made, subject).await? {
                Some(kept) if kept == wrapped => Seen::Applied,
                Some(_) => Seen::Refused,
                None => Seen::Open,
            })
        };
        if self.session.settle(&self.make, (subject, &wrapped), look).await? {
            return Ok(new);
        }
        match self.kept(&self.made, subject).await? {
            Some(kept) => self.master.unwrap(subject, &kept),
            // It was destroyed in between, and whoever comes next makes another.
            None => Err(CqlError::Unavailable { step: "make a key", cause: "it comes and goes".into() }.into()),
        }
    }

    /// A key that is not here was destroyed, or was made a moment ago in another region, whose records may be quicker than
    /// it: only most copies in the world can tell. A region that is cut off waits.
    async fn existing(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        if let Some(key) = self.near(subject).await? {
            return Ok(Some(key));
        }
        let kept = self.kept(&self.made, subject).await?;
        kept.map(|kept| self.master.unwrap(subject, &kept)).transpose()
    }

    async fn near(&self, subject: &str) -> Result<Option<DataKey>, KeyError> {
        let kept = self.kept(&self.read, subject).await?;
        kept.map(|kept| self.master.unwrap(subject, &kept)).transpose()
    }

    /// A key that is made for the same subject within [`crate::cql::WriteTime::AHEAD`] of this is destroyed with it.
    async fn destroy(&self, subject: &str) -> Result<(), KeyError> {
        // Ahead of the clocks of those by whom it was made, for which a plain deletion would be too early.
        Ok(self.session.put_at(&self.destroy, (subject,), self.times.now().ahead()).await?)
    }
}
