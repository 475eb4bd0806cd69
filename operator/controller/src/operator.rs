//! The operator as a whole: watches, workers, leases and the streams of gateways around one view of the cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use echotune_api::demand::ServerName;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    build::Surroundings,
    demand::{Exchange, Shards},
    fleet::{Ceilings, Fleet},
    learned::kept,
    lease::{Leads, Terms, elect},
    ledger::Ledger,
    metrics::{Gauges, Metrics},
    notes::Notes,
    queue::Queue,
    reconcile::Reconciler,
    world::{Watches, World, watch},
    write::Writer,
};

/// What is known of a server is decided on anew that often, before it was decided on once.
const TICK: Duration = Duration::from_secs(1);
/// States of servers that are kept at the end, at the most: it must not take long.
const KEPT_AT_END: usize = 200;
/// How long that may take: the leases are to be given back before the process is killed.
const KEEPING: Duration = Duration::from_secs(5);
/// One worker of so many looks at urgent servers alone.
const URGENT: usize = 4;
/// The pause after what was learned could not be read.
const AGAIN: Duration = Duration::from_secs(2);

/// How an operator works.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespace that is looked after; all when there is none.
    pub namespace: Option<String>,
    /// What the operator is told about the cluster.
    pub around: Surroundings,
    /// How leases are held.
    pub terms: Terms,
    /// How many pods there may be.
    pub ceilings: Ceilings,
    /// Servers that are looked at at one time.
    pub workers: usize,
    /// How long a gateway that is silent is counted.
    pub forget: Duration,
    /// For how long after it began to lead nothing is taken away, since gateways may not be back yet.
    pub settle: Duration,
    /// How often what was learned of a server is kept.
    pub keep_every: Duration,
    /// How long a request to the API server may take.
    pub patience: Duration,
}

/// An operator.
#[derive(Clone)]
pub struct Operator {
    reconciler: Reconciler,
    options: Options,
    /// What gateways meet.
    pub exchange: Exchange,
}

impl Operator {
    /// An operator that does nothing yet. Streams of gateways end when `drain` is cancelled.
    pub fn new(
        client: Client,
        options: Options,
        ledger: Ledger,
        metrics: Arc<Metrics>,
        drain: CancellationToken,
    ) -> Self {
        let leads = Leads::none(options.terms.shards);
        let (world, queue) = (Arc::new(World::default()), Arc::new(Queue::default()));
        let shards = Arc::new(Shards::new(options.terms.shards, options.forget, options.settle, Instant::now()));
        let fleet = Fleet::new(options.ceilings, ledger, Arc::clone(&metrics), options.keep_every);
        let fleet = Arc::new(fleet);
        let exchange = Exchange {
            shards: Arc::clone(&shards),
            leads: leads.clone(),
            touched: touched(Arc::clone(&queue), Arc::clone(&fleet), leads.clone()),
            metrics: Arc::clone(&metrics),
            stop: drain,
        };
        let reconciler = Reconciler {
            notes: Arc::new(Notes::new(client.clone(), options.terms.identity.clone(), Arc::clone(&metrics))),
            client,
            world,
            queue,
            shards,
            fleet,
            leads,
            around: Arc::new(options.around.clone()),
            metrics,
            patience: options.patience,
            first: Arc::new(Mutex::new(HashMap::new())),
            built: Arc::new(Mutex::new(HashMap::new())),
        };
        Self { reconciler, options, exchange }
    }

    /// Works until told to stop, and gives the leases back then.
    pub async fn run(self, stop: CancellationToken) {
        let queue = Arc::clone(&self.reconciler.queue);
        let watches = Watches {
            client: self.reconciler.client.clone(),
            namespace: self.options.namespace.clone(),
            world: Arc::clone(&self.reconciler.world),
            metrics: Arc::clone(&self.reconciler.metrics),
            touched: Arc::new(move |server| queue.now(&server)),
        };
        let urgent = self.options.workers / URGENT;
        let workers = (0..self.options.workers).map(|number| {
            let (reconciler, stop) = (self.reconciler.clone(), stop.clone());
            tokio::spawn(async move { reconciler.work(number < urgent, stop).await })
        });
        let workers: Vec<_> = workers.collect();
        let aborts: Vec<_> = workers.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        let watching = tokio::spawn(watch(watches));
        let ended = CancellationToken::new();
        let leading = self.lead(stop.clone());
        let electing = async {
            // Until everything is listed, whoever leads already does better.
            tokio::select! {
                () = self.reconciler.world.complete() => {}
                () = stop.cancelled() => return,
            }
            let leads = self.reconciler.leads.clone();
            elect(self.reconciler.client.clone(), self.options.terms.clone(), leads, ended.clone()).await;
        };
        let ending = async {
            stop.cancelled().await;
            // What is being written must be over before the lease is another's.
            let _late = tokio::time::timeout(self.options.patience, futures::future::join_all(workers)).await;
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
            let _cut = tokio::time::timeout(KEEPING, self.keep_all()).await;
            ended.cancel();
        };
        tokio::join!(leading, electing, ending);
        watching.abort();
    }

    /// Takes up what was learned whenever a shard is won, and forgets the servers of one that is lost.
    async fn lead(&self, stop: CancellationToken) {
        let mut changes = self.reconciler.leads.changes();
        let (mut led, mut wins) = (0, 0);
        // Whether what was learned of something that is led is not taken up yet. It is looked at all the same.
        let mut begins = false;
        loop {
            let leads = self.reconciler.leads.shards();
            let won = self.reconciler.leads.wins() - wins;
            // Also one that was won and lost since this was here last.
            let lost = led + won > leads.len();
            if lost && leads.is_empty() {
                tracing::warn!("this process leads no more");
                self.reconciler.end_all();
            } else if lost {
                tracing::warn!(?leads, "this process leads fewer shards");
                self.reconciler.end_lost();
            }
            begins = (begins || won > 0) && !leads.is_empty();
            (led, wins) = (leads.len(), wins + won);
            if begins {
                tracing::info!(?leads, "this process leads");
                if let Err(cause) = self.reconciler.begin(self.options.namespace.as_deref()).await {
                    tracing::warn!(%cause, "what was learned cannot be read yet");
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => continue,
                        () = stop.cancelled() => return,
                    }
                }
                begins = false;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(TICK) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Keeps what was learned and is not kept yet, as far as there is time.
    async fn keep_all(&self) {
        for (server, state) in self.reconciler.fleet.all_to_keep().into_iter().take(KEPT_AT_END) {
            let Some(permit) = self.reconciler.leads.permit(&server) else { return };
            let found = self.reconciler.world.index().servers.get(&server).cloned();
            let Some((Ok(spec), uid)) = found.map(|found| (found.spec, found.uid)) else { continue };
            let subject =
                crate::build::Subject { namespace: server.namespace(), name: server.name(), uid: &uid, spec: &spec };
            let learned = kept(subject, &state);
            let writer = Writer {
                client: self.reconciler.client.clone(),
                metrics: Arc::clone(&self.reconciler.metrics),
                patience: self.options.patience,
                permit,
                server: server.clone(),
                uid: uid.clone(),
            };
            if let Err(cause) = writer.keep(&learned).await {
                tracing::warn!(%cause, "what was learned of {server} is not kept");
            }
        }
    }

    /// Whether everything has been listed once.
    pub fn is_ready(&self) -> bool {
        self.reconciler.world.is_complete()
    }

    /// Whether it leads any shard.
    pub fn is_leading(&self) -> bool {
        self.reconciler.leads.any()
    }

    /// Servers that wait to be looked at now.
    pub fn waiting(&self) -> usize {
        self.reconciler.queue.depth()
    }

    /// All metrics as text.
    pub fn metrics(&self) -> String {
        let reconciler = &self.reconciler;
        reconciler.metrics.text(&Gauges {
            objects: reconciler.world.counts(),
            queue: reconciler.queue.depth(),
            gateways: reconciler.shards.gateways(),
            leads: reconciler.leads.shards().len(),
            ages: reconciler.world.ages(),
        })
    }
}

/// Has servers with demand looked at: those where a call waits at once.
fn touched(queue: Arc<Queue>, fleet: Arc<Fleet>, leads: Leads) -> Arc<dyn Fn(ServerName, bool) + Send + Sync> {
    Arc::new(move |server, waits| {
        if leads.permit(&server).is_none() {
            return;
        }
        if waits { queue.first(&server) } else { queue.after(&server, fleet.tick(&server).unwrap_or(TICK)) }
    })
}

#[cfg(test)]
mod tests {
    use echotune_api::demand::{Demand as _, Hello, Updates};
    use echotune_model::Call;
    use futures::{StreamExt as _, stream};
    use kube::Config;
    use tokio::time::timeout;

    use super::*;
    use crate::{ledger::Place, testing::served, write::WriteError};

    const LONG: Duration = Duration::from_secs(60);

    fn operator() -> Operator {
        let second = Duration::from_secs(1);
        let terms = Terms {
            namespace: "system".into(),
            name: "operator".into(),
            identity: "one".into(),
            shards: 1,
            duration: 15 * second,
            margin: 5 * second,
            every: 2 * second,
            patience: 4 * second,
        };
        let options = Options {
            namespace: None,
            around: Surroundings::default(),
            terms,
            ceilings: Ceilings::default(),
            workers: 1,
            forget: 60 * second,
            settle: 60 * second,
            keep_every: 600 * second,
            patience: 4 * second,
        };
        let metrics = Arc::new(Metrics::default());
        let ledger = Ledger::open(Place::Nowhere, Arc::clone(&metrics)).expect("nothing to open");
        // Nobody listens there, and nothing is asked for.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().expect("an address")));
        Operator::new(client.expect("a client"), options, ledger, metrics, CancellationToken::new())
    }

    async fn falls() -> Result<Option<Duration>, WriteError> {
        panic!("as it was told to")
    }

    async fn looks() -> Result<Option<Duration>, WriteError> {
        Ok(None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_panics_is_told_and_comes_again_after_a_pause() {
        let operator = operator();
        let Reconciler { queue, metrics, .. } = &operator.reconciler;
        let server: ServerName = "m/s".parse().expect("a server");
        queue.now(&server);
        let taken = queue.next().await;
        operator.reconciler.attend(&taken, falls()).await;
        let ended = |result: &str| format!("echotune_operator_reconciles_total{{result=\"{result}\"}} 1\n");
        assert!(operator.metrics().contains(&ended("panicked")), "{}", operator.metrics());
        assert_eq!(queue.depth(), 0, "not at once: it would fall again and again");
        let again = tokio::time::timeout(Duration::from_secs(10), queue.next()).await;
        assert_eq!(again, Ok(server.clone()), "it is not kept as one that is looked at");
        operator.reconciler.attend(&server, looks()).await;
        assert!(operator.metrics().contains(&ended("ok")), "{}", operator.metrics());
        assert_eq!(metrics.total("echotune_operator_reconciles_total"), 2);
        let more = tokio::time::timeout(Duration::from_secs(100), queue.next()).await;
        assert!(more.is_err(), "its failures are forgotten: {more:?}");
    }

    /// From now on it leads the only shard there is.
    fn wins(operator: &Operator) {
        operator.reconciler.leads.set(0, Some(tokio::time::Instant::now() + 60 * LONG));
    }

    /// It looks at a server of which gateways are told though there is none.
    async fn tells_of_what_is_gone(operator: &Operator) -> ServerName {
        let server: ServerName = "m/s".parse().expect("a server");
        operator.reconciler.shards.of(&server).board.post(&server, Some(served("m/s")));
        operator.reconciler.look_at_all();
        timeout(LONG, operator.reconciler.queue.next()).await.expect("it is looked at")
    }

    async fn updates(operator: &Operator) -> Updates {
        let hello = Hello { gateway: "g".into(), region: String::new(), incarnation: 1, shard: 0, shards: 1 };
        operator.exchange.exchange(&Call::internal(), hello, stream::pending().boxed()).await.expect("it leads")
    }

    #[tokio::test(start_paused = true)]
    async fn what_went_while_another_led_is_not_told_of() {
        let operator = operator();
        wins(&operator);
        let server = tells_of_what_is_gone(&operator).await;
        operator.reconciler.attend(&server, operator.reconciler.reconcile(&server)).await;
        let told = timeout(LONG, updates(&operator).await.next()).await.expect("told");
        assert!(matches!(&told, Some(Ok(told)) if told.complete && told.servers.is_empty()), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_from_before_a_shard_was_lost_do_not_say_that_all_of_it_is_known() {
        let operator = operator();
        wins(&operator);
        let server = tells_of_what_is_gone(&operator).await;
        operator.reconciler.leads.set(0, None);
        operator.reconciler.end_all();
        wins(&operator);
        operator.reconciler.attend(&server, looks()).await;
        let mut updates = updates(&operator).await;
        while let Ok(Some(told)) = timeout(LONG, updates.next()).await {
            assert!(!told.expect("it leads").complete, "nothing was looked at since");
        }
    }
}
