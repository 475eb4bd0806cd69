//! What every program that serves gRPC is told and does in the same way: its flags, the settings that each of them has,
//! the order of start and stop, the ways in with health and reflection.

mod bound;
mod callers;
mod face;
mod flags;
mod identity;
mod run;
mod settings;
mod upstream;

pub use self::{
    bound::Ways,
    face::{Face, Health},
    flags::ConfigFlags,
    identity::{ALGORITHMS, IdentityConfig, check_url},
    run::{About, Configured, Failure, Process, run},
    settings::{LimitsConfig, Settings, ShutdownConfig, TelemetryConfig, TlsConfig},
    upstream::{addresses, check_upstream, upstream, upstream_at},
};

/// The sections of [`Settings`] with their defaults, to be put after what a program has of its own. `listen` and
/// `allow_plaintext` are not among them: each program has an address of its own.
pub const DEFAULTS: &str = include_str!("process/defaults.toml");
