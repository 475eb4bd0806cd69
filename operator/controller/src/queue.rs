//! Which servers are looked at next: each once, however often it is asked for, and by one worker at a time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echotune_api::demand::ServerName;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The first pause after a failure, doubled with each up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// Servers that wait to be looked at.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    ready: VecDeque<ServerName>,
    later: BTreeSet<(Instant, ServerName)>,
    entries: HashMap<ServerName, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    queued: bool,
    running: bool,
    /// It was asked for while it was being looked at.
    again: bool,
    due: Option<Instant>,
    failures: u32,
}

impl Waiting {
    fn now(&mut self, server: &ServerName, first: bool) {
        let entry = self.entries.entry(server.clone()).or_default();
        if let Some(due) = entry.due.take() {
            self.later.remove(&(due, server.clone()));
        }
        if entry.running {
            entry.again = true;
        } else if !entry.queued {
            entry.queued = true;
            if first { self.ready.push_front(server.clone()) } else { self.ready.push_back(server.clone()) }
        }
    }

    fn at(&mut self, server: &ServerName, due: Instant) {
        let entry = self.entries.entry(server.clone()).or_default();
        if entry.queued || entry.again || entry.due.is_some_and(|before| before <= due) {
            return;
        }
        if let Some(before) = entry.due.replace(due) {
            self.later.remove(&(before, server.clone()));
        }
        self.later.insert((due, server.clone()));
    }

    /// Those whose time has come are ready; the time of the next.
    fn ripen(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some((due, server)) = self.later.first().cloned() {
            if due > now {
                return Some(due);
            }
            self.later.pop_first();
            if let Some(entry) = self.entries.get_mut(&server) {
                entry.due = None;
            }
            self.now(&server, false);
        }
        None
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server is to be looked at.
    pub fn now(&self, server: &ServerName) {
        self.waiting().now(server, false);
        self.more.notify_one();
    }

    /// A server is to be looked at before others: a call waits.
    pub fn first(&self, server: &ServerName) {
        self.waiting().now(server, true);
        self.more.notify_one();
    }

    /// A server is to be looked at after that time, unless it is sooner anyway.
    pub fn after(&self, server: &ServerName, wait: Duration) {
        self.waiting().at(server, Instant::now() + wait);
        self.more.notify_one();
    }

    /// The next server; whoever gets it says when it is done.
    pub async fn next(&self) -> ServerName {
        loop {
            let due = {
                let mut waiting = self.waiting();
                let due = waiting.ripen();
                if let Some(server) = waiting.ready.pop_front() {
                    let entry = waiting.entries.entry(server.clone()).or_default();
                    (entry.queued, entry.running) = (false, true);
                    let more = !waiting.ready.is_empty();
                    drop(waiting);
                    if more {
                        self.more.notify_one();
                    }
                    return server;
                }
                due
            };
            match due {
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.more.notified() => {}
                },
                None => self.more.notified().await,
            }
        }
    }

    /// A server was looked at: again after that time, or when it is asked for.
    pub fn done(&self, server: &ServerName, again: Option<Duration>) {
        let mut waiting = self.waiting();
        let Some(entry) = waiting.entries.get_mut(server) else { return };
        (entry.running, entry.failures) = (false, 0);
        if std::mem::take(&mut entry.again) {
            waiting.now(server, false);
        } else if let Some(again) = again {
            waiting.at(server, Instant::now() + again);
        } else if entry.due.is_none() {
            waiting.entries.remove(server);
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// A server could not be looked at to the end: again after a pause that grows with each time.
    pub fn failed(&self, server: &ServerName) {
        let mut waiting = self.waiting();
        let Some(entry) = waiting.entries.get_mut(server) else { return };
        (entry.running, entry.again) = (false, false);
        entry.failures = entry.failures.saturating_add(1);
        let pause = (PAUSES.0 * 2_u32.saturating_pow(entry.failures.min(16) - 1)).min(PAUSES.1);
        waiting.at(server, Instant::now() + pause);
        drop(waiting);
        self.more.notify_one();
    }

    /// Servers that are to be looked at now.
    pub fn depth(&self) -> usize {
        self.waiting().ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        text.parse().expect("a server")
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_looked_at_once_and_by_one_at_a_time() {
        let queue = Queue::default();
        for _ in 0..3 {
            queue.now(&name("m/a"));
        }
        queue.now(&name("m/b"));
        queue.first(&name("m/c"));
        assert_eq!(queue.depth(), 3);
        assert_eq!(queue.next().await, name("m/c"));
        assert_eq!(queue.next().await, name("m/a"));
        queue.now(&name("m/a"));
        assert_eq!(queue.next().await, name("m/b"), "a is being looked at");
        queue.done(&name("m/a"), Some(Duration::from_secs(60)));
        assert_eq!(queue.next().await, name("m/a"), "it was asked for meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn the_sooner_of_two_times_counts() {
        let queue = Queue::default();
        let began = Instant::now();
        queue.after(&name("m/a"), Duration::from_secs(30));
        queue.after(&name("m/a"), Duration::from_secs(2));
        queue.after(&name("m/a"), Duration::from_secs(10));
        assert_eq!(queue.next().await, name("m/a"));
        assert_eq!(began.elapsed().as_secs(), 2);
        queue.done(&name("m/a"), None);
        let more = tokio::time::timeout(Duration::from_secs(100), queue.next()).await;
        assert!(more.is_err(), "the other times are forgotten: {more:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time() {
        let queue = Queue::default();
        queue.now(&name("m/a"));
        let mut waits = Vec::new();
        for _ in 0..10 {
            let began = Instant::now();
            let server = queue.next().await;
            waits.push(began.elapsed().as_millis());
            queue.failed(&server);
        }
        assert_eq!(waits[..5], [0, 250, 500, 1_000, 2_000]);
        assert_eq!(waits[9], 60_000);
        let server = queue.next().await;
        queue.done(&server, None);
        assert_eq!(queue.depth(), 0);
    }
}
