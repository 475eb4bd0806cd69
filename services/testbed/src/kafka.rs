//! Apache Kafka in KRaft mode: one cluster a region, whose brokers are its controllers too.

use std::{net::SocketAddr, time::Duration};

use tokio::process::Command;

use crate::{
    Part, Plan, Progress, Region, TestbedError,
    launch::{Home, Machine, class_path, small},
    probe,
    process::{Process, last_lines},
    template::render,
    wait::Wait,
};

const LIMIT: Duration = Duration::from_secs(300);
const PROPERTIES: &str = include_str!("../templates/kafka/server.properties");
pub(crate) const LOG4J: &str = include_str!("../templates/kafka/log4j2.properties");

/// Kafka's own tools by name, with the class that each is.
pub(crate) const TOOLS: [(&str, &str); 7] = [
    ("topics", "org.apache.kafka.tools.TopicCommand"),
    ("configs", "kafka.admin.ConfigCommand"),
    ("groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("console-producer", "org.apache.kafka.tools.ConsoleProducer"),
    ("quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
];

/// Where a broker serves: 9092, 9094, 9096.
pub(crate) fn address(plan: &Plan, region: Region, broker: u8) -> SocketAddr {
    (plan.network.address(region), 9090 + 2 * u16::from(broker)).into()
}

/// Where it is a controller: 9093, 9095, 9097.
pub(crate) fn controller(plan: &Plan, region: Region, broker: u8) -> SocketAddr {
    (plan.network.address(region), 9091 + 2 * u16::from(broker)).into()
}

/// The brokers of a region as clients want them told.
pub(crate) fn bootstrap(plan: &Plan, region: Region) -> String {
    listed(plan, |broker| address(plan, region, broker).to_string())
}

fn listed(plan: &Plan, one: impl Fn(u8) -> String) -> String {
    (1..=plan.kafka.brokers.count()).map(one).collect::<Vec<_>>().join(",")
}

fn properties(plan: &Plan, region: Region, broker: u8, home: &Home) -> String {
    let quorum = listed(plan, |broker| controller(plan, region, broker).to_string());
    render(
        PROPERTIES,
        &[
            ("ID", &broker.to_string()),
            ("ADDR", &plan.network.address(region).to_string()),
            ("PORT", &address(plan, region, broker).port().to_string()),
            ("CPORT", &controller(plan, region, broker).port().to_string()),
            ("BOOT", &quorum),
            ("DIR", &home.folder().to_string_lossy()),
            ("RF", &plan.kafka.brokers.count().to_string()),
            ("ISR", &plan.kafka.brokers.in_sync().to_string()),
        ],
    )
}

/// A cluster's id: 22 characters of base64, as Kafka writes a UUID.
fn cluster_id(region: Region) -> &'static str {
    match region {
        Region::Us => "TestbedClusterUs00000A",
        Region::Eu => "TestbedClusterEu00000A",
        Region::Ap => "TestbedClusterAp00000A",
    }
}

/// The first voters, with the ids of their folders, so that a quorum of three needs no joining.
fn voters(plan: &Plan, region: Region) -> String {
    listed(plan, |broker| format!("{broker}@{}:TestbedDirectoryId{broker}00A", controller(plan, region, broker)))
}

/// Writes the configuration, and formats the folder at the first start; the command that starts the broker.
pub(crate) async fn prepare(
    plan: &Plan,
    machine: &Machine,
    region: Region,
    broker: u8,
    home: &Home,
) -> Result<Command, TestbedError> {
    home.write("server.properties", &properties(plan, region, broker, home))?;
    home.write("log4j2.properties", LOG4J)?;
    if !home.file("data/meta.properties").exists() {
        format(plan, machine, region, home).await?;
    }
    let heap = plan.kafka.heap_mib;
    let mut command = plan.network.command(region, &machine.java);
    command.args([format!("-Xms{heap}m"), format!("-Xmx{heap}m")]);
    command.args(["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=50", "-XX:MaxDirectMemorySize=128m"]);
    command.args(["-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"]);
    command.arg(format!("-XX:ErrorFile={}", home.file("hs_err_%p.log").display()));
    command.arg(log4j(home)).args(["-cp", &class_path(&machine.kafka), "kafka.Kafka"]);
    command.arg(home.file("server.properties"));
    Ok(command)
}

async fn format(plan: &Plan, machine: &Machine, region: Region, home: &Home) -> Result<(), TestbedError> {
    let mut command = Command::new(&machine.java);
    small(&mut command, 96);
    command.arg(log4j(home)).args(["-cp", &class_path(&machine.kafka), "kafka.tools.StorageTool", "format"]);
    command.args(["-t", cluster_id(region), "--initial-controllers", &voters(plan, region), "-c"]);
    command.arg(home.file("server.properties")).kill_on_drop(true);
    let told = command.output().await.map_err(TestbedError::program("java", ""))?;
    if told.status.success() {
        return Ok(());
    }
    let said = [told.stdout, told.stderr].concat();
    let what = format!("formatting {}", home.folder().display());
    Err(TestbedError::Tool { what, said: last_lines(&String::from_utf8_lossy(&said)) })
}

pub(crate) fn log4j(home: &Home) -> String {
    format!("-Dlog4j2.configurationFile={}", home.file("log4j2.properties").display())
}

/// Waits until a broker answers, and is counted among the living by itself.
pub(crate) async fn ready(
    plan: &Plan,
    region: Region,
    broker: u8,
    process: Process,
    home: &Home,
    progress: &dyn Progress,
) -> Result<Duration, TestbedError> {
    let address = address(plan, region, broker);
    let what = format!("serves at {address}");
    let log = home.log();
    let wait = Wait { part: &Part::Kafka(region, broker), process, log: &log, what: &what, limit: LIMIT, progress };
    wait.until(async || {
        let answer = plan.network.within(region, move || probe::kafka(address)).await;
        matches!(answer, Ok(Ok(living)) if living.contains(&broker.into()))
    })
    .await
}

/// One of Kafka's own tools, connected to the cluster of a region.
pub(crate) fn tool(plan: &Plan, machine: &Machine, region: Region, class: &str) -> Command {
    let mut command = plan.network.command(region, &machine.java);
    small(&mut command, 96);
    command.args(["-cp", &class_path(&machine.kafka), class, "--bootstrap-server", &bootstrap(plan, region)]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Brokers, Network};

    fn rendered(plan: &Plan, region: Region, broker: u8) -> Vec<String> {
        let text = properties(plan, region, broker, &Home::of(plan, Part::Kafka(region, broker)));
        assert!(!text.contains('@'), "{text}");
        text.lines().map(str::to_owned).collect()
    }

    fn holds(lines: &[String], wanted: &[&str]) {
        for line in wanted {
            assert!(lines.iter().any(|found| found == line), "{line} is not in {lines:#?}");
        }
    }

    #[test]
    fn one_broker_is_a_cluster_without_copies() {
        let plan = Plan::data("/tmp/run");
        let lines = rendered(&plan, Region::Eu, 1);
        holds(
            &lines,
            &[
                "node.id=1",
                "listeners=CLIENT://127.0.0.2:9092,CONTROLLER://127.0.0.2:9093",
                "controller.quorum.bootstrap.servers=127.0.0.2:9093",
                "log.dirs=/tmp/run/kafka/eu/1/data",
                "default.replication.factor=1",
                "min.insync.replicas=1",
                "auto.create.topics.enable=false",
            ],
        );
        assert_eq!(bootstrap(&plan, Region::Eu), "127.0.0.2:9092");
        assert_eq!(voters(&plan, Region::Eu), "1@127.0.0.2:9093:TestbedDirectoryId100A");
    }

    #[test]
    fn three_brokers_in_a_namespace_keep_three_copies() {
        let mut plan = Plan::data("/tmp/run");
        plan.network = Network::Namespaces;
        plan.kafka.brokers = Brokers::Three;
        let lines = rendered(&plan, Region::Us, 3);
        holds(
            &lines,
            &[
                "node.id=3",
                "advertised.listeners=CLIENT://10.99.0.1:9096,CONTROLLER://10.99.0.1:9097",
                "controller.quorum.bootstrap.servers=10.99.0.1:9093,10.99.0.1:9095,10.99.0.1:9097",
                "offsets.topic.replication.factor=3",
                "transaction.state.log.min.isr=2",
                "min.insync.replicas=2",
            ],
        );
        assert_eq!(bootstrap(&plan, Region::Us), "10.99.0.1:9092,10.99.0.1:9094,10.99.0.1:9096");
    }

    #[test]
    fn ids_are_uuids_as_kafka_writes_them() {
        for id in Region::ALL.map(cluster_id).into_iter().chain(["TestbedDirectoryId100A"]) {
            assert_eq!(id.len(), 22);
        }
    }
}
