//! One look at one server: observe, validate, decide, plan, apply, tell.

mod serve;
mod status;
mod validate;

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use echotune_api::demand::ServerName;
use echotune_autoscaler::Policy;
use futures::{FutureExt as _, future::join_all};
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use self::validate::{Accepted, Built, Rejection};
use self::{
    serve::{left, served},
    status::Told,
};
use crate::{
    build::{Child, Subject, Surroundings, children, pod, template},
    crd::{MCPServerSpec, Reason},
    demand::{Demand, Shards},
    fleet::{Decided, Fleet},
    learned::{kept, learned},
    lease::{Leads, Permit},
    metrics::Metrics,
    notes::Notes,
    pods::{Goal, Moves, Sorted, Wanted, moves, observation, sort},
    queue::Queue,
    world::{Beside, PodSeen, Server, World},
    write::{WriteError, Writer},
};

/// A server whose parts are not to be had is looked at again after that.
const LATER: Duration = Duration::from_secs(30);
/// Pods of one server that are made at one time.
const AT_ONCE: usize = 8;
/// What stands beside pods, as [`Writer::apply`] names it.
const BESIDE: [&str; 4] = ["account", "service", "network", "budget"];
/// A pod that does not become ready for that long is stuck, whatever it says.
const STUCK_MS: u64 = 300_000;

/// Everything that looking at a server needs.
#[derive(Clone)]
pub struct Reconciler {
    /// The way to the API server.
    pub client: Client,
    /// What the cluster looks like.
    pub world: Arc<World>,
    /// Which servers are looked at next.
    pub queue: Arc<Queue>,
    /// What gateways report and are told.
    pub shards: Arc<Shards>,
    /// What is remembered and decided.
    pub fleet: Arc<Fleet>,
    /// What this process leads.
    pub leads: Leads,
    /// What the operator is told about the cluster.
    pub around: Arc<Surroundings>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Events for people.
    pub notes: Arc<Notes>,
    /// How long a request may take.
    pub patience: Duration,
    /// Servers that have not been looked at since this process leads, by shard.
    pub first: Arc<Mutex<HashMap<usize, HashSet<ServerName>>>>,
    /// What was built of each server, by its uid and generation.
    pub built: Arc<Mutex<HashMap<ServerName, (Version, Built)>>>,
}

/// The uid and generation of a resource.
pub type Version = (String, i64);

/// What is seen of a server at one moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which.
    pub name: ServerName,
    /// The resource.
    pub server: Server,
    /// Its pods.
    pub pods: BTreeMap<String, PodSeen>,
    /// What stands beside them, each as a number.
    pub beside: Beside,
    /// The policy that it names, if there is one of that name.
    pub shared: Option<Result<Policy, String>>,
    /// Who has its name at the gateway.
    pub route_owner: Option<ServerName>,
    /// Now, in ms since the Unix epoch.
    pub now_ms: u64,
}

impl Seen {
    /// Pods that are not being deleted.
    pub fn there(&self) -> u32 {
        u32::try_from(self.pods.values().filter(|pod| !pod.deleting).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn subject<'s>(&'s self, spec: &'s MCPServerSpec) -> Subject<'s> {
        Subject { namespace: self.name.namespace(), name: self.name.name(), uid: &self.server.uid, spec }
    }

    /// Why a pod does not become ready, of one that should be by now.
    pub(super) fn trouble(&self) -> Option<String> {
        let starting = self.pods.iter().filter(|(_, pod)| !pod.is_ready() && !pod.deleting && !pod.ended);
        let told = starting.filter_map(|(name, pod)| {
            let waits_ms = self.now_ms.saturating_sub(pod.created_ms);
            let late = || format!("it is not ready after {} s", waits_ms / 1_000);
            let why = pod.trouble.clone().or_else(|| (waits_ms > STUCK_MS).then(late))?;
            Some(format!("pod {name}: {why}"))
        });
        told.into_iter().next()
    }
}

/// What a panic says.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it does not say why")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What is to be done about a server.
struct Plan {
    moves: Moves,
    decided: Option<Decided>,
    sorted: Sorted,
    again: Duration,
    /// When the first report came that it follows from.
    told: Option<Instant>,
}

impl Reconciler {
    /// Looks at servers, one after the other, until told to stop; what it has begun it ends. Whoever looks at urgent
    /// ones alone is free for them however slow the API server is to answer for others.
    pub async fn work(&self, urgent_alone: bool, stop: CancellationToken) {
        loop {
            let next = async { if urgent_alone { self.queue.next_urgent().await } else { self.queue.next().await } };
            let server = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                server = next => server,
            };
            self.attend(&server, self.reconcile(&server)).await;
        }
    }

    /// Sees a look at a server through to its end. One that panics harms that server alone, and not for good: whoever
    /// looked goes on with others, and it is looked at again after a pause as after any failure.
    pub(crate) async fn attend(
        &self,
        server: &ServerName,
        look: impl Future<Output = Result<Option<Duration>, WriteError>>,
    ) {
        let began = Instant::now();
        let ended = AssertUnwindSafe(look).catch_unwind().await;
        self.looked(server);
        let result = match ended {
            Ok(Ok(again)) => {
                self.queue.done(server, again);
                "ok"
            }
            Ok(Err(cause)) => {
                tracing::warn!(%cause, "{server} is looked at again");
                self.queue.failed(server);
                cause.name()
            }
            Err(panic) => {
                let cause = panic_message(panic.as_ref());
                tracing::error!(cause, "looking at {server} panicked; it is looked at again");
                self.queue.failed(server);
                "panicked"
            }
        };
        self.metrics.reconciled(began.elapsed(), result);
    }

    /// Looks at one server, and says when it is to be looked at again.
    ///
    /// # Errors
    /// Something could not be written; what comes before it was.
    pub async fn reconcile(&self, name: &ServerName) -> Result<Option<Duration>, WriteError> {
        let Some(permit) = self.leads.permit(name) else { return Ok(None) };
        let Some(seen) = self.observe(name) else {
            self.forget(name);
            return Ok(None);
        };
        let writer = self.writer(permit, &seen);
        let accepted = match self.validate(&seen) {
            Ok(accepted) => accepted,
            Err(rejection) => return self.reject(&writer, &seen, &rejection).await,
        };
        let stale = Duration::from_millis(accepted.policy.stale_ms);
        let demand = self.shards.of(name).gateways.take(name, stale, Instant::now());
        self.count(name);
        let plan = self.plan(&seen, &accepted, &demand);
        self.post(&seen, &accepted, &plan);
        let applied = self.apply(&writer, &seen, &accepted, &plan).await;
        let (trouble, failed) = match applied {
            // Anything else that has changed meanwhile is met by the next look.
            Err(WriteError::Conflict { what, why }) if BESIDE.contains(&what) => {
                (Some((Reason::ChildConflict, format!("{what}: {why}"))), None)
            }
            Err(foreign @ WriteError::Foreign { .. }) => (Some((Reason::ChildConflict, foreign.to_string())), None),
            // Whoever can mend it looks at the status, not at the log.
            Err(refused) if refused.is_final() => (Some((Reason::PodsStuck, refused.to_string())), Some(refused)),
            other => other.map(|()| (None, None))?,
        };
        let again = if trouble.is_some() { LATER } else { plan.again };
        if !self.tell(&writer, &seen, &accepted, &plan, (trouble, demand.age)).await? {
            // Pods that came or went have it looked at again, else it is as soon as it is its turn among others.
            return Ok(Some(if plan.moves.any() { again } else { Duration::ZERO }));
        }
        if !accepted.ends
            && let Some(state) = self.fleet.to_keep(&seen.name, Instant::now())
        {
            writer.keep(&kept(seen.subject(&accepted.spec), &state)).await?;
        }
        failed.map_or(Ok(Some(again)), Err)
    }

    fn observe(&self, name: &ServerName) -> Option<Seen> {
        let index = self.world.index();
        let server = index.servers.get(name)?.clone();
        let shared = server.policy_key(name).and_then(|key| index.policies.get(&key).cloned());
        Some(Seen {
            name: name.clone(),
            pods: index.pods.get(name).cloned().unwrap_or_default(),
            beside: index.beside.get(name).copied().unwrap_or_default(),
            shared,
            route_owner: index.route_owner(name).cloned(),
            server,
            now_ms: now_ms(),
        })
    }

    /// Whether what is written can be followed; what was found of the same version before is found again.
    fn validate(&self, seen: &Seen) -> Result<Accepted, Rejection> {
        let version = (seen.server.uid.clone(), seen.server.generation);
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let known = built.get(&seen.name).filter(|(of, _)| *of == version).map(|(_, known)| known.clone());
        drop(built);
        let accepted = validate::validate(seen, &self.around, known)?;
        built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        built.insert(seen.name.clone(), (version, accepted.built.clone()));
        Ok(accepted)
    }

    fn writer(&self, permit: Permit, seen: &Seen) -> Writer {
        Writer {
            client: self.client.clone(),
            metrics: Arc::clone(&self.metrics),
            patience: self.patience,
            permit,
            server: seen.name.clone(),
            uid: seen.server.uid.clone(),
        }
    }

    /// Before anything is decided on a server of a shard, what all of them have counts.
    fn count(&self, name: &ServerName) {
        let shard = self.leads.shard(name);
        if !self.fleet.is_counted(shard) {
            let mut there = self.world.there();
            there.retain(|(server, ..)| self.leads.shard(server) == shard);
            self.fleet.count(shard, there);
        }
    }

    /// How many pods there are to be, and which.
    fn plan(&self, seen: &Seen, accepted: &Accepted, demand: &Demand) -> Plan {
        let (policy, name) = (&accepted.policy, &seen.name);
        let wanted = Wanted {
            revision: (!accepted.ends).then_some(accepted.built.revision.as_str()),
            drain_ms: policy.drain_ms,
            now_ms: seen.now_ms,
        };
        let sorted = sort(&seen.pods, demand, wanted, self.fleet.serving(name));
        let tenant = (seen.server.tenant.as_str(), seen.there());
        let stale = demand.age > Duration::from_millis(policy.stale_ms);
        let holds = stale || demand.silent || demand.settles;
        let (goal, decided, again) = if accepted.ends {
            self.fleet.told(name, tenant.0, tenant.1, 0);
            (Goal::Exactly(0), None, Duration::from_millis(policy.tick_ms))
        } else if let Some(owner) = &seen.server.replicas.foreign {
            let mut observed = observation(sorted.observed(&seen.pods, demand), demand, seen.now_ms);
            observed.foreign_owner = Some(owner.clone());
            let decided = self.fleet.decide(name, tenant, policy, observed);
            let asked = u32::try_from(seen.server.replicas.value.unwrap_or(0)).unwrap_or(0);
            let count = asked.min(decided.ceiling.unwrap_or(u32::MAX)).min(policy.max_pods);
            self.fleet.told(name, tenant.0, tenant.1, count);
            (Goal::Exactly(count), Some(decided), Duration::from_millis(policy.tick_ms))
        } else {
            let observed = observation(sorted.observed(&seen.pods, demand), demand, seen.now_ms);
            let mut decided = self.fleet.decide(name, tenant, policy, observed);
            let again = Duration::from_millis(decided.decision.again_ms);
            // While nobody reports time changes nothing, and whoever does has it looked at.
            let again = if stale { again.max(LATER) } else { again };
            // What is always to be there is there, also while nobody reports.
            let least = policy.min_pods.min(policy.max_pods).min(decided.ceiling.unwrap_or(u32::MAX));
            decided.decision.serving = decided.decision.serving.max(least);
            (Goal::Decided(Box::new(decided.decision.clone())), Some(decided), again)
        };
        let moves = moves(&seen.pods, demand, wanted, &sorted, &goal, holds);
        Plan { moves, decided, again: if sorted.rolls() { again.min(LATER) } else { again }, sorted, told: demand.told }
    }

    /// Tells gateways where the server is.
    fn post(&self, seen: &Seen, accepted: &Accepted, plan: &Plan) {
        let board = &self.shards.of(&seen.name).board;
        if accepted.ends && seen.pods.is_empty() {
            return board.post(&seen.name, None);
        }
        board.post(&seen.name, served(seen, accepted, &plan.moves, plan.decided.as_ref()));
    }

    /// Makes what is planned so, pods that serve first.
    async fn apply(&self, writer: &Writer, seen: &Seen, accepted: &Accepted, plan: &Plan) -> Result<(), WriteError> {
        if accepted.ends && seen.pods.is_empty() && seen.server.held && seen.server.deleting {
            return writer.hold(false).await;
        }
        if !accepted.ends {
            if !seen.server.held {
                writer.hold(true).await?;
            }
            self.apply_beside(writer, seen, accepted).await?;
        }
        let Moves { create, drain, undrain, delete, replicas } = &plan.moves;
        let pods = |names: &[String]| {
            names.iter().filter_map(|name| Some((name.clone(), seen.pods.get(name)?.clone()))).collect::<Vec<_>>()
        };
        for (name, pod) in pods(undrain) {
            writer.mark(&name, &pod.uid, None).await?;
        }
        let made = if create.is_empty() { Ok(()) } else { self.create(writer, seen, accepted, create).await };
        // Where a quota refuses another pod, those that go make room for it.
        let refused = match made {
            Err(cause) if cause.is_final() => Some(cause),
            other => other.map(|()| None)?,
        };
        for (name, pod) in pods(drain) {
            writer.mark(&name, &pod.uid, Some(seen.now_ms)).await?;
        }
        for (name, pod) in pods(delete) {
            writer.delete(&name, &pod.uid).await?;
        }
        if let Some(cause) = refused {
            return Err(cause);
        }
        let said = seen.server.replicas.value.and_then(|value| u32::try_from(value).ok());
        let foreign = seen.server.replicas.foreign.is_some();
        if !foreign && !seen.server.deleting && said != Some(*replicas) {
            match writer.scale(*replicas).await {
                // Somebody else says how many, which the next look will see.
                Err(WriteError::Conflict { .. }) => {}
                other => other?,
            }
        }
        if plan.moves.any() {
            if let Some(told) = plan.told {
                self.metrics.acted(told.elapsed());
            }
            self.notes.moved(&seen.name, &seen.server.uid, &plan.moves, plan.decided.as_ref());
        }
        Ok(())
    }

    async fn apply_beside(&self, writer: &Writer, seen: &Seen, accepted: &Accepted) -> Result<(), WriteError> {
        let differs = |child: &Child| seen.beside[*child as usize] != Some(accepted.built.essences[*child as usize]);
        let missing: Vec<_> = Child::ALL.into_iter().filter(differs).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let wanted = children(seen.subject(&accepted.spec), &self.around);
        for child in missing {
            writer.apply(child, &wanted, seen.beside[child as usize].is_some()).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        writer: &Writer,
        seen: &Seen,
        accepted: &Accepted,
        numbers: &[u32],
    ) -> Result<(), WriteError> {
        let subject = seen.subject(&accepted.spec);
        // Validation has made one already.
        let Ok(template) = template(subject, &self.around) else { return Ok(()) };
        // One whose name is another's keeps none of the rest from being made.
        let mut foreign = None;
        for some in numbers.chunks(AT_ONCE) {
            let pods: Vec<_> = some.iter().map(|number| pod(subject, &template, *number)).collect();
            for made in join_all(pods.iter().map(|pod| writer.create(pod))).await {
                match made {
                    Err(cause @ WriteError::Foreign { .. }) => foreign = Some(cause),
                    other => other?,
                }
            }
        }
        foreign.map_or(Ok(()), Err)
    }

    /// Tells what became of the server; `false` when that is put off, since pods of others come first.
    async fn tell(
        &self,
        writer: &Writer,
        seen: &Seen,
        accepted: &Accepted,
        plan: &Plan,
        (trouble, age): (Option<(Reason, String)>, Duration),
    ) -> Result<bool, WriteError> {
        if seen.server.deleting && (!seen.server.held || seen.pods.is_empty()) {
            return Ok(true);
        }
        let can_wait = trouble.is_none() && (plan.moves.any() || self.queue.is_urgent(&seen.name));
        let stale = age > Duration::from_millis(accepted.policy.stale_ms);
        let told = Told { seen, accepted, trouble, stale, decided: plan.decided.as_ref(), rolls: plan.sorted.rolls() };
        let status = told.status();
        if status::same(&seen.server.status, &status) {
            return Ok(true);
        }
        if can_wait && self.queue.puts_off(&seen.name) {
            return Ok(false);
        }
        self.notes.changed(&seen.name, &seen.server.uid, &seen.server.status, &status);
        writer.status(&status).await.map(|()| true)
    }

    /// What is written cannot be followed: pods stay as they are, and it is told why.
    async fn reject(
        &self,
        writer: &Writer,
        seen: &Seen,
        rejection: &Rejection,
    ) -> Result<Option<Duration>, WriteError> {
        let board = &self.shards.of(&seen.name).board;
        if rejection.unserved() {
            board.post(&seen.name, None);
        } else if !seen.pods.is_empty() {
            board.post(&seen.name, left(seen));
        }
        self.fleet.stays(&seen.name, &seen.server.tenant, seen.there());
        if seen.server.deleting {
            return self.end(writer, seen).await;
        }
        let status = status::rejected(seen, rejection);
        if !status::same(&seen.server.status, &status) {
            self.notes.changed(&seen.name, &seen.server.uid, &seen.server.status, &status);
            writer.status(&status).await?;
        }
        Ok(None)
    }

    /// A server that cannot be followed goes all the same: its pods drain first.
    async fn end(&self, writer: &Writer, seen: &Seen) -> Result<Option<Duration>, WriteError> {
        if seen.pods.is_empty() {
            if seen.server.held {
                writer.hold(false).await?;
            }
            return Ok(None);
        }
        let policy = Policy::default();
        let stale = Duration::from_millis(policy.stale_ms);
        let demand = self.shards.of(&seen.name).gateways.take(&seen.name, stale, Instant::now());
        let wanted = Wanted { revision: None, drain_ms: policy.drain_ms, now_ms: seen.now_ms };
        let sorted = sort(&seen.pods, &demand, wanted, None);
        let holds = demand.silent || demand.settles || demand.age > stale;
        let moves = moves(&seen.pods, &demand, wanted, &sorted, &Goal::Exactly(0), holds);
        for name in &moves.drain {
            writer.mark(name, &seen.pods[name].uid, Some(seen.now_ms)).await?;
        }
        for name in &moves.delete {
            writer.delete(name, &seen.pods[name].uid).await?;
        }
        Ok(Some(Duration::from_millis(policy.tick_ms)))
    }

    /// After another process led: what it learned is taken up, and every server is looked at.
    ///
    /// # Errors
    /// What was learned cannot be read.
    pub async fn begin(&self, namespace: Option<&str>) -> Result<(), kube::Error> {
        self.shards.all().for_each(|shard| shard.gateways.begin(Instant::now()));
        let (learned, faults) = learned(&self.client, namespace, self.patience).await?;
        faults.iter().for_each(|fault| tracing::warn!("{fault}"));
        self.fleet.recall(learned);
        self.look_at_all();
        Ok(())
    }

    /// Has all servers looked at that are led, and those of which gateways are told though they are gone: a look may
    /// have ended, or a server gone, while another led.
    pub(crate) fn look_at_all(&self) {
        let told = |shard| self.shards.get(shard).map(|of| of.board.servers()).unwrap_or_default();
        let led = self.leads.shards().into_iter().map(|shard| (shard, told(shard).into_iter().collect()));
        let mut led: HashMap<_, HashSet<_>> = led.collect();
        for server in self.world.servers() {
            if let Some(servers) = led.get_mut(&self.leads.shard(&server)) {
                servers.insert(server);
            }
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone_from(&led);
        drop(first);
        for (shard, servers) in led {
            if servers.is_empty() {
                self.complete(shard);
            }
            servers.iter().for_each(|server| self.queue.now(server));
        }
    }

    /// Gateways are told from now on that they know all servers of a shard, unless another leads it by now.
    fn complete(&self, shard: usize) {
        if let Some(of) = self.shards.get(shard) {
            of.board.complete(self.leads.has(shard));
        }
    }

    /// Others lead some of the shards now, and tell gateways of their servers. Here nothing is told of these any more,
    /// also not that they are gone: until another leads, what gateways know of them holds.
    pub fn end_lost(&self) {
        let led = self.leads.shards();
        self.first.lock().unwrap_or_else(PoisonError::into_inner).retain(|shard, _| led.contains(shard));
        let lost = self.shards.all().enumerate().filter(|(shard, _)| !led.contains(shard));
        lost.for_each(|(_, shard)| shard.board.clear());
        let lost = self.world.servers().into_iter().filter(|server| !led.contains(&self.leads.shard(server)));
        lost.for_each(|server| self.drop_known(&server));
        self.fleet.leads(&led);
    }

    /// Another process leads.
    pub fn end_all(&self) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.fleet.clear();
        self.shards.all().for_each(|shard| shard.board.clear());
    }

    /// A server was looked at; when all of its shard were, gateways are told that they know all.
    fn looked(&self, server: &ServerName) {
        let shard = self.leads.shard(server);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.get_mut(&shard).is_some_and(|servers| servers.remove(server) && servers.is_empty()) {
            self.complete(shard);
        }
    }

    fn forget(&self, name: &ServerName) {
        self.shards.of(name).board.post(name, None);
        self.drop_known(name);
    }

    fn drop_known(&self, name: &ServerName) {
        self.fleet.drop_server(name);
        self.shards.of(name).gateways.drop_server(name);
        self.built.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
