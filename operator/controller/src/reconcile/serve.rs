//! What gateways are told of a server.

use std::sync::Arc;

use echotune_api::demand::{Effect, Endpoint, Era, RouteName, Served, Sessions, Spill};
use echotune_autoscaler::Policy;

use super::{Accepted, Built, Seen, validate::policy};
use crate::{build::Child, crd, fleet::Decided, pods::Moves};

/// What gateways are told of a server: its pods with an address that are ready.
pub(super) fn served(seen: &Seen, accepted: &Accepted, moves: &Moves, decided: Option<&Decided>) -> Option<Served> {
    let spec = &accepted.spec;
    let scheme = if spec.tls { "https" } else { "http" };
    let endpoint = |(name, pod): (&String, &crate::world::PodSeen)| {
        let address = pod.address.as_ref().filter(|_| pod.is_ready())?;
        // An address of IPv6 has brackets in a URL.
        let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        let marked = pod.draining_ms.is_some() && !moves.undrain.contains(name);
        Some(Endpoint {
            pod: name.clone(),
            url: format!("{scheme}://{host}:{}{}", spec.port, spec.path),
            draining: marked || moves.drain.contains(name) || accepted.ends,
        })
    };
    let classes = spec.classes.iter().filter_map(|(tool, class)| {
        let at = accepted.policy.classes.iter().position(|one| one.name == *class)?;
        Some((tool.clone(), u32::try_from(at).ok()?))
    });
    let spill = decided.map(|decided| {
        decided.decision.spill.iter().map(|one| Spill { region: one.region.clone(), permille: one.permille })
    });
    Some(Served {
        server: seen.name.clone(),
        route: accepted.route.clone(),
        era: match spec.era {
            crd::Era::Auto => Era::Unknown,
            crd::Era::Modern => Era::Modern,
            crd::Era::Legacy => Era::Legacy,
        },
        sessions: match spec.sessions {
            crd::Sessions::Stateless => Sessions::Stateless,
            crd::Sessions::OnPod => Sessions::OnPod,
        },
        effects: spec.effects.iter().map(|(tool, effect)| (tool.clone(), effect_of(*effect))).collect(),
        trust_annotations: spec.trust_annotations,
        forward_caller: spec.forward_caller,
        calls_per_pod: accepted.policy.calls_per_pod,
        classes: classes.collect(),
        endpoints: seen.pods.iter().filter_map(endpoint).collect(),
        wakes: !accepted.ends && decided.is_none_or(|decided| decided.ceiling != Some(0)),
        wake_ms: spec.wake_ms,
        reason: decided.map(|decided| decided.decision.to_string()).unwrap_or_default(),
        spill: spill.into_iter().flatten().collect(),
        tls: spec.tls,
    })
}

/// What gateways are told of a server that cannot be followed: the pods that it has serve on, and no call starts one.
pub(super) fn left(seen: &Seen) -> Option<Served> {
    let spec = Arc::clone(seen.server.spec.as_ref().ok()?);
    if seen.route_owner.as_ref().is_some_and(|owner| *owner != seen.name) {
        return None;
    }
    let route: RouteName = seen.server.route(&seen.name).parse().ok()?;
    // How many calls a pod takes at once a policy says that is not to be had: one does no harm.
    let policy = policy(seen, &spec).unwrap_or_else(|_| Policy { calls_per_pod: 1, ..Policy::default() });
    let built = Built { revision: String::new(), essences: [0; Child::ALL.len()] };
    let accepted = Accepted { spec, policy, built, route, ends: seen.server.deleting };
    Some(Served { wakes: false, ..served(seen, &accepted, &Moves::default(), None)? })
}

const fn effect_of(effect: crd::Effect) -> Effect {
    match effect {
        crd::Effect::Reads => Effect::Reads,
        crd::Effect::Idempotent => Effect::Idempotent,
        crd::Effect::Once => Effect::Once,
    }
}
