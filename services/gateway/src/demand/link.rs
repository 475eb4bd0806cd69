//! The stream between this replica and the operator: reports one way, servers the other, taken up again when it breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use echotune_api::demand::{MAX_SERVERS, Report, Reports, RouteName, Served, ServerName, Update, Updates};
use echotune_model::{Call, ErrorKind, Fault};
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Operator,
    report::{is_busy, report},
    served::config_of,
};
use crate::{
    hub::Hub,
    servers::{Source, Unready},
};

/// How often demand is told while there is some.
const EACH: Duration = Duration::from_secs(1);
/// How often it is told that there is none.
const QUIET: Duration = Duration::from_secs(5);
/// For how long more is gathered after a call has begun to wait for a pod: others come at the same moment.
const GATHER: Duration = Duration::from_millis(10);
/// How long the operator may take to take a stream.
const OPENING: Duration = Duration::from_secs(10);
/// The first pause before the operator is asked again, doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Follows the operator until the gateway stops. While it is away, what it has told holds.
pub(crate) async fn follow(hub: Arc<Hub>, operator: Operator) {
    let stop = hub.stop.clone();
    let mut link = Link { unready: Some(hub.unready()), hub, operator, known: BTreeMap::new() };
    let mut pause = PAUSE;
    let begun = Instant::now();
    loop {
        let patience = link.operator.patience.saturating_sub(begun.elapsed());
        let opened = Instant::now();
        let Some(fault) = stop.run_until_cancelled(link.exchange(patience)).await else { return };
        if opened.elapsed() > PAUSE_MAX {
            pause = PAUSE;
        }
        if begun.elapsed() >= link.operator.patience {
            link.unready = None;
        }
        tracing::warn!(%fault, ?pause, "the operator is away; what it told of its servers holds meanwhile");
        // Not all replicas at the same time.
        let [random] = crate::token::random();
        let wait = pause.mul_f64(0.75 + f64::from(random) / 512.0);
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

struct Link {
    hub: Arc<Hub>,
    operator: Operator,
    /// What the operator has told of: each server with its name here.
    known: BTreeMap<ServerName, RouteName>,
    unready: Option<Unready>,
}

impl Link {
    /// One stream from its beginning to its end; why it has ended.
    async fn exchange(&mut self, patience: Duration) -> Fault {
        let Operator { demand, hello, .. } = self.operator.clone();
        let (call, reports) = (Call::internal(), reports(Arc::clone(&self.hub)));
        let until = Instant::now() + patience;
        match timeout(OPENING, demand.exchange(&call, hello, reports)).await {
            Ok(Ok(updates)) => self.take(updates, until).await,
            Ok(Err(fault)) => fault,
            Err(_) => Fault::new(ErrorKind::Unavailable, "the operator does not answer"),
        }
    }

    async fn take(&mut self, mut updates: Updates, until: Instant) -> Fault {
        // Of this stream: what is not among them when it has told of all is no more.
        let mut told = Some(BTreeSet::new());
        loop {
            let update = match &self.unready {
                None => updates.next().await,
                Some(_) => match timeout(until.saturating_duration_since(Instant::now()), updates.next()).await {
                    Ok(update) => update,
                    Err(_) => {
                        tracing::warn!("the operator has not told of its servers; the gateway is ready without them");
                        self.unready = None;
                        continue;
                    }
                },
            };
            match update {
                Some(Ok(update)) => self.apply(update, &mut told),
                Some(Err(fault)) => return fault,
                None => return Fault::new(ErrorKind::Unavailable, "the operator has ended the stream"),
            }
        }
    }

    fn apply(&mut self, update: Update, told: &mut Option<BTreeSet<ServerName>>) {
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
            let gone: Vec<_> = self.known.keys().filter(|known| !told.contains(*known)).cloned().collect();
            gone.iter().for_each(|server| self.remove(server));
            self.unready = None;
        }
    }

    fn remove(&mut self, server: &ServerName) {
        if let Some(route) = self.known.remove(server) {
            self.hub.remove(Source::Operator, route.as_str());
        }
    }

    fn put(&mut self, served: &Served) {
        let server = &served.server;
        if self.known.get(server).is_some_and(|route| *route != served.route) {
            self.remove(server);
        }
        let taken = self.known.iter().find(|(other, route)| **route == served.route && *other != server);
        if let Some((other, route)) = taken {
            tracing::error!(%server, %other, %route, "two servers have one name at the gateway; the later is left out");
            return;
        }
        if self.known.len() >= MAX_SERVERS && !self.known.contains_key(server) {
            tracing::error!(%server, most = MAX_SERVERS, "there are more servers than the gateway takes");
            return;
        }
        match self.hub.put(Source::Operator, config_of(served, &self.operator.pods)) {
            Ok(()) => {
                self.known.insert(server.clone(), served.route.clone());
            }
            // What it was before goes on, if it was there.
            Err(faults) => tracing::error!(%server, ?faults, "a server of the operator cannot be served"),
        }
    }
}

/// Reports as they are due, for as long as they are wanted.
fn reports(hub: Arc<Hub>) -> Reports {
    let first: Option<(Report, Instant)> = None;
    let due = stream::unfold((hub, first), |(hub, mut last)| async move {
        if let Some((before, sent)) = &last {
            wait(&hub, before, *sent).await;
        }
        let now = report(&hub.servers.all());
        last = Some((now.clone(), Instant::now()));
        Some((now, (hub, last)))
    });
    due.boxed()
}

/// Waits until a report is due after the one before: a call waits for a pod, a second is over and there is something,
/// or five are.
async fn wait(hub: &Hub, before: &Report, sent: Instant) {
    let mut look = sent + EACH;
    loop {
        tokio::select! {
            () = hub.urgent().notified() => return sleep(GATHER).await,
            () = sleep_until(look) => {}
        }
        look += EACH;
        let now = report(&hub.servers.all());
        if is_busy(&now) || now.servers != before.servers || sent.elapsed() >= QUIET {
            return;
        }
    }
}
