//! Small disks: a file system in memory for the data of each server, which can be filled up.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use tokio::process::Command;

use crate::{TestbedError, launch::Home, network::run};

/// What takes up the room of a disk that is to be full.
const FILLER: &str = "filler";
const CHUNK: usize = 1 << 20;
const MOUNTS: &str = "/proc/self/mounts";

/// Gives a part a disk of so many MiB, unless it has one. Its data outlive its process, not the machine.
pub(crate) async fn mount(home: &Home, mib: u32) -> Result<(), TestbedError> {
    let folder = home.data();
    fs::create_dir_all(&folder).map_err(TestbedError::file(&folder))?;
    if is_mounted(&folder)? {
        return Ok(());
    }
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "echotune-testbed"]).arg(&folder);
    run(command, "").await
}

/// Takes a part's disk away, with all that is on it.
pub(crate) async fn unmount(home: &Home) -> Result<(), TestbedError> {
    let folder = home.data();
    if !is_mounted(&folder)? {
        return Ok(());
    }
    let mut command = Command::new("umount");
    command.arg(&folder);
    run(command, "").await
}

/// Takes all room on a part's disk, so that nothing more can be written.
pub(crate) fn fill(home: &Home) -> Result<(), TestbedError> {
    let path = home.data().join(FILLER);
    let fill = || {
        let mut filler = File::create(&path)?;
        loop {
            match filler.write(&[0; CHUNK]) {
                Ok(_) => {}
                Err(full) if full.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(other) => return Err(other),
            }
        }
    };
    fill().map_err(TestbedError::file(&path))
}

/// Gives the room back.
pub(crate) fn free(home: &Home) -> Result<(), TestbedError> {
    let path = home.data().join(FILLER);
    fs::remove_file(&path).map_err(TestbedError::file(&path))
}

fn is_mounted(folder: &Path) -> Result<bool, TestbedError> {
    let mounts = fs::read_to_string(MOUNTS).map_err(TestbedError::file(Path::new(MOUNTS)))?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == folder)))
}
