//! Stores over CQL version 4: one schema and one set of statements for ScyllaDB and Apache Cassandra.
//!
//! A [`CqlSession`] speaks to the servers of one data centre, its own region. Statements are prepared once and carry a
//! name that errors tell. Plain writes carry a time of the caller ([`WriteClock`]), may be repeated, and are repeated
//! here when that can help. Conditional writes are never repeated blindly: [`CqlSession::settle`] looks before it
//! answers. Schemas come by [`Migrations`]. It knows nothing of what is kept.

mod batch;
mod config;
mod connect;
mod decide;
mod error;
mod joint;
mod kept;
mod migrations;
mod run;
pub mod scratch;
mod section;
mod statement;
mod time;
mod value;

pub use batch::Batch;
pub use config::{Acknowledge, CqlConfig};
pub use decide::Seen;
pub use error::CqlError;
pub use joint::Joint;
pub use kept::{KeptDb, KeptError, KeptOptions, KeptTasks, Sealing};
pub use migrations::{Migration, Migrations};
pub use run::{CqlSession, Server};
pub use section::CqlSection;
pub use statement::{Decide, OwnedRow, Read, Scope, Write};
pub use time::{WriteClock, WriteTime};
pub use value::{SEALED, decode, encode};

#[doc(no_inline)]
pub use scylla::serialize::row::SerializeRow;

#[cfg(test)]
mod tests;
