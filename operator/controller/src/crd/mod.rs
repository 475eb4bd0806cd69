//! What people write, and what they read back: the custom resources of group `mcp.echotune.internal`.
#![allow(unreachable_pub, reason = "derived schemas repeat the type within a function")]
#![allow(clippy::duplicated_attributes, reason = "columns are told one by one, and many have the same type")]

mod policy;
mod server;
mod status;

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use policy::{MCPScalingPolicy, MCPScalingPolicySpec};
pub use server::{
    Adapter, ConfigKey, Effect, Egress, EgressRule, Env, Era, MCPServer, MCPServerSpec, Package, Registry, Resources,
    SecretKey, Sessions, Transport,
};
pub use status::{Condition, ConditionKind, MCPServerStatus, Reason, State};

/// The group of all of them.
pub const GROUP: &str = "mcp.echotune.internal";

/// Both definitions, as they are installed.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [MCPServer::crd(), MCPScalingPolicy::crd()]
}

/// Both definitions as one file of YAML.
///
/// # Errors
/// Never for the definitions of this program.
pub fn yaml() -> Result<String, fmt::Error> {
    let mut text = String::new();
    for definition in definitions() {
        let part = serde_saphyr::to_string(&definition).map_err(|_| fmt::Error)?;
        text.push_str("---\n");
        text.push_str(&part);
        if !part.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}
