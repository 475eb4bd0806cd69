//! Conditional writes: lightweight transactions whose answer may get lost.

use std::{future::Future, time::Duration};

use scylla::{
    response::query_result::QueryResult,
    serialize::row::SerializeRow,
    value::{CqlValue, Row},
};
use tokio::time::{Instant, sleep};

use super::{
    CqlError, CqlSession, Decide,
    error::{Effect, fate_of_decision, of_fate},
};

/// How often a conditional write is tried whose answer got lost.
const TRIES: u32 = 8;
/// For how long new tries are made: a region that is cut off has each wait for the servers' own limit.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait at first, and at the most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What a look at the row says of a conditional write whose answer got lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was made: the row holds what only this writer writes.
    Applied,
    /// It was not and never will be: the row holds what another wrote.
    Refused,
    /// The row is as before: it may still be made.
    Open,
}

impl CqlSession {
    /// Tries a conditional write once; whether its condition held.
    ///
    /// # Errors
    /// [`CqlError::Indeterminate`] when the answer got lost, which is usual under contention.
    pub async fn decide(&self, write: &Decide, values: impl SerializeRow) -> Result<bool, CqlError> {
        let _place = self.place(write.name).await?;
        let answer = self.driver().execute_unpaged(&write.prepared, values).await;
        let answer =
            answer.map_err(|cause| of_fate(write.name, Effect::Writes, fate_of_decision(&cause), cause.to_string()))?;
        applied(write.name, answer)
    }

    /// Makes a conditional write and answers only what is certain: when an answer got lost, `look` reads the row by
    /// [`CqlSession::look`] of the same scope. The row must tell whose write it holds. Whether the condition held.
    ///
    /// # Errors
    /// [`CqlError::Indeterminate`] when neither answers nor looks could be had for ten seconds.
    pub async fn settle<L>(
        &self,
        write: &Decide,
        values: impl SerializeRow,
        look: impl Fn() -> L,
    ) -> Result<bool, CqlError>
    where
        L: Future<Output = Result<Seen, CqlError>>,
    {
        settle_by(write.name, || self.decide(write, &values), look).await
    }
}

/// Makes a conditional write by `decide` until it is certain whether its condition held.
pub(super) async fn settle_by<D, L>(
    name: &'static str,
    decide: impl Fn() -> D,
    look: impl Fn() -> L,
) -> Result<bool, CqlError>
where
    D: Future<Output = Result<bool, CqlError>>,
    L: Future<Output = Result<Seen, CqlError>>,
{
    let (mut lost, end): (Option<CqlError>, _) = (None, Instant::now() + PATIENCE);
    for pause in pauses().take_while(|_| Instant::now() < end) {
        match (decide().await, &lost) {
            (Ok(true), _) => return Ok(true),
            (Ok(false), None) => return Ok(false),
            // What stands in the way may be what was written by the try whose answer got lost.
            (Ok(false), Some(_)) => {}
            (Err(cause @ CqlError::Indeterminate { .. }), _) => lost = Some(cause),
            (Err(cause), None) => return Err(cause),
            (Err(_), Some(_)) => {}
        }
        match look().await {
            Ok(Seen::Applied) => return Ok(true),
            Ok(Seen::Refused) => return Ok(false),
            // Nothing is under way any more that an answer could tell of, or the next try finds out.
            Ok(Seen::Open) | Err(_) => sleep(pause).await,
        }
    }
    Err(lost.unwrap_or_else(|| of_fate(name, Effect::Writes, super::error::Fate::Unknown, "no answer".into())))
}

/// Pauses that double, each cut at random so that contenders do not meet again.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    (0..TRIES).map(|n| {
        let whole = PAUSES.0.saturating_mul(1 << n).min(PAUSES.1);
        let part = getrandom::u32().unwrap_or(u32::MAX / 2);
        whole.mul_f64(f64::from(part) / f64::from(u32::MAX) / 2.0 + 0.5)
    })
}

/// Reads `[applied]` by its name: the servers answer with different further columns.
pub(super) fn applied(step: &'static str, answer: QueryResult) -> Result<bool, CqlError> {
    let damaged = |cause: String| CqlError::Damaged { what: step, cause };
    let rows = answer.into_rows_result().map_err(|cause| damaged(cause.to_string()))?;
    let column = rows.column_specs().get_by_name("[applied]").map(|(index, _)| index);
    let row: Row = rows.first_row().map_err(|cause| damaged(cause.to_string()))?;
    match column.and_then(|index| row.columns.get(index)) {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(damaged("the answer does not say whether it was made".into())),
    }
}
