//! The program that serves MCP in one region, or one server of a pod.

use std::{convert::Infallible, io, net::SocketAddr, process::ExitCode, sync::Arc};

use axum::serve::ListenerExt as _;
use echotune_api::{
    FILE_DESCRIPTOR_SET, Users, UsersClient, accounts, authenticator,
    demand::{Demand, DemandClient, Hello},
};
use echotune_kit::{
    auth::Token,
    edge::{Credentials, Edge},
    identity::remembered,
    lifecycle::{Exit, Life},
    process::{self, About, Failure, Process, Settings, addresses, check_upstream, upstream, upstream_at},
};
use echotune_model::{ErrorKind, Fault};
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{
    config::{Config, McpConfig},
    secure::Secure,
};
use crate::{
    AccessConfig, FileRules, Gateway, GatewayConfig, Keys, Listed, Operator, Replicas, ServersFile,
    metering::{Metering, MeteringConfig},
};

pub mod adapter;
pub mod config;
mod secure;

/// What the program is.
pub const ABOUT: About = About {
    name: "echotune-gateway",
    version: env!("CARGO_PKG_VERSION"),
    about: "Serves many MCP servers at one endpoint in one region. `echotune-gateway adapter --help` tells of another \
            use: one server that is a program, served over HTTP.",
    defaults: concat!(
        include_str!("defaults.toml"),
        "\n",
        include_str!("../metering/defaults.toml"),
        "\n",
        include_str!("../../../kit/src/process/defaults.toml")
    ),
};

fn told(why: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(code)
}

/// Runs the program by its command line.
pub fn run() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == "adapter") {
        return adapter::run();
    }
    process::run(&ABOUT, serve)
}

/// Serves until it is told to stop.
///
/// # Errors
/// A file cannot be read, an address not be listened on, or a server is configured wrongly.
pub async fn serve(config: Config, mut process: Process) -> Result<Exit, Failure> {
    let token = Token::read_file(&config.token_file)?;
    let credentials = Credentials { token: token.clone() };
    let stop = process.life.stop();
    let users = upstream(&config.users, &config.process, stop.clone())?;
    let users: Arc<dyn Users> = Arc::new(UsersClient::new(users, credentials.clone()));
    let tokens = remembered(authenticator(Arc::clone(&users)), config.process.identity.remember.0);
    let (accounts, meter) = (accounts(users), process.telemetry.meter());
    let callers = config.process.callers(token, tokens, accounts, &mut process.life, &meter).await?;
    let (listener, secure) = listen(&config).await?;
    let (file, listed) = read_servers(&config)?;
    let metering = metering(&config, &listed)?;
    let (fixed, hosted): (Vec<_>, Vec<_>) = listed.into_iter().partition(|listed| listed.policy.is_none());
    let servers = fixed.into_iter().map(|listed| listed.server).collect();
    let mcp = &config.mcp;
    let here = listener.local_addr()?;
    let gateway = Gateway::start(
        GatewayConfig {
            servers,
            callers: callers.clone(),
            keys: keys(&config)?,
            advertise: mcp.advertise.clone(),
            hosts: [&mcp.hosts[..], &[here.ip().to_string()]].concat(),
            origins: mcp.origins.clone(),
            authorities: Some(mcp.authorities.clone()).filter(|path| !path.as_os_str().is_empty()),
            limits: mcp.limits(),
            regions: config.regions.config(&config.operator.region, &credentials.token),
            meter,
            access: access(&config)?,
            metering,
        },
        process.life.drain(),
    )?;
    keep_lists(&gateway, mcp, &credentials.token)?;
    for listed in hosted {
        listed.serve(&gateway)?;
    }
    if !config.operator.url.is_empty() {
        gateway.follow(operator(&config, replicas(&config, credentials, stop.clone())?)?);
    }
    if let Some(file) = file {
        let watched = file.watch(gateway.clone(), mcp.servers_reload_every.0, stop);
        consume(&mut process.life, "the watch on servers", watched);
    }
    gateway.unready_after(process.life.not_ready());
    process.take_signals()?;
    answer(&gateway, listener, secure, &config, &mut process.life);
    println!("{} speaks MCP on http://{here}/mcp", ABOUT.name);
    let edge = Edge::knowing(callers, config.process.limits.patience());
    process.serve(&edge, FILE_DESCRIPTOR_SET, |face| face).await
}

fn consume(life: &mut Life, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    life.consumer(name, async move {
        work.await;
        Ok::<_, Infallible>(())
    });
}

/// The ways in, before real work.
async fn listen(config: &Config) -> Result<(TcpListener, Option<Secure>), Failure> {
    let address = config.mcp.address(config.process.listen).ok_or("mcp.listen is no address")?;
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|cause| format!("cannot listen on {address}; choose another mcp.listen: {cause}"))?;
    Ok((listener, Secure::bind(&config.mcp.tls_listen, &config.process.tls).await?))
}

fn read_servers(config: &Config) -> io::Result<(Option<ServersFile>, Vec<Listed>)> {
    if config.mcp.servers_file.as_os_str().is_empty() {
        return Ok((None, Vec::new()));
    }
    let is_metered = !config.metering.folder.as_os_str().is_empty();
    let mcp = &config.mcp;
    let hidden = [&config.token_file, &mcp.keys_file, &mcp.access_file, &mcp.lists_file, &config.metering.folder];
    let hidden = hidden.into_iter().chain([&config.process.tls.key]).cloned().collect();
    let rules = FileRules { is_metered, hidden, ..FileRules::default() };
    let (file, servers) = ServersFile::read(&config.mcp.servers_file, rules)?;
    Ok((Some(file), servers))
}

/// Who may call what; everybody whatever they like where nothing is said.
fn access(config: &Config) -> io::Result<AccessConfig> {
    let path = &config.mcp.access_file;
    if path.as_os_str().is_empty() { Ok(AccessConfig::default()) } else { AccessConfig::read(path) }
}

/// The ledger, with what the file of servers says that calls cost.
fn metering(config: &Config, listed: &[Listed]) -> Result<Option<Metering>, Failure> {
    let Some(asked) = config.metering.config(&config.operator.region) else { return Ok(None) };
    let tariffs = listed.iter().filter_map(|listed| Some((listed.server.name.clone(), listed.tariff.clone()?)));
    Ok(Some(Metering::open(MeteringConfig { tariffs: tariffs.collect(), ..asked })?))
}

/// Keeps public lists, and takes over what other gateways of the region have of them.
fn keep_lists(gateway: &Gateway, mcp: &McpConfig, token: &Token) -> Result<(), String> {
    if mcp.lists_file.as_os_str().is_empty() {
        return Ok(());
    }
    let unfit = |cause| format!("mcp.lists_file: {cause}; name a file that can be read and written, or none");
    gateway.keep_lists(mcp.lists_file.clone()).map_err(unfit)?;
    if !mcp.lists_from.is_empty() {
        gateway.take_lists(mcp.lists_from.clone(), &token.header().into());
    }
    Ok(())
}

fn keys(config: &Config) -> io::Result<Keys> {
    let path = &config.mcp.keys_file;
    if path.as_os_str().is_empty() { Keys::random() } else { Keys::read(path) }
}

/// The replicas of the operator, as many as its name has addresses, each with a channel of its own for each stream: of
/// those behind one address any may be reached, and who leads is found by trying.
fn replicas(config: &Config, credentials: Credentials, stop: CancellationToken) -> Result<Replicas, Failure> {
    let (url, settings) = (config.operator.url.clone(), Arc::new(config.process.clone()));
    check_upstream(&url, &settings)?;
    Ok(Arc::new(move || {
        let (url, settings) = (url.clone(), Arc::clone(&settings));
        let (credentials, stop) = (credentials.clone(), stop.clone());
        async move {
            let ways = ways(addresses(&url).await, crate::token::random());
            let replica = |at| replica(at, &url, &settings, credentials.clone(), &stop);
            ways.into_iter().map(replica).collect::<Vec<_>>()
        }
        .boxed()
    }))
}

/// In which order addresses are asked: not all gateways begin with the same one. One alone is found out again with each
/// connection.
fn ways(mut found: Vec<SocketAddr>, [random]: [u8; 1]) -> Vec<Option<SocketAddr>> {
    if found.len() < 2 {
        return vec![None];
    }
    let first = usize::from(random) % found.len();
    found.rotate_left(first);
    found.into_iter().map(Some).collect()
}

fn replica(
    at: Option<SocketAddr>,
    url: &str,
    settings: &Arc<Settings>,
    credentials: Credentials,
    stop: &CancellationToken,
) -> Arc<dyn Demand> {
    let (url, settings, beside) = (url.to_owned(), Arc::clone(settings), stop.child_token());
    // What a channel does beside its stream, such as reading certificates anew, ends with it.
    let ends = beside.clone().drop_guard();
    let connect = move || {
        let (_held, beside) = (&ends, beside.clone());
        let channel = match at {
            Some(at) => upstream_at(&url, at, &settings, beside),
            None => upstream(&url, &settings, beside),
        };
        channel.map_err(|cause| Fault::new(ErrorKind::Unavailable, cause.to_string()))
    };
    Arc::new(DemandClient::connecting(connect, credentials))
}

fn operator(config: &Config, replicas: Replicas) -> io::Result<Operator> {
    let settings = &config.operator;
    let gateway = if settings.replica.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        settings.replica.clone()
    };
    let mut drawn = [0; 8];
    getrandom::fill(&mut drawn).map_err(io::Error::other)?;
    Ok(Operator {
        replicas,
        hello: Hello {
            gateway,
            region: settings.region.clone(),
            incarnation: u64::from_be_bytes(drawn),
            shard: 0,
            shards: 1,
        },
        pods: settings.pods(),
        patience: settings.patience.0,
    })
}

/// Speaks MCP until the drain, answers what is under way, then ends what is open with servers.
fn answer(gateway: &Gateway, listener: TcpListener, secure: Option<Secure>, config: &Config, life: &mut Life) {
    let drain = life.drain();
    let patience = config.process.shutdown.drain_timeout.0;
    // Answers are small and must not wait for each other's acknowledgements.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    let (router, drained) = (gateway.router(), drain.clone().cancelled_owned());
    life.server("the MCP server", async move { axum::serve(listener, router).with_graceful_shutdown(drained).await });
    if let Some(secure) = secure {
        let every = config.process.tls.reload_every.0;
        secure.answer(gateway.router(), every, life);
    }
    let gateway = gateway.clone();
    life.server("the sessions with MCP servers", close(gateway, drain, patience));
}

async fn close(gateway: Gateway, drain: CancellationToken, patience: std::time::Duration) -> Result<(), String> {
    drain.cancelled().await;
    if gateway.close(patience).await { Ok(()) } else { Err("what was under way did not end in time".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_asked_once_and_one_alone_by_its_name() {
        let found =
            ["10.0.0.1:7480", "10.0.0.2:7480", "10.0.0.3:7480"].map(|at| at.parse::<SocketAddr>().expect("an address"));
        let [one, two, three] = found;
        assert_eq!(ways(found.to_vec(), [0]), [Some(one), Some(two), Some(three)]);
        assert_eq!(ways(found.to_vec(), [4]), [Some(two), Some(three), Some(one)]);
        assert_eq!((ways(vec![one], [1]), ways(Vec::new(), [1])), (vec![None], vec![None]));
    }
}
