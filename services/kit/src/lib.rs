//! What every binary of EchoTune needs and what knows nothing of users, tracks or agents: the
//! embedded store, configuration, the order of start and stop, telemetry with a span store, the gRPC
//! edge with authentication. By feature also: what programs that serve have in common (`process`), sessions with CQL
//! servers and embedded stores that are kept there (`cql`), keys by which what is kept about somebody is sealed (`keys`),
//! TLS whose certificates are read anew (`tls`), callers that are known by JWTs of an issuer (`identity`), and values that
//! are kept near for a short while (`cache`).

pub mod auth;
#[cfg(feature = "cache")]
pub mod cache;
pub mod config;
#[cfg(feature = "cql")]
pub mod cql;
pub mod edge;
pub mod embedded;
pub mod failpoint;
#[cfg(feature = "identity")]
pub mod identity;
pub mod involved;
#[cfg(feature = "keys")]
pub mod keys;
pub mod lifecycle;
#[cfg(feature = "process")]
pub mod process;
pub mod telemetry;
#[cfg(feature = "tls")]
pub mod tls;
