//! The gateway of a platform: the one way of clients and agents to its own MCP servers, and to those of others that a
//! file names.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use echotune_gateway::{
    AccessConfig, BreakerConfig, Effect, FileRules, Gateway, GatewayConfig, Keys, Listed, Reach, RegionsConfig,
    RuleConfig, ServerConfig, ServersFile, Then,
    catalogue::{EffectClass, bundled, runtime},
    metering::{Metering, MeteringSection},
};
use echotune_kit::{
    auth::{Callers, Token},
    config::Period,
    lifecycle::Life,
    telemetry::metrics::Meter,
};
use echotune_mcp_servers::{Access, Limits, McpConfig, SERVERS, Services, router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// File in a data folder that names further MCP servers; it need not exist.
const SERVERS_FILE: &str = "servers.toml";

/// Calls of one caller at one of the platform's servers at once. Agents have 64 under way at the most, all of them as
/// the operator, who calls in other ways too.
const PER_CALLER: usize = 192;

/// The section `[gateway]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaySection {
    /// File with further servers; empty for `servers.toml` in the data folder, if it is there.
    pub servers_file: PathBuf,
    /// How often it is looked at.
    pub servers_reload_every: Period,
    /// Servers of the file whose tools workflows may call.
    pub agent_servers: Vec<String>,
    /// File that says who may call what; empty for everybody the platform's own, and the operator all.
    pub access_file: PathBuf,
}

impl GatewaySection {
    /// What is wrong: the key at fault and why.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.servers_reload_every.0 == Duration::ZERO {
            faults.push(("gateway.servers_reload_every", "must be longer than 0s".to_owned()));
        }
        let names = &self.agent_servers;
        let wrong = names.iter().enumerate().filter_map(|(at, name)| {
            if is_ours(name) {
                return Some(format!("'{name}' is the platform's own, which workflows may call anyway; leave it out"));
            }
            names[..at].contains(name).then(|| format!("'{name}' is named twice"))
        });
        faults.extend(wrong.map(|why| ("gateway.agent_servers", why)));
        faults
    }

    /// The file with further servers.
    pub(crate) fn file(&self, data: &Path) -> PathBuf {
        if self.has_default_file() { data.join(SERVERS_FILE) } else { self.servers_file.clone() }
    }

    /// Whether the file is that of the data folder.
    pub(crate) fn has_default_file(&self) -> bool {
        self.servers_file.as_os_str().is_empty()
    }

    /// Who may call what. A program of others can be anything, so that without a file only the operator calls it: API
    /// tokens are given to people for what is their own.
    fn access(&self) -> anyhow::Result<AccessConfig> {
        if !self.access_file.as_os_str().is_empty() {
            return AccessConfig::read(&self.access_file).context("gateway.access_file");
        }
        let ours: Vec<_> = SERVERS.iter().map(|server| format!("server == '{}'", server.name)).collect();
        let rule = RuleConfig {
            name: "everybody calls the platform's own servers, and the operator all".to_owned(),
            when: format!("caller.role == 'operator' || {}", ours.join(" || ")),
            then: Then::Allow,
            scopes: Vec::new(),
        };
        Ok(AccessConfig { rules: vec![rule], ..AccessConfig::default() })
    }

    /// What no program of others gets at, unless its table says so.
    fn hidden(&self, data: &Path, ledger: &Path) -> Vec<PathBuf> {
        vec![data.to_owned(), ledger.to_owned(), self.access_file.clone()]
    }

    /// The rules for servers that a command starts by itself, which may be those of another gateway.
    pub(crate) fn rules_alone(&self, data: &Path, ledger: &Path) -> FileRules {
        let mut hidden = self.hidden(data, ledger);
        hidden.push(self.file(data));
        FileRules { is_metered: true, hidden, ..FileRules::default() }
    }

    /// Reads the file of servers.
    fn read(&self, data: &Path, ledger: &Path, is_metered: bool) -> anyhow::Result<(ServersFile, Vec<Listed>)> {
        let rules = FileRules {
            is_metered,
            reserved: SERVERS.iter().map(|server| server.name.to_owned()).collect(),
            may_lack: self.has_default_file(),
            hidden: self.hidden(data, ledger),
        };
        let (file, listed) = ServersFile::read(&self.file(data), rules)
            .context("the file of MCP servers (gateway.servers_file) cannot be used")?;
        if let Some(name) = self.agent_servers.iter().find(|name| listed.iter().all(|one| one.name() != *name)) {
            let file = self.file(data);
            anyhow::bail!(
                "gateway.agent_servers: {} has no server '{name}'; add it there, or take the name out",
                file.display()
            );
        }
        Ok((file, listed))
    }
}

/// Whether a name is that of one of the platform's own servers.
pub(crate) fn is_ours(name: &str) -> bool {
    SERVERS.iter().any(|server| server.name == name)
}

/// Which servers of the file are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// All of them, as the file says from time to time.
    All,
    /// Those that agents need: a command that runs a workflow starts no program for nothing.
    OfAgents,
}

/// What the gateway of a platform is told.
pub(crate) struct Wanted<'a> {
    pub(crate) section: &'a GatewaySection,
    pub(crate) metering: &'a MeteringSection,
    pub(crate) mcp: &'a McpConfig,
    pub(crate) data: &'a Path,
    pub(crate) others: Others,
    pub(crate) callers: Callers,
    pub(crate) token: &'a Token,
    pub(crate) meter: &'a Meter,
    /// What the platform's own servers use at the most.
    pub(crate) limits: Limits,
    /// Where clients reach it.
    pub(crate) here: SocketAddr,
    /// How long what is under way may take at the end.
    pub(crate) patience: Duration,
}

/// The platform's own servers, on a port of the loopback interface that is for the gateway alone.
struct Own {
    address: SocketAddr,
    /// They end when it is dropped.
    end: DropGuard,
}

async fn serve_own(services: &Services, wanted: &Wanted<'_>, life: &mut Life) -> anyhow::Result<Own> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context("no port of the loopback interface is free for the platform's MCP servers")?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    // The gateway knows who asks, and says so with the platform's token.
    let access = Access { callers: Callers::new(wanted.token.clone(), None), hosts: Vec::new(), origins: Vec::new() };
    let servers = router(services, access, wanted.limits, &stop);
    let end = stop.clone().drop_guard();
    // Answers are small and must not wait for each other's acknowledgements.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    life.consumer("the platform's MCP servers", async move {
        axum::serve(listener, servers).with_graceful_shutdown(stop.cancelled_owned()).await
    });
    Ok(Own { address, end })
}

/// The platform's own servers as the gateway is told of them.
fn own_servers(own: &Own, token: &Token, limits: &Limits) -> Vec<ServerConfig> {
    let entries = bundled();
    let server = |name: &str| {
        let reach = Reach::Http {
            endpoints: vec![format!("http://{}/mcp/{name}", own.address)],
            authorization: Some(token.header().into()),
        };
        let entry = entries.iter().find(|(file, _)| file.strip_prefix("echotune-") == Some(name));
        ServerConfig {
            effects: entry.map(|(_, entry)| effects(entry)).unwrap_or_default(),
            forward_caller: true,
            queue_wait: limits.deadline_max,
            per_caller: PER_CALLER,
            deadline: limits.deadline_default,
            deadline_max: limits.deadline_max,
            // It lives and dies with the gateway: that a call was late is no reason to leave it alone for long.
            breaker: BreakerConfig {
                failures: u32::MAX,
                rest: Duration::from_millis(100),
                rest_max: Duration::from_secs(1),
            },
            ..ServerConfig::new(name, reach)
        }
    };
    SERVERS.iter().map(|summary| server(summary.name)).collect()
}

/// What calls change, as the catalogue declares it.
fn effects(entry: &serde_json::Value) -> BTreeMap<String, Effect> {
    let effect = |class| match class {
        EffectClass::Reads => Effect::Reads,
        EffectClass::Idempotent => Effect::Idempotent,
        EffectClass::Once => Effect::Once,
    };
    runtime(entry).effects.into_iter().map(|(tool, class)| (tool, effect(class))).collect()
}

/// A host as clients write it.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// Starts the gateway with all that is behind it, in the background until the last stage of the way down: agents, who
/// call by way of it, end before.
///
/// # Errors
/// A port is not free, a file cannot be read or is wrong, or the ledger cannot be written.
pub(crate) async fn start(services: &Services, wanted: Wanted<'_>, life: &mut Life) -> anyhow::Result<Gateway> {
    let section = wanted.section;
    let asked = wanted.metering.config("");
    let file = match wanted.others {
        Others::OfAgents if section.agent_servers.is_empty() => None,
        _ => Some(section.read(wanted.data, &wanted.metering.folder, asked.is_some())?),
    };
    let access = section.access()?;
    let own = serve_own(services, &wanted, life).await?;
    let config = GatewayConfig {
        servers: own_servers(&own, wanted.token, &wanted.limits),
        callers: wanted.callers.clone(),
        access,
        keys: Keys::random().context("keys of MCP sessions cannot be drawn")?,
        advertise: String::new(),
        hosts: [&wanted.mcp.hosts[..], &[host(wanted.here)]].concat(),
        origins: wanted.mcp.origins.clone(),
        authorities: None,
        limits: echotune_gateway::Limits::default(),
        regions: RegionsConfig::default(),
        meter: wanted.meter.clone(),
        metering: asked.map(Metering::open).transpose().context("the ledger of calls (metering.folder)")?,
    };
    let stop = life.stop().child_token();
    // Whatever keeps the platform from serving ends the gateway too.
    let ends = stop.clone().drop_guard();
    let gateway = Gateway::start(config, stop.clone())?;
    gateway.unready_after(life.not_ready());
    if let Some((file, listed)) = file {
        let is_wanted =
            |one: &Listed| wanted.others == Others::All || section.agent_servers.iter().any(|name| name == one.name());
        for one in listed.into_iter().filter(is_wanted) {
            one.serve(&gateway)
                .context("a server of the file of MCP servers (gateway.servers_file) cannot be served")?;
        }
        if wanted.others == Others::All {
            watch(file, &gateway, section.servers_reload_every.0, life);
        }
    }
    end(gateway.clone(), (stop, ends), own, wanted.patience, life);
    Ok(gateway)
}

/// Follows the file of servers.
fn watch(file: ServersFile, gateway: &Gateway, every: Duration, life: &mut Life) {
    let watched = file.watch(gateway.clone(), every, life.stop());
    life.consumer("the watch on MCP servers", async move {
        watched.await;
        Ok::<_, Infallible>(())
    });
}

/// Ends the gateway when it is to: what is under way, then the children of servers, then the platform's own servers.
fn end(gateway: Gateway, (stop, ends): (CancellationToken, DropGuard), own: Own, patience: Duration, life: &mut Life) {
    life.consumer("the gateway of MCP servers", async move {
        stop.cancelled().await;
        let has_ended = gateway.close(patience).await;
        drop((own.end, ends));
        if has_ended { Ok(()) } else { Err("what was under way did not end in time") }
    });
}

#[cfg(test)]
mod tests {
    use echotune_gateway::catalogue::Runtime;

    use super::*;

    #[test]
    fn every_server_of_the_platform_has_its_effects_declared() {
        let entries = bundled();
        for server in SERVERS {
            let entry = entries.iter().find(|(file, _)| file.strip_prefix("echotune-") == Some(server.name));
            let (_, entry) = entry.expect("an entry of the catalogue");
            let Runtime { effects: declared, .. } = runtime(entry);
            let effects = effects(entry);
            assert!(!effects.is_empty() && effects.len() == declared.len(), "{}", server.name);
            assert!(effects.values().all(|effect| effect.may_repeat()), "{}: {effects:?}", server.name);
        }
    }

    #[test]
    fn hosts_are_as_clients_write_them() {
        let written = |address: &str| host(address.parse().expect("an address"));
        assert_eq!((written("127.0.0.2:1"), written("[fe80::1]:1")), ("127.0.0.2".to_owned(), "[fe80::1]".to_owned()));
    }
}
