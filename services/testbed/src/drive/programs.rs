//! The platform's programs in regions, as processes of their own.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use tokio::{process::Child, time::timeout};

use super::DriveError;
use crate::{Network, Region, Testbed};

/// How long a program may take to answer after its start; a view is waited for until its lease has ended.
const READY: Duration = Duration::from_secs(900);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How far programs stand back behind servers, as nice(1) tells it. Listeners take all of a small machine, on which a
/// broker that starts again would come to it after minutes.
const STEP_BACK: i32 = 12;

/// What runs in each region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `echotune-users`.
    Users,
    /// `echotune-recommendations`.
    Recommendations,
    /// `echotune-mcp-servers`.
    McpServers,
    /// `echotune-agents`.
    Agents,
}

impl Program {
    /// All there are, in the order in which they need each other.
    pub const ALL: [Self; 4] = [Self::Users, Self::Recommendations, Self::McpServers, Self::Agents];

    fn name(self) -> &'static str {
        match self {
            Self::Users => "echotune-users",
            Self::Recommendations => "echotune-recommendations",
            Self::McpServers => "echotune-mcp-servers",
            Self::Agents => "echotune-agents",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Users => 7430,
            Self::Recommendations => 7440,
            Self::McpServers => 7450,
            Self::Agents => 7460,
        }
    }
}

/// Where MCP is spoken.
const MCP_PORT: u16 = 7451;
/// Added to the port of a program by each further copy of it.
const COPY_PORTS: u16 = 100;
/// Where the library is that tells a program another time.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];
/// A workflow whose effect can be counted.
const WORKFLOW: &str = include_str!("../../templates/drive/mixtape.yaml");

/// A program of a region; copies beside the first are members of its group for a while.
type Which = (Region, Program, u16);

type Variables = Vec<(&'static str, String)>;

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The programs that were started here; they end with this.
pub struct Programs {
    folder: PathBuf,
    binaries: PathBuf,
    network: Network,
    regions: Vec<Region>,
    /// Where the token is that all of them take.
    pub token: String,
    running: Mutex<BTreeMap<Which, Child>>,
    /// What programs are told by their environment, as long as a fault lasts.
    told: Mutex<BTreeMap<(Region, Program), Variables>>,
}

impl Programs {
    /// Makes tables and topics, and starts every program in every region.
    ///
    /// # Errors
    ///
    /// A program is not there, refuses, or does not answer in time; the text says where its log is.
    pub async fn start(testbed: &Testbed, binaries: &Path, tell: &dyn Fn(&str)) -> Result<Self, DriveError> {
        let plan = testbed.plan();
        let folder = plan.run.join("programs");
        fs::create_dir_all(&folder)?;
        let token = write_secrets(&folder)?;
        fs::create_dir_all(folder.join("workflows"))?;
        fs::write(folder.join("workflows/mixtape.yaml"), WORKFLOW)?;
        let programs = Self {
            folder,
            binaries: binaries.to_owned(),
            network: plan.network,
            regions: plan.regions.clone(),
            token,
            running: Mutex::default(),
            told: Mutex::default(),
        };
        for region in plan.regions.iter().copied() {
            fs::write(programs.config(region), programs.servers(testbed, region))?;
        }
        tell("tables and topics are made");
        for (nth, region) in plan.regions.iter().copied().enumerate() {
            // Tables are for one process in each jurisdiction, one after the other; topics for each region.
            let parted = !jurisdictions(testbed).is_empty();
            let words: &[&str] = if nth == 0 || parted { &["schema", "topics"] } else { &["topics"] };
            for word in words {
                programs.command(region, word).await?;
            }
        }
        // Each needs those before it.
        for program in Program::ALL {
            for region in plan.regions.iter().copied() {
                programs.launch(region, program)?;
            }
            for region in plan.regions.iter().copied() {
                programs.ready(region, program).await?;
                tell(&format!("{program} serves in {region}"));
            }
        }
        Ok(programs)
    }

    /// Where a program answers.
    pub fn address(&self, region: Region, program: Program) -> SocketAddr {
        SocketAddr::new(self.network.address(region).into(), program.port())
    }

    /// The regions that have programs.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn config(&self, region: Region) -> PathBuf {
        self.folder.join(format!("{region}.toml"))
    }

    fn servers(&self, testbed: &Testbed, region: Region) -> String {
        let all: Vec<_> = self.regions.iter().map(|name| format!("\"{name}\"")).collect();
        let (all, folder) = (all.join(", "), self.folder.display());
        let copies = testbed.plan().kafka.brokers.count();
        let (mut parts, mut names) = (String::new(), String::new());
        if let told @ [_, ..] = jurisdictions(testbed) {
            parts = format!("jurisdictions = [\"{}\"]\n", told.join("\", \""));
            names = format!("names_key_file = \"{folder}/names\"\n");
        }
        format!(
            "[region]\nname = \"{region}\"\nall = [{all}]\n{parts}\n[cql]\ncontact_points = [\"{}\"]\ncopies = 1\n\n\
             [kafka]\nbootstrap_servers = [\"{}\"]\nreplicas = {copies}\npartitions = 4\nlook_every = \"5s\"\n\n\
             [secrets]\ntoken_file = \"{folder}/token\"\nmaster_keys_file = \"{folder}/master\"\n{names}",
            testbed.cql(region),
            testbed.bootstrap_servers(region).replace(',', "\", \""),
        )
    }

    /// The command `echotune`, to be run in a region.
    pub(super) fn command_of(&self, region: Region) -> tokio::process::Command {
        self.network.command(region, self.binaries.join("echotune"))
    }

    /// The file of the token that all programs take.
    pub fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    async fn command(&self, region: Region, word: &str) -> Result<(), DriveError> {
        let mut command = self.command_of(region);
        command.arg("--config").arg(self.config(region)).arg(word).stdin(Stdio::null());
        let done = command.kill_on_drop(true).output().await?;
        if done.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(DriveError::Program(format!("echotune {word} in {region} ended with {}: {told}", done.status)))
    }

    /// Starts a program that does not run.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn launch(&self, region: Region, program: Program) -> Result<(), DriveError> {
        self.launch_copy(region, program, 0)
    }

    /// Starts a copy of a program beside it.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn launch_copy(&self, region: Region, program: Program, copy: u16) -> Result<(), DriveError> {
        let log = fs::File::options().create(true).append(true).open(self.log(region, program))?;
        let mut command = self.network.command(region, self.binaries.join(program.name()));
        for (key, value) in self.settings(region, program, copy) {
            command.args(["--set", &format!("{key}={value}")]);
        }
        if program != Program::McpServers {
            command.arg("--config").arg(self.config(region));
        }
        if copy == 0 {
            let told = locked(&self.told);
            command.envs(told.get(&(region, program)).into_iter().flatten().map(|(key, value)| (key, value)));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.kill_on_drop(true).spawn()?;
        if let Some(id) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Threads that it has not begun yet get what the first has.
            setpriority_process(Some(id), STEP_BACK).map_err(io::Error::from)?;
        }
        self.running().insert((region, program, copy), child);
        Ok(())
    }

    /// What a program is told besides the configuration of its region.
    fn settings(&self, region: Region, program: Program, copy: u16) -> Vec<(&'static str, String)> {
        let near = |program| format!("http://{}", self.address(region, program));
        let mut listen = self.address(region, program);
        listen.set_port(listen.port() + copy * COPY_PORTS);
        // The namespaces' network is this machine's own.
        let mut settings = vec![("listen", listen.to_string()), ("allow_plaintext", "true".to_owned())];
        if program != Program::McpServers {
            settings.push(("region.replica", format!("{program}-{copy}")));
        }
        settings.extend(match program {
            Program::Users => {
                let others = self.regions.iter().filter(|other| **other != region);
                let peer = |other: &Region| format!("\"{other}=http://{}\"", self.address(*other, program));
                vec![("peers", format!("[{}]", others.map(peer).collect::<Vec<_>>().join(", ")))]
            }
            Program::Recommendations => {
                let data = self.folder.join(format!("data-{region}")).display().to_string();
                vec![("users", near(Program::Users)), ("data", data)]
            }
            Program::McpServers => vec![
                ("users", near(Program::Users)),
                ("recommendations", near(Program::Recommendations)),
                ("token_file", self.folder.join("token").display().to_string()),
                ("mcp.listen", SocketAddr::new(listen.ip(), MCP_PORT).to_string()),
            ],
            Program::Agents => vec![
                ("users", near(Program::Users)),
                ("tools", format!("http://{}/mcp", SocketAddr::new(listen.ip(), MCP_PORT))),
                ("agents.workflows", self.folder.join("workflows").display().to_string()),
            ],
        });
        settings
    }

    /// Has a program die whenever it comes to a point, from its next start on.
    pub fn crash_at(&self, region: Region, program: Program, point: &str) {
        let told = vec![(echotune_kit::failpoint::VARIABLE, point.to_owned())];
        locked(&self.told).insert((region, program), told);
    }

    /// Has a program's clock go so many minutes ahead, from its next start on. What it measures is not touched.
    ///
    /// # Errors
    ///
    /// The library that does so is not installed.
    pub fn shift_clock(&self, region: Region, program: Program, minutes: i64) -> Result<(), DriveError> {
        let library = FAKETIME.into_iter().find(|path| Path::new(path).exists());
        let library =
            library.ok_or_else(|| DriveError::Program("no libfaketime was found; install faketime".into()))?;
        let told = vec![
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME", format!("{minutes:+}m")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        locked(&self.told).insert((region, program), told);
        Ok(())
    }

    /// From its next start on a program is as it should be.
    pub fn as_it_should_be(&self, region: Region, program: Program) {
        locked(&self.told).remove(&(region, program));
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Which, Child>> {
        locked(&self.running)
    }

    fn log(&self, region: Region, program: Program) -> PathBuf {
        self.folder.join(format!("{region}-{program}.log"))
    }

    /// Waits until a program answers; one that has ended is started again, as whoever looks after it would do.
    ///
    /// # Errors
    ///
    /// It does not in time.
    pub async fn ready(&self, region: Region, program: Program) -> Result<(), DriveError> {
        let address = self.address(region, program);
        let answers = async {
            loop {
                self.revive(region, program)?;
                if serves(address).await {
                    return Ok::<_, DriveError>(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let late = || {
            let log = self.log(region, program);
            DriveError::Program(format!("{program} in {region} does not answer; see {}", log.display()))
        };
        timeout(READY, answers).await.map_err(|_| late())?
    }

    /// Starts a program again that has ended by itself; whether it had.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn revive(&self, region: Region, program: Program) -> Result<bool, DriveError> {
        let ended = match self.running().get_mut(&(region, program, 0)) {
            Some(child) => child.try_wait()?.is_some(),
            None => false,
        };
        if ended {
            self.launch(region, program)?;
        }
        Ok(ended)
    }

    /// Ends a program by SIGKILL.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub async fn kill(&self, region: Region, program: Program) -> Result<(), DriveError> {
        self.kill_copy(region, program, 0).await
    }

    /// Ends a copy of a program by SIGKILL.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub async fn kill_copy(&self, region: Region, program: Program, copy: u16) -> Result<(), DriveError> {
        let child = self.running().remove(&(region, program, copy));
        let mut child = child.ok_or_else(|| absent(region, program))?;
        child.start_kill()?;
        child.wait().await?;
        Ok(())
    }

    /// Freezes a program, or lets it go on.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn signal(&self, region: Region, program: Program, signal: Signal) -> Result<(), DriveError> {
        let running = self.running();
        let pid = running.get(&(region, program, 0)).and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).ok_or_else(|| absent(region, program))?;
        Ok(kill_process(pid, signal).map_err(io::Error::from)?)
    }

    /// Ends all.
    pub async fn stop(&self) {
        let all = std::mem::take(&mut *self.running());
        for (_, mut child) in all {
            if child.start_kill().is_ok() {
                let _ = child.wait().await;
            }
        }
    }
}

fn absent(region: Region, program: Program) -> DriveError {
    DriveError::Program(format!("{program} does not run in {region}"))
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether something takes connections and answers that it serves.
async fn serves(address: SocketAddr) -> bool {
    let asked = async {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{address}")).ok()?.connect().await.ok()?;
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
        health.check(tonic_health::pb::HealthCheckRequest::default()).await.ok()
    };
    timeout(Duration::from_secs(2), asked).await.is_ok_and(|answer| answer.is_some())
}

/// How the testbed's regions are parted.
fn jurisdictions(testbed: &Testbed) -> &[String] {
    testbed.plan().mirror.as_ref().map_or(&[], |mirror| &mirror.jurisdictions)
}

/// A token, a master key and a key of names, the same after a restart.
fn write_secrets(folder: &Path) -> io::Result<String> {
    let token = folder.join("token");
    if !token.exists() {
        // Of a testbed, and known to nobody else.
        fs::write(&token, "a token that this testbed's programs know each other by\n")?;
        fs::write(folder.join("master"), "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=\n")?;
        fs::write(folder.join("names"), "KysrKysrKysrKysrKysrKysrKysrKysrKysrKysrKys=\n")?;
    }
    Ok(fs::read_to_string(token)?.trim().to_owned())
}
