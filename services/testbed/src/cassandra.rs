//! Apache Cassandra: one node a region, each a data centre of its own with one fixed token.
//!
//! All nodes are seeds and none streams at its first start, so that three can start at once.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::process::Command;

use crate::{
    CommitLog, Part, Paxos, Plan, Progress, Region, TestbedError,
    jars::jar,
    launch::{Home, Machine, class_path, small},
    probe,
    process::Process,
    template::render,
    wait::Wait,
};

const CQL: u16 = 9042;
/// Of JMX on 127.0.0.1; the number of a region is added.
const JMX: u16 = 7200;
/// For the first answer. Starts double beside a build.
const LIMIT: Duration = Duration::from_secs(300);
const FLAGS: &str = include_str!("../templates/cassandra/jvm17.options");
const LOGBACK: &str = include_str!("../templates/cassandra/logback.xml");
const YAML: &str = include_str!("../templates/cassandra/cassandra.yaml");

/// Where it serves CQL.
pub(crate) fn address(plan: &Plan, region: Region) -> SocketAddr {
    (plan.network.address(region), CQL).into()
}

/// All addresses it listens on.
pub(crate) fn listens(plan: &Plan, region: Region) -> [SocketAddr; 3] {
    let jmx = SocketAddr::from(([127, 0, 0, 1], jmx(region)));
    [address(plan, region), (plan.network.address(region), 7000).into(), jmx]
}

fn jmx(region: Region) -> u16 {
    JMX + u16::from(region.number())
}

fn yaml(plan: &Plan, region: Region, home: &Home) -> String {
    let seeds: Vec<String> = plan.regions.iter().map(|region| plan.network.address(*region).to_string()).collect();
    let sync = match plan.cassandra.commit_log {
        CommitLog::Batch => "commitlog_sync: batch",
        CommitLog::Periodic => "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms",
    };
    let paxos = match plan.cassandra.paxos {
        Paxos::V1 => "v1",
        Paxos::V2 => "v2",
    };
    render(
        YAML,
        &[
            ("TOKEN", &region.number().to_string()),
            ("SEEDS", &seeds.join(",")),
            ("ADDR", &plan.network.address(region).to_string()),
            ("DIR", &home.data().to_string_lossy()),
            ("COMMITLOG_SYNC", sync),
            ("HINT_WINDOW", &format!("{}s", plan.cassandra.hint_window_s)),
            ("PHI", &plan.cassandra.phi.to_string()),
            ("PAXOS", paxos),
        ],
    )
}

/// Flags of the JVM that the server and its tools need.
fn flags() -> impl Iterator<Item = &'static str> {
    FLAGS.lines().filter(|line| line.starts_with('-'))
}

/// Writes the configuration; the command that starts the server.
pub(crate) fn prepare(plan: &Plan, machine: &Machine, region: Region, home: &Home) -> Result<Command, TestbedError> {
    home.write("conf/cassandra.yaml", &yaml(plan, region, home))?;
    home.write("conf/cassandra-rackdc.properties", &format!("dc={region}\nrack=r1\n"))?;
    home.write("conf/logback.xml", LOGBACK)?;
    home.write("tmp/README", "Native libraries are unpacked here.\n")?;
    let (folder, heap) = (home.folder().display(), plan.cassandra.heap_mib);
    let mut command = plan.network.command(region, &machine.java);
    command.env("MALLOC_ARENA_MAX", "2").args(flags());
    command.arg(format!("-javaagent:{}", jar(&machine.cassandra, "jamm-")?.display()));
    command.args([format!("-Xms{heap}m"), format!("-Xmx{heap}m")]);
    command.args(["-Xss256k", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=256m", "-XX:+PerfDisableSharedMem"]);
    command.args(["-XX:+ExitOnOutOfMemoryError".to_owned(), format!("-XX:ErrorFile={folder}/hs_err_%p.log")]);
    command.args([format!("-Djava.io.tmpdir={folder}/tmp"), format!("-Djna.tmpdir={folder}/tmp")]);
    command.arg(format!("-Dcassandra.config=file://{folder}/conf/cassandra.yaml"));
    command.args([format!("-Dcassandra.storagedir={folder}"), format!("-Dcassandra.logdir={folder}")]);
    command.arg(format!("-Dlogback.configurationFile={folder}/conf/logback.xml"));
    command.arg(format!("-Dcassandra.jmx.local.port={}", jmx(region)));
    command.args(["-Dcassandra-foreground=yes", "-Dcassandra.available_processors=2"]);
    command.args(["-Dcassandra.ring_delay_ms=3000", "-Dcassandra.skip_wait_for_gossip_to_settle=0"]);
    command.args(["-cp", &format!("{folder}/conf:{}", class_path(&machine.cassandra))]);
    command.arg("org.apache.cassandra.service.CassandraDaemon");
    Ok(command)
}

/// Waits until it answers CQL.
pub(crate) async fn ready(
    plan: &Plan,
    region: Region,
    process: Process,
    home: &Home,
    progress: &dyn Progress,
) -> Result<Duration, TestbedError> {
    let address = address(plan, region);
    let what = format!("answers CQL at {address}");
    let log = home.log();
    let wait = Wait { part: &Part::Cassandra(region), process, log: &log, what: &what, limit: LIMIT, progress };
    wait.until(async || {
        let answer = plan.network.within(region, move || probe::cql(address)).await;
        matches!(answer, Ok(Ok(true)))
    })
    .await
}

/// Waits until a node sees as many nodes up and in the ring as run.
pub(crate) async fn sees(
    plan: &Plan,
    machine: &Machine,
    region: Region,
    running: usize,
    progress: &dyn Progress,
) -> Result<(), TestbedError> {
    let part = Part::Cassandra(region);
    let home = Home::of(plan, part);
    let process = home.process().ok_or_else(|| TestbedError::NotRunning(part.to_string()))?;
    let log = home.log();
    let what = format!("sees {running} nodes");
    let wait = Wait { part: &part, process, log: &log, what: &what, limit: LIMIT, progress };
    wait.until(async || {
        let mut tool = nodetool(plan, machine, region);
        let told = tool.arg("status").kill_on_drop(true).output().await;
        told.is_ok_and(|told| up(&String::from_utf8_lossy(&told.stdout)) >= running)
    })
    .await
    .map(|_| ())
}

/// Nodes that `nodetool status` tells to be up and normal.
fn up(status: &str) -> usize {
    status.lines().filter(|line| line.starts_with("UN ")).count()
}

/// Cassandra's own tool, connected to the node of a region. Its history goes below the run folder.
pub(crate) fn nodetool(plan: &Plan, machine: &Machine, region: Region) -> Command {
    let home = Home::of(plan, Part::Cassandra(region));
    let mut command = plan.network.command(region, &machine.java);
    command.args(flags());
    small(&mut command, 64);
    command.arg(property("logback.configurationFile", home.file("conf/logback.xml")));
    command.arg(property("cassandra.storagedir", home.folder().into()));
    command.arg(property("user.home", plan.run.join("cassandra")));
    command.args(["-cp", &class_path(&machine.cassandra), "org.apache.cassandra.tools.NodeTool"]);
    command.args(["-h", "127.0.0.1", "-p", &jmx(region).to_string()]);
    command
}

fn property(name: &str, path: PathBuf) -> String {
    format!("-D{name}={}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;

    fn rendered(plan: &Plan, region: Region) -> String {
        let text = yaml(plan, region, &Home::of(plan, Part::Cassandra(region)));
        assert!(!text.contains('@'), "{text}");
        text
    }

    fn value<'a>(text: &'a str, key: &str) -> &'a str {
        let mut values = text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key));
        values.find_map(|rest| rest.strip_prefix(": ")).unwrap_or_default()
    }

    #[test]
    fn three_regions_are_one_cluster_of_three_tokens() {
        let plan = Plan::data("/tmp/run");
        for (region, token) in Region::ALL.into_iter().zip(["1", "2", "3"]) {
            let text = rendered(&plan, region);
            assert_eq!(value(&text, "initial_token"), token);
            assert_eq!(value(&text, "listen_address"), plan.network.address(region).to_string());
            assert_eq!(value(&text, "seeds"), "\"127.0.0.1,127.0.0.2,127.0.0.3\"");
            assert_eq!(value(&text, "commitlog_directory"), format!("/tmp/run/cassandra/{region}/data/commitlog"));
        }
    }

    #[test]
    fn one_region_in_a_namespace_has_its_settings() {
        let mut plan = Plan::data("/tmp/run");
        plan.network = Network::Namespaces;
        plan.regions = vec![Region::Eu];
        plan.cassandra.commit_log = CommitLog::Periodic;
        plan.cassandra.hint_window_s = 10;
        plan.cassandra.paxos = Paxos::V1;
        let text = rendered(&plan, Region::Eu);
        assert_eq!(value(&text, "seeds"), "\"10.99.0.2\"");
        assert_eq!(value(&text, "rpc_address"), "10.99.0.2");
        assert_eq!(value(&text, "commitlog_sync"), "periodic");
        assert_eq!(value(&text, "commitlog_sync_period"), "10000ms");
        assert_eq!(value(&text, "max_hint_window"), "10s");
        assert_eq!(value(&text, "hint_window_persistent_enabled"), "false");
        assert_eq!(value(&text, "paxos_variant"), "v1");
        assert_eq!(value(&text, "phi_convict_threshold"), "8");
    }

    #[test]
    fn only_nodes_that_are_up_and_normal_count() {
        let status = "Datacenter: us\n--  Address\nUN  127.0.0.1  1\nDatacenter: eu\nDN  127.0.0.2\nUJ  127.0.0.3\n";
        assert_eq!(up(status), 1);
    }

    #[test]
    fn comments_are_no_flags() {
        assert!(flags().count() > 20 && flags().all(|flag| flag.starts_with("-D") || flag.starts_with("--add-")));
    }
}
