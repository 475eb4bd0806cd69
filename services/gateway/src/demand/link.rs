//! The streams between this replica and the operator, one with the leader of each shard: reports one way, servers the
//! other, taken up again when they break.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echotune_api::demand::{Demand, Hello, MAX_SHARDS, Report, Reports, Updates};
use echotune_model::{Call, ErrorKind, Fault};
use futures::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Operator,
    known::{Known, Shard},
    report::{is_busy, report},
};
use crate::hub::Hub;

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
/// Replicas of the operator that are asked before a pause, at the most.
const MAX_REPLICAS: usize = 16;

/// Follows the operator until the gateway stops. While it is away, what it has told holds.
pub(crate) async fn follow(hub: Arc<Hub>, operator: Operator) {
    let known = Mutex::new(Known::new(Arc::clone(&hub), operator.pods.clone()));
    let link = Link { known, urgent: watch::Sender::new(()), hub, operator };
    tokio::select! {
        () = link.hub.stop.cancelled() => {}
        () = link.wake() => {}
        () = link.lose_patience() => {}
        () = link.follow() => {}
    }
}

/// A pause that grows, and is not that of all replicas at the same time.
struct Pause(Duration);

impl Pause {
    /// After something that lasted since `began`.
    async fn rest(&mut self, began: Instant) {
        if began.elapsed() > PAUSE_MAX {
            self.0 = PAUSE;
        }
        let [random] = crate::token::random();
        let wait = self.0.mul_f64(0.75 + f64::from(random) / 512.0);
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        sleep(wait).await;
    }
}

/// What the streams share.
struct Link {
    hub: Arc<Hub>,
    operator: Operator,
    known: Mutex<Known>,
    /// Told when a call begins to wait for a pod.
    urgent: watch::Sender<()>,
}

impl Link {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on that a call waits: one stream alone would hear of it.
    async fn wake(&self) {
        loop {
            self.hub.urgent().notified().await;
            self.urgent.send_replace(());
        }
    }

    /// For some time the gateway is not ready before all was told.
    async fn lose_patience(&self) {
        sleep(self.operator.patience).await;
        if self.known().be_ready() {
            tracing::warn!("the operator has not told of its servers; the gateway is ready without them");
        }
        std::future::pending().await
    }

    /// A stream for each shard. How many there are the operator says: until then there is one.
    async fn follow(&self) {
        let (mut shards, mut pause) = (1, Pause(PAUSE));
        loop {
            let began = Instant::now();
            let mut streams: FuturesUnordered<_> =
                (0..shards).map(|number| self.hold(Shard { number, of: shards })).collect();
            let told = streams.next().await.unwrap_or(1);
            drop(streams);
            tracing::info!(shards = told, "the operator's servers are in that many shards");
            shards = told.clamp(1, MAX_SHARDS);
            self.known().begin_anew();
            pause.rest(began).await;
        }
    }

    /// Holds the stream of a shard until it is told that there are others: how many.
    async fn hold(&self, shard: Shard) -> u16 {
        let mut pause = Pause(PAUSE);
        loop {
            let began = Instant::now();
            match self.find(shard).await {
                Ok(shards) => return shards,
                Err(fault) => {
                    let (shard, pause) = (shard.number, pause.0);
                    tracing::warn!(%fault, shard, ?pause, "the operator is away; what it told of its servers holds");
                }
            }
            pause.rest(began).await;
        }
    }

    /// Asks one replica after the other, until one leads the shard; then one stream from its beginning to its end, and
    /// why it has ended, or how many shards there are.
    async fn find(&self, shard: Shard) -> Result<u16, Fault> {
        let mut fault = Fault::new(ErrorKind::Unavailable, "the operator has no address");
        for replica in (self.operator.replicas)().await.into_iter().take(MAX_REPLICAS) {
            match self.open(&*replica, shard).await {
                Ok(updates) => return self.take(updates, shard).await,
                Err(refused) => fault = refused,
            }
        }
        Err(fault)
    }

    async fn open(&self, replica: &dyn Demand, shard: Shard) -> Result<Updates, Fault> {
        let hello = Hello { shard: shard.number, shards: shard.of, ..self.operator.hello.clone() };
        let (call, reports) = (Call::internal(), reports(Arc::clone(&self.hub), shard, self.urgent.subscribe()));
        let opened = timeout(OPENING, replica.exchange(&call, hello, reports)).await;
        opened.unwrap_or_else(|_| Err(Fault::new(ErrorKind::Unavailable, "the operator does not answer")))
    }

    async fn take(&self, mut updates: Updates, shard: Shard) -> Result<u16, Fault> {
        // Of this stream: what is not among them when it has told of all is no more.
        let mut told = Some(BTreeSet::new());
        loop {
            match updates.next().await {
                Some(Ok(update)) if update.shards != 0 && update.shards != shard.of => return Ok(update.shards),
                Some(Ok(update)) => self.known().apply(shard, &update, &mut told),
                Some(Err(fault)) => return Err(fault),
                None => return Err(Fault::new(ErrorKind::Unavailable, "the operator has ended the stream")),
            }
        }
    }
}

/// Reports as they are due, for as long as they are wanted.
fn reports(hub: Arc<Hub>, shard: Shard, urgent: watch::Receiver<()>) -> Reports {
    let first: Option<(Report, Instant)> = None;
    let due = stream::unfold((hub, urgent, first), move |(hub, mut urgent, mut last)| async move {
        if let Some((before, sent)) = &last {
            wait(&hub, shard, &mut urgent, before, *sent).await;
        }
        let now = report(&hub, shard);
        last = Some((now.clone(), Instant::now()));
        Some((now, (hub, urgent, last)))
    });
    due.boxed()
}

/// Waits until a report is due after the one before: a call waits for a pod, a second is over and there is something,
/// or five are.
async fn wait(hub: &Hub, shard: Shard, urgent: &mut watch::Receiver<()>, before: &Report, sent: Instant) {
    let mut look = sent + EACH;
    loop {
        tokio::select! {
            Ok(()) = urgent.changed() => {
                sleep(GATHER).await;
                // It may wait for a server of another shard.
                if report(hub, shard).servers != before.servers {
                    return;
                }
                continue;
            }
            () = sleep_until(look) => {}
        }
        look += EACH;
        let now = report(hub, shard);
        if is_busy(&now) || now.servers != before.servers || sent.elapsed() >= QUIET {
            return;
        }
    }
}
