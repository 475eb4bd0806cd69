//! The whole platform in one process, and the command that drives it.

mod client;
mod commands;
mod config;
pub mod demo;
mod gateway;
mod grpc;
pub mod import;
pub mod migrate;
mod operations;
mod output;
mod platform;
mod tools;

pub use client::Connection;
pub use commands::run;
pub use config::{CONFIG_FILE, Config};
pub use echotune_kit::process::ConfigFlags;
pub use platform::{Platform, Serving};
