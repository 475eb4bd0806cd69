//! The servers that there are, while they come, change and go.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    config::ServerConfig,
    hub::Hub,
    lists::Kind,
    upstream::{Changed, Server},
};

/// How often it is looked whether what a server had under way has ended.
const LOOK: Duration = Duration::from_millis(200);

/// The servers at one moment: a request that has begun goes on with those of its beginning.
pub(crate) type Snapshot = Arc<[Arc<Server>]>;

/// Who has named a server: nobody else changes it or takes it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The configuration, or whoever embeds the gateway.
    Configured,
    /// The operator.
    Operator,
}

/// The servers, those of the configuration first and in its order, then the others by name: every replica has them in
/// the same order, which decides where only one can win.
#[derive(Default)]
pub(crate) struct Servers {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: Option<Snapshot>,
    by_name: HashMap<String, Arc<Server>>,
}

impl Held {
    fn all(&self) -> Snapshot {
        self.all.clone().unwrap_or_default()
    }
}

/// Whether a server stands before where another is to be put that is none yet.
fn is_before(server: &Server, other: &Server) -> bool {
    match (server.source, other.source) {
        (Source::Configured, _) => true,
        (Source::Operator, Source::Configured) => false,
        (Source::Operator, Source::Operator) => server.config.name < other.config.name,
    }
}

impl Servers {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Snapshot {
        self.held().all()
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<Server>> {
        self.held().by_name.get(name).cloned()
    }

    /// Puts a server among them, in the place of the one of its name.
    fn put(&self, source: Source, make: impl FnOnce(Option<&Server>) -> Arc<Server>, name: &str) -> Put {
        let mut held = self.held();
        let before = held.by_name.get(name).cloned();
        if let Some(other) = before.as_ref().filter(|server| server.source != source) {
            return Put::Taken(other.source);
        }
        let made = make(before.as_deref());
        let mut servers = held.all().to_vec();
        if servers.iter().any(|other| other.number == made.number && other.config.name != name) {
            return Put::Clashes;
        }
        match before.as_ref().and_then(|before| servers.iter().position(|server| Arc::ptr_eq(server, before))) {
            Some(at) => servers[at] = Arc::clone(&made),
            None => servers.insert(servers.partition_point(|server| is_before(server, &made)), Arc::clone(&made)),
        }
        held.all = Some(servers.into());
        held.by_name.insert(name.to_owned(), Arc::clone(&made));
        Put::Done { made, before }
    }

    fn take(&self, source: Source, name: &str) -> Option<Arc<Server>> {
        let mut held = self.held();
        let taken = held.by_name.get(name).filter(|server| server.source == source).cloned()?;
        held.by_name.remove(name);
        let left: Vec<_> = held.all().iter().filter(|server| !Arc::ptr_eq(server, &taken)).cloned().collect();
        held.all = Some(left.into());
        Some(taken)
    }
}

enum Put {
    Done { made: Arc<Server>, before: Option<Arc<Server>> },
    Taken(Source),
    Clashes,
}

impl Hub {
    /// Adds a server, or changes the one of its name. Requests under way are not disturbed: they end with what there
    /// was when they began.
    ///
    /// # Errors
    /// What is wrong with it, in sentences.
    pub(crate) fn put(self: &Arc<Self>, source: Source, config: ServerConfig) -> Result<(), Vec<String>> {
        let name = config.name.clone();
        let named = |why: String| format!("server '{}': {why}", name.escape_debug());
        let faults: Vec<_> = config.check().into_iter().map(named).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        if let Some(known) = self.servers.named(&name).filter(|known| known.source == source)
            && known.takes(&config)
        {
            return Ok(());
        }
        let make = |before: Option<&Server>| Server::new(config, source, &self.common, before);
        match self.servers.put(source, make, &name) {
            Put::Done { made, before } => {
                self.lists.servers_changed();
                self.attend(&made);
                if let Some(before) = before {
                    before.end.cancel();
                    made.take_over_subscriptions();
                    self.tasks.spawn(retire(before, Some(made)));
                }
                Ok(())
            }
            Put::Taken(Source::Configured) => Err(vec![named("the configuration has one of this name".to_owned())]),
            Put::Taken(Source::Operator) => Err(vec![named("the operator has one of this name".to_owned())]),
            Put::Clashes => {
                Err(vec![named("its number is that of another server by chance; choose another name".to_owned())])
            }
        }
    }

    /// Takes a server away; whether there was one. What it has under way is let end.
    pub(crate) fn remove(self: &Arc<Self>, source: Source, name: &str) -> bool {
        let Some(taken) = self.servers.take(source, name) else { return false };
        self.lists.servers_changed();
        self.lists.forget(&taken);
        taken.end.cancel();
        taken.gate.close();
        Changed::ALL.into_iter().for_each(|changed| taken.changes.tell(changed));
        self.tasks.spawn(retire(taken, None));
        true
    }

    /// Something without which the gateway is not ready.
    pub(crate) fn unready(self: &Arc<Self>) -> Unready {
        self.unmet.fetch_add(1, Ordering::AcqRel);
        Unready(Arc::clone(self))
    }

    /// Meets a server that is new or has changed, and follows what it tells.
    fn attend(self: &Arc<Self>, server: &Arc<Server>) {
        Changed::ALL.into_iter().for_each(|changed| server.changes.tell(changed));
        let met = self.starting.load(Ordering::Acquire).then(|| self.unready());
        let (hub, server) = (Arc::clone(self), Arc::clone(server));
        let end = server.end.clone();
        self.tasks.spawn(async move {
            let mut met = met;
            if server.is_asleep() {
                // It is let sleep, and met when it wakes.
                met = None;
                if end.run_until_cancelled(server.until_awake()).await.is_none() {
                    return;
                }
            }
            let asker = hub.own_asker();
            // Whoever comes first need not wait for what is the same for all.
            let lists = Kind::ALL.map(|kind| hub.lists.of(&server, kind, &asker));
            drop(end.run_until_cancelled(futures::future::join_all(lists)).await);
            drop(met);
            server.watch(end).await;
        });
    }
}

/// That the gateway is not ready before this is dropped.
pub(crate) struct Unready(Arc<Hub>);

impl Drop for Unready {
    fn drop(&mut self) {
        self.0.unmet.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Lets what a server has under way end, also when the gateway stops meanwhile, then ends its sessions and children,
/// unless its successor has them.
async fn retire(server: Arc<Server>, successor: Option<Arc<Server>>) {
    let until = Instant::now() + server.config.deadline_max;
    while Arc::strong_count(&server.used) > 1 && Instant::now() < until {
        sleep(LOOK).await;
    }
    if !successor.is_some_and(|successor| successor.shares_links_with(&server)) {
        server.close().await;
    }
}
