//! The pods of a server.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapKeySelector, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
        HTTPGetAction, LocalObjectReference, Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
        SeccompProfile, SecretKeySelector, SecurityContext, TCPSocketAction, TopologySpreadConstraint, Volume,
        VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use serde_json::json;
use thiserror::Error;

use super::{
    Subject, Surroundings,
    essence::digest,
    names::{REVISION, SERVING, child_name, owned, owned_selector, pod_name},
};
use crate::crd::{Adapter, Env, MCPServerSpec, Package, Registry, Resources, Transport};

/// Where the adapter lies in a pod.
const ADAPTER: &str = "/echotune";
/// Digits of a revision: enough for the templates that a server has at one time.
const REVISION_DIGITS: usize = 6;

/// Why no pod can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PodError {
    /// There is nothing to start a package with.
    #[error("the operator has no runner for packages of {0}; set runners.{0}, or name an image")]
    NoRunner(&'static str),
    /// There is no adapter.
    #[error(
        "the operator has no image of the adapter; set adapter.image, or use an image that has it (adapter: Bundled)"
    )]
    NoAdapter,
    /// Neither an image nor a package.
    #[error("there is neither an image nor a package")]
    NoImage,
}

/// What pods of a server are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// A digest of all that follows.
    pub revision: String,
    spec: PodSpec,
    annotations: BTreeMap<String, String>,
}

/// What pods of a server are made from.
///
/// # Errors
/// Something is missing that only whoever runs the operator can add.
pub fn template(subject: Subject<'_>, around: &Surroundings) -> Result<Template, PodError> {
    let spec = pod_spec(subject, around)?;
    let annotations = subject.spec.pod_annotations.clone();
    let told = digest(&json!([spec, annotations]));
    let revision: String = told.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Template { revision: revision[..REVISION_DIGITS].to_owned(), spec, annotations })
}

/// One pod.
pub fn pod(subject: Subject<'_>, template: &Template, ordinal: u32) -> Pod {
    let mut metadata = owned(subject, pod_name(subject.name, &template.revision, ordinal));
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), template.revision.clone());
    labels.insert(SERVING.to_owned(), "true".to_owned());
    metadata.annotations = (!template.annotations.is_empty()).then(|| template.annotations.clone());
    Pod { metadata, spec: Some(template.spec.clone()), status: None }
}

fn pod_spec(subject: Subject<'_>, around: &Surroundings) -> Result<PodSpec, PodError> {
    let spec = subject.spec;
    let (image, command) = started(spec, around)?;
    let injected = spec.transport == Transport::Stdio && spec.adapter == Adapter::Injected;
    if injected && around.adapter_image.is_empty() {
        return Err(PodError::NoAdapter);
    }
    let mut volumes: Vec<_> = (0..spec.scratch.len()).map(|at| memory(format!("scratch-{at}"))).collect();
    if injected {
        volumes.push(memory("echotune".to_owned()));
    }
    let secrets = spec.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    Ok(PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![container(spec, image, command, injected)],
        enable_service_links: Some(false),
        image_pull_secrets: (!spec.image_pull_secrets.is_empty()).then_some(secrets),
        init_containers: injected.then(|| vec![install(around)]),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        restart_policy: Some("Always".into()),
        security_context: Some(PodSecurityContext {
            fs_group: Some(spec.run_as_user),
            run_as_group: Some(spec.run_as_user),
            run_as_non_root: Some(true),
            run_as_user: Some(spec.run_as_user),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        service_account_name: Some(child_name(subject.name)),
        termination_grace_period_seconds: Some(spec.grace_seconds),
        topology_spread_constraints: Some(vec![
            spread(subject.name, "topology.kubernetes.io/zone"),
            spread(subject.name, "kubernetes.io/hostname"),
        ]),
        volumes: (!volumes.is_empty()).then_some(volumes),
        ..PodSpec::default()
    })
}

/// The image, and what is run in it; nothing for what the image says itself.
fn started(spec: &MCPServerSpec, around: &Surroundings) -> Result<(String, Vec<String>), PodError> {
    match (&spec.image, &spec.package) {
        (Some(image), _) if !spec.command.is_empty() => Ok((image.clone(), spec.command.clone())),
        (Some(image), Some(package)) if spec.transport == Transport::Stdio => Ok((image.clone(), run(package))),
        (Some(image), _) => Ok((image.clone(), Vec::new())),
        (None, Some(package)) => {
            let named = match package.registry {
                Registry::Npm => "npm",
                Registry::Pypi => "pypi",
            };
            let runner = around.runners.get(&package.registry).filter(|image| !image.is_empty());
            let image = runner.ok_or(PodError::NoRunner(named))?;
            let command = if spec.command.is_empty() { run(package) } else { spec.command.clone() };
            Ok((image.clone(), command))
        }
        (None, None) => Err(PodError::NoImage),
    }
}

/// The command that starts a package.
fn run(package: &Package) -> Vec<String> {
    let Package { registry, name, version } = package;
    match registry {
        Registry::Npm => vec!["npx".into(), "--yes".into(), format!("{name}@{version}")],
        Registry::Pypi => vec!["uvx".into(), format!("{name}=={version}")],
    }
}

fn memory(name: String) -> Volume {
    let limit = Some(Quantity("64Mi".into()));
    let empty_dir = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: limit };
    Volume { name, empty_dir: Some(empty_dir), ..Volume::default() }
}

fn spread(server: &str, key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        label_selector: Some(owned_selector(server)),
        max_skew: 1,
        topology_key: key.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        ..TopologySpreadConstraint::default()
    }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".into()]) }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}

fn install(around: &Surroundings) -> Container {
    let mount = VolumeMount { name: "echotune".into(), mount_path: ADAPTER.into(), ..VolumeMount::default() };
    Container {
        name: "adapter".into(),
        image: Some(around.adapter_image.clone()),
        command: Some(around.adapter_install.iter().cloned().chain([ADAPTER.to_owned()]).collect()),
        resources: Some(quantities(&Resources::default())),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![mount]),
        ..Container::default()
    }
}

fn container(spec: &MCPServerSpec, image: String, command: Vec<String>, injected: bool) -> Container {
    let mut mounts: Vec<_> = (0..).zip(&spec.scratch).map(|(at, path)| mount(&format!("scratch-{at}"), path)).collect();
    let (command, args) = match (spec.transport, injected) {
        (Transport::StreamableHttp, _) => (command, spec.args.clone()),
        (Transport::Stdio, true) => {
            mounts.push(VolumeMount { read_only: Some(true), ..mount("echotune", ADAPTER) });
            let adapter = vec![format!("{ADAPTER}/echotune-gateway")];
            (adapter, adapted(spec, command))
        }
        (Transport::Stdio, false) => (Vec::new(), adapted(spec, command)),
    };
    let listen = ContainerPort {
        container_port: spec.port.into(),
        name: Some("mcp".into()),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    Container {
        name: "server".into(),
        image: Some(image),
        command: (!command.is_empty()).then_some(command),
        args: (!args.is_empty()).then_some(args),
        env: (!spec.env.is_empty()).then(|| spec.env.iter().map(variable).collect()),
        ports: Some(vec![listen]),
        readiness_probe: Some(ready(spec)),
        resources: Some(quantities(&spec.resources)),
        security_context: Some(restricted()),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..Container::default()
    }
}

/// What the adapter is told.
fn adapted(spec: &MCPServerSpec, command: Vec<String>) -> Vec<String> {
    let listen = format!("0.0.0.0:{}", spec.port);
    let first = ["adapter".to_owned(), "--listen".to_owned(), listen, "--".to_owned()];
    first.into_iter().chain(command).chain(spec.args.iter().cloned()).collect()
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn ready(spec: &MCPServerSpec) -> Probe {
    let port = IntOrString::String("mcp".into());
    let mut probe = Probe { period_seconds: Some(1), failure_threshold: Some(3), ..Probe::default() };
    match &spec.health_path {
        Some(path) => {
            let scheme = spec.tls.then(|| "HTTPS".to_owned());
            probe.http_get = Some(HTTPGetAction { path: Some(path.clone()), port, scheme, ..HTTPGetAction::default() });
        }
        None => probe.tcp_socket = Some(TCPSocketAction { port, host: None }),
    }
    probe
}

fn variable(one: &Env) -> EnvVar {
    let config = one.config.as_ref().map(|config| EnvVarSource {
        config_map_key_ref: Some(ConfigMapKeySelector {
            name: config.name.clone(),
            key: config.key.clone(),
            optional: None,
        }),
        ..EnvVarSource::default()
    });
    let secret = one.secret.as_ref().map(|secret| EnvVarSource {
        secret_key_ref: Some(SecretKeySelector { name: secret.name.clone(), key: secret.key.clone(), optional: None }),
        ..EnvVarSource::default()
    });
    EnvVar { name: one.name.clone(), value: one.value.clone(), value_from: config.or(secret) }
}

fn quantities(resources: &Resources) -> ResourceRequirements {
    let of = |values: &BTreeMap<String, String>| {
        let told = values.iter().map(|(name, value)| (name.clone(), Quantity(value.clone())));
        (!values.is_empty()).then(|| told.collect())
    };
    ResourceRequirements { requests: of(&resources.requests), limits: of(&resources.limits), claims: None }
}
