//! What the operator has told of its servers, by way of the streams of all shards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use echotune_api::demand::{MAX_SERVERS, RouteName, Served, ServerName, Update, shard_of};

use super::{PodOptions, served::config_of};
use crate::{
    hub::Hub,
    servers::{Source, Unready},
};

/// One of as many shards as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) number: u16,
    pub(super) of: u16,
}

impl Shard {
    /// Whether a server of this name is of it.
    pub(super) fn has(self, server: &str) -> bool {
        shard_of(server, self.of) == self.number
    }
}

/// What is known of servers.
pub(super) struct Known {
    hub: Arc<Hub>,
    pods: PodOptions,
    /// Each server with its name here.
    routes: BTreeMap<ServerName, RouteName>,
    /// Those whose name another still has.
    waiting: BTreeMap<ServerName, Served>,
    /// Shards of which all was told.
    complete: BTreeSet<u16>,
    /// Until all was told of all shards.
    unready: Option<Unready>,
}

impl Known {
    pub(super) fn new(hub: Arc<Hub>, pods: PodOptions) -> Self {
        let (routes, waiting, complete) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { unready: Some(hub.unready()), hub, pods, routes, waiting, complete }
    }

    /// The gateway is ready from now on, whatever was told; whether it was not before.
    pub(super) fn be_ready(&mut self) -> bool {
        self.unready.take().is_some()
    }

    /// Servers are in other shards from now on. What was told of them holds.
    pub(super) fn begin_anew(&mut self) {
        self.complete.clear();
    }

    /// Takes in what a stream of a shard tells. `told` are the servers that it has told of until it was complete: of
    /// that shard what is not among them then is no more.
    pub(super) fn apply(&mut self, shard: Shard, update: &Update, told: &mut Option<BTreeSet<ServerName>>) {
        for server in &update.removed {
            self.remove(server);
        }
        for served in &update.servers {
            if let Some(told) = told {
                told.insert(served.server.clone());
            }
            self.put(served);
        }
        if update.complete
            && let Some(told) = told.take()
        {
            let known = self.routes.keys().chain(self.waiting.keys());
            let is_gone = |known: &&ServerName| shard.has(known.as_str()) && !told.contains(*known);
            let gone: Vec<_> = known.filter(is_gone).cloned().collect();
            gone.iter().for_each(|server| self.remove(server));
            self.complete.insert(shard.number);
            if self.complete.len() >= usize::from(shard.of) {
                self.unready = None;
            }
        }
    }

    fn remove(&mut self, server: &ServerName) {
        self.waiting.remove(server);
        let Some(route) = self.routes.remove(server) else { return };
        self.hub.remove(Source::Operator, route.as_str());
        let next = self.waiting.values().find(|served| served.route == route).cloned();
        if let Some(next) = next {
            self.put(&next);
        }
    }

    fn put(&mut self, served: &Served) {
        let server = &served.server;
        if self.routes.get(server).is_some_and(|route| *route != served.route) {
            self.remove(server);
        }
        self.waiting.remove(server);
        let taken = self.routes.iter().find(|(other, route)| **route == served.route && *other != server);
        let full = self.routes.len() + self.waiting.len() >= MAX_SERVERS && !self.routes.contains_key(server);
        if full {
            tracing::error!(%server, most = MAX_SERVERS, "there are more servers than the gateway takes");
            return;
        }
        if let Some((other, route)) = taken {
            // Whoever leads the other may tell only now that it has that name no more.
            tracing::warn!(%server, %other, %route, "two servers have one name at the gateway; the later waits for it");
            self.waiting.insert(server.clone(), served.clone());
            return;
        }
        match self.hub.put(Source::Operator, config_of(served, &self.pods)) {
            Ok(()) => {
                self.routes.insert(server.clone(), served.route.clone());
            }
            // What it was before goes on, if it was there.
            Err(faults) => tracing::error!(%server, ?faults, "a server of the operator cannot be served"),
        }
    }
}
