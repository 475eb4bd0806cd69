//! Callers that call one after the other until they are told to stop, and what they saw.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{task::JoinSet, time};

use crate::client::{Client, Outcome};

/// Lost calls that are told by their reason; the others are counted.
const TOLD: usize = 5;

/// What callers do.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) server: String,
    pub(crate) tool: &'static str,
    pub(crate) arguments: Value,
    /// Callers with a session each.
    pub(crate) sessions: usize,
    /// Callers without.
    pub(crate) others: usize,
    /// Between two calls of one caller.
    pub(crate) pause: Duration,
}

/// What callers saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    pub(crate) lost: u64,
    pub(crate) slowest: Duration,
    reasons: Vec<String>,
}

impl Seen {
    fn add(&mut self, outcome: Outcome, took: Duration) {
        self.slowest = self.slowest.max(took);
        match outcome {
            Outcome::Answered(_) => self.answered += 1,
            Outcome::Unknown => self.unknown += 1,
            Outcome::Lost(why) => {
                self.lost += 1;
                if self.reasons.len() < TOLD {
                    self.reasons.push(why);
                }
            }
        }
    }

    /// In a line, with why calls were lost.
    pub(crate) fn told(&self) -> String {
        let Self { answered, unknown, lost, slowest, reasons } = self;
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        format!(
            "{answered} calls answered, {unknown} unknown, {lost} lost{reasons}; slowest {:.1} s",
            slowest.as_secs_f64()
        )
    }
}

/// Callers under way.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Load {
    /// Sets them going. Sessions are opened by their callers: a server at zero holds them until it is there.
    pub(crate) fn begin(client: &Client, work: &Work) -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let mut callers = JoinSet::new();
        for at in 0..work.sessions + work.others {
            let (client, work, seen, stop) = (client.clone(), work.clone(), Arc::clone(&seen), Arc::clone(&stop));
            callers.spawn(async move { caller(&client, &work, at < work.sessions, &seen, &stop).await });
        }
        Self { seen, stop, callers }
    }

    /// What they saw until now.
    pub(crate) fn so_far(&self) -> Seen {
        self.seen.lock().expect("no caller panics with it").clone()
    }

    /// Lets calls under way end: what all saw.
    pub(crate) async fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Release);
        while self.callers.join_next().await.is_some() {}
        self.so_far()
    }
}

async fn caller(client: &Client, work: &Work, with_session: bool, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let add = |outcome, took| seen.lock().expect("no caller panics with it").add(outcome, took);
    let session = if with_session {
        let start = Instant::now();
        match client.open(&work.server).await {
            Ok(session) => Some(session),
            Err(why) => return add(Outcome::Lost(format!("no session: {why:#}")), start.elapsed()),
        }
    } else {
        None
    };
    while !stop.load(Ordering::Acquire) {
        let start = Instant::now();
        let outcome = match &session {
            Some(session) => session.call(work.tool, &work.arguments).await,
            None => client.call(&work.server, work.tool, &work.arguments, None).await,
        };
        add(outcome, start.elapsed());
        time::sleep(work.pause).await;
    }
}
