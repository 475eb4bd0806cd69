//! What tests of several modules need.

use std::collections::BTreeMap;

use echotune_api::demand::{Era, Served, Sessions};

/// A server as gateways are told of it.
pub(crate) fn served(server: &str) -> Served {
    Served {
        server: server.parse().expect("a server"),
        route: server.split('/').next_back().expect("a name").parse().expect("a route"),
        era: Era::Unknown,
        sessions: Sessions::OnPod,
        effects: BTreeMap::new(),
        trust_annotations: false,
        forward_caller: false,
        calls_per_pod: 4,
        classes: BTreeMap::new(),
        endpoints: Vec::new(),
        wakes: true,
        wake_ms: 1,
        reason: "a sentence".into(),
        spill: Vec::new(),
        tls: false,
    }
}
