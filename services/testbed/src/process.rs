//! Processes in the background and the files that remember them.
//!
//! A pid alone may have been given to another process since. A pid file holds the start time too, and a signal goes
//! through a descriptor that was opened before the start time was compared, so it cannot reach anyone else.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use tokio::{process::Command, time};

use crate::TestbedError;

/// Bytes of a log that are looked at for its last lines.
const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 30;
/// Between two looks at a process that is to end.
const LOOK: Duration = Duration::from_millis(100);

/// What a part is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its process runs. Whether it serves is not looked at.
    Running,
    /// It is frozen.
    Paused,
    /// It has no process.
    Down,
}

/// A process, known by its id and the moment it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    /// In clock ticks since boot.
    start: u64,
}

impl Process {
    /// Starts a program in a process group of its own, with its output added to a log.
    pub(crate) fn spawn(mut command: Command, log: &Path, pid_file: &Path) -> Result<Self, TestbedError> {
        let out = File::options().create(true).append(true).open(log).map_err(TestbedError::file(log))?;
        let errors = out.try_clone().map_err(TestbedError::file(log))?;
        command.stdin(Stdio::null()).stdout(out).stderr(errors).process_group(0).kill_on_drop(false);
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(TestbedError::program(&program, ""))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        // A child that ended at once is still a zombie with a start time, since nobody has waited for it.
        let start = Stat::of(pid).map(|stat| stat.start).unwrap_or_default();
        let process = Self { pid, start };
        let written = fs::write(pid_file, format!("{pid} {start}\n"));
        written.map(|()| process).map_err(|error| {
            // Nobody would find it again.
            process.signal(Signal::KILL);
            TestbedError::file(pid_file)(error)
        })
    }

    /// The process of a pid file, if it is that very one and alive.
    pub(crate) fn find(pid_file: &Path) -> Option<Self> {
        let text = fs::read_to_string(pid_file).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let process = Self { pid: pid.parse().ok()?, start: start.parse().ok()? };
        process.alive().then_some(process)
    }

    /// The process that has this id now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Stat::of(pid).map(|stat| Self { pid, start: stat.start })
    }

    /// This very process.
    pub(crate) fn own() -> Option<Self> {
        Self::of(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether this folder is what it finds at a place, which depends on its mounts.
    pub(crate) fn finds(self, place: &Path, folder: &Path) -> bool {
        let root = Path::new("/proc").join(self.pid.to_string()).join("root");
        let found = fs::metadata(root.join(place.strip_prefix("/").unwrap_or(place)));
        let (Ok(found), Ok(wanted)) = (found, fs::metadata(folder)) else { return false };
        (found.dev(), found.ino()) == (wanted.dev(), wanted.ino())
    }

    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    pub(crate) fn alive(self) -> bool {
        self.state() != State::Down
    }

    pub(crate) fn state(self) -> State {
        Stat::of(self.pid).filter(|stat| stat.start == self.start).map_or(State::Down, Stat::state)
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Sends a signal; `false` when the process is not there any more.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.alive() && pidfd_send_signal(descriptor, signal).is_ok()
    }

    /// Ends it: a signal, and SIGKILL when that has not been enough after `patience`. `false` when it outlives both.
    pub(crate) async fn end(self, signal: Signal, patience: Duration) -> bool {
        // A frozen process hears nothing but SIGKILL.
        self.signal(Signal::CONT);
        self.signal(signal);
        if self.gone_within(patience).await {
            return true;
        }
        self.signal(Signal::KILL);
        self.gone_within(Duration::from_secs(10)).await
    }

    async fn gone_within(self, limit: Duration) -> bool {
        time::timeout(limit, async {
            while self.alive() {
                time::sleep(LOOK).await;
            }
        })
        .await
        .is_ok()
    }
}

/// All processes of this machine.
pub(crate) fn all() -> impl Iterator<Item = Process> {
    let entries = Path::new("/proc").read_dir().into_iter().flatten().flatten();
    entries.filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?))
}

/// What `/proc/PID/stat` says of a process (proc(5): fields 3, 20 and 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    letter: char,
    threads: u32,
    start: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of a program stands in brackets and may hold blanks and brackets itself.
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let letter = fields.next()?.chars().next()?;
        let threads = fields.nth(16)?.parse().ok()?;
        Some(Self { letter, threads, start: fields.nth(1)?.parse().ok()? })
    }

    const fn state(self) -> State {
        match self.letter {
            // Its first thread is a zombie until the last has ended, and so long it holds what it has, ports too.
            'Z' | 'X' if self.threads <= 1 => State::Down,
            'T' => State::Paused,
            _ => State::Running,
        }
    }
}

/// The last lines of a log, for messages.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(last_lines(&String::from_utf8_lossy(&bytes)))
    };
    read().unwrap_or_else(|error| format!("({error})"))
}

pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Process {
        let mut command = Command::new("sleep");
        command.arg("60");
        Process::spawn(command, &folder.join("log"), &folder.join("pid")).expect("sleep is everywhere")
    }

    #[test]
    fn the_stat_of_a_program_with_a_strange_name_is_read() {
        let after = (4..=21).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let text = format!("17 (a) R (b) T {after} 4711 23 24");
        assert_eq!(Stat::parse(&text), Some(Stat { letter: 'T', threads: 20, start: 4711 }));
        assert_eq!(Stat::parse("17 (a) T 4"), None);
    }

    #[test]
    fn a_process_is_down_once_its_last_thread_has_ended() {
        let state = |letter, threads| Stat { letter, threads, start: 1 }.state();
        assert_eq!([state('Z', 40), state('Z', 2)], [State::Running; 2], "its first thread alone has ended");
        assert_eq!([state('Z', 1), state('Z', 0), state('X', 0)], [State::Down; 3]);
        assert_eq!([state('T', 40), state('S', 40)], [State::Paused, State::Running]);
    }

    #[tokio::test]
    async fn a_pid_that_was_given_to_another_process_is_not_signalled() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        assert_eq!(Process::find(&folder.path().join("pid")), Some(process));

        let earlier = Process { start: process.start - 1, ..process };
        fs::write(folder.path().join("earlier"), format!("{} {}\n", earlier.pid, earlier.start)).unwrap();
        assert_eq!(Process::find(&folder.path().join("earlier")), None);
        assert!(!earlier.signal(Signal::KILL));
        assert!(process.alive());

        assert!(process.end(Signal::KILL, Duration::from_secs(5)).await);
        assert!(!process.signal(Signal::KILL));
    }

    #[tokio::test]
    async fn a_frozen_process_shows_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        assert!(process.signal(Signal::STOP));
        while process.state() != State::Paused {
            time::sleep(LOOK).await;
        }
        assert!(process.end(Signal::TERM, Duration::from_secs(5)).await);
        assert_eq!(process.state(), State::Down);
        assert_eq!(Process::find(&folder.path().join("pid")), None);
    }

    #[tokio::test]
    async fn what_a_process_finds_at_a_place_is_told_from_other_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for made in [&one, &other] {
            fs::create_dir(made).unwrap();
        }
        let process = sleeper(folder.path());
        assert!(process.finds(&one, &one) && !process.finds(&one, &other));
        assert!(!process.finds(&folder.path().join("none"), &folder.path().join("none")), "nothing is no folder");
        assert!(process.end(Signal::KILL, Duration::from_secs(5)).await);
        assert!(!process.finds(&one, &one), "it finds nothing any more");
    }

    #[test]
    fn a_broken_pid_file_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        for text in ["", "1", "x 1", "1 x", "-1 0"] {
            fs::write(&file, text).unwrap();
            assert_eq!(Process::find(&file), None);
        }
    }
}
