//! Demand for MCP servers, and where they are, between gateways and the operator: a trait, its gRPC server and its
//! client.

mod bounds;
mod client;
mod convert;
mod server;
mod types;

use async_trait::async_trait;
use echotune_model::{Call, Fault};
use futures::stream::BoxStream;

pub use client::DemandClient;
pub use server::{DemandStreams, demand_server};
pub use types::{
    ClassDemand, Effect, Endpoint, Era, Hello, MAX_CLASSES, MAX_PODS, MAX_REGIONS, MAX_SERVERS, MAX_SHARDS, PodDemand,
    RegionRoom, Report, RouteName, Served, ServerDemand, ServerName, Sessions, Spill, Update, shard_of,
};

/// Largest message either way, in bytes.
pub const MAX_DEMAND_BYTES: usize = 4 << 20;

/// What gateways report, each in place of the one before.
pub type Reports = BoxStream<'static, Report>;
/// What a gateway is told of its servers, until an error ends it.
pub type Updates = BoxStream<'static, Result<Update, Fault>>;

/// What gateways know of demand, and what the operator knows of servers. For gateways only.
#[async_trait]
pub trait Demand: Send + Sync {
    /// Takes the reports of one replica of the gateway on a shard for as long as it sends them, and tells it of all its
    /// servers and then of those that change. `Unavailable` when this operator ends or does not lead the shard; whoever
    /// asked connects again, and goes on by what it knew.
    async fn exchange(&self, call: &Call, hello: Hello, reports: Reports) -> Result<Updates, Fault>;
}
