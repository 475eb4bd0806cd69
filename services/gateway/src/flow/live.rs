//! What a replica keeps of a session while it lives there. None of it is needed to go on with the session: it goes with
//! the requests under way, or is made again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::stream::Stream;
use crate::{
    caller::Digest,
    kept::InUse,
    message::{Id, Json, Outcome},
    ticket::Ticket,
    upstream::Subscribed,
};

/// Streams of a session of which what was sent is kept for who comes back.
const STREAMS: usize = 16;
/// Resources that a session subscribes to.
const SUBSCRIPTIONS: usize = 256;

/// What a conversation is told from outside.
#[derive(Debug)]
pub(crate) enum Control {
    /// The client has answered what it was asked.
    Answer { number: u64, outcome: Outcome },
    /// The client of 2026-07-28 is back with answers.
    Attach { stream: Arc<Stream>, id: Id, gone: CancellationToken, responses: BTreeMap<String, Json> },
}

/// A session with what is under way in it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) ticket: Ticket,
    inner: Mutex<Inner>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    calls: HashMap<Id, CancellationToken>,
    asks: HashMap<u64, mpsc::Sender<Control>>,
    streams: VecDeque<(Digest, Arc<Stream>)>,
    /// Of what is told beside requests.
    beside: Option<Arc<Stream>>,
    level: Option<Json>,
    subscribed: BTreeMap<String, Subscribed>,
}

impl InUse for Arc<Live> {
    /// Requests and streams hold it for as long as they last; so does what keeps it.
    fn is_in_use(&self) -> bool {
        Self::strong_count(self) > 1
    }
}

impl Live {
    pub(crate) fn new(ticket: Ticket) -> Arc<Self> {
        // Numbers of another replica, or of before the session was forgotten here, mean nothing here.
        let first = u64::from_be_bytes(crate::token::random()) | 1;
        Arc::new(Self { ticket, inner: Mutex::default(), next: AtomicU64::new(first) })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a request under way; `false` when one of its id is already.
    pub(crate) fn begin(&self, id: &Id, cancel: &CancellationToken) -> bool {
        self.with(|inner| {
            let free = !inner.calls.contains_key(id);
            if free {
                inner.calls.insert(id.clone(), cancel.clone());
            }
            free
        })
    }

    pub(crate) fn ended(&self, id: &Id) {
        self.with(|inner| inner.calls.remove(id));
    }

    /// The client gives a request up.
    pub(crate) fn cancel(&self, id: &Id) {
        if let Some(call) = self.with(|inner| inner.calls.get(id).cloned()) {
            call.cancel();
        }
    }

    /// Ends everything.
    pub(crate) fn end(&self) {
        let (calls, streams) = self.with(|inner| {
            let streams: Vec<_> =
                inner.streams.drain(..).map(|(_, stream)| stream).chain(inner.beside.take()).collect();
            inner.subscribed.clear();
            (std::mem::take(&mut inner.calls), streams)
        });
        calls.values().for_each(CancellationToken::cancel);
        streams.iter().for_each(|stream| stream.close());
    }

    /// A number for something that the client is asked, whose answer goes to `to`.
    pub(crate) fn ask(&self, to: mpsc::Sender<Control>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.with(|inner| inner.asks.insert(number, to));
        number
    }

    /// Brings an answer to where it is waited for; whether it is.
    pub(crate) async fn answer(&self, number: u64, outcome: Outcome) -> bool {
        let Some(to) = self.with(|inner| inner.asks.remove(&number)) else { return false };
        to.send(Control::Answer { number, outcome }).await.is_ok()
    }

    pub(crate) fn not_asked(&self, number: u64) {
        self.with(|inner| inner.asks.remove(&number));
    }

    /// Keeps a stream for who comes back for it.
    pub(crate) fn keep(&self, key: Digest, stream: &Arc<Stream>) {
        self.with(|inner| {
            if inner.streams.len() == STREAMS {
                inner.streams.pop_front();
            }
            inner.streams.push_back((key, Arc::clone(stream)));
        });
    }

    pub(crate) fn stream(&self, key: Digest) -> Option<Arc<Stream>> {
        self.with(|inner| inner.streams.iter().find(|(known, _)| *known == key).map(|(_, stream)| Arc::clone(stream)))
    }

    /// The stream of what is told beside requests from now on; that of before ends.
    pub(crate) fn beside(&self, stream: &Arc<Stream>) {
        let before = self.with(|inner| inner.beside.replace(Arc::clone(stream)));
        if let Some(before) = before {
            before.close();
        }
    }

    /// Keeps a subscription; `false` when there are as many as there may be.
    pub(crate) fn subscribe(&self, uri: &str, subscribed: Subscribed) -> bool {
        // What is replaced ends outside of the lock.
        let kept = self.with(|inner| {
            let has_room = inner.subscribed.len() < SUBSCRIPTIONS || inner.subscribed.contains_key(uri);
            has_room.then(|| inner.subscribed.insert(uri.to_owned(), subscribed))
        });
        kept.is_some()
    }

    pub(crate) fn unsubscribe(&self, uri: &str) {
        drop(self.with(|inner| inner.subscribed.remove(uri)));
    }

    /// Whether the session has subscribed to a resource of a server.
    pub(crate) fn is_subscribed(&self, server: u32, uri: &str) -> bool {
        self.with(|inner| inner.subscribed.get(uri).is_some_and(|subscribed| subscribed.key().0 == server))
    }

    /// All resources that the session has subscribed to.
    pub(crate) fn subscribed(&self) -> Vec<Arc<str>> {
        self.with(|inner| inner.subscribed.values().map(|one| Arc::clone(one.key().1)).collect())
    }

    pub(crate) fn set_level(&self, level: Json) {
        self.with(|inner| inner.level = Some(level));
    }

    pub(crate) fn level(&self) -> Option<Json> {
        self.with(|inner| inner.level.clone())
    }
}
