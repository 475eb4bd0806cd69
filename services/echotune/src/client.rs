use std::{fs, io, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context as _;
use echotune_api::{Operations, OperationsClient, Recommendations, RecommendationsClient, Users, UsersClient};
use echotune_kit::{auth::Token, edge::Credentials, telemetry::SpanStore};
use tonic::transport::Endpoint;

use crate::platform::{ADDRESS_FILE, Platform};

/// The services, wherever they are.
pub struct Connection {
    /// Accounts and histories.
    pub users: Arc<dyn Users>,
    /// Lists with reasons.
    pub recommendations: Arc<dyn Recommendations>,
    /// Status and traces.
    pub operations: Arc<dyn Operations>,
    opened: Option<Platform>,
}

impl Connection {
    /// Connects to the platform that runs on a data folder, or opens the folder when none runs.
    ///
    /// # Errors
    /// Neither is possible; the error says why.
    pub async fn to(folder: &Path, spans: SpanStore) -> anyhow::Result<Self> {
        match fs::read_to_string(folder.join(ADDRESS_FILE)) {
            Ok(address) => {
                let address = address.trim().parse().context("file 'address' of the data folder holds no address")?;
                match Self::remote(folder, address).await {
                    Ok(connection) => Ok(connection),
                    // The platform was killed and left its address behind.
                    Err(_) => Self::open(folder, spans).await,
                }
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Self::open(folder, spans).await,
            Err(cause) => Err(cause).context("file 'address' of the data folder cannot be read"),
        }
    }

    /// Connects to a platform at an address, with the token of a data folder.
    ///
    /// # Errors
    /// Nothing answers there, or the token cannot be read.
    pub async fn remote(folder: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let token = Token::read(folder).context("the token of the data folder cannot be read")?;
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let credentials = Credentials { token };
        Ok(Self {
            users: Arc::new(UsersClient::new(channel.clone(), credentials.clone())),
            recommendations: Arc::new(RecommendationsClient::new(channel.clone(), credentials.clone())),
            operations: Arc::new(OperationsClient::new(channel, credentials)),
            opened: None,
        })
    }

    async fn open(folder: &Path, spans: SpanStore) -> anyhow::Result<Self> {
        let platform = Platform::open(folder, spans)?;
        platform.flow().settle().await?;
        platform.flow().refit().await;
        Ok(Self {
            users: Arc::clone(&platform.users),
            recommendations: Arc::clone(&platform.recommendations),
            operations: Arc::clone(&platform.operations),
            opened: Some(platform),
        })
    }

    /// Brings what was written into the models, when this opened the folder; a running platform
    /// does so by itself.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn settle(&self) -> anyhow::Result<()> {
        if let Some(platform) = &self.opened {
            platform.flow().settle().await?;
            platform.flow().refit().await;
        }
        Ok(())
    }

    /// Releases the data folder when this opened it.
    ///
    /// # Errors
    /// A background task failed.
    pub async fn close(self) -> anyhow::Result<()> {
        let Self { opened, users, recommendations, operations } = self;
        drop((users, recommendations, operations));
        match opened {
            Some(platform) => platform.stop().await,
            None => Ok(()),
        }
    }
}
