//! What keeps a child to what it has need of: Landlock for paths, ports and signals, seccomp for calls of the system, and
//! fewer privileges where it is root's.
//!
//! All bind a thread and whatever it starts. So a thread of its own binds itself, starts the child and ends: without
//! unsafe code nothing can be done between the start of a child and its program. The child is in the hands of the whole
//! process as any other, which stays free.

use std::{io, sync::Once, thread};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
};

use crate::config::{Confinement, ProcessConfig};

mod allowed;
#[cfg(target_os = "linux")]
mod calls;
mod own;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod privileges;

use self::allowed::Allowed;
pub(super) use self::own::Own;

/// What is told of a system that cannot do it.
const WAY_OUT: &str = "paths need Linux 6.2 with Landlock among its security modules, ports of TCP 6.7; or say \
                       confinement = \"auto\" for what this system can";

/// What holds for a child, and what does not that should.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    holds: Vec<String>,
    lacks: Vec<String>,
}

/// Starts a program confined as its configuration says, with folders of its own.
pub(super) fn spawn(command: &mut Command, config: &ProcessConfig, own: &Own) -> io::Result<Child> {
    if config.confinement == Confinement::None {
        return command.spawn();
    }
    let allowed = Allowed::of(config, own.folders());
    let handle = Handle::current();
    let (child, held) = apart(|| {
        let held = Held::here(config, &allowed);
        held.suffices(config.confinement)?;
        let _entered = handle.enter();
        Ok((command.spawn()?, held))
    })?;
    held.tell(config, &allowed);
    Ok(child)
}

/// Does it on a thread that ends with it.
fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("confined-start".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    })
}

impl Held {
    /// Confines the thread that this is called on.
    #[cfg(target_os = "linux")]
    fn here(config: &ProcessConfig, allowed: &Allowed) -> Self {
        let mut held = Self::default();
        match paths::restrict(config, allowed) {
            Ok(restricted) => {
                held.holds.push(format!("Landlock ABI {}", restricted.abi));
                held.lacks.extend((!restricted.has_ports).then(|| "ports of TCP".to_owned()));
            }
            Err(why) => held.lacks.push(format!("Landlock ({why})")),
        }
        match calls::restrict(config.namespaces, config.unix_sockets) {
            Ok(()) => held.holds.push("seccomp".to_owned()),
            Err(why) => held.lacks.push(format!("seccomp ({why})")),
        }
        match privileges::restrict() {
            Ok(()) => held.holds.push("privileges of root taken".to_owned()),
            Err(why) => held.lacks.push(format!("taking privileges of root ({why})")),
        }
        held
    }

    #[cfg(not(target_os = "linux"))]
    fn here(_: &ProcessConfig, _: &Allowed) -> Self {
        Self { holds: Vec::new(), lacks: vec!["confinement, which is there on Linux alone".to_owned()] }
    }

    fn suffices(&self, wanted: Confinement) -> io::Result<()> {
        if wanted == Confinement::Required && !self.lacks.is_empty() {
            let lacks = self.lacks.join(", ");
            let why = format!("its confinement is required, and this system lacks {lacks}: {WAY_OUT}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        Ok(())
    }

    /// What a server may is told each time, what the system lacks once.
    fn tell(&self, config: &ProcessConfig, allowed: &Allowed) {
        static TOLD: Once = Once::new();
        let (command, holds) = (config.command.display(), self.holds.join(", "));
        let Allowed { reads, writes } = allowed;
        let connects = &config.connects;
        tracing::debug!(%command, holds, ?reads, ?writes, ?connects, "a program was started, and what it may is this");
        if !self.lacks.is_empty() {
            let lacks = self.lacks.join(", ");
            TOLD.call_once(|| {
                tracing::warn!(%command, holds, lacks, "programs are confined as far as this system can: {WAY_OUT}");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_and_lacks_is_told_and_nothing_is_started() {
        let held = Held { holds: vec!["seccomp".to_owned()], lacks: vec!["Landlock (not there)".to_owned()] };
        assert!(held.suffices(Confinement::Auto).is_ok());
        let told = held.suffices(Confinement::Required).expect_err("it lacks").to_string();
        assert!(told.contains("Landlock (not there)") && told.contains("confinement = \"auto\""), "{told}");
        assert!(Held::default().suffices(Confinement::Required).is_ok());
    }

    #[test]
    fn what_is_done_apart_comes_back_also_when_it_panics() {
        let here = thread::current().id();
        assert!(apart(|| Ok(thread::current().id() != here)).expect("done"));
        let told = apart::<()>(|| panic!("as it is to")).expect_err("panicked").to_string();
        assert!(told.contains("panicked"), "{told}");
    }
}
