use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use echotune_api::{
    Agents, AgentsClient, DeadLetters, DeadLettersClient, Experiments, ExperimentsClient, Models, ModelsClient,
    Operations, OperationsClient, Recommendations, RecommendationsClient, Regions, RegionsClient, Training,
    TrainingClient, Users, UsersClient,
};
use echotune_kit::{auth::Token, edge::Credentials, embedded::StoreError, process::upstream, telemetry::SpanStore};
use echotune_mcp_servers::Services;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::{
    Config,
    platform::{ADDRESS_FILE, Platform},
};

/// How long a folder that another command holds is waited for.
const FREE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where the platform that holds a folder listens; `None` when none serves it.
fn address(folder: &Path) -> anyhow::Result<Option<SocketAddr>> {
    match fs::read_to_string(folder.join(ADDRESS_FILE)) {
        Ok(address) => address.trim().parse().map(Some).context("file 'address' of the data folder holds no address"),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause).context("file 'address' of the data folder cannot be read"),
    }
}

/// The services, wherever they are.
pub struct Connection {
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
    /// Records that consumers could not apply; told by recommendations, where services are apart.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Runs of workflows; in a folder that was opened, once they have been started.
    pub agents: Option<Arc<dyn Agents>>,
    /// Who makes whose writes, where there are several regions.
    pub regions: Option<Arc<dyn Regions>>,
    opened: Option<Platform>,
}

impl Connection {
    /// Connects to the services that are configured, or to the platform that runs on a data folder, or opens the folder when none runs. A
    /// folder that another command holds is waited for.
    ///
    /// # Errors
    /// Neither is possible; the error says why.
    pub async fn to(config: &Config, folder: &Path, spans: SpanStore) -> anyhow::Result<Self> {
        if config.connect.is_elsewhere() {
            return Self::elsewhere(config);
        }
        let started = Instant::now();
        loop {
            // First the folder: whoever holds it wrote the address, so that the token goes to no one else.
            let held = match Platform::open_with(config, folder, spans.clone()) {
                Ok(platform) => return Self::opened(platform).await,
                Err(error) => error,
            };
            if !matches!(held.downcast_ref(), Some(StoreError::InUse(_))) {
                return Err(held);
            }
            if let Some(address) = address(folder)? {
                return Self::remote(folder, address)
                    .await
                    .with_context(|| format!("the platform on data folder {} does not answer", folder.display()));
            }
            if started.elapsed() > FREE_WITHIN {
                return Err(held);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Connects to a platform at an address, with the token of a data folder.
    ///
    /// # Errors
    /// Nothing answers there, or the token cannot be read.
    pub async fn remote(folder: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let token = Token::read(folder).context("the token of the data folder cannot be read")?;
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        Ok(Self::over([&channel, &channel, &channel, &channel], &Credentials { token }))
    }

    /// Works with services at the addresses that are configured, which are connected to when they are used.
    pub(crate) fn elsewhere(config: &Config) -> anyhow::Result<Self> {
        let connect = &config.connect;
        let token = connect.credentials().context("connect.token_file")?;
        let channel = |own: &str| {
            let channel = upstream(connect.address(own), &config.process, CancellationToken::new());
            channel.map_err(anyhow::Error::from_boxed)
        };
        let (users, recommendations) = (channel(&connect.users)?, channel(&connect.recommendations)?);
        let (agents, others) = (channel(&connect.agents)?, channel("")?);
        let credentials = Credentials { token };
        let regions = RegionsClient::new(users.clone(), credentials.clone());
        let services = Self::over([&users, &recommendations, &agents, &others], &credentials);
        Ok(Self { regions: Some(Arc::new(regions)), ..services })
    }

    fn over([users, recommendations, agents, others]: [&Channel; 4], credentials: &Credentials) -> Self {
        Self {
            users: Arc::new(UsersClient::new(users.clone(), credentials.clone())),
            recommendations: Arc::new(RecommendationsClient::new(recommendations.clone(), credentials.clone())),
            experiments: Arc::new(ExperimentsClient::new(recommendations.clone(), credentials.clone())),
            training: Arc::new(TrainingClient::new(recommendations.clone(), credentials.clone())),
            models: Arc::new(ModelsClient::new(recommendations.clone(), credentials.clone())),
            operations: Arc::new(OperationsClient::new(others.clone(), credentials.clone())),
            dead_letters: Arc::new(DeadLettersClient::new(recommendations.clone(), credentials.clone())),
            agents: Some(Arc::new(AgentsClient::new(agents.clone(), credentials.clone()))),
            regions: None,
            opened: None,
        }
    }

    async fn opened(mut platform: Platform) -> anyhow::Result<Self> {
        platform.settle().await?;
        Ok(Self {
            users: Arc::clone(&platform.users),
            recommendations: Arc::clone(&platform.recommendations),
            experiments: Arc::clone(&platform.experiments),
            training: Arc::clone(&platform.training),
            models: Arc::clone(&platform.models),
            operations: Arc::clone(&platform.operations),
            dead_letters: Arc::clone(&platform.dead_letters),
            agents: None,
            regions: None,
            opened: Some(platform),
        })
    }

    /// agents of the platform; in a folder that was opened they are started. `work` says whether runs are
    /// carried out here.
    ///
    /// # Errors
    /// A workflow has faults, or no port is free.
    pub async fn start_agents(&mut self, work: bool) -> anyhow::Result<Arc<dyn Agents>> {
        if let Some(platform) = &mut self.opened
            && self.agents.is_none()
        {
            platform.start_agents(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), work).await?;
            self.agents.clone_from(&platform.agents);
        }
        self.agents.clone().context("the platform has no agents")
    }

    /// What MCP servers work with.
    pub fn services(&self) -> Services {
        Services {
            users: Arc::clone(&self.users),
            recommendations: Arc::clone(&self.recommendations),
            experiments: Arc::clone(&self.experiments),
            operations: Arc::clone(&self.operations),
        }
    }

    /// Whether a platform runs on the folder and goes on after this command.
    pub const fn is_remote(&self) -> bool {
        self.opened.is_none()
    }

    /// Brings what was written into the models, when this opened the folder; a running platform
    /// does so by itself.
    ///
    /// # Errors
    /// The store cannot be read, or what moves events has ended.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        match &mut self.opened {
            Some(platform) => platform.settle().await,
            None => Ok(()),
        }
    }

    /// Releases the data folder when this opened it.
    ///
    /// # Errors
    /// A background task failed.
    pub async fn close(self) -> anyhow::Result<()> {
        let Self { opened, users, recommendations, experiments, models, training, .. } = self;
        drop((users, recommendations, experiments, models, training));
        drop((self.operations, self.dead_letters, self.agents));
        match opened {
            Some(platform) => platform.stop().await,
            None => Ok(()),
        }
    }
}
