//! The services as traits, each with two faces: the object itself in one process, or the same
//! trait over gRPC. Generated protobuf types stop inside this crate.

mod agents;
mod convert;
mod dead_letters;
pub mod demand;
pub mod events;
mod experiments;
mod models;
mod operations;
mod recommendations;
mod regions;
mod status;
mod training;
mod users;

pub use agents::{Agents, AgentsClient, agents_server};
pub use convert::call_of;
pub use dead_letters::{DeadLetters, DeadLettersClient, dead_letters_server};
pub use experiments::{Experiments, ExperimentsClient, experiments_server};
pub use models::{Models, ModelsClient, models_server};
pub use operations::{CutAudit, Operations, OperationsClient, Status as PlatformStatus, TraceSpan, operations_server};
pub use recommendations::{
    MAX_LIMIT, MAX_REASONS, MAX_WITHOUT, RecommendQuery, Recommendations, RecommendationsClient, recommendations_server,
};
pub use regions::{Regions, RegionsClient, Residents, regions_server};
pub use training::{
    Histories, KnownItem, ListenerHistory, MAX_HISTORY_ROWS, Training, TrainingClient, training_server,
};
pub use users::{
    MAX_BATCH, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MAX_STREAM_REJECTIONS, StreamReceipt, Users, UsersClient,
    accounts, authenticator, users_server,
};

/// File descriptors of every service, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = echotune_proto::FILE_DESCRIPTOR_SET;
