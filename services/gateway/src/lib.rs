//! The MCP data plane: one endpoint before many servers, and one before each.

mod abilities;
mod caller;
mod config;
mod message;
mod refusal;
mod ticket;
mod token;

pub use self::{config::*, token::Keys};
