//! Sessions and children of one server, each for those it may serve.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::OnceCell, time::Instant};

use super::{Failed, OnBehalf, beside::Beside, child::Child, ends::Ends, http_link::Route};
use crate::{
    abilities::Abilities,
    caller::Digest,
    config::Sharing,
    kept::{AllInUse, InUse, Kept},
    message::Revision,
    telemetry::Meters,
};

/// Who shares a link: what one learns from a session or a child must not be another's to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkKey {
    owner: Digest,
    session: Digest,
    abilities: Abilities,
}

impl LinkKey {
    pub(crate) fn new(on: &OnBehalf, abilities: Abilities, sharing: Sharing) -> Self {
        let none = [0; 16];
        match sharing {
            Sharing::All => Self { owner: none, session: none, abilities: Abilities::default() },
            Sharing::Caller => Self { owner: on.owner, session: none, abilities },
            Sharing::Session => Self { owner: on.owner, session: on.session.unwrap_or(none), abilities },
        }
    }

    /// Whether it is everybody's.
    pub(crate) fn is_shared(&self) -> bool {
        self.owner == [0; 16] && self.session == [0; 16] && self.abilities == Abilities::default()
    }
}

/// An open session or child.
#[derive(Clone)]
pub(crate) struct Link(pub(crate) Arc<Open>);

pub(crate) struct Open {
    pub(crate) way: Way,
    /// Whether it is a session of a client: those of the gateway itself keep no pod.
    counts: bool,
    pub(super) beside: Arc<Beside>,
    /// Held by each request and stream of a session.
    pub(super) used: Arc<()>,
    since: Instant,
    meters: Meters,
    server: String,
}

pub(crate) enum Way {
    Session(Box<Route>),
    Child { child: Arc<Child>, revision: Revision },
}

impl Link {
    /// A session or child that was opened for somebody.
    pub(crate) fn new(way: Way, on: &OnBehalf, server: &str, meters: &Meters) -> Self {
        let counts = !on.is_gateway();
        if let Way::Session(route) = &way {
            route.endpoint.sessions.fetch_add(usize::from(counts), Ordering::Relaxed);
        }
        let (since, beside, used) = (Instant::now(), Arc::default(), Arc::default());
        Self(Arc::new(Open { way, counts, beside, used, since, meters: meters.clone(), server: server.to_owned() }))
    }

    /// Whether it is of no use any more: it has ended, or the pod that it was on is gone. What the gateway has for
    /// itself leaves a pod that drains too.
    pub(crate) fn is_gone(&self) -> bool {
        match &self.0.way {
            Way::Child { child, .. } => child.is_gone(),
            Way::Session(route) => route.endpoint.is_gone() || (!self.0.counts && route.endpoint.is_draining()),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.beside.end.cancel();
        if let Way::Session(route) = &self.way {
            route.endpoint.sessions.fetch_sub(usize::from(self.counts), Ordering::Relaxed);
        }
        self.meters.client_session(self.since.elapsed(), &self.server);
    }
}

/// How the session or child that somebody waits for was opened.
type Opened = Arc<OnceCell<Result<Link, Failed>>>;

/// What is open with a server: as much as there may be, each until nobody used it for a while. Whoever has a request or
/// a stream under way is not let go for another.
pub(crate) struct Links {
    server: String,
    ends: Ends,
    kept: Kept<LinkKey, Link>,
    /// What is being opened, by all who wait for it.
    opening: Mutex<HashMap<LinkKey, Opened>>,
    /// Nothing is opened any more.
    is_closed: AtomicBool,
}

/// Somebody who waits for what is being opened.
struct Waits<'a> {
    links: &'a Links,
    key: LinkKey,
    opened: Opened,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        // Let go while nobody else looks: of two who leave at once each would take the other for one who waits still.
        let (key, opened) = (self.key, std::mem::take(&mut self.opened));
        self.links.opening(|opening| {
            let is_mine = opening.get(&key).is_some_and(|known| Arc::ptr_eq(known, &opened));
            // What has been opened is kept, and what failed is tried anew by who comes next. Of those that wait for one
            // that nobody opens any more the last is left: it, and this one.
            if is_mine && (opened.initialized() || Arc::strong_count(&opened) <= 2) {
                opening.remove(&key);
            }
            drop(opened);
        });
    }
}

impl Links {
    /// Links that are let go when nobody used them for `idle`, or another wants the place of one of `most`.
    pub(crate) fn new(server: &str, ends: &Ends, most: u64, idle: Duration) -> Self {
        Self {
            server: server.to_owned(),
            ends: ends.of_one(),
            kept: Kept::new(most, idle),
            opening: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    fn opening<T>(&self, work: impl FnOnce(&mut HashMap<LinkKey, Opened>) -> T) -> T {
        work(&mut self.opening.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn get(&self, key: &LinkKey) -> Option<Link> {
        self.kept.get(key)
    }

    /// The link of a key: the one that there is, or one that is opened, once for all who want it meanwhile. `full` is
    /// why not where all that may be open are in use, or nothing is opened any more.
    pub(crate) async fn get_or_open(
        &self,
        key: LinkKey,
        open: impl Future<Output = Result<Link, Failed>>,
        full: impl FnOnce() -> Failed,
    ) -> Result<Link, Failed> {
        let opened = self.opening(|opening| Arc::clone(opening.entry(key).or_default()));
        let waits = Waits { links: self, key, opened };
        let opening = async {
            // Another may have opened it just before.
            if let Some(link) = self.kept.get(&key).filter(|link| !link.is_gone()) {
                return Ok(link);
            }
            if self.is_closed() {
                return Err(full());
            }
            let Ok((room, gone)) = self.kept.reserve() else { return Err(full()) };
            self.let_go(gone);
            let link = open.await?;
            self.let_go(room.put(key, link.clone()));
            // What was opened while all was ended would be ended by nobody.
            if self.is_closed()
                && let Some(late) = self.kept.take_if(&key, |held| Arc::ptr_eq(&held.0, &link.0))
            {
                self.let_go([late]);
                return Err(full());
            }
            Ok(link)
        };
        waits.opened.get_or_init(|| opening).await.clone()
    }

    /// Keeps one that was opened to look at the server, where there is room and none of its key has anything under way:
    /// its stream would end with it, which would be taken for a sign that the server has to be looked at once more.
    pub(crate) fn keep(&self, key: LinkKey, link: Link) {
        if self.kept.get(&key).is_some_and(|held| held.is_followed()) {
            return self.let_go([link]);
        }
        match self.kept.reserve() {
            Ok((room, gone)) => {
                let before = room.put(key, link);
                self.let_go(before.into_iter().chain(gone));
                if self.is_closed() {
                    self.let_go(self.kept.take(&key));
                }
            }
            Err(AllInUse) => self.let_go([link]),
        }
    }

    /// Takes out one that is of no use any more, unless another has taken its place already.
    pub(crate) fn forget(&self, key: &LinkKey, link: &Link) {
        if let Some(forgotten) = self.kept.take_if(key, |held| Arc::ptr_eq(&held.0, &link.0)) {
            forgotten.retire();
        }
    }

    /// Takes one out for who sees to its end; a child sees to that by itself.
    pub(crate) fn remove(&self, key: &LinkKey) -> Option<Link> {
        let removed = self.kept.take(key);
        removed.iter().for_each(Link::retire);
        removed
    }

    /// Whether nothing is opened any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// The same with all, for good.
    fn close(&self) -> Vec<Link> {
        self.is_closed.store(true, Ordering::SeqCst);
        let removed = self.kept.take_all();
        removed.iter().for_each(Link::retire);
        removed
    }

    /// Lets go what nobody has used for long.
    pub(crate) fn tidy(&self) {
        self.let_go(self.kept.take_idle());
    }

    /// Ends all, for good, and waits for the ends of sessions.
    pub(crate) async fn end(&self) {
        self.ends.all(&self.server, ends(self.close())).await;
    }

    /// Gives up all that is open, and tells of the sessions that nobody ends any more.
    pub(crate) fn give_up(&self) {
        let sessions = self.close().into_iter().filter(Link::is_session).count();
        self.ends.give_up(&self.server, sessions);
    }

    /// Ends links beside whatever else is done.
    fn let_go(&self, links: impl IntoIterator<Item = Link>) {
        let sessions = ends(links.into_iter().collect());
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !sessions.is_empty()
        {
            let (ends, server) = (self.ends.clone(), self.server.clone());
            self.ends.tasks.spawn_on(async move { ends.all(&server, sessions).await }, &runtime);
        }
    }
}

/// What ends sessions; children are told to.
fn ends(links: Vec<Link>) -> Vec<impl Future<Output = ()> + Send + use<>> {
    let mut ends = Vec::new();
    for link in links {
        link.retire();
        if let Way::Session(route) = &link.0.way {
            let route = route.clone();
            ends.push(async move { route.end().await });
        }
    }
    ends
}

impl InUse for Link {
    fn is_in_use(&self) -> bool {
        let is_asked = match &self.0.way {
            Way::Child { child, .. } => child.is_asked(),
            Way::Session(_) => Arc::strong_count(&self.0.used) > 1,
        };
        // Or somebody is about to ask: one is held by the table.
        is_asked || Arc::strong_count(&self.0) > 1
    }
}

impl Link {
    /// Whether it is a session with a request or a stream under way, and not gone.
    fn is_followed(&self) -> bool {
        self.is_session() && Arc::strong_count(&self.0.used) > 1 && !self.is_gone()
    }

    /// Ends a child once the last request under way has ended.
    fn retire(&self) {
        if let Way::Child { child, .. } = &self.0.way {
            child.retire();
        }
    }

    fn is_session(&self) -> bool {
        matches!(self.0.way, Way::Session(_))
    }
}
