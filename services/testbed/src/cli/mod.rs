//! The command line.

mod kubernetes;

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, BufReader, Write as _},
    path::{self, Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use self::kubernetes::{ImageOf, Kubernetes};
use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use echotune_testbed::{
    Brokers, Cluster, CommitLog, Component, Cut, Loss, MirrorPlan, MirrorProcesses, Network, Part, PartStatus, Paxos,
    Percent, Plan, Region, State, Terminal, Testbed, TestbedError, build_helm, built_helm,
    history::{Header, History},
};
use serde_json::{Value, json};
use tokio::{
    process::Command as Tool,
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
};

const PARTS: &str = "Parts are named cassandra/REGION, kafka/REGION/BROKER, mirror/all or mirror/REGION; those of \
Kubernetes etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok, node, node-forward, containerd, \
kubelet and kube-proxy.";

/// Real servers for three regions, and real Kubernetes, on one machine.
#[derive(Debug, Parser)]
#[command(name = "echotune-testbed", version, arg_required_else_help = true, after_help = PARTS)]
struct Arguments {
    /// Folder of data, logs and pid files [default: echotune-testbed in the folder for temporary files].
    #[arg(long, global = true, env = "ECHOTUNE_TESTBED_RUN")]
    run: Option<PathBuf>,
    /// How to print results.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start parts in the background, and return when all serve. Those that run already are left alone.
    Up {
        #[command(subcommand)]
        what: What,
    },
    /// Tell what all parts are doing.
    Status,
    /// End all parts.
    Down {
        /// Only those of data or of Kubernetes.
        #[arg(value_enum)]
        what: Option<Kind>,
        /// Remove their data and logs too.
        #[arg(long)]
        wipe: bool,
    },
    /// End a part by SIGKILL.
    Kill {
        /// Which.
        part: Target,
    },
    /// End a part in order.
    Stop {
        /// Which.
        part: Target,
    },
    /// Start a part on its data.
    Start {
        /// Which.
        part: Target,
    },
    /// Freeze a part.
    Pause {
        /// Which.
        part: Target,
    },
    /// Let a frozen part go on.
    Resume {
        /// Which.
        part: Target,
    },
    /// Cut two regions off from each other, besides what is cut already (--network namespaces).
    Partition(Partition),
    /// Undo all cuts.
    Heal,
    /// Judge a history of what clients did and saw: one JSON object a line, the header first. Fails when the system
    /// did not keep what it promised.
    Judge {
        /// The file.
        history: PathBuf,
    },
    /// Drive the platform's programs in all regions while parts of it fail one after the other, and judge what came of
    /// it. Needs a testbed that runs with mirrors, and a build with the feature `drive`.
    #[cfg(feature = "drive")]
    Faults(crate::faults::Faults),
    /// Have the platform's programs serve in all regions until Ctrl-C. Needs a testbed that runs, and a build with the
    /// feature `drive`.
    #[cfg(feature = "drive")]
    Serve(crate::serve::Serve),
    /// Make an image of a folder, without a daemon, and bring it to the real node of Kubernetes.
    Image(ImageOf),
    /// Bring archives of images to the real node of Kubernetes.
    Import {
        /// Files as `docker save` writes them, or of OCI's layout.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Print where Helm is, which needs no cluster to lint and render charts.
    WhereHelm {
        /// Build it by Go where it is not there; otherwise this fails.
        #[arg(long)]
        build: bool,
    },
    /// Run kubectl as the administrator of Kubernetes.
    Kubectl {
        /// What it is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run Helm as the administrator of Kubernetes. The first call builds it by Go.
    Helm {
        /// What it is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run Cassandra's nodetool.
    Nodetool {
        /// Whose node.
        region: Region,
        /// What it is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run one of Kafka's tools: topics, configs, groups, offsets, console-consumer, console-producer or quorum.
    Kafka {
        /// Whose cluster.
        region: Region,
        /// Which tool.
        tool: String,
        /// What it is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum What {
    /// Apache Cassandra, Apache Kafka and MirrorMaker 2.
    Data(Data),
    /// Kubernetes with simulated nodes and, where asked for, a real one. The first start builds it by Go.
    Kubernetes(Kubernetes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Servers of data.
    Data,
    /// Kubernetes.
    Kubernetes,
}

/// A part of either.
#[derive(Debug, Clone, Copy)]
enum Target {
    Data(Part),
    Kubernetes(Component),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let component = || name.parse().map(Self::Kubernetes);
        name.parse().map(Self::Data).or_else(|_| component()).map_err(|_| format!("'{name}' names no part. {PARTS}"))
    }
}

#[derive(Debug, Args)]
struct Data {
    /// Regions, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = Region::ALL)]
    regions: Vec<Region>,
    /// Brokers of each region: 1, or 3 for a replication factor of 3.
    #[arg(long, default_value = "1", value_parser = brokers)]
    brokers: Brokers,
    /// Where regions live.
    #[arg(long, value_enum, default_value_t = Where::Loopback)]
    network: Where,
    /// Leave MirrorMaker 2 out. One region alone has none.
    #[arg(long)]
    no_mirror: bool,
    /// Topics to mirror: names or Java regular expressions, separated by commas [default: NAME.v1 and the like].
    #[arg(long, value_name = "LIST", conflicts_with = "no_mirror")]
    mirror_topics: Option<String>,
    /// Mirror within jurisdictions alone, such as eea=eu: NAME=REGION,REGION, several parted by spaces. Those of other
    /// regions are one.
    #[arg(long, value_name = "LIST", value_delimiter = ' ', conflicts_with = "no_mirror")]
    jurisdictions: Vec<String>,
    /// Mirror within transactions.
    #[arg(long, conflicts_with = "no_mirror")]
    exactly_once: bool,
    /// Mirror by one process for each region; so it is in namespaces anyway.
    #[arg(long, conflicts_with = "no_mirror")]
    mirror_per_region: bool,
    /// When an acknowledged CQL write is on disk.
    #[arg(long, value_enum, default_value_t = Sync::Batch)]
    commit_log: Sync,
    /// Seconds for which writes are kept for a CQL server that is away.
    #[arg(long, value_name = "SECONDS", default_value_t = 3 * 3600)]
    hint_window: u32,
    /// Use the first variant of Paxos.
    #[arg(long)]
    paxos_v1: bool,
    /// Give each CQL server and broker a disk in memory of so many MiB, which can be filled. Needs root.
    #[arg(long, value_name = "MIB")]
    disk: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Where {
    /// On 127.0.0.1, .2 and .3.
    Loopback,
    /// Each in a network namespace, where it can be cut off. Needs root.
    Namespaces,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sync {
    /// Before the acknowledgement.
    Batch,
    /// Every ten seconds.
    Periodic,
}

#[derive(Debug, Args)]
struct Partition {
    /// One side.
    from: Region,
    /// The other.
    to: Region,
    /// Only what goes from the first to the second is lost.
    #[arg(long)]
    one_way: bool,
    /// Answer with TCP resets instead of silence.
    #[arg(long, conflicts_with = "loss")]
    reset: bool,
    /// Lose as many of a hundred packets instead of all.
    #[arg(long, value_name = "PERCENT")]
    loss: Option<Percent>,
}

fn brokers(text: &str) -> anyhow::Result<Brokers> {
    Ok(Brokers::try_from(text.parse::<u8>()?)?)
}

impl Data {
    fn plan(self, run: PathBuf) -> Plan {
        let network = match self.network {
            Where::Loopback => Network::Loopback,
            Where::Namespaces => Network::Namespaces,
        };
        let mut plan = Plan { regions: self.regions, network, disk_mib: self.disk, ..Plan::data(run) };
        plan.kafka.brokers = self.brokers;
        plan.cassandra.hint_window_s = self.hint_window;
        plan.cassandra.paxos = if self.paxos_v1 { Paxos::V1 } else { Paxos::V2 };
        plan.cassandra.commit_log = match self.commit_log {
            Sync::Batch => CommitLog::Batch,
            Sync::Periodic => CommitLog::Periodic,
        };
        let mut mirror = MirrorPlan::of(network);
        mirror.topics = self.mirror_topics.unwrap_or(mirror.topics);
        mirror.exactly_once = self.exactly_once;
        mirror.jurisdictions = self.jurisdictions;
        if self.mirror_per_region {
            mirror.processes = MirrorProcesses::PerRegion;
        }
        plan.mirror = (!self.no_mirror && plan.regions.len() > 1).then_some(mirror);
        plan
    }
}

impl Partition {
    fn cut(self) -> Cut {
        let Self { from, to, one_way, reset, loss } = self;
        let whole = if reset { Loss::Reset } else { Loss::Silence };
        Cut { from, to, one_way, loss: loss.map_or(whole, Loss::Percent) }
    }
}

/// Carries out what the command line says.
pub(crate) async fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let done = tokio::select! {
        done = carry_out(arguments) => done,
        stopped = stopped() => stopped.map_err(Into::into).and_then(|()| {
            bail!("stopped; what this command had begun is ended, `testbed down` ends the rest")
        }),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn stopped() -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

async fn carry_out(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { run, output, command } = arguments;
    let run = path::absolute(run.unwrap_or_else(|| env::temp_dir().join("echotune-testbed")))?;
    let progress = Terminal::stderr();
    let open = || Testbed::open(&run);
    let cluster = || Cluster::open(&run);
    match command {
        Command::Up { what: What::Data(data) } => {
            Testbed::up_watched(data.plan(run.clone()), &progress).await?;
            status(&run, output)?;
        }
        Command::Up { what: What::Kubernetes(kubernetes) } => {
            Cluster::up_watched(kubernetes.plan(run.clone()), &progress).await?;
            status(&run, output)?;
        }
        Command::Status => status(&run, output)?,
        Command::Down { what, wipe } => down(&run, what, wipe, &progress).await?,
        Command::Kill { part: Target::Data(part) } => open()?.kill(part).await?,
        Command::Stop { part: Target::Data(part) } => open()?.stop(part).await?,
        Command::Start { part: Target::Data(part) } => open()?.start(part, &progress).await?,
        Command::Pause { part: Target::Data(part) } => open()?.pause(part)?,
        Command::Resume { part: Target::Data(part) } => open()?.resume(part)?,
        Command::Kill { part: Target::Kubernetes(part) } => cluster()?.kill(part).await?,
        Command::Stop { part: Target::Kubernetes(part) } => cluster()?.stop(part).await?,
        Command::Start { part: Target::Kubernetes(part) } => cluster()?.start(part, &progress).await?,
        Command::Pause { part: Target::Kubernetes(part) } => cluster()?.pause(part)?,
        Command::Resume { part: Target::Kubernetes(part) } => cluster()?.resume(part)?,
        Command::Partition(partition) => open()?.partition(partition.cut()).await?,
        Command::Heal => open()?.heal().await?,
        Command::Judge { history } => return judge(&history, output),
        #[cfg(feature = "drive")]
        Command::Faults(faults) => return faults.run(&open()?, output == Output::Json).await,
        #[cfg(feature = "drive")]
        Command::Serve(serve) => return serve.run(&open()?, output == Output::Json).await,
        Command::Image(image) => image.make(|| Ok(cluster()?)).await?,
        Command::Import { archives } => {
            for archive in archives {
                cluster()?.import_archive(&archive).await?;
            }
        }
        Command::WhereHelm { build } => {
            let helm = if build { Some(build_helm(&progress).await?) } else { built_helm() };
            println!("{}", helm.context("Helm is not built yet: `testbed where-helm --build`")?.display());
        }
        Command::Kubectl { arguments } => return pass(cluster()?.kubectl(), &arguments).await,
        Command::Helm { arguments } => return pass(cluster()?.helm(&progress).await?, &arguments).await,
        Command::Nodetool { region, arguments } => return pass(open()?.nodetool(region).await?, &arguments).await,
        Command::Kafka { region, tool, arguments } => {
            return pass(open()?.kafka_tool(region, &tool).await?, &arguments).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends what of a run folder is wanted and there.
async fn down(run: &Path, what: Option<Kind>, wipe: bool, progress: &Terminal) -> anyhow::Result<()> {
    let data = if what == Some(Kind::Kubernetes) { Ok(None) } else { there(Testbed::open(run), what) }?;
    let cluster = if what == Some(Kind::Data) { Ok(None) } else { there(Cluster::open(run), what) }?;
    ensure!(data.is_some() || cluster.is_some(), nothing(run));
    if let Some(cluster) = cluster {
        cluster.down(wipe, progress).await?;
    }
    if let Some(data) = data {
        data.down(wipe, progress).await?;
    }
    Ok(())
}

/// What was opened, if it is there; when it was asked for by name, it must be.
fn there<T>(opened: Result<T, TestbedError>, what: Option<Kind>) -> Result<Option<T>, TestbedError> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(TestbedError::NoTestbed(_) | TestbedError::NoCluster(_)) if what.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

fn nothing(run: &Path) -> String {
    format!("{} holds no testbed: `testbed up data` or `testbed up kubernetes` starts one there", run.display())
}

fn judge(file: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let read = || History::read(BufReader::new(File::open(file)?));
    let history = read().with_context(|| file.display().to_string())?;
    let verdict = history.judge();
    let text = match output {
        Output::Json => {
            format!("{:#}", json!({"header": history.header, "passed": verdict.passed(), "verdict": verdict}))
        }
        Output::Table => {
            let Header { scenario, seed, version } = &history.header;
            format!("{scenario}, seed {seed}, version {version}, {} operations\n{verdict}", history.entries.len())
        }
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(if verdict.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs another program with our input and output; its exit code.
async fn pass(mut tool: Tool, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let status = tool.args(arguments).kill_on_drop(true).status().await.context("the tool cannot be run")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Tells of all that a run folder holds.
fn status(run: &Path, output: Output) -> anyhow::Result<()> {
    let data = there(Testbed::open(run), None)?;
    let cluster = there(Cluster::open(run), None)?;
    ensure!(data.is_some() || cluster.is_some(), nothing(run));
    let text = match output {
        Output::Json => format!("{:#}", told(run, data.as_ref(), cluster.as_ref())),
        Output::Table => {
            let data =
                data.map(|data| (data.status(), format!("{} on {}", data.plan().run.display(), data.plan().network)));
            let cluster = cluster
                .map(|cluster| (cluster.status(), format!("export KUBECONFIG={}", cluster.kubeconfig().display())));
            let shown = |(status, place): (Vec<PartStatus>, String)| {
                let total: u64 = status.iter().filter_map(|part| part.resident_kib).sum();
                format!("{}\n{place}, {} MiB", table(&status), total / 1024)
            };
            data.into_iter().chain(cluster).map(shown).collect::<Vec<_>>().join("\n")
        }
    };
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// The same for programs.
fn told(run: &Path, data: Option<&Testbed>, cluster: Option<&Cluster>) -> Value {
    let mut told = json!({"run": run});
    if let Some(data) = data {
        told["network"] = json!(data.plan().network);
        told["parts"] = json!(data.status());
    }
    if let Some(cluster) = cluster {
        let plan = cluster.plan();
        told["kubernetes"] = json!({
            "kubeconfig": cluster.kubeconfig(),
            "port": plan.port,
            "slot": plan.addresses().slot(),
            "parts": cluster.status(),
        });
    }
    told
}

fn table(status: &[PartStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(["part", "state", "address", "pid", "memory"]);
    for part in status {
        let state = match part.state {
            State::Running => "running",
            State::Paused => "paused",
            State::Down => "down",
        };
        table.add_row([
            part.part.clone(),
            state.to_owned(),
            part.address.map(|address| address.to_string()).unwrap_or_default(),
            part.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            part.resident_kib.map(|kib| format!("{} MiB", kib / 1024)).unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use echotune_testbed::KubernetesPlan;

    use super::*;

    fn planned(words: &[&str]) -> Plan {
        let line = [&["echotune-testbed", "up", "data"], words].concat();
        match Arguments::try_parse_from(line).expect("a right command line").command {
            Command::Up { what: What::Data(data) } => data.plan("/tmp/run".into()),
            other => panic!("{other:?}"),
        }
    }

    fn planned_cluster(words: &[&str]) -> KubernetesPlan {
        let line = [&["echotune-testbed", "up", "kubernetes"], words].concat();
        match Arguments::try_parse_from(line).expect("a right command line").command {
            Command::Up { what: What::Kubernetes(kubernetes) } => kubernetes.plan("/tmp/run".into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_reach_the_plan_of_a_cluster() {
        assert_eq!(planned_cluster(&[]), KubernetesPlan::new("/tmp/run"));
        let words = ["--port", "17000", "--slot", "3", "--nodes", "0", "--region", "eu", "--real-node"];
        let flag = ["--flag", "kube-controller-manager:--node-monitor-grace-period=10s"];
        let plan = planned_cluster(&[&words[..], &flag[..]].concat());
        assert_eq!(
            (plan.port, plan.slot, plan.nodes, plan.region.as_str(), plan.real_node),
            (17_000, Some(3), 0, "eu", true)
        );
        let wanted = (Component::KubeControllerManager, "--node-monitor-grace-period=10s".to_owned());
        assert_eq!(plan.flags, [wanted]);
    }

    #[test]
    fn a_part_of_either_is_read() {
        let of = |name: &str| name.parse::<Target>();
        assert!(matches!(of("kafka/us/1"), Ok(Target::Data(Part::Kafka(Region::Us, 1)))));
        assert!(matches!(of("kubelet"), Ok(Target::Kubernetes(Component::Kubelet))));
        let error = of("kubelets").unwrap_err();
        assert!(error.starts_with("'kubelets' names no part. Parts are named cassandra/REGION"), "{error}");
    }

    #[test]
    fn without_options_the_plan_is_the_default_one() {
        assert_eq!(planned(&[]), Plan::data("/tmp/run"));
    }

    #[test]
    fn options_reach_the_plan() {
        let plan = planned(&["--regions", "us,ap", "--brokers", "3", "--network", "namespaces", "--hint-window", "10"]);
        assert_eq!(plan.regions, [Region::Us, Region::Ap]);
        assert_eq!(plan.kafka.brokers, Brokers::Three);
        assert_eq!(plan.cassandra.hint_window_s, 10);
        assert_eq!(plan.mirror, Some(MirrorPlan::of(Network::Namespaces)));
        assert_eq!(planned(&["--regions", "us"]).mirror, None);
        assert_eq!(planned(&["--no-mirror"]).mirror, None);
        let parted = planned(&["--jurisdictions", "eea=eu asia=ap"]).mirror.expect("mirrored");
        assert_eq!(parted.jurisdictions, ["eea=eu", "asia=ap"]);
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for words in [
            "up data --brokers 2",
            "up kubernetes --flag etcd",
            "up kubernetes --flag x:--y",
            "image a:1",
            "import",
            "up data --regions uk",
            "partition us eu --loss 0",
            "kill kafka",
            "up",
        ] {
            let line = std::iter::once("echotune-testbed").chain(words.split(' '));
            assert!(Arguments::try_parse_from(line).is_err(), "{words}");
        }
    }

    #[test]
    fn a_cut_is_read() {
        let line = ["echotune-testbed", "partition", "us", "eu", "--one-way", "--reset"];
        let Ok(Arguments { command: Command::Partition(partition), .. }) = Arguments::try_parse_from(line) else {
            panic!("a right command line");
        };
        let cut = Cut { from: Region::Us, to: Region::Eu, one_way: true, loss: Loss::Reset };
        assert_eq!(partition.cut(), cut);
    }
}
