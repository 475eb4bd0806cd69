//! Jars of the parts: resolved once by Maven from the pom files of this crate, and kept in the user's cache.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tokio::{process::Command, time};

use crate::{Progress, TestbedError, process::last_lines, progress::telling};

const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const TRIES: u32 = 3;
/// For one try, which may download about 60 MB.
const LIMIT: Duration = Duration::from_secs(600);
/// Holds the digest of the pom that the jars beside it are of.
const MARK: &str = ".pom.sha256";
/// Native code for other systems, which Linux never loads.
const FOREIGN: [&str; 4] = ["-osx-", "-windows-", "-macos-", "-linux-riscv64"];

/// A set of jars.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Jars {
    Cassandra,
    Kafka,
}

impl Jars {
    fn name(self) -> &'static str {
        match self {
            Self::Cassandra => "cassandra",
            Self::Kafka => "kafka",
        }
    }

    fn pom(self) -> &'static str {
        match self {
            Self::Cassandra => include_str!("../templates/cassandra/pom.xml"),
            Self::Kafka => include_str!("../templates/kafka/pom.xml"),
        }
    }

    /// The folder of its jars, filled if it is not.
    pub(crate) async fn fetch(self, progress: &dyn Progress) -> Result<PathBuf, TestbedError> {
        let cache = cache();
        let folder = cache.join(self.name());
        let wanted: String = Sha256::digest(self.pom()).iter().map(|byte| format!("{byte:02x}")).collect();
        if fs::read_to_string(folder.join(MARK)).is_ok_and(|found| found == wanted) {
            return Ok(folder);
        }
        let start = Instant::now();
        fs::create_dir_all(&cache).map_err(TestbedError::file(&cache))?;
        let fresh = tempfile::tempdir_in(&cache).map_err(TestbedError::file(&cache))?;
        let pom = fresh.path().join("pom.xml");
        fs::write(&pom, self.pom()).map_err(TestbedError::file(&pom))?;
        let jars = fresh.path().join("jars");
        self.resolve(&pom, &jars, progress).await?;
        let count = prune(&jars)?;
        fs::write(jars.join(MARK), wanted).map_err(TestbedError::file(&jars))?;
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(TestbedError::file(&folder))?;
        }
        fs::rename(&jars, &folder).map_err(TestbedError::file(&folder))?;
        progress.done(&format!("{}: {count} jars in {}", self.name(), folder.display()), start.elapsed());
        Ok(folder)
    }

    async fn resolve(self, pom: &Path, jars: &Path, progress: &dyn Progress) -> Result<(), TestbedError> {
        let mut said = String::new();
        for attempt in 1..=TRIES {
            let mut maven = Command::new("mvn");
            maven.args(["--batch-mode", "--quiet", PLUGIN, "-DincludeScope=runtime", "--file"]).arg(pom);
            maven.arg(format!("-DoutputDirectory={}", jars.display())).kill_on_drop(true);
            let what = format!("{}: mvn resolves jars, try {attempt}", self.name());
            let done = telling(progress, &what, time::timeout(LIMIT, maven.output())).await;
            match done {
                Ok(Ok(output)) if output.status.success() => return Ok(()),
                Ok(Ok(output)) => said = last_lines(&String::from_utf8_lossy(&output.stdout)),
                Ok(Err(error)) => return Err(TestbedError::program("mvn", "; install Maven (package: maven)")(error)),
                Err(_) => said = format!("mvn did not end within {} s", LIMIT.as_secs()),
            }
            time::sleep(Duration::from_secs(5 * u64::from(attempt))).await;
        }
        Err(TestbedError::Tool { what: format!("resolving the jars of {} by mvn", self.name()), said })
    }
}

/// Removes jars that are never loaded here; how many remain.
fn prune(jars: &Path) -> Result<usize, TestbedError> {
    let mut count = 0;
    for entry in jars.read_dir().map_err(TestbedError::file(jars))? {
        let path = entry.map_err(TestbedError::file(jars))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if FOREIGN.iter().any(|foreign| name.contains(foreign)) {
            fs::remove_file(&path).map_err(TestbedError::file(&path))?;
        } else {
            count += 1;
        }
    }
    Ok(count)
}

/// The jar in a folder whose name begins so.
pub(crate) fn jar(folder: &Path, prefix: &str) -> Result<PathBuf, TestbedError> {
    let mut paths = folder.read_dir().map_err(TestbedError::file(folder))?.flatten().map(|entry| entry.path());
    let found = paths.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(prefix) && name.ends_with(".jar")
    });
    found.ok_or_else(|| {
        let missing =
            std::io::Error::new(std::io::ErrorKind::NotFound, "no such jar; remove the folder, and it is filled anew");
        TestbedError::file(&folder.join(format!("{prefix}*.jar")))(missing)
    })
}

/// `$XDG_CACHE_HOME/echotune/testbed`, or below `~/.cache`.
pub(crate) fn cache() -> PathBuf {
    let given = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::home_dir().unwrap_or_else(env::temp_dir).join(".cache");
    given.unwrap_or_else(home).join("echotune/testbed")
}
