//! recommendations consumes what happens to histories and answers with lists whose reasons sum to
//! the score. It owns its own view of histories, tags and the catalogue, and what listeners made of
//! the lists; it never writes a user's data. Histories are read as they are now, only the model
//! is fitted, beside serving. What is trending decays with a half-life of seven days by the time of
//! the latest playback; play counts without times are a constant background. It runs experiments on how
//! lists are made, and ends them by what listeners make of these.

mod asked;
mod background;
pub mod candidate;
mod config;
mod consumer;
mod dead_letters;
mod diversity;
mod experiments;
mod files;
mod fit_memory;
mod friends;
pub mod mapped;
#[cfg(feature = "mlflow")]
pub mod mlflow;
mod model;
#[cfg(feature = "cache")]
mod near;
mod policy;
#[cfg(feature = "region")]
pub mod program;
mod rank;
mod releases;
#[cfg(feature = "region")]
mod residents;
mod serve;
mod service;
mod shelf;
#[cfg(feature = "spark")]
pub mod spark;
mod state;
pub mod store;
mod tags;
mod told;
mod training;
mod what_if;

pub use config::{FittingConfig, ModelsConfig, RecommendationsConfig};
pub use consumer::{ConsumeError, consume, refit};
pub use dead_letters::DeadLettersService;
pub use echotune_engine::budget::LEAST_FIT_BYTES;
pub use experiments::watch_experiments;
pub use files::Fitting;
pub use policy::Policy;
#[cfg(feature = "mlflow")]
pub use releases::Tracking;
pub use releases::{Recipe, RecipeError, ReleaseLimits, report_drift};
pub use service::RecommendationsService;
pub use store::{EmbeddedRecommendationStore, RecommendationStore, RecommendationStoreError};
