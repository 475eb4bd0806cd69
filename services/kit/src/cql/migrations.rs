//! Schemas in versions. Each owner has a list of migrations that only grows; what was applied is kept beside the
//! tables.

use std::{collections::BTreeSet, time::Duration};

use scylla::{errors::ExecutionError, statement::unprepared::Statement};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    CqlError, CqlSession, Decide, Read, Scope, Seen,
    error::{Effect, fate, of_fate},
};

/// One step of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i32,
    /// What it is for.
    pub name: &'static str,
    /// In their order. Each must do nothing when it was done before (`IF NOT EXISTS`): a runner that dies after a
    /// statement leaves it to the next to do it again. Never changed once it was applied anywhere.
    pub statements: &'static [&'static str],
}

impl Migration {
    fn checksum(&self) -> String {
        let mut digest = Sha256::new();
        for statement in self.statements {
            digest.update(u64::try_from(statement.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(statement.as_bytes());
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// All migrations of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrations {
    /// Whose tables they make, such as `users`.
    pub owner: &'static str,
    /// In their order.
    pub steps: &'static [Migration],
}

/// What keeps the records, and the claim of the runner: a partition for each owner, of a row for each version.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS schema_migrations (owner text, version int, name text, checksum text, \
     PRIMARY KEY (owner, version))",
    "CREATE TABLE IF NOT EXISTS schema_runners (owner text PRIMARY KEY, runner uuid)",
];
/// For how long a claim holds that is not renewed, so that a dead runner blocks nobody for longer.
const CLAIM: Duration = Duration::from_secs(120);
/// How long to wait for another runner.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);

struct Statements {
    claim: Decide,
    renew: Decide,
    release: Decide,
    runner: Read,
    applied: Read,
    record: Decide,
    recorded: Read,
}

impl CqlSession {
    /// Applies what is missing of a schema, one statement after the other, each once all servers know of the one
    /// before; the versions that were applied. Two runners do not interleave: one waits for the other. The
    /// first time in a new keyspace only one process may do it, since tables that two servers make at
    /// the same moment are two tables.
    ///
    /// # Errors
    /// [`CqlError::Schema`] when a migration has changed since it was applied, a newer program has applied more,
    /// or another runner does not end; otherwise what a server says.
    pub async fn migrate(&self, migrations: &Migrations) -> Result<Vec<i32>, CqlError> {
        for table in TABLES {
            self.schema("make the table of migrations", table).await?;
        }
        let runner = Uuid::new_v4();
        let statements = Statements::prepare(self).await?;
        if missing(self, &statements, migrations).await?.is_empty() {
            return Ok(Vec::new());
        }
        claim(self, &statements, migrations.owner, runner).await?;
        let done = run(self, &statements, migrations, runner).await;
        // A claim that cannot be given back ends by itself.
        if let Err(cause) = self.decide(&statements.release, (migrations.owner, runner)).await {
            tracing::warn!(owner = migrations.owner, %cause, "the claim of a schema is not given back; it ends by itself");
        }
        done
    }

    /// Changes the schema and waits until all servers of all data centres know.
    ///
    /// # Errors
    /// What a server says, or that they do not agree in time.
    pub(super) async fn schema(&self, step: &'static str, cql: &str) -> Result<(), CqlError> {
        let failed = |cause: ExecutionError| of_fate(step, Effect::Writes, fate(&cause), cause.to_string());
        let _place = self.place(step).await?;
        let mut change = Statement::new(cql);
        // A change of the schema takes far longer than a request, and is not made again blindly.
        change.set_request_timeout(Some(self.config().schema_timeout.0));
        self.driver().query_unpaged(change, ()).await.map_err(failed)?;
        let end = Instant::now() + self.config().schema_timeout.0;
        loop {
            let versions = versions(self).await.map_err(failed)?;
            if versions.len() == 1 {
                return Ok(());
            }
            if Instant::now() >= end {
                let cause =
                    format!("the servers have {} schemas; see that all data centres can be reached", versions.len());
                return Err(CqlError::Unavailable { step, cause });
            }
            sleep(POLL).await;
        }
    }
}

/// The schemas that a server and all those it knows of have; the driver asks only those it is connected to.
async fn versions(session: &CqlSession) -> Result<BTreeSet<Option<Uuid>>, ExecutionError> {
    let mut versions = BTreeSet::new();
    for table in ["local", "peers"] {
        let answer = session.driver().query_unpaged(format!("SELECT schema_version FROM system.{table}"), ()).await?;
        if let Ok(rows) = answer.into_rows_result()
            && let Ok(rows) = rows.rows::<(Option<Uuid>,)>()
        {
            versions.extend(rows.flatten().map(|(version,)| version));
        }
    }
    Ok(versions)
}

impl Statements {
    async fn prepare(session: &CqlSession) -> Result<Self, CqlError> {
        let (claim, everywhere) = (CLAIM.as_secs(), Scope::Everywhere);
        let renew = format!("UPDATE schema_runners USING TTL {claim} SET runner = ? WHERE owner = ? IF runner = ?");
        let claim = format!("INSERT INTO schema_runners (owner, runner) VALUES (?, ?) IF NOT EXISTS USING TTL {claim}");
        let release = "DELETE FROM schema_runners WHERE owner = ? IF runner = ?";
        let record = "INSERT INTO schema_migrations (owner, version, name, checksum) VALUES (?, ?, ?, ?) IF NOT EXISTS";
        let runner = "SELECT runner FROM schema_runners WHERE owner = ?";
        let applied = "SELECT version, name, checksum FROM schema_migrations WHERE owner = ?";
        let recorded = "SELECT checksum FROM schema_migrations WHERE owner = ? AND version = ?";
        Ok(Self {
            claim: session.conditional("claim the schema", &claim, everywhere).await?,
            renew: session.conditional("keep the claim of the schema", &renew, everywhere).await?,
            release: session.conditional("give back the schema", release, everywhere).await?,
            runner: session.look("who changes the schema", runner, everywhere).await?,
            applied: session.look("which migrations were applied", applied, everywhere).await?,
            record: session.conditional("record a migration", record, everywhere).await?,
            recorded: session.look("whether a migration was applied", recorded, everywhere).await?,
        })
    }
}

/// The migrations that were not applied yet, when all others were applied as they are here.
async fn missing(
    session: &CqlSession,
    statements: &Statements,
    migrations: &Migrations,
) -> Result<Vec<Migration>, CqlError> {
    let rows = session.rows::<(i32, String, String)>(&statements.applied, (migrations.owner,), usize::MAX).await?;
    compare(migrations, &rows)
}

/// What is missing of these migrations when these rows of version, name and checksum were applied.
pub(super) fn compare(migrations: &Migrations, rows: &[(i32, String, String)]) -> Result<Vec<Migration>, CqlError> {
    let owner = migrations.owner;
    let wrong = |cause: String| CqlError::Schema { owner, cause };
    if let Some((step, place)) = migrations.steps.iter().zip(1..).find(|(step, place)| step.version != *place) {
        return Err(wrong(format!("migration '{}' has version {} at place {place}", step.name, step.version)));
    }
    for (version, name, checksum) in rows {
        match migrations.steps.iter().find(|step| step.version == *version) {
            None => {
                return Err(wrong(format!("a newer EchoTune applied migration {version}, '{name}'; update this one")));
            }
            Some(step) if step.checksum() != *checksum => {
                return Err(wrong(format!(
                    "migration {version}, '{name}', was applied with other statements; put them back, and add a migration instead"
                )));
            }
            Some(_) => {}
        }
    }
    let applied: BTreeSet<_> = rows.iter().map(|(version, ..)| *version).collect();
    Ok(migrations.steps.iter().filter(|step| !applied.contains(&step.version)).copied().collect())
}

async fn claim(
    session: &CqlSession,
    statements: &Statements,
    owner: &'static str,
    runner: Uuid,
) -> Result<(), CqlError> {
    let end = Instant::now() + PATIENCE;
    let look = || async {
        let found = session.one::<(Option<Uuid>,)>(&statements.runner, (owner,)).await?;
        Ok(match found.and_then(|(found,)| found) {
            Some(found) if found == runner => Seen::Applied,
            Some(_) => Seen::Refused,
            None => Seen::Open,
        })
    };
    while !session.settle(&statements.claim, (owner, runner), look).await? {
        if Instant::now() >= end {
            let cause = format!("another process has been changing it for {} s; see what it does", PATIENCE.as_secs());
            return Err(CqlError::Schema { owner, cause });
        }
        sleep(POLL).await;
    }
    Ok(())
}

async fn run(
    session: &CqlSession,
    statements: &Statements,
    migrations: &Migrations,
    runner: Uuid,
) -> Result<Vec<i32>, CqlError> {
    let owner = migrations.owner;
    let mut applied = Vec::new();
    // Another runner may have applied some before the claim was had.
    for step in missing(session, statements, migrations).await? {
        for cql in step.statements {
            keep(session, statements, owner, runner).await?;
            session.schema(step.name, cql).await?;
        }
        record(session, statements, owner, &step).await?;
        tracing::info!(owner, version = step.version, name = step.name, "a migration was applied");
        applied.push(step.version);
    }
    Ok(applied)
}

/// Makes the claim hold on, and ends a runner whose claim another took.
async fn keep(
    session: &CqlSession,
    statements: &Statements,
    owner: &'static str,
    runner: Uuid,
) -> Result<(), CqlError> {
    match session.decide(&statements.renew, (runner, owner, runner)).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let cause = "another process took over, since this one was too slow; start it again".into();
            Err(CqlError::Schema { owner, cause })
        }
        // The claim holds for a while yet, and the next statement asks again.
        Err(CqlError::Indeterminate { .. }) => Ok(()),
        Err(cause) => Err(cause),
    }
}

async fn record(
    session: &CqlSession,
    statements: &Statements,
    owner: &'static str,
    step: &Migration,
) -> Result<(), CqlError> {
    let checksum = step.checksum();
    let look = || async {
        let found = session.one::<(String,)>(&statements.recorded, (owner, step.version)).await?;
        Ok(if found.is_some() { Seen::Applied } else { Seen::Open })
    };
    session.settle(&statements.record, (owner, step.version, step.name, &checksum), look).await.map(drop)
}
