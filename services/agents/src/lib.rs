//! agents owns durable runs of declared workflows. It promises that an acknowledged run survives any
//! crash and goes on at the step where it stopped, that a step with effects happens once (under one
//! idempotency key, or after a person was asked), that a run keeps within its budget and within what
//! belongs to its user, and that a changed workflow file never changes a running run. It does not know
//! users or music: everything it does goes through the tools of MCP servers.

mod config;
mod events;
mod expr;
#[cfg(feature = "region")]
pub mod program;
#[cfg(feature = "region")]
mod residents;
mod run;
mod service;
mod store;
mod tools;
mod worker;
mod workflow;

pub use config::AgentsConfig;
pub use events::{ConsumeError, GROUP, REPLAYS_GROUP, consume};
pub use service::{AgentsService, LoadError, Options};
#[cfg(feature = "cql")]
pub use store::CqlRunStore;
pub use store::{
    Advance, Decision, EmbeddedRunStore, End, Entry, Followed, Idempotency, KEY_LIFE_MS, MAX_ENTRIES, MAX_PART,
    NewEntry, PinnedText, Release, RunDraft, RunRecord, RunStore, RunStoreError, UNNAMED_LIFE_MS, conformance,
};
pub use tools::{McpServer, McpTransport, ToolsError};
pub use workflow::{WorkflowFault, workflow_schema};

/// The workflows that come along: file names and texts.
pub fn bundled() -> Vec<(String, String)> {
    [
        ("weekly-discovery.yaml", include_str!("../workflows/weekly-discovery.yaml")),
        ("listening-report.yaml", include_str!("../workflows/listening-report.yaml")),
    ]
    .map(|(file, text)| (file.to_owned(), text.to_owned()))
    .into()
}
