//! MirrorMaker 2, active-active among all regions: topic T of us is us.T elsewhere and comes back nowhere.

use std::{fs, time::Duration};

use tokio::process::Command;

use crate::{
    Mirror, MirrorPlan, Part, Plan, Progress, Region, TestbedError, kafka,
    launch::{Home, Machine, class_path},
    process::Process,
    template::render,
    wait::Wait,
};

/// Each pair of regions looks through all plugins again, which takes 4 s of a core.
const LIMIT: Duration = Duration::from_secs(300);
const PROPERTIES: &str = include_str!("../templates/kafka/mm2.properties");
/// Of the REST interface by which processes of exactly-once mirroring speak; the number of a region is added.
const REST: u16 = 8090;
/// What the log says once of each region that is read from, when its topics are known.
const STARTED: &str = "Started MirrorSourceConnector";

fn properties(plan: &Plan, mirror: &MirrorPlan, at: Region) -> String {
    let mut lines =
        vec![format!("clusters={}", plan.regions.iter().map(|one| one.name()).collect::<Vec<_>>().join(","))];
    for region in &plan.regions {
        lines.push(format!("{region}.bootstrap.servers={}", kafka::bootstrap(plan, *region)));
        for store in ["config", "offset", "status"] {
            lines.push(format!("{region}.{store}.storage.replication.factor={}", plan.kafka.brokers.count()));
        }
        lines.push(format!("{region}.offset.storage.partitions=3"));
        lines.push(format!("{region}.status.storage.partitions=1"));
        if mirror.exactly_once {
            lines.push(format!("{region}.exactly.once.source.support=enabled"));
        }
        for target in plan.regions.iter().filter(|target| *target != region) {
            if !mirror.mirrors(&plan.regions, *region, *target) {
                lines.push(format!("{region}->{target}.enabled=false"));
                lines.push(format!("{region}->{target}.emit.heartbeats.enabled=false"));
                continue;
            }
            lines.push(format!("{region}->{target}.enabled=true"));
            lines.push(format!("{region}->{target}.topics={}", escaped(&mirror.topics)));
            lines.push(format!("{region}->{target}.groups={}", escaped(&mirror.groups)));
        }
    }
    if mirror.exactly_once {
        lines.push("dedicated.mode.enable.internal.rest=true".into());
        let port = REST + u16::from(at.number());
        lines.push(format!("listeners=http://{}:{port}", plan.network.address(at)));
    }
    let offsets = if mirror.groups.is_empty() { "false" } else { "true" };
    render(PROPERTIES, &[("CLUSTERS", &lines.join("\n")), ("GROUP_OFFSETS", offsets)])
}

/// A backslash begins an escape in a properties file.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\")
}

/// Where it runs: the one process with the first region.
fn place(plan: &Plan, which: Mirror) -> Region {
    match which {
        Mirror::Into(region) => region,
        Mirror::All => plan.regions.first().copied().unwrap_or(Region::Us),
    }
}

/// Writes the configuration; the command that starts the process.
pub(crate) fn prepare(plan: &Plan, machine: &Machine, which: Mirror, home: &Home) -> Result<Command, TestbedError> {
    let place = place(plan, which);
    let mirror = plan.mirror.as_ref().ok_or_else(|| TestbedError::Unknown {
        wanted: Part::Mirror(which).to_string(),
        known: "no mirroring".into(),
    })?;
    home.write("mm2.properties", &properties(plan, mirror, place))?;
    home.write("log4j2.properties", kafka::LOG4J)?;
    let mut command = plan.network.command(place, &machine.java);
    command.args(["-Xms64m".into(), format!("-Xmx{}m", mirror.heap_mib)]);
    command.args(["-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true"]);
    command.arg(format!("-XX:ErrorFile={}", home.file("hs_err_%p.log").display()));
    command.arg(kafka::log4j(home)).args(["-cp", &class_path(&machine.kafka)]);
    command.arg("org.apache.kafka.connect.mirror.MirrorMaker").arg(home.file("mm2.properties"));
    if let Mirror::Into(region) = which {
        command.args(["--clusters", region.name()]);
    }
    Ok(command)
}

/// Waits until it reads from every region that it is to read from.
pub(crate) async fn ready(
    plan: &Plan,
    which: Mirror,
    process: Process,
    home: &Home,
    progress: &dyn Progress,
) -> Result<Duration, TestbedError> {
    let into = |to: Region| plan.mirror.as_ref().map_or(0, |mirror| mirror.flows_into(&plan.regions, to));
    let flows: usize = match which {
        Mirror::All => plan.regions.iter().copied().map(into).sum(),
        Mirror::Into(region) => into(region),
    };
    let what = format!("runs {flows} flows");
    let log = home.log();
    let wait = Wait { part: &Part::Mirror(which), process, log: &log, what: &what, limit: LIMIT, progress };
    wait.until(async || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        said.matches(STARTED).count() >= flows
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Brokers, Network};

    fn rendered(plan: &Plan, at: Region) -> String {
        let text = properties(plan, plan.mirror.as_ref().unwrap(), at);
        assert!(!text.contains('@'), "{text}");
        text
    }

    #[test]
    fn every_region_mirrors_from_every_other() {
        let text = rendered(&Plan::data("/tmp/run"), Region::Us);
        let flows: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(".enabled=true")).collect();
        assert_eq!(flows, ["us->eu", "us->ap", "eu->us", "eu->ap", "ap->us", "ap->eu"]);
        assert!(text.contains("\nap.bootstrap.servers=127.0.0.3:9092\n"));
        assert!(text.contains(r"us->eu.topics=(?!(us|eu|ap)\\.)[a-z][a-z0-9_.-]*\\.v[0-9]+"), "{text}");
        assert!(text.contains("sync.group.offsets.enabled=false"));
        assert!(!text.contains("exactly.once"));
    }

    #[test]
    fn nothing_is_mirrored_from_one_jurisdiction_to_another() {
        let mut plan = Plan::data("/tmp/run");
        plan.mirror.as_mut().unwrap().jurisdictions = vec!["eea=eu".into()];
        let text = rendered(&plan, Region::Us);
        let told = |end: &str| text.lines().filter_map(|line| line.strip_suffix(end)).collect::<Vec<_>>();
        assert_eq!(told(".enabled=true"), ["us->ap", "ap->us"]);
        let off = ["us->eu", "eu->us", "eu->ap", "ap->eu"];
        assert_eq!(told(".emit.heartbeats.enabled=false"), off);
        assert!(off.iter().all(|flow| text.contains(&format!("\n{flow}.enabled=false\n"))), "{text}");
        assert!(!text.contains("eu->us.topics"), "{text}");
    }

    #[test]
    fn exactly_once_between_two_regions_of_three_brokers() {
        let mut plan = Plan::data("/tmp/run");
        plan.network = Network::Namespaces;
        plan.regions = vec![Region::Eu, Region::Ap];
        plan.kafka.brokers = Brokers::Three;
        let mirror = plan.mirror.as_mut().unwrap();
        mirror.exactly_once = true;
        mirror.groups = "reader".into();
        let text = rendered(&plan, Region::Ap);
        for line in [
            "clusters=eu,ap",
            "eu.bootstrap.servers=10.99.0.2:9092,10.99.0.2:9094,10.99.0.2:9096",
            "eu.config.storage.replication.factor=3",
            "ap.exactly.once.source.support=enabled",
            "eu->ap.groups=reader",
            "listeners=http://10.99.0.3:8093",
            "dedicated.mode.enable.internal.rest=true",
            "sync.group.offsets.enabled=true",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
