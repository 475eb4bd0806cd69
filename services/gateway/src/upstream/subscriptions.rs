//! Subscriptions to resources of a server: one for all who listen, for as long as anybody does.
//!
//! | server | what is asked |
//! |---|---|
//! | 2026-07-28 | one `subscriptions/listen` with all addresses; when they change, another before the old one ends |
//! | before | `resources/subscribe` for each, in the gateway's own session, whose stream `watch` follows |
//!
//! A server that is told who asks is not subscribed to: what one may see another need not. Nor is a child that is not
//! shared by all: the gateway's own would not learn what happens in another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Ask, Exchange, Failed, OnBehalf, Said,
    era::{Info, answer},
    links::{Link, LinkKey},
    server::Server,
    watch::changed,
};
use crate::{
    abilities::Abilities,
    config::Sharing,
    message::{Json, Object, Outcome},
};

/// Resources of one server that are subscribed to.
const MOST: usize = 4_096;
/// How long somebody waits for what the server says to it.
const OPENING: Duration = Duration::from_secs(3);
/// The first pause before it is tried again, doubled up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether a session or child is still the same, which keeps it too.
const CHECK: Duration = Duration::from_secs(20);

/// What is subscribed to at a server.
#[derive(Default)]
pub(super) struct Subscriptions {
    inner: Mutex<Inner>,
    /// Something is wanted that was not, or no more, or has to be asked for again.
    changed: Notify,
    /// It is known what the server says to something.
    settled: Notify,
}

#[derive(Default)]
struct Inner {
    wanted: BTreeMap<Arc<str>, Wanted>,
    /// What was wanted, to be told to a server of before 2026-07-28.
    left: BTreeSet<Arc<str>>,
    is_tended: bool,
}

struct Wanted {
    holders: usize,
    state: State,
    /// Whether it may have changed while nobody was told of it: those who were promised to be are told that it has.
    is_missed: bool,
}

#[derive(Clone)]
enum State {
    New,
    Active,
    Refused(Json),
}

/// Why a resource is not subscribed to.
#[derive(Debug)]
pub(crate) enum NotSubscribed {
    /// The server does not tell of single resources, or not to all alike.
    Unable,
    /// There are as many as there may be.
    Full,
    /// The server refuses; its error.
    Refused(Json),
}

/// Somebody's subscription, until it is dropped.
pub(crate) struct Subscribed {
    /// Of the server, by its number.
    server: u32,
    subscriptions: Arc<Subscriptions>,
    uri: Arc<str>,
}

impl std::fmt::Debug for Subscribed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subscribed({} of {})", self.uri, self.server)
    }
}

impl Subscribed {
    /// By which changes of it are told.
    pub(crate) fn key(&self) -> (u32, &Arc<str>) {
        (self.server, &self.uri)
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.subscriptions.leave(&self.uri);
    }
}

impl Subscriptions {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another who wants it; whether somebody has to begin to see to it.
    fn join(&self, uri: &Arc<str>) -> Result<bool, NotSubscribed> {
        let begins = self.with(|inner| {
            if !inner.wanted.contains_key(uri) && inner.wanted.len() == MOST {
                return Err(NotSubscribed::Full);
            }
            inner.left.remove(uri);
            let wanted = inner.wanted.entry(Arc::clone(uri)).or_insert(Wanted {
                holders: 0,
                state: State::New,
                is_missed: false,
            });
            wanted.holders += 1;
            // What was refused to one is asked for again for another.
            if matches!(wanted.state, State::Refused(_)) {
                wanted.state = State::New;
            }
            Ok(!std::mem::replace(&mut inner.is_tended, true))
        })?;
        self.changed.notify_one();
        Ok(begins)
    }

    fn leave(&self, uri: &Arc<str>) {
        self.with(|inner| {
            let Some(wanted) = inner.wanted.get_mut(uri) else { return };
            wanted.holders -= 1;
            if wanted.holders == 0 {
                // A server that was not asked for it, or has too much to be told, need not be told.
                if matches!(wanted.state, State::Active) && inner.left.len() < MOST {
                    inner.left.insert(Arc::clone(uri));
                }
                inner.wanted.remove(uri);
            }
        });
        self.changed.notify_one();
    }

    fn wanted(&self) -> BTreeSet<Arc<str>> {
        self.with(|inner| inner.wanted.keys().cloned().collect())
    }

    fn new_ones(&self) -> Vec<Arc<str>> {
        let is_new = |(_, wanted): &(&Arc<str>, &Wanted)| matches!(wanted.state, State::New);
        self.with(|inner| inner.wanted.iter().filter(is_new).map(|(uri, _)| Arc::clone(uri)).collect())
    }

    fn left(&self) -> BTreeSet<Arc<str>> {
        self.with(|inner| std::mem::take(&mut inner.left))
    }

    /// It is known what the server says to it; whether a change of it may have been missed before the server tells of
    /// it from now on.
    fn settle(&self, uri: &Arc<str>, state: State) -> bool {
        let is_missed = self.with(|inner| {
            let Some(wanted) = inner.wanted.get_mut(uri) else { return false };
            let is_active = matches!(state, State::Active);
            wanted.state = state;
            is_active && std::mem::take(&mut wanted.is_missed)
        });
        self.settled.notify_waiters();
        is_missed
    }

    /// All has to be asked for again, and what was not told until then may have been missed.
    pub(super) fn renew(&self) {
        self.with(|inner| {
            for wanted in inner.wanted.values_mut() {
                (wanted.state, wanted.is_missed) = (State::New, true);
            }
        });
        self.changed.notify_one();
    }

    /// Whether nothing is wanted, so that nobody has to see to it any more.
    fn rests(&self) -> bool {
        self.with(|inner| {
            inner.is_tended = !inner.wanted.is_empty();
            !inner.is_tended
        })
    }

    /// Waits until the server has said something to it.
    async fn said(&self, uri: &Arc<str>) -> Result<(), NotSubscribed> {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            match self.with(|inner| inner.wanted.get(uri).map(|wanted| wanted.state.clone())) {
                Some(State::New) => settled.await,
                Some(State::Refused(error)) => return Err(NotSubscribed::Refused(error)),
                Some(State::Active) | None => return Ok(()),
            }
        }
    }
}

impl Server {
    /// Whether all who ask share what the gateway itself has of it.
    pub(super) fn is_one_for_all(&self) -> bool {
        !self.is_process() || self.sharing() == Sharing::All
    }

    /// Whether this is the gateway's own session or child still; looking keeps it.
    fn is_own(&self, link: &Link) -> bool {
        let key = LinkKey::new(&OnBehalf::gateway(), Abilities::default(), self.sharing());
        let own = self.ways.links.get(&key).filter(|own| !own.is_gone());
        own.is_some_and(|own| Arc::ptr_eq(&own.0, &link.0))
    }

    /// Whether single resources can be subscribed to, of a server that says this of itself.
    pub(crate) fn tells_of_resources(&self, info: &Info) -> bool {
        let declared = info.capabilities.object("resources").and_then(|of| of.get("subscribe")?.read::<bool>());
        declared == Some(true) && self.is_alike() && self.is_one_for_all()
    }

    /// Subscribes to a resource for somebody.
    pub(crate) async fn subscribe(self: &Arc<Self>, uri: &str) -> Result<Subscribed, NotSubscribed> {
        let info = timeout(OPENING, self.info()).await.ok().and_then(Result::ok);
        if !info.is_some_and(|info| self.tells_of_resources(&info)) {
            return Err(NotSubscribed::Unable);
        }
        let uri: Arc<str> = uri.into();
        let begins = self.subscriptions.join(&uri)?;
        let subscribed = Subscribed { server: self.number, subscriptions: Arc::clone(&self.subscriptions), uri };
        if begins {
            self.begin_to_see();
        }
        // A server that is away for a moment is told when it is back.
        match timeout(OPENING, self.subscriptions.said(&subscribed.uri)).await {
            Ok(said) => said.map(|()| subscribed),
            Err(_) => Ok(subscribed),
        }
    }

    fn begin_to_see(self: &Arc<Self>) {
        let server = Arc::clone(self);
        self.tasks.spawn(async move {
            let end = server.end.clone();
            end.run_until_cancelled(Arc::clone(&server).see_to_subscriptions()).await;
        });
    }

    /// Goes on with what was subscribed to at the server whose place this one takes.
    pub(crate) fn take_over_subscriptions(self: &Arc<Self>) {
        self.subscriptions.renew();
        if !self.subscriptions.rests() {
            self.begin_to_see();
        }
    }

    async fn see_to_subscriptions(self: Arc<Self>) {
        let mut pause = PAUSE;
        loop {
            // Nothing changes at one that sleeps, and it is not woken for this.
            self.until_awake().await;
            let begun = Instant::now();
            let ended = match self.info().await {
                Ok(info) if info.revision.is_modern() => self.follow_resources(&info).await,
                Ok(_) => self.subscribe_in_session().await,
                Err(failed) => Err(failed),
            };
            if self.subscriptions.rests() {
                return;
            }
            pause = match ended {
                Ok(()) => PAUSE,
                Err(failed) => {
                    let (server, why) = (&self.config.name, failed.why());
                    tracing::debug!(server, why, "resources of an MCP server cannot be subscribed to");
                    // One that lasted for longer than the pause before it ended as any may.
                    if begun.elapsed() > pause { PAUSE } else { (pause * 2).min(PAUSE_MAX) }
                }
            };
            let [random] = crate::token::random();
            tokio::time::sleep(pause.mul_f64(0.75 + f64::from(random) / 512.0)).await;
            self.subscriptions.renew();
        }
    }

    /// Follows a stream of what is wanted, of a server of 2026-07-28, until it ends or nothing is.
    async fn follow_resources(&self, info: &Info) -> Result<(), Failed> {
        let mut open: Option<Exchange> = None;
        let mut changes = self.endpoint_changes();
        loop {
            // What is wanted no more is told by what the next stream is not asked for.
            drop(self.subscriptions.left());
            let wanted = self.subscriptions.wanted();
            if wanted.is_empty() {
                return Ok(());
            }
            let uris: Vec<&str> = wanted.iter().map(AsRef::as_ref).collect();
            let filter: Object = [("resourceSubscriptions".to_owned(), Json::of(&uris))].into_iter().collect();
            let Some(mut opening) = self.listen(info, filter).await? else { return Ok(()) };
            match self.acknowledged(&mut opening, open.as_mut()).await? {
                Ok(honoured) => {
                    for uri in &wanted {
                        let is_honoured = honoured.contains(&**uri);
                        let state = if is_honoured { State::Active } else { refused("it does not tell of this one") };
                        let is_missed = self.subscriptions.settle(uri, state);
                        // It may have changed before this stream was open, which that before has not told yet, or
                        // cannot as there was none.
                        if is_missed || (is_honoured && open.is_some()) {
                            self.changes.updated(Arc::clone(uri));
                        }
                    }
                }
                Err(error) => {
                    for uri in &wanted {
                        self.subscriptions.settle(uri, State::Refused(error.clone()));
                    }
                }
            }
            let exchange = open.insert(opening);
            loop {
                tokio::select! {
                    said = exchange.next() => match said? {
                        Said::Notice { method, params } => drop(self.changes.hear(&method, params.as_ref())),
                        Said::Answer(_) => return Ok(()),
                        Said::Asks { .. } => {}
                    },
                    () = self.subscriptions.changed.notified() => {
                        if self.subscriptions.wanted() != wanted {
                            break;
                        }
                    }
                    // It would say nothing more, and might not end.
                    () = changed(&mut changes) => {
                        if exchange.must_move() {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// Waits until a stream is acknowledged, while the one before is still read: what the server honours, or its error.
    async fn acknowledged(
        &self,
        opening: &mut Exchange,
        mut before: Option<&mut Exchange>,
    ) -> Result<Result<BTreeSet<String>, Json>, Failed> {
        let acknowledging = async {
            loop {
                tokio::select! {
                    said = opening.next() => match said? {
                        Said::Notice { method, params } if method == "notifications/subscriptions/acknowledged" => {
                            let told = Object::read_optional(params.as_ref()).unwrap_or_default();
                            let honoured = told.object("notifications").and_then(|of| of.get("resourceSubscriptions")?.read());
                            return Ok(Ok(honoured.unwrap_or_default()));
                        }
                        Said::Notice { method, params } => drop(self.changes.hear(&method, params.as_ref())),
                        Said::Answer(Outcome::Error(error)) => return Ok(Err(error)),
                        Said::Answer(Outcome::Result(_)) => return Ok(Ok(BTreeSet::new())),
                        Said::Asks { .. } => {}
                    },
                    said = next_of(&mut before) => match said {
                        Ok(Said::Notice { method, params }) => drop(self.changes.hear(&method, params.as_ref())),
                        Ok(_) => {}
                        Err(_) => before = None,
                    },
                }
            }
        };
        timeout(OPENING, acknowledging).await.unwrap_or(Err(Failed::Late))
    }

    /// Asks a server of before 2026-07-28 for each resource, until its session is another or nothing is wanted.
    async fn subscribe_in_session(&self) -> Result<(), Failed> {
        // It is known before anything is asked in it, so that nothing is taken to be asked in one that comes after it.
        let session = self.own_link().await?;
        loop {
            for uri in self.subscriptions.left() {
                // It is no harm when it goes on to tell of it.
                drop(self.ask_about("resources/unsubscribe", &uri).await);
            }
            for uri in self.subscriptions.new_ones() {
                let state = match self.ask_about("resources/subscribe", &uri).await? {
                    Outcome::Result(_) => State::Active,
                    Outcome::Error(error) => State::Refused(error),
                };
                if self.subscriptions.settle(&uri, state) {
                    self.changes.updated(uri);
                }
            }
            if self.subscriptions.wanted().is_empty() || !self.is_own(&session) {
                return Ok(());
            }
            drop(timeout(CHECK, self.subscriptions.changed.notified()).await);
        }
    }

    async fn ask_about(&self, method: &str, uri: &Arc<str>) -> Result<Outcome, Failed> {
        let mut ask = Ask::own(method);
        ask.params.set("uri", Json::of(&**uri));
        let asked = async { answer(&mut self.send(&OnBehalf::gateway(), &ask, None).await?).await };
        timeout(OPENING, asked).await.unwrap_or(Err(Failed::Late))
    }
}

fn refused(why: &str) -> State {
    State::Refused(Json::of(&json!({ "code": crate::refusal::INVALID_PARAMS, "message": why })))
}

async fn next_of(exchange: &mut Option<&mut Exchange>) -> Result<Said, Failed> {
    match exchange {
        Some(exchange) => exchange.next().await,
        None => std::future::pending().await,
    }
}
