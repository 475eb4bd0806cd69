//! Groups of processes of the node, in either version of control groups, so that its containers are known and ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{TestbedError, process::Process};

const ROOT: &str = "/sys/fs/cgroup";
/// Is there in version 2 alone.
const UNIFIED: &str = "cgroup.controllers";
const PROCESSES: &str = "cgroup.procs";
/// What a group of version 1 must be given before a process can be in it.
const CPUSETS: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes a group of this name in every hierarchy.
pub(super) fn create(name: &str) -> Result<(), TestbedError> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).map_err(TestbedError::file(&group))?;
        for file in CPUSETS.map(|file| (hierarchy.join(file), group.join(file))) {
            if file.0.exists() && file.1.exists() {
                let copied = fs::read(&file.0).and_then(|all| fs::write(&file.1, all));
                copied.map_err(TestbedError::file(&file.1))?;
            }
        }
    }
    Ok(())
}

/// All processes in groups of this name and below.
pub(super) fn processes(name: &str) -> Vec<Process> {
    let text = |group: PathBuf| fs::read_to_string(group.join(PROCESSES)).unwrap_or_default();
    let mut pids: Vec<i32> = groups(name)
        .into_iter()
        .flat_map(|group| text(group).lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().filter_map(Process::of).collect()
}

/// Removes groups that nobody is in any more.
pub(super) fn remove(name: &str) -> Result<(), TestbedError> {
    // Those below come first.
    for group in groups(name).into_iter().rev() {
        match fs::remove_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(TestbedError::file(&group)(error)),
            _ => Ok(()),
        }?;
    }
    Ok(())
}

/// Groups of this name and below, each before those below it.
fn groups(name: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = hierarchies().map(|at| at.join(name)).filter(|group| group.exists()).collect();
    let mut at = 0;
    while let Some(group) = found.get(at) {
        let below = group.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
        let below: Vec<_> = below.filter(|path| path.is_dir()).collect();
        found.extend(below);
        at += 1;
    }
    found
}

fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let root = Path::new(ROOT);
    let one = root.join(UNIFIED).exists().then(|| root.to_owned());
    let several = if one.is_some() { None } else { root.read_dir().ok() };
    let several = several.into_iter().flatten().flatten().map(|entry| entry.path());
    // Links such as cpu to cpu,cpuacct would be gone through twice.
    one.into_iter().chain(several.filter(|path| !path.is_symlink() && path.join(PROCESSES).exists()))
}
