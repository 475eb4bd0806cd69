//! The catalogue of MCP servers: entries in the form of the MCP registry (`server.json`), kept in the embedded store and
//! served by the registry's API of version 0.1.
//!
//! It promises that what is in it is valid, that a version once published stays what it is, and that `latest` is the
//! newest version that is not deleted. Beside what the registry's form knows, an entry may tell how this platform runs
//! the server ([`Runtime`]) and what its calls cost (`internal.echotune/tariff`). It does not start servers.

mod bundled;
mod http;
mod import;
mod launch;
mod page;
mod runtime;
mod store;
mod validate;
mod version;

use echotune_kit::embedded::{Db, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use self::{
    bundled::bundled,
    http::router,
    import::{ImportReport, Imported, Origin, read_page, read_path},
    launch::{Launch, Launched, Missing, Setting},
    page::{ListPage, ListQuery},
    runtime::{
        EffectClass, Egress, EgressPolicy, Era, HowVerified, RUNTIME, Runtime, RuntimeLimits, SharedBy, TARIFF,
        Verified, runtime, tariff,
    },
    validate::{MAX_ENTRY_BYTES, Wrong, validate},
};

/// The member of `_meta` in answers that tells what the registry knows of an entry.
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

/// Why the catalogue does not do what it was asked to.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// What was given is no valid entry.
    #[error("the entry is not valid:\n  {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Invalid(Vec<Wrong>),
    /// A question or request makes no sense.
    #[error("{0}")]
    Asked(String),
    /// There is no such server or version.
    #[error("{0}")]
    NotFound(String),
    /// A version is there already, and is something else.
    #[error("server '{name}' has a version {version} already, with other content; publish it under another version")]
    Conflict {
        /// The server.
        name: String,
        /// Its version.
        version: String,
    },
    /// No more entries are taken.
    #[error("it holds {0} entries or versions, which are as many as it may: no more are taken")]
    Full(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where an entry is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It can be used.
    #[default]
    Active,
    /// It can be used, and another would be better.
    Deprecated,
    /// It is not shown unless it is asked for.
    Deleted,
}

/// A version of a server in the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The entry as it was published.
    pub server: Value,
    /// Where it is in its life.
    pub status: Status,
    /// Why, for people.
    pub status_message: Option<String>,
    /// Milliseconds since the Unix epoch, as the others.
    pub status_changed_at_ms: u64,
    /// When it came into this catalogue.
    pub published_at_ms: u64,
    /// When anything of it changed last.
    pub updated_at_ms: u64,
    /// Whether it is the newest version that is not deleted.
    pub is_latest: bool,
}

impl Listing {
    /// The server's name.
    pub fn name(&self) -> &str {
        text(&self.server, "name")
    }

    /// Its version.
    pub fn version(&self) -> &str {
        text(&self.server, "version")
    }

    /// As the registry's API answers with it.
    pub fn response(&self) -> Value {
        let mut official = Map::new();
        official.insert("status".into(), json!(self.status));
        official.insert("statusChangedAt".into(), moment(self.status_changed_at_ms).into());
        official.insert("publishedAt".into(), moment(self.published_at_ms).into());
        official.insert("updatedAt".into(), moment(self.updated_at_ms).into());
        official.insert("isLatest".into(), self.is_latest.into());
        if let Some(message) = &self.status_message {
            official.insert("statusMessage".into(), message.as_str().into());
        }
        json!({ "server": self.server, "_meta": { OFFICIAL: official } })
    }
}

/// A member that is text; empty when it is none.
fn text<'v>(of: &'v Value, name: &str) -> &'v str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A time as in RFC 3339.
fn moment(at_ms: u64) -> String {
    let nanos = i128::from(at_ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// The catalogue. Clones share it.
#[derive(Debug, Clone)]
pub struct Catalogue {
    db: Db,
    most: usize,
}

/// Entries of a catalogue at the most.
const MAX_ENTRIES: usize = 20_000;

impl Catalogue {
    /// The catalogue in a store.
    pub const fn new(db: Db) -> Self {
        Self { db, most: MAX_ENTRIES }
    }

    /// The same with another number of entries at the most.
    #[must_use]
    pub fn with_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// Takes the entries that come along with this program.
    ///
    /// # Errors
    /// The store failed, or is full.
    pub async fn import_bundled(&self) -> Result<ImportReport, CatalogueError> {
        self.import(bundled().into_iter().map(|(name, server)| Imported::new(Origin::Bundled(name), server))).await
    }
}
