//! Paths, ports and signals, by Landlock.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, NetPort, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::allowed::{Allowed, DEVICES, SOCKETS};
use crate::config::{Confinement, ProcessConfig};

/// Without which it is no confinement: since this one a file cannot be cut off that may not be written.
const NEEDED: ABI = ABI::V3;
/// What is taken where it is there: devices, signals and abstract sockets, and sockets that have a path.
const BEST: ABI = ABI::V9;
/// Which has ports.
const PORTS: ABI = ABI::V4;

/// What holds for a thread.
pub(super) struct Restricted {
    pub(super) abi: ABI,
    /// Whether it connects to no other ports than those that were said, if any were.
    pub(super) has_ports: bool,
}

/// Restricts the thread that this is called on, and what it starts from now on.
pub(super) fn restrict(config: &ProcessConfig, allowed: &Allowed) -> Result<Restricted, String> {
    let connects = config.connects.as_deref();
    let level = match config.confinement {
        Confinement::Required => CompatLevel::HardRequirement,
        _ => CompatLevel::BestEffort,
    };
    let status = rules(allowed, connects, level).map_err(|cause| cause.to_string())?;
    match status {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err("it is not enabled".to_owned()),
        (RulesetStatus::NotEnforced, _) => Err("the kernel has none".to_owned()),
        (_, LandlockStatus::Available { effective_abi: abi, .. }) if abi < NEEDED => {
            Err(format!("ABI {abi}, of which not all is there"))
        }
        (_, LandlockStatus::Available { effective_abi: abi, .. }) => {
            Ok(Restricted { abi, has_ports: connects.is_none() || abi >= PORTS })
        }
        _ => Err("what it does is not known".to_owned()),
    }
}

fn rules(
    allowed: &Allowed,
    connects: Option<&[u16]>,
    level: CompatLevel,
) -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
    let mut ruleset = Ruleset::default().set_compatibility(level).handle_access(AccessFs::from_all(NEEDED))?;
    if connects.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort);
    let ruleset = ruleset.handle_access(AccessFs::from_all(BEST))?.scope(Scope::from_all(BEST))?;
    let ports = connects.unwrap_or_default().iter();
    let ports = ports.map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(&allowed.reads, AccessFs::from_read(BEST)))?
        .add_rules(path_beneath_rules(&allowed.writes, AccessFs::from_all(BEST)))?
        .add_rules(path_beneath_rules(DEVICES, AccessFs::from_file(BEST)))?
        .add_rules(path_beneath_rules(SOCKETS, AccessFs::ResolveUnix))?
        .add_rules(ports)?
        .restrict_self()?;
    Ok((status.ruleset, status.landlock))
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;

    #[test]
    fn a_thread_reads_and_connects_where_it_may_and_the_others_are_as_before() {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let files = folders.each_ref().map(|folder| folder.path().join("file"));
        files.iter().for_each(|file| fs::write(file, "text").expect("written"));
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("bound"));
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("an address"));
        let mut config = ProcessConfig::new("a", [""; 0]);
        config.connects = Some(vec![addresses[0].port()]);
        let mut allowed = Allowed::default();
        allowed.reads.insert(folders[0].path().to_owned());
        let (shown, kinds) = thread::scope(|scope| {
            let within = scope.spawn(|| {
                let restricted = restrict(&config, &allowed);
                let kind = |done: io::Result<()>| done.err().map(|cause| cause.kind());
                let read = files.each_ref().map(|file| kind(fs::read(file).map(drop)));
                let written = kind(fs::write(&files[0], "other"));
                (restricted, (read, written, addresses.map(|address| kind(TcpStream::connect(address).map(drop)))))
            });
            within.join().expect("no panic")
        });
        assert!(files.iter().all(|file| fs::write(file, "mine").is_ok()), "only one thread was restricted");
        let denied = Some(io::ErrorKind::PermissionDenied);
        match shown {
            Ok(restricted) => {
                assert_eq!((kinds.0, kinds.1), ([None, denied], denied));
                assert_eq!(kinds.2, [None, denied.filter(|_| restricted.has_ports)]);
            }
            Err(why) => eprintln!("nothing is judged: {why}"),
        }
    }
}
