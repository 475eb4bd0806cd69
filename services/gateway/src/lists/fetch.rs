//! Fetching lists and keeping them, for those who may see them.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};

use super::{
    Entry, Kind, Table,
    file::{ListsFile, key_of},
    read_page,
};
use crate::{
    abilities::Abilities,
    caller::{Caller, Digest},
    config::Limits,
    message::{Json, Object, Outcome},
    ticket::now,
    upstream::{Ask, Declared, Exchange, Failed, OnBehalf, Said, Server},
};

/// How long a list may take. Who waits for it waits for one server, which must not keep those of others.
const WAIT: Duration = Duration::from_secs(3);
/// For how long nobody waits for a list again that could not be had, doubled up to the longest.
const REST: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(30);
/// For how long nobody waits again for one of many servers that sleeps.
const ASLEEP: Duration = Duration::from_secs(10);
/// For how long a list is kept at the most, whatever its server says.
const KEPT_MAX: Duration = Duration::from_secs(3_600);
/// For how long a list is served after its time when a newer one cannot be had.
const STALE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Pages of one list at the most.
const PAGES: usize = 100;
/// What is counted of a list beside what its server wrote, in bytes.
pub(super) const SLOT: usize = 256;

/// Who asks for a list.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) caller: Caller,
    pub(crate) abilities: Abilities,
    pub(crate) declared: Declared,
    /// Whether the list is of one server alone, so that it can be waited for.
    pub(crate) is_alone: bool,
}

/// A list as a server gave it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) fetched: Instant,
    pub(crate) kept: Duration,
    pub(crate) is_public: bool,
    /// Of the messages that it is from, which are kept as a whole.
    pub(super) bytes: usize,
    /// When it was asked for, in seconds since the Unix epoch: other processes have no other clock in common.
    pub(super) said: u32,
    /// How many changes there had been before it was asked for.
    changes: u64,
}

/// For whom a list is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SlotKey {
    server: u32,
    kind: Kind,
    /// Of whoever presented it; nobody's for lists that are everybody's.
    context: Option<Digest>,
    abilities: Abilities,
}

struct Slot {
    key: SlotKey,
    held: Mutex<Option<Arc<Listed>>>,
    fetching: AsyncMutex<()>,
}

impl Slot {
    fn new(key: SlotKey) -> Arc<Self> {
        Arc::new(Self { key, held: Mutex::default(), fetching: AsyncMutex::default() })
    }

    fn bytes(&self) -> u32 {
        let held = self.with(|held| held.as_ref().map_or(0, |listed| listed.bytes));
        u32::try_from(held.saturating_add(SLOT)).unwrap_or(u32::MAX)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<Arc<Listed>>) -> T) -> T {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lists of all servers.
pub(crate) struct Lists {
    slots: Cache<SlotKey, Arc<Slot>>,
    pub(super) tables: Cache<(Kind, Digest, Abilities), Arc<Table>>,
    generation: AtomicU64,
    /// Until when nobody waits for a list of a server, for whomever it would be.
    resting: Mutex<HashMap<(u32, Kind), (Instant, Duration)>>,
    /// Since when servers sleep that were waited for in vain.
    asleep: Mutex<HashMap<u32, Instant>>,
    /// What is listed for everybody, where that is kept.
    pub(super) file: OnceLock<Arc<ListsFile>>,
    entries: usize,
    /// Bytes of one list at the most.
    bytes: usize,
}

/// How it stands with a list that could not be had.
enum Failing {
    No,
    Resting,
    Due,
}

/// A list with how it stands.
pub(crate) struct Got {
    pub(crate) listed: Arc<Listed>,
    pub(crate) is_fresh: bool,
}

impl Lists {
    pub(crate) fn new(limits: &Limits) -> Self {
        let kept = Duration::from_secs(3_600);
        // By their size, for who asks decides how many there are, and servers how large each is.
        let most = u64::try_from(limits.lists_bytes).unwrap_or(u64::MAX);
        let slots = Cache::builder().weigher(|_: &SlotKey, slot: &Arc<Slot>| slot.bytes());
        let tables = Cache::builder().weigher(|_: &(Kind, Digest, Abilities), table: &Arc<Table>| table.bytes());
        Self {
            slots: slots.max_capacity(most).eviction_policy(EvictionPolicy::lru()).time_to_idle(kept).build(),
            tables: tables.max_capacity(most).eviction_policy(EvictionPolicy::lru()).time_to_idle(kept).build(),
            generation: AtomicU64::new(0),
            resting: Mutex::default(),
            asleep: Mutex::default(),
            file: OnceLock::new(),
            entries: limits.entries,
            bytes: limits.answer_bytes,
        }
    }

    /// Keeps what is listed for everybody in a file from now on, and takes what is there for what servers say while
    /// they sleep.
    pub(crate) fn keep_in(&self, file: PathBuf) -> io::Result<()> {
        let file = ListsFile::read(file, self.entries)?;
        // The first one stays.
        drop(self.file.set(Arc::new(file)));
        Ok(())
    }

    /// Forgets what the file holds of a server that is no more: another of its name is another.
    pub(crate) fn forget(&self, server: &Server) {
        if let Some(file) = self.file.get() {
            Kind::ALL.into_iter().for_each(|kind| file.forget(key_of(&server.config, kind)));
        }
    }

    /// What is kept of servers, as another gateway takes it over: what is left of one that is no more would else go
    /// from gateway to gateway, and one day be that of another of its name. `None` where nothing is kept.
    pub(crate) fn kept_text(&self, servers: &[Arc<Server>]) -> Option<Json> {
        let file = self.file.get()?;
        let keys = servers.iter().flat_map(|server| Kind::ALL.map(|kind| key_of(&server.config, kind)));
        let keys: HashSet<_> = keys.collect();
        Some(file.text(|key| keys.contains(key)))
    }

    /// Writes to the file what has changed since.
    pub(crate) async fn save(&self) {
        if let Some(file) = self.file.get() {
            file.save().await;
        }
    }

    /// Grows with each list that differs from the one before.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn slot(&self, key: SlotKey) -> Arc<Slot> {
        self.slots.get_with(key, || Slot::new(key))
    }

    /// A server's list for somebody. `None` when it has none or it cannot be had.
    pub(crate) async fn of(self: &Arc<Self>, server: &Arc<Server>, kind: Kind, asker: &Asker) -> Option<Got> {
        let key = |context| SlotKey { server: server.number, kind, context, abilities: asker.abilities };
        let shared = self.slot(key(None));
        if let Some(listed) = shared.with(|held| held.clone())
            && listed.is_fresh(server, kind)
        {
            return Some(Got { listed, is_fresh: true });
        }
        // One that is asked in nobody's name and knows no scopes cannot answer each otherwise.
        let alike = server.known().is_some_and(|info| !info.revision.is_modern()) && server.is_alike();
        let own = if alike { Arc::clone(&shared) } else { self.slot(key(Some(asker.caller.context))) };
        if let Some(got) = own.kept(server, kind) {
            return Some(got);
        }
        if server.is_asleep() {
            // What it said last holds for as long as it sleeps.
            let kept = shared.whenever().or_else(|| own.whenever()).or_else(|| self.of_all(server, kind));
            if kept.is_some() {
                return kept;
            }
            if !self.wakes(server, asker.is_alone).await {
                return None;
            }
        }
        match self.failing(server, kind) {
            Failing::No => self.renew(server, kind, asker, &own, &shared).await,
            Failing::Resting => own.stale(),
            // It is tried again beside those who ask: one that hangs must not hold up the lists of others now and then.
            Failing::Due => {
                let (lists, server, asker) = (Arc::clone(self), Arc::clone(server), asker.clone());
                let stale = own.stale();
                tokio::spawn(async move { lists.renew(&server, kind, &asker, &own, &shared).await });
                stale
            }
        }
    }

    /// Waits until a server is awake of which nothing is known; whether it is. Where it is one of many, nobody waits for it
    /// again that was waited for in vain a moment ago: it may be a while.
    async fn wakes(&self, server: &Server, is_alone: bool) -> bool {
        if is_alone {
            return server.awake(Duration::MAX).await;
        }
        let asleep = || self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if asleep().get(&server.number).is_some_and(|since| since.elapsed() < ASLEEP) {
            return false;
        }
        let is_awake = server.awake(WAIT).await;
        if is_awake {
            asleep().remove(&server.number);
        } else {
            let mut asleep = asleep();
            asleep.retain(|_, since| since.elapsed() < ASLEEP);
            asleep.insert(server.number, Instant::now());
        }
        is_awake
    }

    /// What is listed for everybody who can be asked nothing: whatever else could be seen by whom can be asked more.
    fn of_all(&self, server: &Server, kind: Kind) -> Option<Got> {
        let key = SlotKey { server: server.number, kind, context: None, abilities: Abilities::default() };
        self.slot(key).whenever().or_else(|| {
            let listed = self.file.get()?.get(key_of(&server.config, kind))?;
            Some(Got { listed, is_fresh: false })
        })
    }

    /// Servers have come, changed or gone.
    pub(crate) fn servers_changed(&self) {
        self.tables.invalidate_all();
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Fetches a list, unless another does so already or it could not be had a moment ago.
    async fn renew(
        &self,
        server: &Arc<Server>,
        kind: Kind,
        asker: &Asker,
        own: &Arc<Slot>,
        shared: &Arc<Slot>,
    ) -> Option<Got> {
        let begun = Instant::now();
        let Ok(_one) = timeout(WAIT, own.fetching.lock()).await else { return own.stale() };
        if let Some(got) = own.kept(server, kind) {
            return Some(got);
        }
        // Another has just waited in vain.
        if begun.elapsed() >= REST {
            return own.stale();
        }
        let left = WAIT.saturating_sub(begun.elapsed());
        let fetched = timeout(left, self.fetch(server, kind, asker)).await;
        let failed = match fetched {
            Ok(Ok(listed)) => {
                let listed = Arc::new(listed);
                if let Some(file) = self.file.get() {
                    if !listed.is_public {
                        file.forget(key_of(&server.config, kind));
                    } else if asker.abilities == Abilities::default() {
                        file.put(key_of(&server.config, kind), &listed);
                    }
                }
                let to = if listed.is_public { shared } else { own };
                self.keep(to, &listed);
                // What was everybody's a moment ago must not be served as such any longer.
                if !listed.is_public && !Arc::ptr_eq(own, shared) {
                    shared.with(|held| *held = None);
                }
                if self.rest(server, kind, false) {
                    // Whoever was given lists without it asks again.
                    server.changes.tell(kind.changed());
                }
                return Some(Got { listed, is_fresh: true });
            }
            Ok(Err(failed)) => failed,
            Err(_) => Failed::Late,
        };
        server.event("absent");
        let (list, why) = (kind.method(), failed.why());
        tracing::warn!(server = server.config.name, list, why, "a list of an MCP server cannot be had");
        // One that answers keeps nobody waiting, whatever it answers.
        if matches!(failed, Failed::NotSent { .. } | Failed::Unmet(_) | Failed::Cut(_) | Failed::Late) {
            self.rest(server, kind, true);
        }
        own.stale()
    }

    /// Takes note of whether a list could be had; whether it could not before.
    fn rest(&self, server: &Server, kind: Kind, is_needed: bool) -> bool {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        if is_needed {
            let rest = resting.get(&(server.number, kind)).map_or(REST, |(_, rest)| (*rest * 2).min(REST_MAX));
            // Of servers that were taken away nobody asks again.
            resting.retain(|_, (until, _)| until.elapsed() < KEPT_MAX);
            resting.insert((server.number, kind), (Instant::now() + rest, rest)).is_some()
        } else {
            resting.remove(&(server.number, kind)).is_some()
        }
    }

    /// How it stands with a list that could not be had. That it is due again is told to one alone.
    fn failing(&self, server: &Server, kind: Kind) -> Failing {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        match resting.get_mut(&(server.number, kind)) {
            None => Failing::No,
            Some((until, _)) if *until > Instant::now() => Failing::Resting,
            Some((until, _)) => {
                *until = Instant::now() + WAIT;
                Failing::Due
            }
        }
    }

    fn keep(&self, slot: &Arc<Slot>, listed: &Arc<Listed>) {
        let differs = slot.with(|held| {
            let before = held.replace(Arc::clone(listed));
            before.is_none_or(|before| before.entries != listed.entries)
        });
        // Put there anew, it is weighed anew.
        self.slots.insert(slot.key, Arc::clone(slot));
        if differs {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    async fn fetch(&self, server: &Arc<Server>, kind: Kind, asker: &Asker) -> Result<Listed, Failed> {
        let info = server.info_now().await?;
        let changes = server.changes.count(kind.changed());
        let (entries, fetched) = (Vec::new(), Instant::now());
        let mut listed = Listed { entries, fetched, kept: KEPT_MAX, is_public: true, bytes: 0, said: now(), changes };
        if info.capabilities.get(kind.capability()).is_none() {
            return Ok(listed);
        }
        let (mut cursor, mut known): (Option<String>, HashSet<String>) = Default::default();
        for _ in 0..PAGES {
            let Some(result) = self.page(server, kind, asker, cursor.as_deref()).await? else { break };
            listed.bytes += result.bytes().len();
            if listed.bytes > self.bytes {
                let (server, list) = (&server.config.name, kind.method());
                tracing::warn!(server, list, "a list of an MCP server is too long; its end is left out");
                break;
            }
            let page = read_page(kind, &result, &server.config.name).map_err(|why| Failed::Wrong(why.0))?;
            let kept = page.ttl_ms.map_or(server.config.lists_kept, Duration::from_millis);
            listed.kept = listed.kept.min(kept);
            // Where nothing is said (before 2026-07-28), who asks makes no difference unless the server is told who.
            listed.is_public &= page.is_public.unwrap_or(!info.revision.is_modern() && server.is_alike());
            let room = self.entries.saturating_sub(listed.entries.len());
            // What comes again on another page is the same, and must not be taken for two.
            let new = page.entries.into_iter().filter(|entry| known.insert(entry.name.clone()));
            listed.entries.extend(new.take(room));
            let again = page.next.is_some() && page.next == cursor;
            cursor = page.next.filter(|_| room > 0 && !again);
            if cursor.is_none() {
                break;
            }
        }
        Ok(listed)
    }

    /// The result of one request; `None` when the server has no such method after all.
    async fn page(
        &self,
        server: &Arc<Server>,
        kind: Kind,
        asker: &Asker,
        cursor: Option<&str>,
    ) -> Result<Option<Json>, Failed> {
        let mut ask = Ask::own(kind.method());
        ask.abilities = asker.abilities;
        ask.declared = Declared { log_level: None, ..asker.declared.clone() };
        if let Some(cursor) = cursor {
            ask.params.set("cursor", Json::of(cursor));
        }
        let on = if server.is_alike() { OnBehalf::gateway() } else { OnBehalf::of(&asker.caller, None) };
        let mut exchange = match server.send(&on, &ask, None).await {
            // The session was forgotten; the next one is new.
            Err(Failed::Gone | Failed::OtherEra) => server.send(&on, &ask, None).await?,
            sent => sent?,
        };
        match answered(&mut exchange).await? {
            Outcome::Result(result) => Ok(Some(result)),
            Outcome::Error(error) => {
                let method = Object::read(&error).ok().and_then(|error| error.get("code")?.read::<i64>());
                if method == Some(crate::refusal::METHOD_NOT_FOUND) {
                    return Ok(None);
                }
                Err(Failed::Wrong(format!("it answers with an error: {error:?}")))
            }
        }
    }
}

async fn answered(exchange: &mut Exchange) -> Result<Outcome, Failed> {
    loop {
        match exchange.next().await? {
            Said::Answer(outcome) => return Ok(outcome),
            Said::Notice { .. } => {}
            Said::Asks { id, .. } => {
                let outcome = Outcome::error(crate::refusal::METHOD_NOT_FOUND, "nobody is there to be asked");
                exchange.answer(&id, &outcome).await?;
            }
        }
    }
}

impl Listed {
    /// What another process was told, before this one or beside it.
    pub(super) fn of_before(entries: Vec<Entry>, bytes: usize, said: u32) -> Self {
        Self { entries, fetched: Instant::now(), kept: Duration::ZERO, is_public: true, bytes, said, changes: 0 }
    }

    pub(crate) fn left(&self) -> Duration {
        self.kept.saturating_sub(self.fetched.elapsed())
    }

    fn is_fresh(&self, server: &Server, kind: Kind) -> bool {
        !self.left().is_zero() && self.changes == server.changes.count(kind.changed())
    }
}

impl Slot {
    /// What can be served without asking.
    fn kept(&self, server: &Server, kind: Kind) -> Option<Got> {
        let listed = self.with(|held| held.clone()).filter(|listed| listed.is_fresh(server, kind))?;
        Some(Got { listed, is_fresh: true })
    }

    /// What was had last, whenever that was.
    fn whenever(&self) -> Option<Got> {
        Some(Got { listed: self.with(|held| held.clone())?, is_fresh: false })
    }

    fn stale(&self) -> Option<Got> {
        let listed = self.with(|held| held.clone())?;
        (listed.fetched.elapsed() < STALE_MAX).then_some(Got { listed, is_fresh: false })
    }
}
