//! What a server of before 2026-07-28 says on the stream of a session, beside the answers to requests: some tell their
//! log there, and ask their client there, though it is about a request that is under way. It is brought to the newest
//! of the session, as what a child says by itself is.
//!
//! The stream is opened with the first request of a session and let go a while after the last, for what is said when
//! nothing is under way concerns nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, mpsc},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Ask, Exchange, OnBehalf, Said,
    changes::Changes,
    links::{Link, Way},
    server::Server,
};
use crate::{abilities::Abilities, message::Outcome, refusal::METHOD_NOT_FOUND};

/// How long a request waits for the stream.
const OPENING: Duration = Duration::from_secs(1);
/// For how long it is not asked for again when it could not be had: requests would wait for it in vain, one after the
/// other.
const REST: Duration = Duration::from_secs(10);
/// How long the stream is kept when nothing is under way.
const IDLE: Duration = Duration::from_secs(5);
/// What a request may have been told before it looks; what comes beyond is dropped.
const SAYINGS: usize = 256;

/// The requests of a session that are under way, and its stream.
#[derive(Default)]
pub(super) struct Beside {
    inner: Mutex<Inner>,
    opening: AsyncMutex<()>,
    /// A request has begun or ended.
    changed: Notify,
    /// Cancelled when the session is let go.
    pub(super) end: CancellationToken,
}

#[derive(Default)]
struct Inner {
    under_way: BTreeMap<u64, mpsc::Sender<Said>>,
    next: u64,
    is_open: bool,
    /// Until when it is not asked for.
    rests: Option<Instant>,
}

/// What one request hears, until it is dropped.
pub(crate) struct Hearing {
    beside: Arc<Beside>,
    number: u64,
    said: mpsc::Receiver<Said>,
}

impl Hearing {
    /// What is said next. May be given up and asked for again.
    pub(super) async fn next(&mut self) -> Said {
        match self.said.recv().await {
            Some(said) => said,
            // Its sender lies among those under way until this is dropped.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.beside.with(|inner| inner.under_way.remove(&self.number));
        self.beside.changed.notify_one();
    }
}

impl Beside {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn join(self: &Arc<Self>) -> Hearing {
        let (sender, said) = mpsc::channel(SAYINGS);
        let number = self.with(|inner| {
            inner.next += 1;
            inner.under_way.insert(inner.next, sender);
            inner.next
        });
        self.changed.notify_one();
        Hearing { beside: Arc::clone(self), number, said }
    }

    /// Brings something to the newest request; whether there is one.
    fn bring(&self, said: Said) -> bool {
        let newest = self.with(|inner| inner.under_way.last_key_value().map(|(_, sender)| sender.clone()));
        newest.is_some_and(|sender| sender.try_send(said).is_ok())
    }

    /// Closes the stream when nothing is under way; whether it is.
    fn close_if_idle(&self) -> bool {
        self.with(|inner| {
            inner.is_open &= !inner.under_way.is_empty();
            !inner.is_open
        })
    }

    /// Waits until nothing has been under way for a while, and closes the stream with that.
    async fn idle(&self) {
        loop {
            let is_idle = self.with(|inner| inner.under_way.is_empty());
            let quiet = timeout(IDLE, self.changed.notified()).await.is_err();
            if is_idle && quiet && self.close_if_idle() {
                return;
            }
        }
    }

    /// Follows the stream until it ends or nobody hears it.
    async fn follow(self: Arc<Self>, mut exchange: Exchange, changes: Changes) {
        loop {
            let said = tokio::select! {
                said = exchange.next() => said,
                () = self.idle() => return,
                () = self.end.cancelled() => return,
            };
            match said {
                Ok(Said::Notice { method, params }) => {
                    // Progress is told where the answer comes.
                    if !changes.hear(&method, params.as_ref()) && method != "notifications/progress" {
                        self.bring(Said::Notice { method, params });
                    }
                }
                Ok(Said::Asks { id, method, params }) => {
                    let is_ping = method == "ping";
                    if is_ping || !self.bring(Said::Asks { id: id.clone(), method, params }) {
                        let none = || Outcome::error(METHOD_NOT_FOUND, "no client is there to be asked");
                        let outcome = if is_ping { Outcome::result(&json!({})) } else { none() };
                        // One that does not take it learns by its own clock.
                        drop(exchange.answer(&id, &outcome).await);
                    }
                }
                Ok(Said::Answer(_)) | Err(_) => {
                    self.with(|inner| inner.is_open = false);
                    return;
                }
            }
        }
    }
}

impl Server {
    pub(super) fn has_no_stream(&self) -> bool {
        self.has_no_stream.load(Ordering::Relaxed)
    }

    /// Takes note that a session has no stream of its own, as is not unusual.
    pub(super) fn found_no_stream(&self) {
        self.has_no_stream.store(true, Ordering::Relaxed);
    }

    /// Lets a request hear what the stream of its session says; `None` where there is none, or nothing to hear.
    pub(super) async fn hear(&self, on: &OnBehalf, link: &Link, ask: &Ask) -> Option<Hearing> {
        let Way::Session(route) = &link.0.way else { return None };
        let logs = || self.known().is_some_and(|info| info.capabilities.get("logging").is_some());
        let nothing = ask.abilities == Abilities::default() && !logs();
        // The stream of the gateway's own session is followed for its lists.
        if nothing || on.owner == OnBehalf::gateway().owner || self.has_no_stream() {
            return None;
        }
        let beside = &link.0.beside;
        let hearing = beside.join();
        let _one = beside.opening.lock().await;
        if beside.with(|inner| inner.is_open) {
            return Some(hearing);
        }
        if beside.with(|inner| inner.rests.is_some_and(|until| until > Instant::now())) {
            return None;
        }
        let pass = route.endpoint.breaker.pass().ok()?;
        match timeout(OPENING, route.clone().listen(pass)).await {
            Ok(Ok(Some(exchange))) => {
                beside.with(|inner| inner.is_open = true);
                let following = Arc::clone(beside).follow(Exchange::Http(Box::new(exchange)), self.changes.clone());
                self.tasks.spawn(following);
                Some(hearing)
            }
            Ok(Ok(None)) => {
                self.found_no_stream();
                None
            }
            // The request goes on without.
            Ok(Err(_)) | Err(_) => {
                beside.with(|inner| inner.rests = Some(Instant::now() + REST));
                None
            }
        }
    }
}
