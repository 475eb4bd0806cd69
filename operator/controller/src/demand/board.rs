//! What gateways are told, in the order of changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use echotune_api::demand::{Served, ServerName, Update};
use tokio::sync::watch;

/// Servers in one message at the most: at 2 KiB each it is a quarter of what a message may have.
const PART: usize = 500;
/// Servers that are no more and still told of, at the most.
const GONE: usize = 10_000;

/// What gateways are told of servers.
#[derive(Debug)]
pub struct Board {
    posted: Mutex<Posted>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Posted {
    /// The number of the last change.
    last: u64,
    by_name: HashMap<ServerName, (u64, Option<Arc<Served>>)>,
    by_change: BTreeMap<u64, ServerName>,
    gone: usize,
    /// Changes up to here may be of servers that are no longer told of.
    forgotten: u64,
    complete: bool,
}

impl Default for Board {
    fn default() -> Self {
        Self { posted: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Board {
    fn posted(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a server, or that it is no more; nothing when it is known so. Sentences alone are no change.
    pub fn post(&self, name: &ServerName, served: Option<Served>) {
        let mut posted = self.posted();
        let before = posted.by_name.get(name);
        let same = match (before.and_then(|(_, served)| served.as_deref()), &served) {
            (None, None) => true,
            (Some(before), Some(served)) => {
                let reason = before.reason.clone();
                *before == Served { reason, ..served.clone() }
            }
            _ => false,
        };
        if same {
            return;
        }
        let number = before.map(|(number, _)| *number);
        if let Some(number) = number {
            posted.by_change.remove(&number);
        }
        posted.last += 1;
        let last = posted.last;
        posted.gone += usize::from(served.is_none());
        posted.by_change.insert(last, name.clone());
        let again = posted.by_name.insert(name.clone(), (last, served.map(Arc::new)));
        if matches!(again, Some((_, None))) {
            posted.gone -= 1;
        }
        posted.forget();
        drop(posted);
        self.changed.send_replace(last);
    }

    /// From now on gateways are told that they know all, once they do.
    pub fn complete(&self, complete: bool) {
        let mut posted = self.posted();
        if posted.complete == complete {
            return;
        }
        posted.complete = complete;
        posted.last += 1;
        let last = posted.last;
        drop(posted);
        self.changed.send_replace(last);
    }

    /// Forgets everything, for whoever leads no more.
    pub fn clear(&self) {
        let mut posted = self.posted();
        let last = posted.last + 1;
        *posted = Posted { last, forgotten: last, ..Posted::default() };
    }

    /// Servers that are told of.
    pub fn servers(&self) -> Vec<ServerName> {
        let posted = self.posted();
        let told = posted.by_name.iter().filter(|(_, (_, served))| served.is_some());
        told.map(|(name, _)| name.clone()).collect()
    }

    /// Whoever waits for changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What has changed since, with the number to ask from next; nothing when nothing has, an error when it is too long
    /// ago to tell.
    pub(super) fn since(&self, seen: u64) -> Result<Option<(Update, u64)>, TooLongAgo> {
        let posted = self.posted();
        if seen > 0 && seen < posted.forgotten {
            return Err(TooLongAgo);
        }
        if posted.last == seen {
            return Ok(None);
        }
        let mut update = Update::default();
        let mut upto = seen;
        let mut changes = posted.by_change.range(seen + 1..);
        for (number, name) in changes.by_ref().take(PART) {
            upto = *number;
            match posted.by_name.get(name) {
                Some((_, Some(served))) => update.servers.push(Served::clone(served)),
                // To whoever begins, what is no more was never there.
                Some((_, None)) if seen > 0 => update.removed.push(name.clone()),
                _ => {}
            }
        }
        if changes.next().is_none() {
            upto = posted.last;
            update.complete = posted.complete;
        }
        Ok(Some((update, upto)))
    }
}

/// What a gateway has missed cannot be told any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLongAgo;

impl Posted {
    /// Forgets the older half of what is no more, when it is too much.
    fn forget(&mut self) {
        if self.gone <= GONE {
            return;
        }
        let is_gone = |name: &ServerName| matches!(self.by_name.get(name), Some((_, None)));
        let gone: Vec<_> = self.by_change.iter().filter(|(_, name)| is_gone(name)).take(GONE / 2).collect();
        let gone: Vec<_> = gone.into_iter().map(|(number, name)| (*number, name.clone())).collect();
        for (number, name) in gone {
            self.by_change.remove(&number);
            self.by_name.remove(&name);
            self.forgotten = number;
            self.gone -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::served;

    fn name(text: &str) -> ServerName {
        text.parse().expect("a server")
    }

    fn told(board: &Board, seen: u64) -> (Vec<String>, Vec<String>, bool, u64) {
        let (update, upto) = board.since(seen).expect("not too long ago").expect("a change");
        let servers = update.servers.iter().map(|served| served.server.to_string()).collect();
        (servers, update.removed.iter().map(ToString::to_string).collect(), update.complete, upto)
    }

    #[test]
    fn each_change_is_told_once_and_sentences_are_none() {
        let board = Board::default();
        assert_eq!(board.since(0), Ok(None));
        board.post(&name("m/a"), Some(served("m/a")));
        board.post(&name("m/b"), Some(served("m/b")));
        let (servers, removed, complete, upto) = told(&board, 0);
        assert_eq!((servers, removed, complete), (vec!["m/a".into(), "m/b".into()], Vec::<String>::new(), false));
        board.post(&name("m/a"), Some(Served { reason: "another sentence".into(), ..served("m/a") }));
        assert_eq!(board.since(upto), Ok(None));
        board.complete(true);
        board.post(&name("m/a"), None);
        board.post(&name("m/b"), Some(Served { wakes: false, ..served("m/b") }));
        assert_eq!(told(&board, upto).0, ["m/b"]);
        assert_eq!(told(&board, upto).1, ["m/a"]);
        assert_eq!(told(&board, 0).1, Vec::<String>::new(), "whoever begins hears nothing of what is no more");
        assert!(told(&board, 0).2);
    }

    #[test]
    fn many_come_in_parts_and_the_last_says_that_they_are_all() {
        let board = Board::default();
        board.complete(true);
        for at in 0..PART + 1 {
            let server = format!("m/s{at}");
            board.post(&name(&server), Some(served(&server)));
        }
        let (servers, _, complete, upto) = told(&board, 0);
        assert_eq!((servers.len(), complete), (PART, false));
        let (servers, _, complete, upto) = told(&board, upto);
        assert_eq!((servers.len(), complete), (1, true));
        assert_eq!(board.since(upto), Ok(None));
    }

    #[test]
    fn what_is_no_more_is_forgotten_in_the_end_and_whoever_missed_it_is_told() {
        let board = Board::default();
        board.post(&name("m/first"), Some(served("m/first")));
        let upto = told(&board, 0).3;
        for at in 0..=GONE {
            let server = format!("m/s{at}");
            board.post(&name(&server), Some(served(&server)));
            board.post(&name(&server), None);
        }
        assert_eq!(board.since(upto), Err(TooLongAgo));
        assert_eq!(told(&board, 0).0, ["m/first"]);
    }
}
