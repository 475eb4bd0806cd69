//! Whether what is written can be followed.

use std::sync::Arc;

use echotune_api::demand::RouteName;
use echotune_autoscaler::Policy;

use super::Seen;
use crate::{
    build::{Child, Surroundings, children, template},
    crd::{MCPServerSpec, Reason},
};

/// What follows from what is written.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What is written.
    pub spec: Arc<MCPServerSpec>,
    /// How it is scaled.
    pub policy: Policy,
    /// What follows from it alone.
    pub built: Built,
    /// Its name at the gateway.
    pub route: RouteName,
    /// Whether its pods are to go: it is being deleted, or not to run here.
    pub ends: bool,
}

/// What follows from what is written, and from what the operator is told about the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What its pods are made from.
    pub revision: String,
    /// What is to stand beside them, each as a number, in the order of [`Child::ALL`].
    pub essences: [u64; Child::ALL.len()],
}

/// Why it cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

impl Rejection {
    /// Whether gateways must not be told of the server.
    pub const fn unserved(&self) -> bool {
        matches!(self.reason, Reason::RouteTaken | Reason::InvalidSpec)
    }
}

fn rejected<T>(reason: Reason, message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection { reason, message: message.into() })
}

/// Whether what is written can be followed here, and what follows. What was built of the same version before need not
/// be built again.
///
/// # Errors
/// Why it cannot.
pub(super) fn validate(seen: &Seen, around: &Surroundings, known: Option<Built>) -> Result<Accepted, Rejection> {
    let spec = match &seen.server.spec {
        Ok(spec) => Arc::clone(spec),
        Err(why) => {
            return rejected(Reason::InvalidSpec, format!("this version of the operator cannot read it: {why}"));
        }
    };
    let policy = policy(seen, &spec)?;
    let route: RouteName = match seen.server.route(&seen.name).parse() {
        Ok(route) => route,
        Err(fault) => return rejected(Reason::InvalidSpec, format!("spec.route: {}", fault.message)),
    };
    if let Some(owner) = seen.route_owner.as_ref().filter(|owner| **owner != seen.name) {
        let message = format!("'{route}' is the name of {owner} at the gateway; choose another by spec.route");
        return rejected(Reason::RouteTaken, message);
    }
    for (tool, class) in &spec.classes {
        if !policy.classes.iter().any(|one| one.name == *class) {
            let message = format!("spec.classes: the policy has no class '{class}' for '{tool}'");
            return rejected(Reason::InvalidSpec, message);
        }
    }
    let built = match known {
        Some(built) => built,
        None => build(seen, &spec, around)?,
    };
    let elsewhere = !around.region.is_empty() && !spec.regions.is_empty() && !spec.regions.contains(&around.region);
    Ok(Accepted { policy, built, route, ends: seen.server.deleting || elsewhere, spec })
}

fn build(seen: &Seen, spec: &MCPServerSpec, around: &Surroundings) -> Result<Built, Rejection> {
    let subject = seen.subject(spec);
    let template = template(subject, around).or_else(|cause| rejected(Reason::RunnerMissing, cause.to_string()))?;
    let wanted = children(subject, around);
    Ok(Built { revision: template.revision, essences: Child::ALL.map(|child| wanted.essence(child)) })
}

/// How a server is to be scaled.
///
/// # Errors
/// There is no such policy, or it has faults.
pub(super) fn policy(seen: &Seen, spec: &MCPServerSpec) -> Result<Policy, Rejection> {
    let Some(name) = &spec.scaling_policy else {
        let policy = spec.scaling.clone().unwrap_or_default();
        return match policy.check() {
            Ok(()) => Ok(policy),
            Err(faults) => rejected(Reason::InvalidPolicy, format!("spec.scaling: {faults}")),
        };
    };
    match &seen.shared {
        Some(Ok(policy)) => Ok(policy.clone()),
        Some(Err(faults)) => rejected(Reason::InvalidPolicy, format!("MCPScalingPolicy {name}: {faults}")),
        None => rejected(Reason::PolicyNotFound, format!("there is no MCPScalingPolicy '{name}' in this namespace")),
    }
}
