//! Home regions as a trait, its gRPC server and its client.

mod client;
mod residents;
mod server;

use async_trait::async_trait;
use echotune_model::{Call, Fault, Handover, Home, HomeMove, RegionStatus};

pub use client::RegionsClient;
pub use residents::Residents;
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

    /// Moves the home of a user to this region, which is `to`; goes on with a move that was cut off. `Unavailable` when
    /// it could not be ended before the deadline, `FailedPrecondition` when this is not `to`, when one of the two regions
    /// is served by another, or when the user moves elsewhere, `ResourceExhausted` when too many users move.
    async fn move_home(&self, call: &Call, user: &str, to: &str) -> Result<Home, Fault>;

    /// Takes back a move that has not ended. `FailedPrecondition` when the user does not move.
    async fn abort_move(&self, call: &Call, user: &str) -> Result<Home, Fault>;

    /// Users who move, as far as this region knows, the oldest move first; 1,000 at the most.
    async fn list_moves(&self, call: &Call) -> Result<Vec<HomeMove>, Fault>;

    /// Waits until nobody in this region, which is the home that the user moves from, writes for the user, and what
    /// waited here was given out; what there is then. `Unavailable` when that does not come before the deadline,
    /// `FailedPrecondition` when this is not the home or the move has another epoch.
    async fn release_user(&self, call: &Call, user: &str, epoch: u64) -> Result<Handover, Fault>;
}
