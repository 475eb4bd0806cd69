//! The calls of the API about dead letters: of all consumers, for whoever has the log has them all.

use std::sync::Arc;

use async_trait::async_trait;
use echotune_api::{DeadLetters, events::CONSUMERS};
use echotune_eventlog::{EventLog, dead::Letters};
use echotune_model::{Call, DeadLetter, DeadLetterFilter, Fault, MAX_DEAD_LETTER_IDS, MAX_DEAD_LETTERS, ReplayReceipt};

/// Letters told of when it is not said how many.
const LIMIT: u32 = 100;

/// The dead letters on a log.
#[derive(Clone)]
pub struct DeadLettersService(Letters);

impl DeadLettersService {
    /// Of all consumers of this log.
    pub fn new(log: impl EventLog + 'static) -> Self {
        Self(Letters::new(Arc::new(log), &CONSUMERS))
    }
}

fn check(call: &Call, filter: &DeadLetterFilter) -> Result<(), Fault> {
    call.check_deadline()?;
    call.may_operate()?;
    if filter.ids.len() > MAX_DEAD_LETTER_IDS {
        let message =
            format!("{} ids are more than the {MAX_DEAD_LETTER_IDS} that are taken at once", filter.ids.len());
        return Err(Fault::invalid(message));
    }
    Ok(())
}

#[async_trait]
impl DeadLetters for DeadLettersService {
    #[tracing::instrument(name = "dead_letters.list", skip_all, err(level = "debug"))]
    async fn list_dead_letters(
        &self,
        call: &Call,
        filter: &DeadLetterFilter,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Fault> {
        check(call, filter)?;
        if limit > MAX_DEAD_LETTERS {
            return Err(Fault::invalid(format!("limit {limit} is not between 1 and {MAX_DEAD_LETTERS}")));
        }
        let limit = if limit == 0 { LIMIT } else { limit };
        self.0.list(filter, usize::try_from(limit).unwrap_or(usize::MAX)).await
    }

    #[tracing::instrument(name = "dead_letters.replay", skip_all, err(level = "debug"))]
    async fn replay_dead_letters(
        &self,
        call: &Call,
        filter: &DeadLetterFilter,
        again: bool,
    ) -> Result<ReplayReceipt, Fault> {
        check(call, filter)?;
        self.0.replay(filter, again).await
    }
}
