//! Offline evaluation: readers of interaction data, splits, data sets, full-ranking metrics and the models
//! measured. Pure: whoever opens the files hands over readers.
//!
//! Protocol: the whole catalogue is ranked for each listener without what the listener is known to have;
//! relevance is binary; means are over the listeners that have held-out items and, unless a test part was given,
//! a history.

mod beside;
mod dataset;
mod events;
mod metrics;
mod model;
mod ranking;
mod read;
mod search;
mod split;
mod terms;

pub use dataset::{Dataset, Fold, Tagging, Training};
pub use events::{Dropped, Event, Events, Names};
pub use metrics::{Metrics, ceiling, gains, measure};
pub use model::{FitError, ItemGraphModel, Model, Popularity, Progress, Settings, Trending};
pub use ranking::{EachUser, LinearScorer, Scorer, rank, rank_one};
pub use read::{Format, ReadError, Table, detect, read_interactions, read_items, read_social, read_taggings};
pub use split::{Split, SplitError, carved, new_items, random, temporal};
pub use terms::{BlendModel, ContentModel, EaseModel, GraphFilterModel, IalsModel, ServedModel};
