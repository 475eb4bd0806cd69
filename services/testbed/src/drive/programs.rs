//! The platform's programs in regions, as processes of their own.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::Duration,
};

use tokio::{process::Child, time::timeout};

use super::DriveError;
use crate::{Network, Region, Testbed};

/// How long a program may take to answer after its start; a view is waited for until its lease has ended.
const READY: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What runs in each region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `echotune-users`.
    Users,
    /// `echotune-recommendations`.
    Recommendations,
}

impl Program {
    const ALL: [Self; 2] = [Self::Users, Self::Recommendations];

    fn name(self) -> &'static str {
        match self {
            Self::Users => "echotune-users",
            Self::Recommendations => "echotune-recommendations",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Users => 7430,
            Self::Recommendations => 7440,
        }
    }
}

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
    running: Mutex<BTreeMap<(Region, Program), Child>>,
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
        let programs = Self {
            folder,
            binaries: binaries.to_owned(),
            network: plan.network,
            regions: plan.regions.clone(),
            token,
            running: Mutex::default(),
        };
        for region in plan.regions.iter().copied() {
            fs::write(programs.config(region), programs.servers(testbed, region))?;
        }
        tell("tables and topics are made");
        for (nth, region) in plan.regions.iter().copied().enumerate() {
            // Tables are for one process in the world; topics for each region.
            let words: &[&str] = if nth == 0 { &["schema", "topics"] } else { &["topics"] };
            for word in words {
                programs.command(region, word).await?;
            }
        }
        for region in plan.regions.iter().copied() {
            for program in Program::ALL {
                programs.launch(region, program)?;
            }
        }
        for region in plan.regions.iter().copied() {
            for program in Program::ALL {
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
        format!(
            "[region]\nname = \"{region}\"\nall = [{all}]\n\n[cql]\ncontact_points = [\"{}\"]\ncopies = 1\n\n\
             [kafka]\nbootstrap_servers = [\"{}\"]\nreplicas = {copies}\npartitions = 4\nlook_every = \"5s\"\n\n\
             [secrets]\ntoken_file = \"{folder}/token\"\nmaster_keys_file = \"{folder}/master\"\n",
            testbed.cql(region),
            testbed.bootstrap_servers(region).replace(',', "\", \""),
        )
    }

    async fn command(&self, region: Region, word: &str) -> Result<(), DriveError> {
        let mut command = self.network.command(region, self.binaries.join("echotune"));
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
        let log = fs::File::options().create(true).append(true).open(self.log(region, program))?;
        let mut command = self.network.command(region, self.binaries.join(program.name()));
        let mut set = |key: &str, value: String| {
            command.args(["--set", &format!("{key}={value}")]);
        };
        set("listen", self.address(region, program).to_string());
        // The namespaces' network is this machine's own.
        set("allow_plaintext", "true".to_owned());
        set("region.replica", format!("{program}-0"));
        if program == Program::Users {
            let others = self.regions.iter().filter(|other| **other != region);
            let peer = |other: &Region| format!("\"{other}=http://{}\"", self.address(*other, program));
            set("peers", format!("[{}]", others.map(peer).collect::<Vec<_>>().join(", ")));
        }
        if program == Program::Recommendations {
            set("users", format!("http://{}", self.address(region, Program::Users)));
            set("data", self.folder.join(format!("data-{region}")).display().to_string());
        }
        command.arg("--config").arg(self.config(region));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.kill_on_drop(true).spawn()?;
        self.running().insert((region, program), child);
        Ok(())
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Region, Program), Child>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        let ended = match self.running().get_mut(&(region, program)) {
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
        let child = self.running().remove(&(region, program));
        let mut child = child.ok_or_else(|| DriveError::Program(format!("{program} does not run in {region}")))?;
        child.start_kill()?;
        child.wait().await?;
        Ok(())
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

/// A token and a master key, the same after a restart.
fn write_secrets(folder: &Path) -> io::Result<String> {
    let token = folder.join("token");
    if !token.exists() {
        // Of a testbed, and known to nobody else.
        fs::write(&token, "a token that this testbed's programs know each other by\n")?;
        fs::write(folder.join("master"), "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=\n")?;
    }
    Ok(fs::read_to_string(token)?.trim().to_owned())
}
