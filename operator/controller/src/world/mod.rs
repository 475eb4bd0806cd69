//! What the cluster looks like: trimmed to what decisions are made from, and kept by watches.

mod seen;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use echotune_api::demand::ServerName;
use echotune_autoscaler::Policy;
use tokio::sync::watch as channel;

pub use self::{
    seen::{PodSeen, Replicas, Server, server_of},
    watch::{Watches, watch},
};
use crate::build::Child;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// MCPServers.
    Servers,
    /// MCPScalingPolicies.
    Policies,
    /// Pods of servers.
    Pods,
    /// What stands beside them.
    Beside(Child),
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Policies,
        Self::Servers,
        Self::Pods,
        Self::Beside(Child::Account),
        Self::Beside(Child::Service),
        Self::Beside(Child::Network),
        Self::Beside(Child::Budget),
    ];

    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Servers => "MCPServer",
            Self::Policies => "MCPScalingPolicy",
            Self::Pods => "Pod",
            Self::Beside(child) => child.kind(),
        }
    }
}

/// NAMESPACE/NAME of anything.
pub type Key = String;

/// What stands beside the pods of a server, each as a number, in the order of [`Child::ALL`].
pub type Beside = [Option<u64>; Child::ALL.len()];

/// A policy, or what is wrong with it.
pub type Checked = Result<Policy, String>;

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) servers: HashMap<ServerName, Server>,
    pub(crate) policies: HashMap<Key, Checked>,
    pub(crate) pods: HashMap<ServerName, BTreeMap<String, PodSeen>>,
    pub(crate) beside: HashMap<ServerName, Beside>,
    /// Servers by the policy that they name, and by the name that they want at the gateway, the oldest first.
    by_policy: HashMap<Key, BTreeSet<ServerName>>,
    by_route: HashMap<String, BTreeSet<(u64, ServerName)>>,
    synced: HashSet<Kind>,
    heard: HashMap<Kind, Instant>,
}

/// What is known of the cluster, and of when it changes.
#[derive(Debug)]
pub struct World {
    index: Mutex<Index>,
    complete: channel::Sender<bool>,
}

impl Default for World {
    fn default() -> Self {
        Self { index: Mutex::default(), complete: channel::Sender::new(false) }
    }
}

impl World {
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Done when everything has been listed once.
    pub async fn complete(&self) {
        let mut complete = self.complete.subscribe();
        // The sender is in self, which outlives this.
        let _complete = complete.wait_for(|complete| *complete).await;
    }

    /// Whether everything has been listed once.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    pub(crate) fn listed(&self, kind: Kind) {
        let mut index = self.index();
        index.synced.insert(kind);
        if index.synced.len() == Kind::ALL.len() {
            self.complete.send_replace(true);
        }
    }

    pub(crate) fn heard(&self, kind: Kind) {
        self.index().heard.insert(kind, Instant::now());
    }

    /// For each kind, how long ago its watch told anything, in seconds.
    pub fn ages(&self) -> Vec<(&'static str, f64)> {
        let index = self.index();
        let age = |kind: &Kind| Some((kind.name(), index.heard.get(kind)?.elapsed().as_secs_f64()));
        Kind::ALL.iter().filter_map(age).collect()
    }

    /// Servers that there are, and pods of theirs.
    pub fn counts(&self) -> (usize, usize) {
        let index = self.index();
        (index.servers.len(), index.pods.values().map(BTreeMap::len).sum())
    }

    /// Servers that have pods, each with its tenant and how many pods it has that are not being deleted.
    pub fn there(&self) -> Vec<(ServerName, String, u32)> {
        let index = self.index();
        let of = |(name, pods): (&ServerName, &BTreeMap<String, PodSeen>)| {
            let there = pods.values().filter(|pod| !pod.deleting).count();
            let tenant = index.servers.get(name)?.tenant.clone();
            Some((name.clone(), tenant, u32::try_from(there).unwrap_or(u32::MAX)))
        };
        index.pods.iter().filter_map(of).collect()
    }

    /// All servers.
    pub fn servers(&self) -> Vec<ServerName> {
        self.index().servers.keys().cloned().collect()
    }
}

impl Index {
    /// Takes in a server; those whose names at the gateway it frees or takes are touched too.
    pub(crate) fn put_server(&mut self, name: &ServerName, server: Server) -> BTreeSet<ServerName> {
        let mut touched = self.unlink(name);
        touched.insert(name.clone());
        if let Some(policy) = server.policy_key(name) {
            self.by_policy.entry(policy).or_default().insert(name.clone());
        }
        let rivals = self.by_route.entry(server.route(name)).or_default();
        rivals.insert((server.created_ms, name.clone()));
        touched.extend(rivals.iter().map(|(_, name)| name.clone()));
        self.servers.insert(name.clone(), server);
        touched
    }

    /// Forgets a server.
    pub(crate) fn drop_server(&mut self, name: &ServerName) -> BTreeSet<ServerName> {
        let mut touched = self.unlink(name);
        touched.insert(name.clone());
        self.servers.remove(name);
        touched
    }

    /// Takes a server out of what it is found by; those that want its name at the gateway are touched.
    fn unlink(&mut self, name: &ServerName) -> BTreeSet<ServerName> {
        let Some(server) = self.servers.get(name) else { return BTreeSet::new() };
        if let Some(policy) = server.policy_key(name)
            && let Some(users) = self.by_policy.get_mut(&policy)
        {
            users.remove(name);
            if users.is_empty() {
                self.by_policy.remove(&policy);
            }
        }
        let (route, created) = (server.route(name), server.created_ms);
        let Some(rivals) = self.by_route.get_mut(&route) else { return BTreeSet::new() };
        rivals.remove(&(created, name.clone()));
        let touched = rivals.iter().map(|(_, name)| name.clone()).collect();
        if rivals.is_empty() {
            self.by_route.remove(&route);
        }
        touched
    }

    pub(crate) fn put_policy(&mut self, key: &Key, policy: Checked) -> BTreeSet<ServerName> {
        self.policies.insert(key.clone(), policy);
        self.by_policy.get(key).cloned().unwrap_or_default()
    }

    pub(crate) fn drop_policy(&mut self, key: &Key) -> BTreeSet<ServerName> {
        self.policies.remove(key);
        self.by_policy.get(key).cloned().unwrap_or_default()
    }

    /// Whom the name at the gateway belongs to that this server wants: the oldest that wants it.
    pub(crate) fn route_owner(&self, name: &ServerName) -> Option<&ServerName> {
        let route = self.servers.get(name)?.route(name);
        self.by_route.get(&route)?.first().map(|(_, name)| name)
    }

    /// Forgets a pod; whether it was known.
    pub(crate) fn drop_pod(&mut self, server: &ServerName, pod: &str) -> bool {
        let Some(pods) = self.pods.get_mut(server) else { return false };
        let was_known = pods.remove(pod).is_some();
        if pods.is_empty() {
            self.pods.remove(server);
        }
        was_known
    }

    pub(crate) fn drop_beside(&mut self, server: &ServerName, child: Child) {
        if let Some(beside) = self.beside.get_mut(server) {
            beside[child as usize] = None;
            if beside.iter().all(Option::is_none) {
                self.beside.remove(server);
            }
        }
    }
}
