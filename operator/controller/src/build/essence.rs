//! What of an object is the operator's business, as one number: two objects are alike in it when the numbers are.
//!
//! Only fields that the operator writes count, and of metadata its own labels and owner, so that what others add, and
//! what the API server fills in, is no reason to write.

use k8s_openapi::{
    api::{
        core::v1::{Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::names::labels;

pub(super) fn digest(value: &Value) -> [u8; 32] {
    // Fields of types have one order and maps are sorted, so that the same content has the same text.
    Sha256::digest(value.to_string().as_bytes()).into()
}

fn number(value: &Value) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest(value);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The operator's labels and the owner.
fn whose(metadata: &ObjectMeta) -> Value {
    let has = metadata.labels.as_ref();
    let server = has.and_then(|labels| labels.get(super::SERVER)).map_or("", String::as_str);
    let ours = labels(server);
    let kept: Vec<_> = ours.keys().map(|name| (name, has.and_then(|labels| labels.get(name)))).collect();
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    json!([kept, owner.map(|owner| &owner.uid)])
}

/// Of a ServiceAccount.
pub fn identity(account: &ServiceAccount) -> u64 {
    number(&json!([whose(&account.metadata), account.automount_service_account_token]))
}

/// Of a Service. Whether it has an address is not looked at: it may not be changed once it is there.
pub fn endpoints(service: &Service) -> u64 {
    let spec = service.spec.clone().unwrap_or_default();
    let ports: Vec<_> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| json!([port.name, port.port, port.protocol, port.target_port]))
        .collect();
    number(&json!([whose(&service.metadata), ports, spec.selector, spec.type_]))
}

/// Of a NetworkPolicy.
pub fn rules(network: &NetworkPolicy) -> u64 {
    let mut spec = network.spec.clone().unwrap_or_default();
    // The API server keeps an empty list of rules as none.
    spec.egress = spec.egress.filter(|rules| !rules.is_empty());
    number(&json!([whose(&network.metadata), spec]))
}

/// Of a PodDisruptionBudget.
pub fn disruptions(budget: &PodDisruptionBudget) -> u64 {
    let spec = budget.spec.clone().unwrap_or_default();
    number(&json!([whose(&budget.metadata), spec.max_unavailable, spec.min_available, spec.selector]))
}

impl super::Children {
    /// The number of one of them.
    pub fn essence(&self, child: super::Child) -> u64 {
        match child {
            super::Child::Account => identity(&self.account),
            super::Child::Service => endpoints(&self.service),
            super::Child::Network => rules(&self.network),
            super::Child::Budget => disruptions(&self.budget),
        }
    }
}
