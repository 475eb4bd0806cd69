//! Home regions as a trait, its gRPC server and its client.

mod client;
mod server;

use async_trait::async_trait;
use echotune_model::{Call, Fault, Home, RegionStatus};

pub use client::RegionsClient;
pub use server::regions_server;

/// Which region makes the writes of which users. For the operator only.
#[async_trait]
pub trait Regions: Send + Sync {
    /// All regions by name, as this one sees them.
    async fn list_regions(&self, call: &Call) -> Result<Vec<RegionStatus>, Fault>;

    /// Where the writes of a user are made. `NotFound` when unknown.
    async fn get_home(&self, call: &Call, user: &str) -> Result<Home, Fault>;

    /// Has this region, which is `to`, make the writes of the users of another, and give out the events that wait
    /// there; what it answers tells how much of the other has come here. When it is itself the region, nothing is
    /// waited for. `Unavailable` when most regions cannot be reached, `FailedPrecondition` when this is not `to`.
    async fn fail_over(&self, call: &Call, region: &str, to: &str) -> Result<RegionStatus, Fault>;

    /// Has this region, which is `region`, make the writes of its users again, once what was written elsewhere has come
    /// here. `Unavailable` while it has not.
    async fn fail_back(&self, call: &Call, region: &str) -> Result<RegionStatus, Fault>;
}
