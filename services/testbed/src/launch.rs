//! How a part is put on disk and started: what all parts have in common.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use crate::{Part, Plan, Progress, TestbedError, cassandra, disk, jars::Jars, java, kafka, mirror, process::Process};

/// What has to be on the machine before anything starts.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) java: PathBuf,
    pub(crate) cassandra: PathBuf,
    pub(crate) kafka: PathBuf,
}

impl Machine {
    /// Finds Java, and fetches jars that are not in the cache.
    pub(crate) async fn prepare(progress: &dyn Progress) -> Result<Self, TestbedError> {
        Ok(Self {
            java: java::find().await?,
            cassandra: Jars::Cassandra.fetch(progress).await?,
            kafka: Jars::Kafka.fetch(progress).await?,
        })
    }
}

/// The files of a part, all below its folder.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn of(plan: &Plan, part: Part) -> Self {
        Self::below(&plan.run, part)
    }

    /// Of a part of this name below a folder.
    pub(crate) fn below(folder: &Path, part: impl Display) -> Self {
        Self(folder.join(part.to_string()))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Folder of what must outlive its process.
    pub(crate) fn data(&self) -> PathBuf {
        self.file("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.file("log")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.file("pid")
    }

    pub(crate) fn process(&self) -> Option<Process> {
        Process::find(&self.pid_file())
    }

    /// Writes a file, and the folders on the way to it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), TestbedError> {
        let path = self.file(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(TestbedError::file(folder))?;
        }
        fs::write(&path, text).map_err(TestbedError::file(&path))
    }

    /// Makes room for a new log; that of the process before stays as `log.before`.
    pub(crate) fn begin_log(&self) -> Result<(), TestbedError> {
        let log = self.log();
        if log.exists() {
            fs::rename(&log, self.file("log.before")).map_err(TestbedError::file(&log))?;
        }
        Ok(())
    }
}

/// Writes a part's configuration and starts its process.
pub(crate) async fn launch(plan: &Plan, machine: &Machine, part: Part) -> Result<Process, TestbedError> {
    let home = Home::of(plan, part);
    if let (Some(mib), Part::Cassandra(_) | Part::Kafka(..)) = (plan.disk_mib, part) {
        disk::mount(&home, mib).await?;
    }
    let command = match part {
        Part::Cassandra(region) => cassandra::prepare(plan, machine, region, &home)?,
        Part::Kafka(region, broker) => kafka::prepare(plan, machine, region, broker, &home).await?,
        Part::Mirror(which) => mirror::prepare(plan, machine, which, &home)?,
    };
    home.begin_log()?;
    Process::spawn(command, &home.log(), &home.pid_file())
}

/// Waits until a part that was started serves.
pub(crate) async fn ready(
    plan: &Plan,
    part: Part,
    process: Process,
    progress: &dyn Progress,
) -> Result<(), TestbedError> {
    let home = Home::of(plan, part);
    let took = match part {
        Part::Cassandra(region) => cassandra::ready(plan, region, process, &home, progress).await?,
        Part::Kafka(region, broker) => kafka::ready(plan, region, broker, process, &home, progress).await?,
        Part::Mirror(which) => mirror::ready(plan, which, process, &home, progress).await?,
    };
    progress.done(&format!("{part} is ready"), took);
    Ok(())
}

/// All jars of a folder as a class path.
pub(crate) fn class_path(jars: &Path) -> String {
    format!("{}/*", jars.display())
}

/// A Java of a small tool, which is to be over soon.
pub(crate) fn small(command: &mut Command, heap_mib: u32) {
    command.arg(format!("-Xmx{heap_mib}m")).args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
}
