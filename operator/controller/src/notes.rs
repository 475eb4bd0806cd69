//! Events, for people who look at a server: what changed, never what goes on. Whoever has one to tell does not wait for
//! it to be written: they are written one after the other beside the work, and left out where that is too slow.

use std::{sync::Arc, time::Duration};

use echotune_api::demand::ServerName;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    build::MANAGER,
    crd::{ConditionKind, MCPServer, MCPServerStatus, State},
    fleet::Decided,
    metrics::Metrics,
    pods::Moves,
};

/// Longest note, in characters: the API server takes 1024 bytes.
const NOTE: usize = 250;
/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Events that wait to be written; those beyond are left out and counted.
const WAITING: usize = 1_024;

/// The way to where events are written.
#[derive(Clone)]
pub struct Notes {
    notes: mpsc::Sender<Note>,
    metrics: Arc<Metrics>,
}

/// An event, and what it is about.
type Note = (Event, ObjectReference);

impl Notes {
    /// Events of this process, which are written until nobody has any more to tell.
    pub fn new(client: Client, instance: String, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: format!("mcp.echotune.internal/{MANAGER}"), instance: Some(instance) };
        let (notes, receive) = mpsc::channel(WAITING);
        tokio::spawn(write(Recorder::new(client, reporter), receive, Arc::clone(&metrics)));
        Self { notes, metrics }
    }

    /// Pods come or go.
    pub fn moved(&self, server: &ServerName, uid: &str, moves: &Moves, decided: Option<&Decided>) {
        let Moves { create, drain, undrain, delete, .. } = moves;
        let (reason, action) = match () {
            () if !create.is_empty() => ("PodsAdded", "Scale"),
            () if !delete.is_empty() => ("PodsDeleted", "Scale"),
            () if !drain.is_empty() => ("PodsDrain", "Scale"),
            () if !undrain.is_empty() => ("PodsTakenBack", "Scale"),
            () => return,
        };
        let counts = format!("{} new, {} drain, {} deleted", create.len(), drain.len(), delete.len());
        let why = decided.map(|decided| format!("; {}", decided.decision)).unwrap_or_default();
        self.note(server, uid, EventType::Normal, (reason, action), &format!("{counts}{why}"));
    }

    /// A condition has come to be true, or no longer is.
    pub fn changed(&self, server: &ServerName, uid: &str, before: &MCPServerStatus, now: &MCPServerStatus) {
        for condition in &now.conditions {
            let known = before.conditions.iter().find(|known| known.kind == condition.kind);
            let same = known.is_some_and(|known| known.status == condition.status && known.reason == condition.reason);
            // How many serve and who reports comes and goes.
            let is_told = match condition.kind {
                ConditionKind::Accepted => condition.status == State::False,
                ConditionKind::Ready => {
                    matches!(condition.reason, crate::crd::Reason::PodsStuck | crate::crd::Reason::ChildConflict)
                }
                ConditionKind::Scaling => condition.reason == crate::crd::Reason::ForeignOwner,
            };
            if !same && is_told {
                let reason = format!("{:?}", condition.reason);
                let words = (reason.as_str(), "Observe");
                self.note(server, uid, EventType::Warning, words, &condition.message);
            }
        }
    }

    fn note(&self, server: &ServerName, uid: &str, type_: EventType, (reason, action): (&str, &str), note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(MCPServer::api_version(&()).into_owned()),
            kind: Some(MCPServer::kind(&()).into_owned()),
            namespace: Some(server.namespace().to_owned()),
            name: Some(server.name().to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        // An event is for people: without it, nothing is worse.
        if self.notes.try_send((event, about)).is_err() {
            self.metrics.event_dropped();
            tracing::debug!("an event on {server} is left out: too many wait");
        }
    }
}

async fn write(recorder: Recorder, mut notes: mpsc::Receiver<Note>, metrics: Arc<Metrics>) {
    while let Some((event, about)) = notes.recv().await {
        let server = about.name.as_deref().unwrap_or_default();
        let written = timeout(PATIENCE, recorder.publish(&event, &about)).await;
        if !matches!(written, Ok(Ok(()))) {
            metrics.event_dropped();
        }
        match written {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::debug!(%cause, "an event on {server} is not written"),
            Err(_) => tracing::debug!("an event on {server} is not written in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_has_too_much_to_tell_leaves_it_out_and_waits_for_nothing() {
        let (notes, mut receive) = mpsc::channel(2);
        let metrics = Arc::new(Metrics::default());
        let notes = Notes { notes, metrics: Arc::clone(&metrics) };
        let server = "m/s".parse().expect("a server");
        let moves = Moves { create: vec![0], ..Moves::default() };
        for _ in 0..5 {
            notes.moved(&server, "uid", &moves, None);
        }
        drop(notes);
        let mut told = Vec::new();
        while let Some((event, about)) = receive.recv().await {
            told.push((event.reason, about.name));
        }
        assert_eq!(told, vec![("PodsAdded".to_owned(), Some("s".to_owned())); 2]);
        assert_eq!(metrics.total("echotune_operator_events_dropped_total"), 3);
    }
}
