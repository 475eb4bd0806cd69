use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use echotune_agents::EmbeddedRunStore;
use echotune_api::{
    Agents, DeadLetters, Experiments, Models, Operations, Recommendations, Training, Users, accounts, authenticator,
    events::{RECOMMENDATIONS, USERS_TOPIC},
};
use echotune_eventlog::{EmbeddedEventLog, EventLog as _, Pace, dead};
use echotune_gateway::catalogue::{self, Catalogue};
use echotune_kit::{
    auth::{Callers, Token},
    edge::{Edge, Patience},
    embedded::Db,
    lifecycle::{Exit, Life, Signal},
    process::{Settings, Ways},
    telemetry::{SpanStore, metrics::Meter},
};
use echotune_mcp_servers::{Limits, Services};
use echotune_model::Clock;
use echotune_recommendations::{DeadLettersService, EmbeddedRecommendationStore, RecommendationsService};
use echotune_users::{EmbeddedUserStore, UsersService, relay, sweeper};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    gateway::{self, Others, Wanted},
    grpc,
    operations::EmbeddedOperations,
    tools,
};

/// File in a data folder that says where its platform listens.
pub(crate) const ADDRESS_FILE: &str = "address";

/// How often it is looked whether events still move.
const SETTLE_EVERY: Duration = Duration::from_millis(2);

/// How long the data folder may be held by work that nobody waits for.
const RELEASE: Duration = Duration::from_secs(5);

/// All services over one data folder, calling each other directly.
pub struct Platform {
    /// Accounts and histories.
    pub users: Arc<dyn Users>,
    /// Lists with reasons.
    pub recommendations: Arc<dyn Recommendations>,
    /// Experiments on lists.
    pub experiments: Arc<dyn Experiments>,
    /// Histories for training elsewhere.
    pub training: Arc<dyn Training>,
    /// Releases of models.
    pub models: Arc<dyn Models>,
    /// Status and traces.
    pub operations: Arc<dyn Operations>,
    /// Records that consumers could not apply.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Runs of workflows, once they have been started.
    pub agents: Option<Arc<dyn Agents>>,
    flow: Flow,
    /// Of the consumer of accounts.
    pace: Pace,
    meter: Meter,
    config: Config,
    addresses: Arc<OnceLock<BTreeMap<String, String>>>,
    folder: PathBuf,
    db: Db,
    life: Life,
}

/// The way of an event from the outbox into answers.
#[derive(Clone)]
pub struct Flow {
    service: RecommendationsService,
    runs: EmbeddedRunStore,
    store: EmbeddedUserStore,
    log: EmbeddedEventLog,
}

impl Flow {
    /// Waits until every event written so far shows in answers, but for those of users whose events cannot be read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn settle(&self) -> anyhow::Result<()> {
        // In this order: an event leaves the outbox after it has entered the log.
        while !self.store.all_published()? || !self.is_consumed().await? {
            tokio::time::sleep(SETTLE_EVERY).await;
        }
        Ok(())
    }

    /// Whether every consumer has come to the ends of the log.
    async fn is_consumed(&self) -> anyhow::Result<bool> {
        let ends = self.log.ends(USERS_TOPIC).await?;
        let followed = self.log.committed(USERS_TOPIC, echotune_agents::GROUP).await?;
        let replays = self.log.ends(&dead::replays_topic(USERS_TOPIC, RECOMMENDATIONS)).await?;
        let applied = self.service.positions();
        Ok(applied.covers(&ends)
            && applied.covers(&replays)
            && followed.covers(&ends)
            && self.are_replays_followed().await?)
    }

    /// Whether agents have come to the end of what is replayed to them.
    async fn are_replays_followed(&self) -> anyhow::Result<bool> {
        let topic = dead::replays_topic(USERS_TOPIC, echotune_agents::GROUP);
        let followed = self.log.committed(&topic, echotune_agents::REPLAYS_GROUP).await?;
        Ok(followed.covers(&self.log.ends(&topic).await?))
    }

    /// Fits co-listening alone, which is quick, and waits for it.
    pub async fn refit_quickly(&self) {
        self.service.refit_quickly().await;
    }
}

impl Platform {
    /// Opens a data folder and starts the relay, the consumer and the refits.
    ///
    /// # Errors
    /// The folder cannot be used; the error says why and what to do.
    pub fn open(folder: &Path, spans: SpanStore) -> anyhow::Result<Self> {
        Self::open_with(&Config::default(), folder, spans)
    }

    /// [`Platform::open`], told more.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(config: &Config, folder: &Path, spans: SpanStore) -> anyhow::Result<Self> {
        let db = Db::open(folder)?;
        // Whoever holds the folder says where it is served; a platform that was killed said so last.
        remove_if_there(&folder.join(ADDRESS_FILE)).context("file 'address' of the data folder cannot be removed")?;
        let clock = Arc::new(Clock::default());
        let log = EmbeddedEventLog::new(db.clone());
        let store = EmbeddedUserStore::new(db.clone(), Arc::clone(&clock));
        let service = recommendations(config, folder, db.clone())?;
        clock_after(&service, &store);
        let mut life = Life::new(config.process.shutdown.patience());
        // A store that fails once writes nothing more: better to go down and say why.
        life.consumer("the store", {
            let (failed, stop) = (db.failed(), life.stop());
            async move {
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    error = failed => Err(error),
                }
            }
        });
        life.consumer("the relay of the outbox", {
            let (store, log, stop) = (store.clone(), log.clone(), life.stop());
            async move { relay(store, &log, stop).await }
        });
        let (runs, pace) = (EmbeddedRunStore::new(db.clone(), clock), Pace::default());
        life.consumer("the consumer of accounts", {
            let (runs, log, pace, stop) = (runs.clone(), log.clone(), pace.clone(), life.stop());
            async move { echotune_agents::consume(&runs, &log, &pace, stop).await }
        });
        service.follow(&mut life, log.clone(), config.fitting.recommendations.refit_debounce.0);
        let addresses = Arc::default();
        Ok(Self {
            operations: Arc::new(EmbeddedOperations {
                users: store.clone(),
                recommendations: service.clone(),
                runs: runs.clone(),
                spans,
                addresses: Arc::clone(&addresses),
            }),
            addresses,
            dead_letters: Arc::new(DeadLettersService::new(log.clone())),
            users: Arc::new(UsersService::new(store.clone())),
            recommendations: Arc::new(service.clone()),
            experiments: Arc::new(service.clone()),
            training: Arc::new(service.clone()),
            models: Arc::new(service.clone()),
            flow: Flow { service, runs, store, log },
            pace,
            agents: None,
            meter: Meter::default(),
            config: config.clone(),
            folder: folder.to_owned(),
            db,
            life,
        })
    }

    /// Waits until every event written so far shows in answers, with a model fitted on it: co-listening alone,
    /// when the whole model is not there yet.
    ///
    /// # Errors
    /// The store cannot be read, or what moves events has ended.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            settled = self.flow.settle() => settled?,
            cause = self.life.failed() => anyhow::bail!(cause),
        }
        self.flow.refit_quickly().await;
        Ok(())
    }

    /// With metrics that go to a meter, once it serves.
    #[must_use]
    pub fn metered(self, meter: Meter) -> Self {
        self.flow.store.tell_held(&meter);
        Self { meter, ..self }
    }

    /// Cancel it to stop the platform from elsewhere.
    pub fn asked(&self) -> CancellationToken {
        self.life.asked()
    }

    /// Cancelled when the platform begins to stop, whoever asked.
    pub fn stopping(&self) -> CancellationToken {
        self.life.not_ready()
    }

    /// The way of events into answers.
    pub fn flow(&self) -> Flow {
        self.flow.clone()
    }

    /// Serves the MCP servers on `address`, behind their gateway, and loads agents, which reach tools only through
    /// that. Answers with the address. `work` says whether runs are carried out, those that were cut off first.
    ///
    /// # Errors
    /// The address cannot be listened on, the gateway is configured wrongly, or a workflow has faults.
    pub async fn start_agents(&mut self, address: SocketAddr, work: bool) -> anyhow::Result<SocketAddr> {
        let callers = Callers::new(self.token()?, Some(authenticator(Arc::clone(&self.users))));
        let address = self.start_tools(address, Others::OfAgents, callers).await?;
        self.load_agents(address, work).await?;
        Ok(address)
    }

    /// Serves the gateway with all that is behind it.
    async fn start_tools(
        &mut self,
        address: SocketAddr,
        others: Others,
        callers: Callers,
    ) -> anyhow::Result<SocketAddr> {
        self.config.process.check_plaintext(address).map_err(anyhow::Error::msg)?;
        let listener = tools::listen(address).await?;
        let address = listener.local_addr()?;
        let token = self.token()?;
        let services = Services {
            users: Arc::clone(&self.users),
            recommendations: Arc::clone(&self.recommendations),
            experiments: Arc::clone(&self.experiments),
            operations: Arc::clone(&self.operations),
        };
        let Patience { default: deadline_default, max: deadline_max } = self.config.process.limits.patience();
        let catalogue = catalogue::router(Catalogue::new(self.db.clone()), callers.clone());
        let wanted = Wanted {
            section: &self.config.gateway,
            metering: &self.config.metering,
            mcp: &self.config.mcp,
            data: &self.folder,
            others,
            callers,
            token: &token,
            meter: &self.meter,
            limits: Limits { deadline_default, deadline_max, ..Limits::default() },
            // Agents name the address itself.
            here: reachable(address),
            patience: self.config.process.shutdown.drain_timeout.0,
        };
        let gateway = gateway::start(&services, wanted, &mut self.life).await?;
        let routes = gateway.router().merge(gateway.short_paths()).merge(catalogue);
        tools::serve(&mut self.life, listener, routes);
        Ok(address)
    }

    /// Loads agents, whose tools are behind the gateway at `address`.
    async fn load_agents(&mut self, address: SocketAddr, work: bool) -> anyhow::Result<()> {
        let token = self.token()?;
        let near = (reachable(address), &token);
        if work {
            self.flow.runs.take_over().await?;
        }
        let further = &self.config.gateway.agent_servers;
        let agents =
            tools::agents(self.flow.runs.clone(), &self.config.agents, further, &self.folder, &self.life, near).await?;
        if work {
            // Ends before the servers of its tools do.
            self.life.server("the runs of agents", agents.work(self.life.drain()));
        }
        self.agents = Some(Arc::new(agents));
        Ok(())
    }

    /// Who is known where it serves.
    async fn callers(&mut self) -> anyhow::Result<Callers> {
        let (token, users, accounts) =
            (self.token()?, authenticator(Arc::clone(&self.users)), accounts(Arc::clone(&self.users)));
        let known = self.config.process.callers(token, users, accounts, &mut self.life, &self.meter).await;
        known.map_err(anyhow::Error::from_boxed)
    }

    fn token(&self) -> anyhow::Result<Token> {
        Token::read_or_create(&self.folder).context("the token of the data folder cannot be read or written")
    }

    /// Serves all services on `address` (port 0 chooses one).
    ///
    /// # Errors
    /// The address cannot be listened on, or the data folder not written.
    pub async fn serve(mut self, address: SocketAddr) -> anyhow::Result<Serving> {
        let mcp = self.config.mcp.address(address).context("mcp.listen is no address")?;
        // Before real work: whoever gave a wrong file or address need not wait to be told.
        let settings = Settings { listen: address, ..self.config.process.clone() };
        let ways = Ways::bind(&settings).await.map_err(anyhow::Error::from_boxed)?;
        let (address, over_tls) = (ways.address, ways.over_tls());
        let callers = self.callers().await?;
        let mcp = self.start_tools(mcp, Others::All, callers.clone()).await?;
        self.load_agents(mcp, true).await?;
        tools::fill(&Catalogue::new(self.db.clone()), &self.folder).await;
        let agents = self.agents.clone().expect("agents were just started");
        // Only where something stays: a command that looks at a full disk must not fail by tidying up.
        self.life.consumer("the sweeper of users", sweeper(self.flow.store.clone(), self.life.stop()));
        let of = (USERS_TOPIC, echotune_agents::GROUP);
        self.pace.tell(&mut self.life, self.flow.log.clone(), of, Some(of.1), &self.meter);
        self.flow.service.watch(&mut self.life, self.flow.log.clone(), &self.meter);
        // Ready means with a model: nobody is a stranger because of a restart. The whole one follows.
        self.flow.refit_quickly().await;
        let edge = Edge::knowing(callers, self.config.process.limits.patience());
        let services = grpc::Services {
            users: Arc::clone(&self.users),
            recommendations: Arc::clone(&self.recommendations),
            experiments: Arc::clone(&self.experiments),
            training: Arc::clone(&self.training),
            models: Arc::clone(&self.models),
            agents,
            operations: Arc::clone(&self.operations),
            dead_letters: Arc::clone(&self.dead_letters),
        };
        ways.answer(|| services.behind(&edge), &mut self.life).await.map_err(anyhow::Error::from_boxed)?;
        let reached = [("grpc", address.to_string()), ("mcp", format!("http://{mcp}/mcp"))];
        let reached = reached.into_iter().chain(over_tls.map(|at| ("grpc over TLS", at.to_string())));
        let reached = reached.map(|(name, at)| (name.to_owned(), at)).collect();
        self.addresses.set(reached).expect("a platform is served once: serving takes it");
        write_address(&self.folder, address).context("the data folder cannot be written")?;
        Ok(Serving { address, mcp, tls: over_tls, platform: self })
    }

    /// Stops the background work and releases the data folder.
    ///
    /// # Errors
    /// What failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        let (life, db, _) = self.into_parts();
        clean(release(life.end().await, db).await)
    }

    /// What is needed to the end; everything else lets go of the folder here.
    fn into_parts(self) -> (Life, Db, PathBuf) {
        (self.life, self.db, self.folder)
    }
}

/// Waits until the data folder is free for the next process.
async fn release(exit: Exit, db: Db) -> Exit {
    let released = db.released();
    drop(db);
    if timeout(RELEASE, released).await.is_err() {
        tracing::warn!("work that goes on in the background still holds the data folder");
    }
    exit
}

fn clean(exit: Exit) -> anyhow::Result<()> {
    if exit == Exit::Clean { Ok(()) } else { Err(anyhow::anyhow!("{exit}")) }
}

/// A platform that answers on an address.
pub struct Serving {
    /// Where it answers.
    pub address: SocketAddr,
    /// Where its MCP servers answer.
    pub mcp: SocketAddr,
    /// Where it answers over TLS, if it does.
    pub tls: Option<SocketAddr>,
    /// The platform.
    pub platform: Platform,
}

impl Serving {
    /// Answers until a signal comes, somebody asks or a task fails; then denies readiness, answers
    /// the requests under way, ends the background work and releases the data folder.
    pub async fn until(self, signals: mpsc::Receiver<Signal>) -> Exit {
        let (life, db, folder) = self.platform.into_parts();
        let exit = life.until(signals).await;
        // Before the folder is free: the next to open it writes its own address.
        drop(remove_if_there(&folder.join(ADDRESS_FILE)));
        if let Exit::Now(_) = exit { exit } else { release(exit, db).await }
    }

    /// Stops as [`Serving::until`] does after a signal.
    ///
    /// # Errors
    /// What failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.platform.life.asked().cancel();
        let (_none, signals) = mpsc::channel(1);
        clean(self.until(signals).await)
    }
}

/// Where an address that may stand for all of them is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), v6.port()),
        one => one,
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Written beside and renamed: a command reads all of it or none.
fn write_address(folder: &Path, address: SocketAddr) -> io::Result<()> {
    let beside = folder.join("address.new");
    fs::write(&beside, address.to_string())?;
    fs::rename(beside, folder.join(ADDRESS_FILE))
}

/// recommendations over a data folder, as configured.
fn recommendations(config: &Config, folder: &Path, db: Db) -> anyhow::Result<RecommendationsService> {
    let service = RecommendationsService::load_with(
        EmbeddedRecommendationStore::new(db),
        config.fitting.recommendations.policy(),
        config.fitting.models.limits(),
        &config.fitting.recommendations.fitting(folder),
    )?;
    #[cfg(feature = "mlflow")]
    if let Some(tracking) = config.mlflow.tracking().map_err(anyhow::Error::msg)? {
        service.track_releases(tracking);
    }
    Ok(service)
}

/// Times given out after a restart must be later than all that were given out before it.
fn clock_after(service: &RecommendationsService, store: &EmbeddedUserStore) {
    store.observe(service.watermark());
}
