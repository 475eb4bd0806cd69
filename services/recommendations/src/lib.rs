//! recommendations consumes what happens to histories and answers with lists whose reasons sum to
//! the score. It owns its own view of histories and the catalogue; it never writes a user's data.

mod consumer;
mod rank;
mod service;
mod state;
mod store;

pub use consumer::{consume, refit};
pub use service::RecommendationsService;
pub use store::EmbeddedRecommendationStore;
