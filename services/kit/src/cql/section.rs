//! The section `[cql]` of a configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Acknowledge, CqlConfig};
use crate::config::Period;

/// Where the servers of the own region are: [`CqlConfig`] without what follows from the regions there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CqlSection {
    /// Some servers of the own region, as `host:port`.
    pub contact_points: Vec<String>,
    /// Where the tables are.
    pub keyspace: String,
    /// Copies in each region, when the keyspace is made.
    pub copies: u8,
    /// Who must keep a write before it is answered.
    pub acknowledge: Acknowledge,
    /// How long one request may take.
    pub request_timeout: Period,
    /// How long a connection may take to be made.
    pub connect_timeout: Period,
    /// How long a change of the schema may take to reach all servers.
    pub schema_timeout: Period,
    /// Requests under way at the most.
    pub in_flight: u32,
    /// Rows that a server sends at a time.
    pub page_rows: u16,
}

impl CqlSection {
    /// The same for a region among regions, each a data centre of that name.
    pub fn of(&self, region: &str, regions: &[String]) -> CqlConfig {
        let replication: BTreeMap<_, _> = regions.iter().map(|name| (name.clone(), self.copies)).collect();
        CqlConfig {
            contact_points: self.contact_points.clone(),
            datacenter: region.to_owned(),
            keyspace: self.keyspace.clone(),
            replication,
            acknowledge: self.acknowledge,
            request_timeout: self.request_timeout,
            connect_timeout: self.connect_timeout,
            schema_timeout: self.schema_timeout,
            in_flight: self.in_flight,
            page_rows: self.page_rows,
        }
    }
}
