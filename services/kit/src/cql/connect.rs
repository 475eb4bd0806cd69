//! The way to the servers. What the driver would choose by itself is chosen here, where it matters.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    errors::{DbError, ExecutionError, RequestAttemptError},
    policies::{host_filter::DcHostFilter, load_balancing::DefaultPolicy, retry::FallthroughRetryPolicy},
    statement::{Consistency, SerialConsistency},
};
use tokio::{sync::Semaphore, time::sleep};

use super::{
    CqlConfig, CqlError, CqlSession, Server,
    error::{Effect, fate, of_fate},
    run::Inner,
};

impl CqlSession {
    /// Connects to the servers of the own data centre, and makes the keyspace when there is none.
    ///
    /// # Errors
    /// [`CqlError::Config`], [`CqlError::Unreachable`], or what a server says to the keyspace.
    pub async fn connect(config: &CqlConfig) -> Result<Self, CqlError> {
        config.check()?;
        let unreachable = |cause: String| CqlError::Unreachable {
            datacenter: config.datacenter.clone(),
            points: config.contact_points.join(", "),
            cause,
        };
        let opened = open(config).await.map_err(|cause| unreachable(cause.to_string()))?;
        check_datacenter(&opened, config).map_err(unreachable)?;
        let server = server(&opened).await?;
        let permits = Semaphore::new(config.in_flight as usize);
        let session = Self { inner: Arc::new(Inner { session: opened, permits, config: config.clone(), server }) };
        session.ensure_keyspace().await?;
        session.enter_keyspace().await.map_err(unreachable)?;
        Ok(session)
    }
}

async fn open(config: &CqlConfig) -> Result<Session, scylla::errors::NewSessionError> {
    let policy = DefaultPolicy::builder()
        .prefer_datacenter(config.datacenter.clone())
        .token_aware(true)
        // LOCAL_QUORUM is local to whoever coordinates: a coordinator far away would read and write elsewhere.
        .permit_dc_failover(false)
        .build();
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        // The driver's choice would be unique in one data centre only.
        .serial_consistency(Some(SerialConsistency::Serial))
        .request_timeout(Some(config.request_timeout.0))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .speculative_execution_policy(None)
        .load_balancing_policy(policy)
        .build();
    SessionBuilder::new()
        .known_nodes(&config.contact_points)
        // A frozen server of another data centre would hold up connecting and preparing for a minute and more.
        .host_filter(Arc::new(DcHostFilter::new(config.datacenter.clone())))
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(config.connect_timeout.0)
        .hostname_resolution_timeout(Some(config.connect_timeout.0))
        .schema_agreement_timeout(config.schema_timeout.0)
        // Which copies hold a partition is all that is used of the schema.
        .fetch_full_schema_metadata(false)
        .keepalive_interval(Duration::from_secs(10))
        .keepalive_timeout(Duration::from_secs(10))
        // How this process is configured is nobody's business on the servers.
        .driver_config_reporting(false)
        .build()
        .await
}

/// A data centre that no server is of would be found out by the first request only, and told as a passing fault.
fn check_datacenter(session: &Session, config: &CqlConfig) -> Result<(), String> {
    let state = session.get_cluster_state();
    let found: BTreeSet<_> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    if found.contains(config.datacenter.as_str()) {
        return Ok(());
    }
    Err(format!("the servers are of {}", found.into_iter().collect::<Vec<_>>().join(", ")))
}

const PROBE: &str = "which server it is";

/// ScyllaDB is the one that has a table of this name.
async fn server(session: &Session) -> Result<Server, CqlError> {
    match session.query_unpaged("SELECT key FROM system.scylla_local LIMIT 1", ()).await {
        Ok(_) => Ok(Server::ScyllaDb),
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => {
            Ok(Server::Cassandra)
        }
        Err(cause) => Err(of_fate(PROBE, Effect::Reads, fate(&cause), cause.to_string())),
    }
}

const KEYSPACE: &str = "make the keyspace";
/// How long to wait for a keyspace that another process is making, and how often.
const COMING: (Duration, u32) = (Duration::from_millis(300), 20);

impl CqlSession {
    async fn ensure_keyspace(&self) -> Result<(), CqlError> {
        let failed = |cause: ExecutionError| of_fate(KEYSPACE, Effect::Writes, fate(&cause), cause.to_string());
        let known = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let found = self.driver().query_unpaged(known, (&self.config().keyspace,)).await.map_err(failed)?;
        let damaged = |cause: String| CqlError::Damaged { what: "the list of keyspaces", cause };
        let found = found.into_rows_result().map_err(|cause| damaged(cause.to_string()))?;
        // A service that may not make keyspaces can use one that was made for it.
        if found.rows_num() == 0 {
            self.schema(KEYSPACE, &keyspace(self.config(), self.server())).await?;
        }
        Ok(())
    }

    /// A server lists a keyspace a moment before it can be used.
    async fn enter_keyspace(&self) -> Result<(), String> {
        for _ in 1..COMING.1 {
            if self.driver().use_keyspace(&self.config().keyspace, false).await.is_ok() {
                return Ok(());
            }
            sleep(COMING.0).await;
        }
        self.driver().use_keyspace(&self.config().keyspace, false).await.map_err(|cause| cause.to_string())
    }
}

const COPIES: &str = "where the copies of the keyspace are";

impl CqlSession {
    /// Refuses a keyspace with copies in a data centre that the configuration names none in, or without any in the own:
    /// for what may not be elsewhere. One that exists keeps the copies that it was made with, whoever made it.
    ///
    /// # Errors
    /// [`CqlError::Config`] naming the data centres, or what a server says.
    pub async fn check_copies(&self) -> Result<(), CqlError> {
        let read = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let read = self.read(COPIES, read).await?;
        let found: Option<(BTreeMap<String, String>,)> = self.one(&read, (&self.config().keyspace,)).await?;
        let Some((found,)) = found else {
            return Err(CqlError::Damaged { what: COPIES, cause: "the keyspace is gone".into() });
        };
        stray(&found, self.config()).map_or(Ok(()), |why| Err(CqlError::Config(why)))
    }
}

/// What is wrong with where copies are, as the servers tell it: `class`, and a number by data centre.
pub(super) fn stray(found: &BTreeMap<String, String>, config: &CqlConfig) -> Option<String> {
    let centres: BTreeSet<_> = found.keys().map(String::as_str).filter(|key| *key != "class").collect();
    let strays: Vec<_> = centres.iter().copied().filter(|name| !config.replication.contains_key(*name)).collect();
    let CqlConfig { keyspace, datacenter, .. } = config;
    let may = config.replication.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if !strays.is_empty() {
        let at = strays.join(", ");
        let way = "change its replication, and clean up what those servers hold, before anything else is kept there";
        return Some(format!("keyspace {keyspace} has copies at {at}, and may have some at {may} only: {way}"));
    }
    let own = format!("keyspace {keyspace} has no copies at {datacenter}; change its replication, and repair it");
    (!centres.contains(datacenter.as_str())).then_some(own)
}

/// The statement that makes the keyspace. The one place where the two servers are told different things.
pub(super) fn keyspace(config: &CqlConfig, server: Server) -> String {
    let copies: Vec<_> = config.replication.iter().map(|(name, copies)| format!(", '{name}': {copies}")).collect();
    let only = match server {
        // Conditional writes on tablets are younger than what this program has to run on.
        Server::ScyllaDb => " AND tablets = {'enabled': false}",
        Server::Cassandra => "",
    };
    let (name, copies) = (&config.keyspace, copies.concat());
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {{'class': 'NetworkTopologyStrategy'{copies}}}{only}"
    )
}
