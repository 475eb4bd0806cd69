use std::{fmt, sync::Arc, time::Duration};

use scylla::{
    client::session::Session,
    errors::ExecutionError,
    response::{PagingState, PagingStateResponse, query_result::QueryResult},
    serialize::row::SerializeRow,
    statement::batch::BatchType,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};

use super::{
    Batch, CqlConfig, CqlError, OwnedRow, Read, Write, WriteTime,
    decide::pauses,
    error::{Effect, Fate, fate, fate_of_batch, of_fate},
};

/// How often a plain write is tried.
const TRIES: u32 = 3;
/// How long to wait before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(50);

/// For how long a look is made again.
const LOOKING: Duration = Duration::from_secs(1);

/// Which server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Apache Cassandra.
    Cassandra,
    /// ScyllaDB.
    ScyllaDb,
}

/// Connections to the servers of one data centre. Cheap to clone; one for each region that a process serves.
#[derive(Clone)]
pub struct CqlSession {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) session: Session,
    pub(super) permits: Semaphore,
    pub(super) config: CqlConfig,
    pub(super) server: Server,
}

impl fmt::Debug for CqlSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { config, server, .. } = self.inner.as_ref();
        f.debug_struct("CqlSession").field("keyspace", &config.keyspace).field("server", server).finish_non_exhaustive()
    }
}

impl CqlSession {
    pub(super) fn driver(&self) -> &Session {
        &self.inner.session
    }

    /// How it was configured.
    pub fn config(&self) -> &CqlConfig {
        &self.inner.config
    }

    /// Which server is spoken to.
    pub fn server(&self) -> Server {
        self.inner.server
    }

    /// A place among the requests under way.
    pub(super) async fn place(&self, step: &'static str) -> Result<SemaphorePermit<'_>, CqlError> {
        let busy = CqlError::Busy { step, limit: self.inner.config.in_flight };
        match timeout(self.inner.config.request_timeout.0, self.inner.permits.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(busy),
        }
    }

    /// The rows of a query, `limit` at the most, in as many pages as it takes.
    ///
    /// # Errors
    /// Too few copies answered in time, or rows are not of this type.
    pub async fn rows<R: OwnedRow>(
        &self,
        read: &Read,
        values: impl SerializeRow,
        limit: usize,
    ) -> Result<Vec<R>, CqlError> {
        let (mut rows, mut state) = (Vec::new(), PagingState::start());
        loop {
            let (page, next) = self.page(read, &values, state).await?;
            append(read.name, page, limit, &mut rows)?;
            match next {
                PagingStateResponse::HasMorePages { state: next } if rows.len() < limit => state = next,
                _ => return Ok(rows),
            }
        }
    }

    /// The rows of one page, and where the next one begins.
    pub(super) async fn one_page<R: OwnedRow>(
        &self,
        read: &Read,
        values: impl SerializeRow,
        state: PagingState,
    ) -> Result<(Vec<R>, PagingStateResponse), CqlError> {
        let (page, next) = self.page(read, &values, state).await?;
        let mut rows = Vec::new();
        append(read.name, page, usize::MAX, &mut rows)?;
        Ok((rows, next))
    }

    /// One page. A look that contenders stand in the way of is made again for a second, since it changes nothing: they
    /// have it fail at once, while servers that are cut off have it fail late.
    async fn page(
        &self,
        read: &Read,
        values: &impl SerializeRow,
        state: PagingState,
    ) -> Result<(QueryResult, PagingStateResponse), CqlError> {
        let (mut pauses, end) = (pauses(), Instant::now() + LOOKING);
        loop {
            let place = self.place(read.name).await?;
            let answer = self.driver().execute_single_page(&read.prepared, values, state.clone()).await;
            drop(place);
            let cause = match answer {
                Ok(page) => return Ok(page),
                Err(cause) => cause,
            };
            let failed = of_fate(read.name, Effect::Reads, fate(&cause), cause.to_string());
            let again = read.looks && Instant::now() < end;
            match pauses.next() {
                Some(pause) if again && matches!(failed, CqlError::Unavailable { .. }) => sleep(pause).await,
                _ => return Err(failed),
            }
        }
    }

    /// The first row of a query.
    ///
    /// # Errors
    /// As [`CqlSession::rows`].
    pub async fn one<R: OwnedRow>(&self, read: &Read, values: impl SerializeRow) -> Result<Option<R>, CqlError> {
        Ok(self.rows(read, values, 1).await?.pop())
    }

    /// Makes one write, at this time.
    ///
    /// # Errors
    /// [`CqlError::Indeterminate`] when it may have been made, another when it was not.
    pub async fn put(&self, write: &Write, values: impl SerializeRow, at: WriteTime) -> Result<(), CqlError> {
        self.put_at(write, values, at.micros).await
    }

    /// Makes one write at a time of its own, such as [`WriteTime::ahead`].
    ///
    /// # Errors
    /// As [`CqlSession::put`].
    pub async fn put_at(&self, write: &Write, values: impl SerializeRow, micros: i64) -> Result<(), CqlError> {
        let mut prepared = write.prepared.clone();
        prepared.set_timestamp(Some(micros));
        self.repeat(write.name, fate, || async { self.driver().execute_unpaged(&prepared, &values).await.map(drop) })
            .await
    }

    /// Makes all writes of a batch; an empty one is none.
    ///
    /// # Errors
    /// As [`CqlSession::put`].
    pub async fn apply(&self, batch: Batch) -> Result<(), CqlError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut statements = batch.statements;
        statements.set_is_idempotent(true);
        // No answer rests on what is kept behind.
        if statements.get_type() == BatchType::Logged {
            statements.set_consistency(self.config().acknowledge.consistency());
        }
        let attempt = || async { self.driver().batch(&statements, &batch.values).await.map(drop) };
        self.repeat(batch.name, fate_of_batch, attempt).await
    }

    /// Tries a plain write again where that can help. One that may have been made once stays uncertain whatever
    /// later tries answer, but for success.
    async fn repeat<A: Future<Output = Result<(), ExecutionError>>>(
        &self,
        step: &'static str,
        means: fn(&ExecutionError) -> Fate,
        attempt: impl Fn() -> A,
    ) -> Result<(), CqlError> {
        let (mut worst, mut tries) = (Fate::Nothing, 0);
        loop {
            let place = self.place(step).await.map_err(|busy| match worst {
                Fate::Unknown => of_fate(step, Effect::Writes, worst, busy.to_string()),
                _ => busy,
            })?;
            let Err(cause) = attempt().await else { return Ok(()) };
            drop(place);
            let found = means(&cause);
            if worst != Fate::Unknown {
                worst = found;
            }
            tries += 1;
            // One that took all of its time is not made to take it again.
            if found == Fate::Never || tries == TRIES || matches!(cause, ExecutionError::RequestTimeout(_)) {
                return Err(of_fate(step, Effect::Writes, worst, cause.to_string()));
            }
            sleep(PAUSE * tries).await;
        }
    }
}

fn append<R: OwnedRow>(step: &'static str, page: QueryResult, limit: usize, rows: &mut Vec<R>) -> Result<(), CqlError> {
    let damaged = |cause: String| CqlError::Damaged { what: step, cause };
    let page = page.into_rows_result().map_err(|cause| damaged(cause.to_string()))?;
    let typed = page.rows::<R>().map_err(|cause| damaged(cause.to_string()))?;
    for row in typed.take(limit.saturating_sub(rows.len())) {
        rows.push(row.map_err(|cause| damaged(cause.to_string()))?);
    }
    Ok(())
}
