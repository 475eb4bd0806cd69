//! What every binary of EchoTune needs and what knows nothing of users, tracks or agents: the
//! embedded store, sessions with CQL servers, configuration, the order of start and stop, telemetry with a span store, the gRPC
//! edge with authentication.

pub mod auth;
pub mod config;
#[cfg(feature = "cql")]
pub mod cql;
pub mod edge;
pub mod embedded;
pub mod lifecycle;
pub mod telemetry;
