use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use echotune_api::{
    Operations, Recommendations, Users, authenticator, events::USERS_TOPIC, operations_server, recommendations_server,
    users_server,
};
use echotune_eventlog::{EmbeddedEventLog, EventLog as _};
use echotune_kit::{
    auth::Token,
    edge::{Edge, Patience},
    embedded::Db,
    telemetry::SpanStore,
};
use echotune_model::Clock;
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService, consume, refit};
use echotune_users::{EmbeddedUserStore, UsersService, relay, sweeper};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{Config, operations::EmbeddedOperations};

/// File in a data folder that says where its platform listens.
pub(crate) const ADDRESS_FILE: &str = "address";

/// How often it is looked whether events still move.
const SETTLE_EVERY: Duration = Duration::from_millis(2);

/// All services over one data folder, calling each other directly.
pub struct Platform {
    /// Accounts and histories.
    pub users: Arc<dyn Users>,
    /// Lists with reasons.
    pub recommendations: Arc<dyn Recommendations>,
    /// Status and traces.
    pub operations: Arc<dyn Operations>,
    service: RecommendationsService,
    store: EmbeddedUserStore,
    log: EmbeddedEventLog,
    patience: Patience,
    folder: PathBuf,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
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
        let clock = Arc::new(Clock::default());
        let log = EmbeddedEventLog::new(db.clone());
        let store = EmbeddedUserStore::new(db.clone(), clock);
        let service = RecommendationsService::load(EmbeddedRecommendationStore::new(db))?;
        clock_after(&service, &store);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (store, log, stop) = (store.clone(), log.clone(), stop.clone());
            async move { relay(store, &log, stop).await.context("the relay of the outbox failed") }
        });
        tasks.spawn({
            let (store, stop) = (store.clone(), stop.clone());
            async move { sweeper(store, stop).await.context("the sweeper of users failed") }
        });
        tasks.spawn({
            let (service, log, stop) = (service.clone(), log.clone(), stop.clone());
            async move { consume(service, &log, stop).await.context("the consumer of histories failed") }
        });
        tasks.spawn({
            let (service, stop) = (service.clone(), stop.clone());
            let debounce = config.recommendations.refit_debounce.0;
            async move {
                refit(service, debounce, stop).await;
                Ok(())
            }
        });
        Ok(Self {
            operations: Arc::new(EmbeddedOperations::new(store.clone(), service.clone(), spans)),
            users: Arc::new(UsersService::new(store.clone())),
            recommendations: Arc::new(service.clone()),
            service,
            store,
            log,
            patience: Patience { default: config.limits.deadline_default.0, max: config.limits.deadline_max.0 },
            folder: folder.to_owned(),
            stop,
            tasks,
        })
    }

    /// Waits until every event written so far shows in answers.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn settle(&self) -> anyhow::Result<()> {
        // In this order: an event leaves the outbox after it has entered the log.
        while !self.store.all_published()? || self.service.position() < self.log.end(USERS_TOPIC).await? {
            tokio::time::sleep(SETTLE_EVERY).await;
        }
        Ok(())
    }

    /// Fits the models on the histories as they are now and waits for it.
    pub async fn refit(&self) {
        self.service.refit().await;
    }

    /// Serves all services on `address` (port 0 chooses one).
    ///
    /// # Errors
    /// The address cannot be listened on, or the data folder not written.
    pub async fn serve(mut self, address: SocketAddr) -> anyhow::Result<Serving> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; choose another address with --listen, such as 127.0.0.1:0")
        })?;
        let address = listener.local_addr()?;
        let token =
            Token::read_or_create(&self.folder).context("the token of the data folder cannot be read or written")?;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(echotune_api::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let server = Server::builder()
            .layer(Edge::new(token, Some(authenticator(Arc::clone(&self.users))), self.patience))
            .add_service(health_service)
            .add_service(reflection)
            .add_service(users_server(Arc::clone(&self.users)))
            .add_service(recommendations_server(Arc::clone(&self.recommendations)))
            .add_service(operations_server(Arc::clone(&self.operations)));
        let stopped = self.stop.clone().cancelled_owned();
        self.tasks.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            server.serve_with_incoming_shutdown(incoming, stopped).await.context("the gRPC server failed")
        });
        fs::write(self.folder.join(ADDRESS_FILE), address.to_string()).context("the data folder cannot be written")?;
        Ok(Serving { address, platform: self })
    }

    /// Stops the background work and waits for it.
    ///
    /// # Errors
    /// The first failure of a task.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            outcome = outcome.and(ended?);
        }
        outcome
    }
}

/// A platform that answers on an address.
pub struct Serving {
    /// Where it answers.
    pub address: SocketAddr,
    /// The platform.
    pub platform: Platform,
}

impl Serving {
    /// Answers until `stop` is done or a task fails, then finishes the requests under way and the
    /// background work.
    ///
    /// # Errors
    /// The first failure of a task.
    pub async fn until(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let failed = tokio::select! {
            () = stop => Ok(()),
            Some(ended) = self.platform.tasks.join_next() => ended?,
        };
        // A client that finds no address falls back to opening the folder itself.
        drop(fs::remove_file(self.platform.folder.join(ADDRESS_FILE)));
        failed.and(self.platform.stop().await)
    }
}

/// Times given out after a restart must be later than all that were given out before it.
fn clock_after(service: &RecommendationsService, store: &EmbeddedUserStore) {
    store.observe(service.watermark());
}
