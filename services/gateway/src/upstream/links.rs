//! Sessions and children of one server, each for those it may serve.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use moka::{future::Cache, notification::RemovalCause, policy::EvictionPolicy};
use tokio::time::Instant;

use super::{OnBehalf, beside::Beside, child::Child, http_link::Route};
use crate::{abilities::Abilities, caller::Digest, config::Sharing, message::Revision, telemetry::Meters};

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
        let (since, beside) = (Instant::now(), Arc::default());
        Self(Arc::new(Open { way, counts, beside, since, meters: meters.clone(), server: server.to_owned() }))
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

pub(crate) type Links = Cache<LinkKey, Link>;

/// Links that are let go when nobody used them for `idle`, or there are more than `most`.
pub(crate) fn links(most: u64, idle: Duration) -> Links {
    let ended = |_: Arc<LinkKey>, link: Link, cause: RemovalCause| {
        match &link.0.way {
            // What was taken out for a reason is seen to by whoever did.
            Way::Session(route) if cause != RemovalCause::Explicit => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    let route = route.clone();
                    runtime.spawn(async move { route.end().await });
                }
            }
            Way::Session(_) => {}
            Way::Child { child, .. } => child.retire(),
        }
    };
    // Not by how often: one that has just been opened would have to go first.
    let policy = EvictionPolicy::lru();
    Cache::builder().max_capacity(most).time_to_idle(idle).eviction_policy(policy).eviction_listener(ended).build()
}
