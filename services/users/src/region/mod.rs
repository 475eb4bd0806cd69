//! Home regions. The writes of a user are made in one region, which serves the user's home; those that come elsewhere
//! are passed on there. Reads are answered where they come, from what has come there so far; those of users of another
//! jurisdiction, of whom nothing comes, are passed on too.
//!
//! A home is taken once, by the region that makes the account or, when that one died at it, by the first that is asked
//! to write: nothing was written before. Which region serves the homes of another is decided by the operator when that
//! one is lost, by a conditional write of most regions. Every process looks at that decision every [`LOOK`]; one that
//! cannot look goes on with what it knew, so that a region that is cut off serves its own, and one that never looked
//! takes no writes. Whoever takes over waits until those who looked before have looked again ([`Rules::lapse`]).
//!
//! A home moves by conditional writes of one value: settled, on the way, settled. On the way nobody writes for the user.
//! What was read of a home holds for as long as a look does, and every write is made under such a lease; the region that
//! the user leaves waits until none is left, gives out what waits, and tells what it holds, which the next home
//! compares with its own before it settles. Whoever writes late for all that carries an earlier time.

mod bounds;
#[cfg(feature = "cql")]
mod homes;
#[cfg(feature = "cql")]
mod move_home;
mod moving;
#[cfg(feature = "cql")]
mod operate;
mod peers;
#[cfg(feature = "cql")]
mod permit;
#[cfg(feature = "cql")]
mod relays;
#[cfg(feature = "cql")]
mod residents;
mod rules;
#[cfg(feature = "cql")]
mod service;
mod ways;

pub use bounds::Bounds;
pub use moving::{GRACE, HomeState, Lease, left};
pub use peers::Peer;
#[cfg(feature = "cql")]
pub(crate) use permit::Permit;
pub use rules::{LAPSE, LOOK, Rules, Served, Way};
pub use ways::{At, Ways};
#[cfg(feature = "cql")]
pub use {homes::Homes, relays::relays, service::RegionalUsers};
