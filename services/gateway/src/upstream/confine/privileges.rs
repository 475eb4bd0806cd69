//! Privileges of root that a program of others has no need of, and that would take it past what else binds it.

use std::io;

use rustix::{
    process::geteuid,
    thread::{
        CapabilitySet, capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
    },
};

/// With these root reads the environment and memory of others whatever Landlock says (`perfmon_capable` in the kernel's
/// `mm_access`), raises its limits, or changes the machine.
const TAKEN: [CapabilitySet; 20] = [
    CapabilitySet::PERFMON,
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::CHECKPOINT_RESTORE,
    CapabilitySet::SYS_RESOURCE,
    CapabilitySet::DAC_READ_SEARCH,
    CapabilitySet::BPF,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::SYS_TIME,
    CapabilitySet::SYSLOG,
    CapabilitySet::MAC_ADMIN,
    CapabilitySet::MAC_OVERRIDE,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::NET_RAW,
    CapabilitySet::MKNOD,
    CapabilitySet::LINUX_IMMUTABLE,
    CapabilitySet::AUDIT_CONTROL,
    CapabilitySet::SETPCAP,
];

/// Takes them from what the thread that this is called on starts. Whoever is not root starts nothing with any.
pub(super) fn restrict() -> io::Result<()> {
    clear_ambient_capability_set()?;
    if !geteuid().is_root() {
        return Ok(());
    }
    for one in TAKEN {
        // Kernels from before one have none of it.
        if capability_is_in_bounding_set(one).unwrap_or(false) {
            remove_capability_from_bounding_set(one)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use super::*;

    #[test]
    fn what_is_started_has_none_of_them_and_this_process_keeps_its_own() {
        let bounds = || {
            let told = Command::new("cat").arg("/proc/self/status").output().expect("cat runs").stdout;
            let told = String::from_utf8(told).expect("text");
            let line = told.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("told").trim().to_owned();
            CapabilitySet::from_bits_retain(u64::from_str_radix(&line, 16).expect("a number"))
        };
        let before = bounds();
        let (applied, child) = thread::spawn(move || (restrict(), bounds())).join().expect("no panic");
        if let Err(cause) = applied {
            eprintln!("privileges cannot be given up here ({cause}), so that this is not judged");
            return;
        }
        assert!(TAKEN.into_iter().all(|one| !child.contains(one)), "{child:?}");
        assert_eq!(bounds(), before);
    }
}
