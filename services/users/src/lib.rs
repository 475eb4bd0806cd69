//! users owns accounts and listening histories. It promises that a write and the event announcing
//! it are one atomic write, that an acknowledged listen is durable, and that the same listen twice
//! is one. It does not recommend anything.

mod relay;
mod service;
mod store;

pub use relay::relay;
pub use service::UsersService;
pub use store::EmbeddedUserStore;
