//! Keyspaces for tests against real servers, each with a name of its own.

use std::env;

use uuid::Uuid;

use super::{CqlConfig, CqlError, CqlSession};

/// The variable that says where servers are: `REGION=HOST:PORT`, several parted by commas.
pub const VARIABLE: &str = "ECHOTUNE_CQL";

/// Where servers are, by region, in the order given.
///
/// # Panics
/// The variable is missing or says something else: a test that has no server has failed.
pub fn servers() -> Vec<(String, String)> {
    let told = env::var(VARIABLE).unwrap_or_default();
    let parts: Option<Vec<_>> =
        told.split(',').map(|part| part.split_once('=').map(|(name, at)| (name.into(), at.into()))).collect();
    parts.unwrap_or_else(|| {
        panic!("{VARIABLE} is '{told}': start servers and say where, such as us=127.0.0.1:9042; `cargo xtask e2e data` does both")
    })
}

/// How to reach a new keyspace from each region; one copy in each.
pub fn configs(prefix: &str) -> Vec<CqlConfig> {
    let servers = servers();
    let name = format!("{prefix}_{}", &Uuid::new_v4().simple().to_string()[..12]);
    let replication: std::collections::BTreeMap<_, _> = servers.iter().map(|(region, _)| (region.clone(), 1)).collect();
    let config = |(region, at): (String, String)| {
        let replication = replication.clone();
        CqlConfig { replication, ..CqlConfig::new(at, region, name.clone()) }
    };
    servers.into_iter().map(config).collect()
}

/// Removes the keyspace of a session, with all that is in it.
///
/// # Errors
/// The servers refuse.
pub async fn drop(session: &CqlSession) -> Result<(), CqlError> {
    let name = &session.config().keyspace;
    session.schema("drop the keyspace", &format!("DROP KEYSPACE IF EXISTS {name}")).await
}

/// Removes every row of the keyspace of a session, which is quicker than another keyspace.
///
/// # Errors
/// The servers refuse.
pub async fn empty(session: &CqlSession) -> Result<(), CqlError> {
    let tables = session.read("tables", "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?").await?;
    let tables: Vec<(String,)> = session.rows(&tables, (&session.config().keyspace,), usize::MAX).await?;
    for (table,) in tables.iter().filter(|(table,)| !table.starts_with("schema_")) {
        session.schema("empty a table", &format!("TRUNCATE {table}")).await?;
    }
    Ok(())
}
