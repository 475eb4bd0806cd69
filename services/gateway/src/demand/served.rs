//! Servers as the operator tells of them, as the gateway has them.

use std::time::Duration;

use echotune_api::demand::{self, Era, Served, Sessions};

use super::PodOptions;
use crate::config::{Effect, EraChoice, PodConfig, PodsConfig, Reach, ServerConfig, Share};

/// How long a call waits for a pod at the most, whatever the operator says.
const WAKE_MAX: Duration = Duration::from_secs(600);

/// The configuration of a server that the operator has told of.
pub(super) fn config_of(served: &Served, options: &PodOptions) -> ServerConfig {
    // Calls of a server with sessions on its pods belong to these, also those of clients that know of no session.
    let spill = served.spill.iter().filter(|_| served.sessions == Sessions::Stateless);
    let share = |spill: &demand::Spill| Share { region: spill.region.clone(), permille: spill.permille };
    let pods = PodsConfig {
        id: served.server.to_string(),
        pods: served.endpoints.iter().map(|endpoint| pod(endpoint, served.tls)).collect(),
        calls_per_pod: usize::try_from(served.calls_per_pod).unwrap_or(usize::MAX),
        wakes: served.wakes,
        wake: Duration::from_millis(served.wake_ms).min(WAKE_MAX),
        classes: served.classes.clone(),
        authorization: options.authorization.clone(),
        spill: spill.map(share).collect(),
    };
    ServerConfig {
        era: era(served.era, served.sessions),
        effects: served.effects.iter().map(|(tool, effect)| (tool.clone(), effect_of(*effect))).collect(),
        trust_annotations: served.trust_annotations,
        forward_caller: served.forward_caller,
        lists_kept: options.lists_kept,
        queue: options.queue,
        queue_wait: options.queue_wait,
        per_caller: options.per_caller,
        deadline: options.deadline,
        deadline_max: options.deadline_max,
        ..ServerConfig::new(served.route.as_str(), Reach::Pods(pods))
    }
}

/// Sessions are of revisions before 2026-07-28: a server that has any on its pods is spoken to by one of these, though
/// it may speak others too.
const fn era(era: Era, sessions: Sessions) -> EraChoice {
    match (era, sessions) {
        (Era::Modern, _) => EraChoice::Modern,
        (Era::Legacy, _) | (Era::Unknown, Sessions::OnPod) => EraChoice::Legacy,
        (Era::Unknown, Sessions::Stateless) => EraChoice::Auto,
    }
}

const fn effect_of(effect: demand::Effect) -> Effect {
    match effect {
        demand::Effect::Reads => Effect::Reads,
        demand::Effect::Idempotent => Effect::Idempotent,
        demand::Effect::Once => Effect::Once,
    }
}

fn pod(endpoint: &demand::Endpoint, tls: bool) -> PodConfig {
    let over_tls = endpoint.url.strip_prefix("http://").filter(|_| tls).map(|rest| format!("https://{rest}"));
    PodConfig {
        name: endpoint.pod.clone(),
        url: over_tls.unwrap_or_else(|| endpoint.url.clone()),
        draining: endpoint.draining,
    }
}
