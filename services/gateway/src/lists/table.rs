//! From a name to the server that has it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Asker, Entry, Kind, Lists, fetch::Listed, names};
use crate::{servers::Snapshot, upstream::Server};

/// An entry of a server, found by its name.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) server: Arc<Server>,
    pub(crate) listed: Option<(Arc<Listed>, usize)>,
    /// As the server names it.
    pub(crate) own: String,
}

impl Offer {
    pub(crate) fn entry(&self) -> Option<&Entry> {
        let (listed, at) = self.listed.as_ref()?;
        listed.entries.get(*at)
    }
}

/// All entries of a kind as somebody sees them.
pub(crate) struct Table {
    /// Those that there were when it was made: places are places among them.
    servers: Snapshot,
    pub(super) names: BTreeMap<String, (usize, usize)>,
    pub(super) lists: Vec<Option<Arc<Listed>>>,
    /// For how long it may be kept, and whether by everybody.
    pub(super) kept: Duration,
    pub(super) is_public: bool,
    generation: u64,
    made: Instant,
}

/// For how long names are looked up in a table though lists have changed since, so that a server whose list is never
/// the same does not have all lists read with each call. A name that is not in it is looked for at once.
const SETTLED: Duration = Duration::from_secs(1);

/// What is counted of a name beside itself, in bytes.
const NAME: usize = 64;

/// For how long a list is kept in which a server is missing.
const KEPT_WITHOUT: Duration = Duration::from_secs(2);

impl Lists {
    /// All entries of a kind, asked for where they are not known to be as they were.
    pub(crate) async fn table(self: &Arc<Self>, servers: &Snapshot, kind: Kind, asker: &Asker) -> Arc<Table> {
        let generation = self.generation();
        let got = futures::future::join_all(servers.iter().map(|server| self.of(server, kind, asker))).await;
        let mut table = Table {
            servers: Arc::clone(servers),
            names: BTreeMap::new(),
            lists: Vec::new(),
            kept: Duration::MAX,
            is_public: true,
            generation,
            made: Instant::now(),
        };
        for got in got {
            let left = match &got {
                Some(got) if got.is_fresh => got.listed.left(),
                _ => KEPT_WITHOUT,
            };
            table.kept = table.kept.min(left);
            table.is_public &= got.as_ref().is_none_or(|got| got.listed.is_public);
            table.lists.push(got.map(|got| got.listed));
        }
        table.name(kind);
        let table = Arc::new(table);
        if servers.len() > 1 {
            self.tables.insert((kind, asker.caller.context, asker.abilities), Arc::clone(&table));
        }
        table
    }

    /// Finds an entry among those of all servers. Names are looked up in what is known; it is asked again for a name
    /// that is not there.
    pub(crate) async fn find(self: &Arc<Self>, servers: &Snapshot, kind: Kind, asker: &Asker, name: &str) -> Found {
        let key = (kind, asker.caller.context, asker.abilities);
        let settled = |table: &Arc<Table>| table.generation == self.generation() || table.made.elapsed() < SETTLED;
        // With other servers a name may mean another, or none.
        let same = |table: &Arc<Table>| Arc::ptr_eq(&table.servers, servers);
        if let Some(table) = self.tables.get(&key).filter(same).filter(settled) {
            let found = table.find(kind, name);
            if !matches!(found, Found::Nobody { .. }) {
                return found;
            }
        }
        self.table(servers, kind, asker).await.find(kind, name)
    }
}

/// Whose a name is.
pub(crate) enum Found {
    One(Offer),
    /// Several servers have it; by these names each of them is meant.
    Several(Vec<String>),
    /// Nobody has it, of those whose lists are known.
    Nobody {
        is_whole: bool,
    },
}

impl Table {
    fn name(&mut self, kind: Kind) {
        let own: Vec<Vec<&str>> = self.lists.iter().map(|list| owns(list.as_deref())).collect();
        self.names = if kind.is_prefixed() && self.servers.len() > 1 {
            names::shown(&names_of(&self.servers), &own)
        } else {
            // Of those who have the same address the first in the configuration has it.
            let all = own.iter().enumerate().rev().flat_map(|(server, list)| {
                list.iter().enumerate().map(move |(at, own)| ((*own).to_owned(), (server, at)))
            });
            all.collect()
        };
    }

    /// What it takes of memory: its names, and the lists that are nobody else's.
    pub(super) fn bytes(&self) -> u32 {
        let names: usize = self.names.keys().map(|name| name.len() + NAME).sum();
        let lists = self.lists.iter().flatten().filter(|listed| !listed.is_public).map(|listed| listed.bytes);
        u32::try_from(lists.fold(names, usize::saturating_add)).unwrap_or(u32::MAX)
    }

    /// Whether nothing is known of any server that there is.
    pub(crate) fn is_unknown(&self) -> bool {
        !self.lists.is_empty() && self.lists.iter().all(Option::is_none)
    }

    fn offer(&self, server: usize, at: usize) -> Option<Offer> {
        let listed = self.lists[server].clone()?;
        let own = listed.entries.get(at)?.name.clone();
        Some(Offer { server: Arc::clone(&self.servers[server]), listed: Some((listed, at)), own })
    }

    pub(crate) fn find(&self, kind: Kind, name: &str) -> Found {
        if let Some((server, at)) = self.names.get(name)
            && let Some(offer) = self.offer(*server, *at)
        {
            return Found::One(offer);
        }
        let nobody = || Found::Nobody { is_whole: self.lists.iter().all(Option::is_some) };
        if !kind.is_prefixed() || self.servers.len() < 2 {
            return nobody();
        }
        let known = names_of(&self.servers);
        let at = |server: usize, own: &str| {
            let listed = self.lists[server].as_ref()?;
            listed.entries.iter().position(|entry| entry.name == own)
        };
        if let Some((server, own)) = names::split(name, &known) {
            return match at(server, own).and_then(|at| self.offer(server, at)) {
                Some(offer) => Found::One(offer),
                // Its list cannot be had now; it will know itself.
                None if self.lists[server].is_none() => {
                    Found::One(Offer { server: Arc::clone(&self.servers[server]), listed: None, own: own.to_owned() })
                }
                None => Found::Nobody { is_whole: true },
            };
        }
        let having = (0..self.servers.len()).filter(|server| at(*server, name).is_some());
        let meant: Vec<_> = having.map(|server| names::prefixed(known[server], name)).collect();
        if meant.is_empty() { nobody() } else { Found::Several(meant) }
    }

    /// The server whose template an address fits most closely, by what stands before the first variable.
    pub(crate) fn fitting(&self, uri: &str) -> Option<&Arc<Server>> {
        let literal = |template: &str| template.split('{').next().unwrap_or_default().to_owned();
        let fits = self.names.iter().filter_map(|(template, (server, _))| {
            let literal = literal(template);
            (!literal.is_empty() && uri.starts_with(&literal)).then_some((literal.len(), *server))
        });
        // Of templates that fit as closely, that of the first server in the configuration.
        fits.max_by_key(|(length, server)| (*length, std::cmp::Reverse(*server)))
            .map(|(_, server)| &self.servers[server])
    }
}

fn names_of(servers: &[Arc<Server>]) -> Vec<&str> {
    servers.iter().map(|server| server.config.name.as_str()).collect()
}

fn owns(list: Option<&Listed>) -> Vec<&str> {
    list.map(|list| list.entries.iter().map(|entry| entry.name.as_str()).collect()).unwrap_or_default()
}
