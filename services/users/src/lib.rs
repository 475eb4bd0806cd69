//! users owns accounts, listening histories, and what listeners keep and share. It promises that a
//! write and the event announcing it are one atomic write, that an acknowledged listen is durable,
//! that the same listen twice is one, and that an erasure leaves nothing in the store, the outbox and
//! the log but the id of the account and how much was erased. Pages of the file that were freed keep
//! their bytes until they are written again. It does not recommend anything.

#[cfg(feature = "region")]
pub mod program;
mod reads;
mod region;
mod relay;
mod rules;
mod service;
mod store;
mod sweeper;
mod tokens;

#[cfg(feature = "cql")]
pub use reads::CachedReads;
pub use region::{At, Bounds, LAPSE, LOOK, Peer, Ways};
#[cfg(feature = "cql")]
pub use region::{Homes, RegionalUsers, relays};
pub use relay::{RelayError, relay};
pub use service::UsersService;
pub use store::{
    Checked, EmbeddedUserStore, Idempotency, KEY_LIFE_MS, MAX_PLAYLISTS, MAX_TOKENS, Stamp, StoredToken, TokenDraft,
    UserStore, UserStoreError, Waiting, conformance,
};
#[cfg(feature = "cql")]
pub use store::{CqlUserStore, Residency};
pub use sweeper::sweeper;

/// The rules of home regions, as far as they can be told without asking anybody.
pub mod homes {
    pub use crate::region::{GRACE, HomeState, Lease, Rules, Served, Way, left};
}
