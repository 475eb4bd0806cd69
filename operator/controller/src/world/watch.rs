//! Watches: each keeps a part of the index, is listed anew when it has expired, and tells which servers are touched.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
};

use echotune_api::demand::ServerName;
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::{
    core::v1::{Pod, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use serde::de::DeserializeOwned;

use super::{Index, Key, Kind, PodSeen, Server, World, server_of};
use crate::{
    build::{Child, MANAGED_BY, MANAGER, child_name, disruptions, endpoints, identity, rules},
    crd::{MCPScalingPolicy, MCPServer},
    metrics::Metrics,
};

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// What watches tell, and to whom.
#[derive(Clone)]
pub struct Watches {
    /// The way to the API server.
    pub client: Client,
    /// Namespaces that are watched; all when there is none.
    pub namespace: Option<String>,
    /// What is kept.
    pub world: Arc<World>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told of servers that are touched.
    pub touched: Arc<dyn Fn(ServerName) + Send + Sync>,
}

/// What a watch does with what it hears.
struct Keeper<K> {
    kind: Kind,
    put: fn(&mut Index, K) -> BTreeSet<ServerName>,
    drop: fn(&mut Index, &Key) -> BTreeSet<ServerName>,
    keys: fn(&Index) -> Vec<Key>,
}

/// Keeps the index by all watches, until it is dropped.
pub async fn watch(watches: Watches) {
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}")).page_size(PAGE);
    let all = watcher::Config::default().page_size(PAGE);
    let servers = ApiResource::erase::<MCPServer>(&());
    let servers: Api<DynamicObject> = match &watches.namespace {
        Some(namespace) => Api::namespaced_with(watches.client.clone(), namespace, &servers),
        None => Api::all_with(watches.client.clone(), &servers),
    };
    let policies = ApiResource::erase::<MCPScalingPolicy>(&());
    let policies: Api<DynamicObject> = match &watches.namespace {
        Some(namespace) => Api::namespaced_with(watches.client.clone(), namespace, &policies),
        None => Api::all_with(watches.client.clone(), &policies),
    };
    tokio::join!(
        watches.follow(policies, all.clone(), POLICIES),
        watches.follow(servers, all, SERVERS),
        watches.follow(watches.api::<Pod>(), ours.clone(), PODS),
        watches.follow(watches.api::<ServiceAccount>(), ours.clone(), beside::<ServiceAccount>()),
        watches.follow(watches.api::<Service>(), ours.clone(), beside::<Service>()),
        watches.follow(watches.api::<NetworkPolicy>(), ours.clone(), beside::<NetworkPolicy>()),
        watches.follow(watches.api::<PodDisruptionBudget>(), ours, beside::<PodDisruptionBudget>()),
    );
}

impl Watches {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn follow<K>(&self, api: Api<K>, config: watcher::Config, keeper: Keeper<K>)
    where
        K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        let mut listing = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    self.world.heard(keeper.kind);
                    self.take(event, &keeper, &mut listing);
                }
                Err(cause) => {
                    self.metrics.watch_failed(keeper.kind.name());
                    tracing::warn!(%cause, "the watch on {} is interrupted and goes on", keeper.kind.name());
                }
            }
        }
    }

    fn take<K: Resource>(&self, event: Event<K>, keeper: &Keeper<K>, listing: &mut HashSet<Key>) {
        let mut touched = BTreeSet::new();
        match event {
            Event::Init => listing.clear(),
            Event::InitApply(object) => {
                listing.insert(key(&object));
                touched = (keeper.put)(&mut self.world.index(), object);
            }
            Event::Apply(object) => touched = (keeper.put)(&mut self.world.index(), object),
            Event::Delete(object) => touched = (keeper.drop)(&mut self.world.index(), &key(&object)),
            Event::InitDone => {
                let mut index = self.world.index();
                for gone in (keeper.keys)(&index).into_iter().filter(|key| !listing.contains(key)) {
                    touched.extend((keeper.drop)(&mut index, &gone));
                }
                drop(index);
                *listing = HashSet::new();
                self.world.listed(keeper.kind);
            }
        }
        touched.into_iter().for_each(|server| (self.touched)(server));
    }
}

fn key(object: &impl Resource) -> Key {
    let meta = object.meta();
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&meta.namespace), part(&meta.name))
}

fn one(server: Option<ServerName>) -> BTreeSet<ServerName> {
    server.into_iter().collect()
}

const SERVERS: Keeper<DynamicObject> = Keeper {
    kind: Kind::Servers,
    put: |index, object| match key(&object).parse() {
        Ok(name) => index.put_server(&name, Server::of(object)),
        Err(_) => BTreeSet::new(),
    },
    drop: |index, key| key.parse().map(|name: ServerName| index.drop_server(&name)).unwrap_or_default(),
    keys: |index| index.servers.keys().map(ToString::to_string).collect(),
};

const POLICIES: Keeper<DynamicObject> = Keeper {
    kind: Kind::Policies,
    put: |index, object| {
        let key = key(&object);
        let read = object.try_parse::<MCPScalingPolicy>().map_err(|cause| cause.to_string());
        let checked = read.and_then(|policy| {
            let policy = policy.spec.policy;
            policy.check().map(|()| policy).map_err(|faults| faults.to_string())
        });
        index.put_policy(&key, checked)
    },
    drop: |index, key| index.drop_policy(key),
    keys: |index| index.policies.keys().cloned().collect(),
};

fn pod_keys(index: &Index) -> Vec<Key> {
    let of = |(server, pods): (&ServerName, &std::collections::BTreeMap<String, PodSeen>)| {
        pods.keys().map(|pod| format!("{}/{pod}", server.namespace())).collect::<Vec<_>>()
    };
    index.pods.iter().flat_map(of).collect()
}

/// The server that a key of a pod belongs to, and the pod's name: mcp-SERVER-REVISION-ORDINAL.
fn pod_server(key: &Key) -> Option<(ServerName, String)> {
    let (namespace, pod) = key.split_once('/')?;
    let server = pod.strip_prefix("mcp-")?.rsplit_once('-')?.0.rsplit_once('-')?.0;
    Some((format!("{namespace}/{server}").parse().ok()?, pod.to_owned()))
}

const PODS: Keeper<Pod> = Keeper {
    kind: Kind::Pods,
    put: |index, pod| {
        // One that has the labels and another name is a copy that somebody made: it is theirs.
        let named = pod_server(&key(&pod)).map(|(server, _)| server);
        let Some(server) = server_of(&pod.metadata).filter(|server| named.as_ref() == Some(server)) else {
            return BTreeSet::new();
        };
        let seen = PodSeen::of(&pod);
        let pods = index.pods.entry(server.clone()).or_default();
        let before = pods.insert(pod.name_any(), seen.clone());
        // Most changes of a pod are none to the operator.
        if before.as_ref() == Some(&seen) { BTreeSet::new() } else { one(Some(server)) }
    },
    drop: |index, key| {
        let Some((server, pod)) = pod_server(key) else { return BTreeSet::new() };
        if index.drop_pod(&server, &pod) { one(Some(server)) } else { BTreeSet::new() }
    },
    keys: pod_keys,
};

/// Something that stands beside the pods of a server.
trait Beside: Resource {
    const CHILD: Child;

    fn essence(&self) -> u64;
}

impl Beside for ServiceAccount {
    const CHILD: Child = Child::Account;

    fn essence(&self) -> u64 {
        identity(self)
    }
}

impl Beside for Service {
    const CHILD: Child = Child::Service;

    fn essence(&self) -> u64 {
        endpoints(self)
    }
}

impl Beside for NetworkPolicy {
    const CHILD: Child = Child::Network;

    fn essence(&self) -> u64 {
        rules(self)
    }
}

impl Beside for PodDisruptionBudget {
    const CHILD: Child = Child::Budget;

    fn essence(&self) -> u64 {
        disruptions(self)
    }
}

fn beside_server(key: &Key) -> Option<ServerName> {
    let (namespace, name) = key.split_once('/')?;
    format!("{namespace}/{}", name.strip_prefix("mcp-")?).parse().ok()
}

fn beside<K: Beside>() -> Keeper<K> {
    Keeper {
        kind: Kind::Beside(K::CHILD),
        put: |index, object| {
            let mine = |server: &ServerName| object.name_any() == child_name(server.name());
            let Some(server) = server_of(object.meta()).filter(mine) else { return BTreeSet::new() };
            let essence = Some(object.essence());
            let place = &mut index.beside.entry(server.clone()).or_default()[K::CHILD as usize];
            let before = std::mem::replace(place, essence);
            if before == essence { BTreeSet::new() } else { one(Some(server)) }
        },
        drop: |index, key| {
            let Some(server) = beside_server(key) else { return BTreeSet::new() };
            index.drop_beside(&server, K::CHILD);
            one(Some(server))
        },
        keys: |index| {
            let with = index.beside.iter().filter(|(_, beside)| beside[K::CHILD as usize].is_some());
            with.map(|(server, _)| format!("{}/mcp-{}", server.namespace(), server.name())).collect()
        },
    }
}
