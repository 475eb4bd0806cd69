//! What every binary of EchoTune needs and what knows nothing of users, tracks or agents: the
//! embedded store, telemetry with a span store, the gRPC edge with authentication.

pub mod auth;
pub mod edge;
pub mod embedded;
pub mod telemetry;
