//! Whose lists are audited: a share of the requests, chosen by trace. They wait for the next whole fit, which has the
//! weights that links were cut from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use echotune_engine::scan::Audit;
use echotune_model::{ItemKind, TraceId, UserId};

/// Requests of a kind that wait at the most; those beyond them are not audited.
const WAITING: usize = 256;

/// Requests that wait to be audited.
#[derive(Debug)]
pub(crate) struct Asked {
    audit: Audit,
    waiting: Mutex<[Vec<UserId>; 2]>,
}

impl Asked {
    /// For a share of the requests, 0 to 1.
    pub(crate) fn new(share: f64) -> Self {
        Self { audit: Audit::new(share), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, [Vec<UserId>; 2]> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a request if its trace is chosen. One without a trace never is.
    pub(crate) fn note(&self, trace: TraceId, user: UserId, kind: ItemKind) {
        if trace == TraceId::default() || !self.audit.chooses(trace.0) {
            return;
        }
        let waiting = &mut self.waiting()[usize::from(kind == ItemKind::Track)];
        if waiting.len() < WAITING {
            waiting.push(user);
        }
    }

    /// Those who wait, artists first; nobody waits afterwards.
    pub(crate) fn take(&self) -> [Vec<UserId>; 2] {
        std::mem::take(&mut *self.waiting())
    }

    pub(crate) fn forget(&self, user: UserId) {
        self.waiting().iter_mut().for_each(|waiting| waiting.retain(|one| *one != user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_traces_waits_up_to_a_bound_and_the_forgotten_do_not() {
        let user = |n: u128| UserId(uuid::Uuid::from_u128(n));
        let note = |asked: &Asked, n: u128| asked.note(TraceId(n << 64 | n), user(n), ItemKind::Track);
        let some = Asked::new(0.1);
        (0..1_000).for_each(|n| note(&some, n));
        let waiting = some.take();
        assert!(waiting[0].is_empty() && (60..140).contains(&waiting[1].len()), "{}", waiting[1].len());
        (0..1_000).for_each(|n| note(&some, n));
        assert_eq!(some.take(), waiting, "the same traces");
        let all = Asked::new(1.0);
        (0..1_000).for_each(|n| note(&all, n));
        all.forget(user(7));
        let waiting = all.take();
        assert!(waiting[1].len() == WAITING - 1 && !waiting[1].contains(&user(0)) && !waiting[1].contains(&user(7)));
        assert_eq!(all.take(), [vec![], vec![]]);
    }
}
