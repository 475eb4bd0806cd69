//! What can go wrong with a testbed.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Part, PlanError, Region,
    kubernetes::{Component, ImageError, KubernetesPlanError},
};

/// Why a command of the testbed was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestbedError {
    /// The plan cannot work.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan of a cluster cannot work.
    #[error(transparent)]
    KubernetesPlan(#[from] KubernetesPlanError),
    /// An image could not be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The run folder holds no cluster.
    #[error("{} holds no Kubernetes: `testbed up kubernetes` starts one there", .0.display())]
    NoCluster(PathBuf),
    /// The cluster was started without what is asked of it.
    #[error("this cluster has no real node: start one with `testbed up kubernetes --real-node`")]
    NoRealNode,
    /// A file or folder could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No Java of the one version that runs Cassandra 5.0 and Kafka 4.
    #[error(
        "no JDK 17 was found (Cassandra 5.0 runs on no newer one): set JAVA17_HOME, or install openjdk-17-jdk-headless"
    )]
    NoJava,
    /// No Go that builds Kubernetes.
    #[error(
        "no Go {major}.{minor} or newer was found on the path or in /usr/local/go: install one, to build Kubernetes"
    )]
    NoGo {
        /// Of the oldest that would do.
        major: u32,
        /// Of the oldest that would do.
        minor: u32,
    },
    /// The real node of a cluster needs something that this machine has not.
    #[error("a real node needs {0} (without --real-node all nodes are simulated)")]
    NodeNeeds(String),
    /// A program could not be started.
    #[error("{program} cannot be run: {source}{hint}")]
    Program {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A program failed.
    #[error("{what} failed:\n{said}")]
    Tool {
        /// What it was to do.
        what: String,
        /// The end of what it printed.
        said: String,
    },
    /// A part ended before it was ready.
    #[error("{part} died while starting; {log} ends with:\n{tail}", log = log.display())]
    Died {
        /// Which.
        part: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A part runs and did not become ready.
    #[error("{part}: {what} not within {limit} s; {log} ends with:\n{tail}", log = log.display(), limit = limit.as_secs())]
    NotReady {
        /// Which.
        part: String,
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// An address is in use by another program.
    #[error("{address} of {part} is taken: is another testbed up?")]
    Taken {
        /// Whose.
        part: String,
        /// Which.
        address: SocketAddr,
    },
    /// A port of a cluster is in use by another program.
    #[error("{address} of {part} is taken: is another cluster up? Name another --port, ten or more away from others")]
    PortTaken {
        /// Whose.
        part: Component,
        /// Which.
        address: SocketAddr,
    },
    /// The testbed has no such part or region.
    #[error("{wanted} is not in this testbed; it has {known}")]
    Unknown {
        /// What was named.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// A part to be signalled does not run.
    #[error("{0} does not run")]
    NotRunning(String),
    /// A part outlived its limit after SIGKILL.
    #[error("{0} does not end; its pid file is kept")]
    Immortal(String),
    /// The run folder holds no testbed.
    #[error("{} holds no testbed of data: `testbed up data` starts one there", .0.display())]
    NoTestbed(PathBuf),
    /// The run folder holds one of other settings.
    #[error("{} holds a testbed of other settings: end it with `testbed down --wipe`, or name another --run folder", .0.display())]
    OtherPlan(PathBuf),
    /// Another command has the run folder.
    #[error("another command of the testbed works in {}", .0.display())]
    Busy(PathBuf),
    /// A part has no disk of its own that could be filled.
    #[error("{0} has no small disk: start the testbed with --disk MIB, as root")]
    NoDisk(Part),
    /// There is nothing to be cut between parts that share a network.
    #[error("regions on loopback addresses cannot be cut off from each other: use --network namespaces, or the proxy")]
    Uncuttable,
    /// A region cannot be cut off from itself.
    #[error("{0} cannot be cut off from itself")]
    CutOfOne(Region),
    /// A namespace of this name is there already, and this run folder has not made it.
    #[error("network namespace {0} exists already: end the testbed that has it, or remove it by `ip netns del {0}`")]
    NamespaceTaken(String),
    /// What was to be done in a region's network could not be.
    #[error("network namespace {name}: {source}")]
    Namespace {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl TestbedError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }

    pub(crate) fn program(program: &str, hint: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Program { program: program.to_owned(), source, hint }
    }
}
