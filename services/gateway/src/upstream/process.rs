//! Programs as children: started with little, limited and confined, and ended for sure.

use std::{
    io, mem,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, prlimit};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::confine::{self, Own};
use crate::config::ProcessConfig;

/// What a child gets of this process's environment.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// A child with its pipes.
pub struct Started {
    /// The child itself.
    pub running: Running,
    /// Its standard input; that it ends is how a child is told to end.
    pub input: ChildStdin,
    /// Its standard output.
    pub output: ChildStdout,
    /// Its standard error. A child that writes much waits until somebody reads it.
    pub errors: ChildStderr,
}

/// A child, and all that it starts: they are a group of processes of their own. Dropped, all of them are killed.
pub struct Running {
    child: Child,
    group: Option<Pid>,
    grace: Duration,
    own: Own,
}

/// Starts a program of a server.
pub(crate) fn start(server: &str, config: &ProcessConfig) -> io::Result<Started> {
    let mut command = Command::new(&config.command);
    command.args(&config.args).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let own = Own::of(server, config);
    command.envs(own.variables().iter().map(|told| (told.0, &told.1)));
    command.envs(&config.env);
    if let Some(folder) = &config.folder {
        command.current_dir(folder);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: signals reach what it has started too, and those of a terminal reach none of them.
    command.process_group(0).kill_on_drop(true);
    let mut child = confine::spawn(&mut command, config, &own)?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = (input, output, errors) else {
        return Err(io::Error::other("a pipe to the child is missing"));
    };
    let mut running = Running { child, group, grace: config.grace, own };
    if let Err(cause) = running.limit(config) {
        running.kill();
        return Err(io::Error::other(format!("its limits cannot be set: {cause}")));
    }
    Ok(Started { running, input, output, errors })
}

impl Running {
    /// Sets what it may use. It has run for a moment without, as the way before its start would need unsafe code.
    fn limit(&self, config: &ProcessConfig) -> io::Result<()> {
        let limits = [
            (Resource::As, config.memory),
            (Resource::Nofile, config.files),
            (Resource::Cpu, config.cpu),
            (Resource::Fsize, config.file_size),
            (Resource::Core, Some(0)),
        ];
        for (resource, most) in limits {
            if let Some(most) = most {
                // Where this process has less, the child has it already, and nobody may give it more.
                let most = getrlimit(resource).maximum.map_or(most, |own| own.min(most));
                match prlimit(self.group, resource, Rlimit { current: Some(most), maximum: Some(most) }) {
                    // It has ended already, which is told elsewhere.
                    Err(rustix::io::Errno::SRCH) | Ok(_) => {}
                    Err(cause) => return Err(cause.into()),
                }
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // Once it is reaped the number may be another's.
        if let Some(group) = self.group.filter(|_| self.child.id().is_some()) {
            // It may have ended meanwhile.
            let _ended = kill_process_group(group, signal);
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        drop(self.child.start_kill());
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it, after its input was closed: it is given time, then asked, given time again, then killed; and reaped. Its
    /// folder for temporary files is removed.
    ///
    /// # Errors
    /// The system does not let it be waited for.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        if timeout(self.grace, self.child.wait()).await.is_err() {
            self.signal(Signal::TERM);
            if timeout(self.grace, self.child.wait()).await.is_err() {
                self.kill();
            }
        }
        let status = self.child.wait().await;
        self.leave_nothing();
        let own = mem::take(&mut self.own);
        if let Ok(Err(cause)) = tokio::task::spawn_blocking(move || own.remove()).await {
            tracing::warn!(%cause, "what a program left of temporary files cannot be removed");
        }
        status
    }

    /// Kills what it has left behind, which would hold its pipes and be nobody's child. While a process of the group
    /// lives its number is not given to another.
    fn leave_nothing(&self) {
        if let Some(group) = self.group {
            let _none_left = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    /// Whoever waits for it no more leaves nobody behind: a program that fetches others is seldom the server itself.
    fn drop(&mut self) {
        self.kill();
    }
}
