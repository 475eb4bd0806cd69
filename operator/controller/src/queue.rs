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
    /// Told to those who take any server.
    more: Notify,
    /// Told to those who take urgent ones alone.
    pressing: Notify,
}

/// Urgent servers that are looked at in a row while others wait: these are not to wait for ever.
const IN_A_ROW: u32 = 8;
/// Looks at one server in a row of which nothing is told while others press: people are not to wait for ever.
const PUT_OFF: u32 = 8;

/// In which turn a server is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    #[default]
    Usual,
    /// Before others, after those that were urgent before.
    Urgent,
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<ServerName>,
    /// Also those that have become urgent since, which are passed over here.
    usual: VecDeque<ServerName>,
    /// Urgent ones in a row.
    row: u32,
    later: BTreeSet<(Instant, ServerName)>,
    entries: HashMap<ServerName, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    queued: Option<Turn>,
    running: bool,
    /// In which turn it was taken last.
    taken: Turn,
    /// It was asked for while it was being looked at.
    again: Option<Turn>,
    due: Option<Instant>,
    /// In which turn it is looked at when it is due, at the least.
    ripe: Turn,
    failures: u32,
    /// Looks in a row of which nothing was told.
    put_off: u32,
}

impl Waiting {
    fn now(&mut self, server: &ServerName, turn: Turn) {
        let entry = self.entries.entry(server.clone()).or_default();
        if let Some(due) = entry.due.take() {
            self.later.remove(&(due, server.clone()));
        }
        let turn = turn.max(std::mem::take(&mut entry.ripe));
        if entry.running {
            entry.again = entry.again.max(Some(turn));
        } else if entry.queued < Some(turn) {
            entry.queued = Some(turn);
            self.of(turn).push_back(server.clone());
        }
    }

    fn of(&mut self, turn: Turn) -> &mut VecDeque<ServerName> {
        match turn {
            Turn::Urgent => &mut self.urgent,
            Turn::Usual => &mut self.usual,
        }
    }

    /// Takes the server whose turn it is.
    fn pop(&mut self) -> Option<ServerName> {
        let turns = if self.row < IN_A_ROW { [Turn::Urgent, Turn::Usual] } else { [Turn::Usual, Turn::Urgent] };
        let (server, turn) = turns.into_iter().find_map(|turn| Some((self.pop_of(turn)?, turn)))?;
        self.row = if turn == Turn::Urgent { self.row.saturating_add(1) } else { 0 };
        Some(server)
    }

    /// Takes the first that waits for this turn.
    fn pop_of(&mut self, turn: Turn) -> Option<ServerName> {
        while let Some(server) = self.of(turn).pop_front() {
            if let Some(entry) = self.entries.get_mut(&server).filter(|entry| entry.queued == Some(turn)) {
                (entry.queued, entry.running, entry.taken) = (None, true, turn);
                return Some(server);
            }
        }
        None
    }

    fn at(&mut self, server: &ServerName, due: Instant) {
        let entry = self.entries.entry(server.clone()).or_default();
        if entry.queued.is_some() || entry.again.is_some() || entry.due.is_some_and(|before| before <= due) {
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
            self.now(&server, Turn::Usual);
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
        let mut waiting = self.waiting();
        waiting.now(server, Turn::Usual);
        // One that was urgent and failed is so again.
        let urgent = !waiting.urgent.is_empty();
        drop(waiting);
        self.tell(urgent);
    }

    /// A server is to be looked at before others: a call waits.
    pub fn first(&self, server: &ServerName) {
        self.waiting().now(server, Turn::Urgent);
        self.tell(true);
    }

    /// Wakes one of those who wait for servers, and where one is urgent one of those who wait for such alone.
    fn tell(&self, urgent: bool) {
        self.more.notify_one();
        if urgent {
            self.pressing.notify_one();
        }
    }

    /// Whether a server is looked at because a call waits there.
    pub fn is_urgent(&self, server: &ServerName) -> bool {
        self.waiting().entries.get(server).is_some_and(|entry| entry.running && entry.taken == Turn::Urgent)
    }

    /// Whether an urgent server waits that nobody has taken.
    pub fn presses(&self) -> bool {
        !self.waiting().urgent.is_empty()
    }

    /// Whether what is to be told of a server that is looked at is put off, since urgent ones wait; not more often in a
    /// row than people can wait.
    pub fn puts_off(&self, server: &ServerName) -> bool {
        let presses = self.presses();
        let mut waiting = self.waiting();
        let Some(entry) = waiting.entries.get_mut(server) else { return false };
        entry.put_off = if presses && entry.put_off < PUT_OFF { entry.put_off + 1 } else { 0 };
        entry.put_off > 0
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
                let urgent = !waiting.urgent.is_empty();
                if let Some(server) = waiting.pop() {
                    let more = !(waiting.urgent.is_empty() && waiting.usual.is_empty());
                    drop(waiting);
                    if more {
                        self.tell(urgent);
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

    /// The next urgent server, and no other. Whoever takes these alone is there for them while looks at others are
    /// slow.
    pub async fn next_urgent(&self) -> ServerName {
        loop {
            let (taken, more) = {
                let mut waiting = self.waiting();
                (waiting.pop_of(Turn::Urgent), !waiting.urgent.is_empty())
            };
            if let Some(server) = taken {
                if more {
                    self.pressing.notify_one();
                }
                return server;
            }
            self.pressing.notified().await;
        }
    }

    /// A server was looked at: again after that time, or when it is asked for.
    pub fn done(&self, server: &ServerName, again: Option<Duration>) {
        let mut waiting = self.waiting();
        let Some(entry) = waiting.entries.get_mut(server) else { return };
        (entry.running, entry.failures) = (false, 0);
        let asked = entry.again.take();
        if let Some(turn) = asked {
            waiting.now(server, turn);
        } else if let Some(again) = again {
            waiting.at(server, Instant::now() + again);
        } else if entry.due.is_none() {
            waiting.entries.remove(server);
        }
        drop(waiting);
        self.tell(asked == Some(Turn::Urgent));
    }

    /// A server could not be looked at to the end: again after a pause that grows with each time, and before others as
    /// it was or has become meanwhile.
    pub fn failed(&self, server: &ServerName) {
        let mut waiting = self.waiting();
        let Some(entry) = waiting.entries.get_mut(server) else { return };
        entry.running = false;
        entry.ripe = entry.again.take().unwrap_or_default().max(entry.taken);
        entry.failures = entry.failures.saturating_add(1);
        let pause = (PAUSES.0 * 2_u32.saturating_pow(entry.failures.min(16) - 1)).min(PAUSES.1);
        waiting.at(server, Instant::now() + pause);
        drop(waiting);
        self.more.notify_one();
    }

    /// Servers that are to be looked at now.
    pub fn depth(&self) -> usize {
        self.waiting().entries.values().filter(|entry| entry.queued.is_some()).count()
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
    async fn what_a_call_waits_for_comes_before_what_was_asked_for_earlier() {
        let queue = Queue::default();
        for server in ["m/a", "m/b", "m/c", "m/d"] {
            queue.now(&name(server));
        }
        assert_eq!(queue.next().await, name("m/a"));
        // It waits among others already, another is being looked at, and which of two came first is not turned round.
        queue.first(&name("m/d"));
        queue.first(&name("m/a"));
        queue.first(&name("m/c"));
        queue.done(&name("m/a"), None);
        for server in ["m/d", "m/c", "m/a", "m/b"] {
            assert_eq!(queue.next().await, name(server));
        }
        assert_eq!(queue.depth(), 0);
        for server in ["m/a", "m/b", "m/c", "m/d"] {
            queue.done(&name(server), None);
        }
        let more = tokio::time::timeout(Duration::from_secs(100), queue.next()).await;
        assert!(more.is_err(), "each was looked at once: {more:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_are_urgent_others_have_their_turn() {
        let queue = Queue::default();
        queue.now(&name("m/usual"));
        (0..20).for_each(|number| queue.first(&name(&format!("m/u{number}"))));
        let mut before = 0;
        while queue.next().await != name("m/usual") {
            before += 1;
        }
        assert_eq!(before, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_urgent_servers_alone_takes_no_other_and_misses_none() {
        let queue = std::sync::Arc::new(Queue::default());
        let taking = std::sync::Arc::clone(&queue);
        let taken = tokio::spawn(async move { [taking.next_urgent().await, taking.next_urgent().await] });
        queue.now(&name("m/usual"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!taken.is_finished() && !queue.presses(), "nothing is urgent yet");
        queue.first(&name("m/a"));
        queue.first(&name("m/b"));
        assert!(queue.presses());
        assert_eq!(taken.await.expect("it ends"), [name("m/a"), name("m/b")]);
        assert!(!queue.presses());
        assert_eq!(queue.next().await, name("m/usual"));
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_press_what_is_put_off_is_told_now_and_then() {
        let queue = Queue::default();
        let (waits, other) = (name("m/waits"), name("m/other"));
        queue.first(&waits);
        assert_eq!(queue.next().await, waits);
        assert!(!queue.puts_off(&waits), "nobody else waits");
        queue.done(&waits, Some(Duration::ZERO));
        let mut put_off = Vec::new();
        for _ in 0..10 {
            queue.first(&waits);
            while queue.next().await != waits {}
            queue.done(&other, None);
            queue.first(&other);
            put_off.push(queue.puts_off(&waits));
            queue.done(&waits, Some(Duration::ZERO));
        }
        assert_eq!(put_off, [true, true, true, true, true, true, true, true, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_urgent_and_is_asked_for_again_finds_who_takes_urgent_ones_alone() {
        let queue = std::sync::Arc::new(Queue::default());
        queue.first(&name("m/a"));
        queue.failed(&queue.next_urgent().await);
        let taking = std::sync::Arc::clone(&queue);
        let taken = tokio::spawn(async move { taking.next_urgent().await });
        tokio::task::yield_now().await;
        queue.now(&name("m/a"));
        let taken = tokio::time::timeout(Duration::from_secs(100), taken).await;
        assert_eq!(taken.expect("it is told").expect("it ends"), name("m/a"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_urgent_and_failed_comes_before_others_again() {
        let queue = Queue::default();
        queue.first(&name("m/taken"));
        let taken = queue.next().await;
        queue.now(&name("m/asked"));
        let asked = queue.next().await;
        assert!(queue.is_urgent(&taken) && !queue.is_urgent(&asked));
        queue.first(&asked);
        queue.failed(&taken);
        queue.failed(&asked);
        tokio::time::sleep(PAUSES.0).await;
        queue.now(&name("m/usual"));
        let mut first = [queue.next().await, queue.next().await];
        first.sort();
        assert_eq!(first, [name("m/asked"), name("m/taken")]);
        assert_eq!(queue.next().await, name("m/usual"));
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
