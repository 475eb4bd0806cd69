//! Servers that are programs which keep nothing: as many processes as their calls need, none while there are none.
//!
//! Each process is a pod on this machine: a gateway of its own on a port of the loopback interface, as the adapter of a
//! pod in a cluster is. How many there are the autoscaler says, as the operator does there; so calls wait, wake and
//! drain here in the same way.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::serve::ListenerExt as _;
use echotune_autoscaler::{Decision, Load, Observation, Phase, Pod, Policy, State, decide};
use echotune_kit::auth::{Callers, Token};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    AccessConfig, Gateway, GatewayConfig, Keys,
    config::{PodConfig, PodsConfig, Reach, ServerConfig, Sharing},
    hub::Hub,
    servers::Source,
    upstream::{Counts, Server},
};

/// How often one that starts is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How the server is called within its pods.
const INNER: &str = "server";

/// What ends the processes of a server, when they have done what they do.
type End = Arc<CancellationToken>;

/// Which servers are hosted here, and what ends that. Who shows a server, puts another in its place or takes it away
/// holds this meanwhile: else processes could be shown of a server that has just been taken away.
#[derive(Default)]
pub(crate) struct Hosts(Mutex<BTreeMap<String, End>>);

impl Hosts {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, End>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hosts a server with what ends it, or no more, if the change of what is served goes well.
    fn change(
        &self,
        name: &str,
        end: Option<&End>,
        serve: impl FnOnce() -> Result<(), Vec<String>>,
    ) -> Result<(), Vec<String>> {
        self.with(|hosts| {
            serve()?;
            let before = match end {
                Some(end) => hosts.insert(name.to_owned(), Arc::clone(end)),
                None => hosts.remove(name),
            };
            if let Some(before) = before {
                before.cancel();
            }
            Ok(())
        })
    }

    /// Does something for a server if it is hosted by whom `end` ends, and by nobody else since.
    fn if_hosted(&self, name: &str, end: &End, work: impl FnOnce()) {
        self.with(|hosts| {
            if hosts.get(name).is_some_and(|current| Arc::ptr_eq(current, end)) {
                work();
            }
        });
    }
}

/// Why a server cannot be hosted.
fn faults(server: &ServerConfig, policy: &Policy) -> Vec<String> {
    let named = |why: String| format!("server '{}': {why}", server.name.escape_debug());
    let mut faults: Vec<_> = server.check().into_iter().map(named).collect();
    let fits = matches!(&server.reach, Reach::Process(process) if process.sharing == Sharing::All);
    if !fits {
        faults.push(named("only a program that all share, for it keeps nothing, can be as many processes".to_owned()));
    }
    if let Err(wrong) = policy.check() {
        faults.extend(wrong.sentences().iter().map(|why| named(why.clone())));
    }
    faults
}

impl Hub {
    /// Serves a program as pods of this machine.
    ///
    /// # Errors
    /// What is wrong with it, in sentences.
    pub(crate) fn host(self: &Arc<Self>, server: ServerConfig, policy: Policy) -> Result<(), Vec<String>> {
        let faults = faults(&server, &policy);
        if !faults.is_empty() {
            return Err(faults);
        }
        let secret: [u8; 32] = crate::token::random();
        let token = Token::from(secret.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")));
        let pods = PodsConfig {
            calls_per_pod: usize::try_from(policy.calls_per_pod).unwrap_or(usize::MAX),
            wake: match &server.reach {
                Reach::Process(process) => process.start,
                _ => Duration::ZERO,
            },
            authorization: Some(token.header().into()),
            ..PodsConfig::new(&server.name)
        };
        let shown = ServerConfig { reach: Reach::Pods(pods.clone()), ..server.clone() };
        let end = Arc::new(self.stop.child_token());
        let mut known = None;
        self.hosted.change(&server.name, Some(&end), || {
            self.put(Source::Configured, shown.clone())?;
            known = self.servers.named(&server.name);
            Ok(())
        })?;
        let Some(known) = known else { return Ok(()) };
        let hosted = Hosted {
            hub: Arc::clone(self),
            end,
            known,
            shown,
            pods_config: pods,
            // The gateway before it is its one caller.
            inner: ServerConfig { name: INNER.to_owned(), per_caller: usize::MAX, ..server },
            token,
            state: State::default(),
            pods: Vec::new(),
            next: 1,
            last: Counts::default(),
            policy,
        };
        self.tasks.spawn(hosted.run());
        Ok(())
    }

    /// Serves a server that is not hosted. One that is left as it was goes on with its processes.
    ///
    /// # Errors
    /// What is wrong with it, in sentences.
    pub(crate) fn put_configured(self: &Arc<Self>, server: ServerConfig) -> Result<(), Vec<String>> {
        let name = server.name.clone();
        self.hosted.change(&name, None, || self.put(Source::Configured, server))
    }

    /// Takes a server away, hosted or not; whether there was one.
    pub(crate) fn remove_configured(self: &Arc<Self>, name: &str) -> bool {
        let mut was_there = false;
        let removed = self.hosted.change(name, None, || {
            was_there = self.remove(Source::Configured, name);
            Ok(())
        });
        removed.is_ok() && was_there
    }
}

/// One process with the gateway before it.
struct Process {
    config: PodConfig,
    gateway: Gateway,
    stop: CancellationToken,
    created_ms: u64,
    phase: Phase,
}

struct Hosted {
    hub: Arc<Hub>,
    end: End,
    /// As the hub has it: for what was counted.
    known: Arc<Server>,
    shown: ServerConfig,
    pods_config: PodsConfig,
    inner: ServerConfig,
    token: Token,
    policy: Policy,
    state: State,
    pods: Vec<Process>,
    next: u64,
    last: Counts,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn few(count: impl TryInto<u32>) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

impl Hosted {
    async fn run(mut self) {
        while !self.end.is_cancelled() {
            let (seen, is_busy) = self.observe();
            let decision = decide(&self.policy, &mut self.state, &seen);
            let again = if is_busy { self.policy.tick_ms } else { decision.again_ms };
            let due = Instant::now() + Duration::from_millis(again.clamp(1, 60_000));
            self.follow(&decision).await;
            self.wait(due).await;
        }
        self.close().await;
    }

    /// Waits until it has to be decided again, or it is ended.
    async fn wait(&mut self, due: Instant) {
        let (gate, end) = (Arc::clone(&self.known.gate), Arc::clone(&self.end));
        loop {
            let starts = self.refresh();
            let until = if starts { due.min(Instant::now() + LOOK) } else { due };
            tokio::select! {
                () = end.cancelled() => return,
                () = gate.cold() => return,
                () = sleep_until(until) => {}
            }
            if Instant::now() >= due {
                return;
            }
        }
    }

    /// Looks which processes have become ready, and shows them; whether others still start.
    fn refresh(&mut self) -> bool {
        let now = now_ms();
        let mut has_news = false;
        for pod in &mut self.pods {
            if pod.phase == Phase::Starting && pod.gateway.is_ready() {
                pod.phase = Phase::Ready(now);
                has_news = true;
            }
        }
        if has_news {
            self.show();
        }
        self.pods.iter().any(|pod| pod.phase == Phase::Starting)
    }

    fn show(&self) {
        let ready = self.pods.iter().filter(|pod| pod.phase != Phase::Starting);
        let pods = ready.map(|pod| pod.config.clone()).collect();
        let reach = Reach::Pods(PodsConfig { pods, ..self.pods_config.clone() });
        self.hub.hosted.if_hosted(&self.shown.name, &self.end, || {
            if let Err(faults) = self.hub.put(Source::Configured, ServerConfig { reach, ..self.shown.clone() }) {
                tracing::error!(server = self.shown.name, ?faults, "the processes of a server cannot be shown");
            }
        });
    }

    /// What is to be decided by, and whether anything runs or waits.
    fn observe(&mut self) -> (Observation, bool) {
        let (counts, now, at) = (self.known.gate.counts(), now_ms(), Instant::now());
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let loads = counts.classes.iter().enumerate().map(|(class, count)| {
            let last = self.last.classes.get(class).copied().unwrap_or_default();
            Load {
                in_flight: few(count.in_flight),
                queued: few(count.queued),
                oldest_queued_ms: ms(count.oldest_queued),
                arrivals: few(count.arrivals.saturating_sub(last.arrivals)),
                busy_ms: Some(ms(count.busy).saturating_sub(ms(last.busy))),
            }
        });
        let loads: Vec<_> = loads.collect();
        let known = self.known.pods().unwrap_or_default();
        let pods = self.pods.iter().map(|pod| {
            let endpoint = known.iter().find(|endpoint| endpoint.pod == pod.config.name);
            let (in_flight, ends) = endpoint.map(|endpoint| endpoint.placed()).unwrap_or_default();
            Pod {
                id: pod.config.name.clone(),
                phase: pod.phase,
                created_ms: pod.created_ms,
                sessions: 0,
                in_flight: few(in_flight),
                calls_end_ms: ends.map(|ends| now.saturating_add(ms(ends.saturating_duration_since(at)))),
                restore_cost: 0,
            }
        });
        let is_busy = loads.iter().any(|load| load.in_flight > 0 || load.queued > 0 || load.arrivals > 0);
        let cold_calls = few(counts.cold.saturating_sub(self.last.cold));
        let seen = Observation { now_ms: now, loads, cold_calls, pods: pods.collect(), ..Observation::default() };
        self.last = counts;
        (seen, is_busy)
    }

    async fn follow(&mut self, decision: &Decision) {
        let now = now_ms();
        for pod in &mut self.pods {
            if decision.drain.contains(&pod.config.name) {
                (pod.config.draining, pod.phase) = (true, Phase::Draining(now));
            }
            if decision.undrain.contains(&pod.config.name) {
                (pod.config.draining, pod.phase) = (false, Phase::Ready(now));
            }
        }
        let (gone, left) =
            std::mem::take(&mut self.pods).into_iter().partition(|pod| decision.delete.contains(&pod.config.name));
        self.pods = left;
        let has_news = !decision.drain.is_empty() || !decision.undrain.is_empty() || !decision.delete.is_empty();
        if has_news {
            self.show();
        }
        let gone: Vec<Process> = gone;
        for pod in gone {
            self.hub.tasks.spawn(end(pod, self.shown.deadline_max));
        }
        while few(self.pods.len()) < decision.replicas && !self.end.is_cancelled() {
            match self.start().await {
                Ok(pod) => self.pods.push(pod),
                Err(why) => {
                    tracing::error!(server = self.shown.name, why, "a process of a server cannot be started");
                    return;
                }
            }
        }
    }

    async fn start(&mut self) -> Result<Process, String> {
        let told = |cause: io::Error| cause.to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(told)?;
        let address = listener.local_addr().map_err(told)?;
        let stop = CancellationToken::new();
        let config = GatewayConfig {
            servers: vec![self.inner.clone()],
            callers: Callers::new(self.token.clone(), None),
            keys: Keys::random().map_err(told)?,
            advertise: String::new(),
            hosts: Vec::new(),
            origins: Vec::new(),
            authorities: None,
            limits: self.hub.limits,
            regions: Default::default(),
            meter: Default::default(),
            // The gateway before it decides, and meters.
            access: AccessConfig::default(),
            metering: None,
        };
        let gateway = Gateway::start(config, stop.clone()).map_err(|wrong| wrong.to_string())?;
        let (router, stopped) = (gateway.router_of(INNER), stop.clone().cancelled_owned());
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        self.hub.tasks.spawn(async move {
            if let Err(cause) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%cause, "a process of a server is not served any more");
            }
        });
        let name = format!("{}-{}", self.shown.name, self.next);
        self.next += 1;
        let config = PodConfig { name, url: format!("http://{address}/mcp"), draining: false };
        Ok(Process { config, gateway, stop, created_ms: now_ms(), phase: Phase::Starting })
    }

    /// Ends all processes when what they do is done.
    async fn close(mut self) {
        let patience = self.shown.deadline_max;
        let until = Instant::now() + patience;
        // Those that wait when the gateway stops get their places still, also on what only starts.
        while self.hub.stop.is_cancelled() && !self.known.gate.is_idle() && Instant::now() < until {
            self.refresh();
            sleep(LOOK).await;
        }
        futures::future::join_all(self.pods.into_iter().map(|pod| end(pod, patience))).await;
    }
}

/// Ends a process when it has done what it does.
async fn end(pod: Process, patience: Duration) {
    pod.stop.cancel();
    if !pod.gateway.clone().close(patience).await {
        tracing::warn!(pod = pod.config.name, "a process of a server did not end in time");
        // It ends with the last that it still does, and no other comes in its place.
        pod.gateway.hub.close_servers().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_host_a_server_any_more_shows_nothing_of_it() {
        let hosts = Hosts::default();
        let [first, second] = [(); 2].map(|()| Arc::new(CancellationToken::new()));
        let shows = |end: &End| {
            let mut has_shown = false;
            hosts.if_hosted("a", end, || has_shown = true);
            has_shown
        };
        assert!(!shows(&first));
        hosts.change("a", Some(&first), || Ok(())).expect("served");
        assert!(shows(&first));
        hosts.change("a", Some(&second), || Err(Vec::new())).expect_err("wrong");
        assert!(shows(&first) && !first.is_cancelled(), "it is left as it was");
        hosts.change("a", Some(&second), || Ok(())).expect("served");
        assert!(!shows(&first) && first.is_cancelled() && shows(&second));
        hosts.change("a", None, || Ok(())).expect("taken away");
        assert!(!shows(&second) && second.is_cancelled());
    }
}
