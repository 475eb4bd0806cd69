//! The programs of a cluster: built once from Go modules, and kept in the user's cache.
//!
//! The sources are compiled into this crate, so that its command can build them wherever it was copied to; what they
//! require comes through Go's own module client, held to the digests in each `go.sum`. A program is built anew only
//! when its sources or flags have changed, and one at a time, whoever asks.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time,
};

use super::{Component, KUBERNETES_VERSION};
use crate::{Progress, TestbedError, jars, process::last_lines};

/// The oldest that builds all of them.
const GO: (u32, u32) = (1, 26);
/// Where an archive of Go is unpacked to, by its own instructions.
const INSTALLED: &str = "/usr/local/go/bin/go";
/// Between two words about the same thing.
const PAUSE: Duration = Duration::from_millis(200);
/// Packages of Kubernetes whose variables tell its version.
const VERSIONED: [&str; 2] = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
/// The binary that is every program of Kubernetes itself, by the name it is called by.
const KUBERNETES: &str = "kubernetes";
const CALLED: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// A module of Go, with its files.
struct Module {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

macro_rules! module {
    ($name:literal: $($file:literal),+) => {
        Module {
            name: $name,
            files: &[$(($file, include_str!(concat!("../../kubernetes/", $name, "/", $file)))),+],
        }
    };
}

const CONTROL_PLANE: Module = module!("controlplane": "go.mod", "go.sum", "main.go");
const KWOK: Module = module!("kwok": "go.mod", "go.sum");
const HELM: Module = module!("helm": "go.mod", "go.sum");
const COREDNS: Module = module!("coredns": "go.mod", "go.sum", "main.go");
const NODE: Module = module!("node": "go.mod", "go.sum", "pause/main.go", "demo/main.go", "forward/main.go");

/// What is built together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// Kubernetes with etcd and kubectl.
    ControlPlane,
    /// The player of simulated nodes.
    Simulated,
    /// What the real node needs besides Kubernetes.
    RealNode,
    /// Helm.
    Helm,
}

/// One program: its name, the module it is built in, and the package there.
struct Program(&'static str, &'static Module, &'static str);

impl Set {
    fn programs(self) -> &'static [Program] {
        match self {
            Self::ControlPlane => &[Program(KUBERNETES, &CONTROL_PLANE, ".")],
            Self::Simulated => &[Program("kwok", &KWOK, "sigs.k8s.io/kwok/cmd/kwok")],
            Self::RealNode => &[
                Program("coredns", &COREDNS, "."),
                Program("pause", &NODE, "./pause"),
                Program("demo", &NODE, "./demo"),
                Program("node-forward", &NODE, "./forward"),
            ],
            Self::Helm => &[Program("helm", &HELM, "helm.sh/helm/v3/cmd/helm")],
        }
    }
}

impl Program {
    /// What the linker is told: no symbols, and which version it is.
    fn linker(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if self.0 == KUBERNETES {
            let minor = KUBERNETES_VERSION.split('.').nth(1).unwrap_or_default();
            for package in VERSIONED {
                flags += &format!(
                    " -X {package}.gitVersion={KUBERNETES_VERSION} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} \
                     -X {package}.gitTreeState=clean -X {package}.buildDate=2026-01-01T00:00:00Z"
                );
            }
        }
        if let Some(version) = HELM.required("helm.sh/helm/v3").filter(|_| self.0 == "helm") {
            flags += &format!(" -X helm.sh/helm/v3/internal/version.version={version}");
        }
        flags
    }

    /// Tells these sources and flags from others.
    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for (name, text) in self.1.files {
            digest.update(format!("{name} {}\n{text}", text.len()));
        }
        digest.update([self.2, &self.linker()].join("\n"));
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Module {
    /// The version of a module that this one requires.
    fn required(&self, module: &str) -> Option<&'static str> {
        let (_, text) = self.files.iter().find(|(name, _)| *name == "go.mod")?;
        text.lines().find_map(|line| {
            let mut words = line.trim().trim_start_matches("require ").split(' ');
            (words.next() == Some(module)).then(|| words.next()).flatten()
        })
    }

    /// Puts its files into a folder of its name.
    fn unpack(&self, sources: &Path) -> Result<PathBuf, TestbedError> {
        let folder = sources.join(self.name);
        for (name, text) in self.files {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(&folder);
            fs::create_dir_all(parent).map_err(TestbedError::file(parent))?;
            fs::write(&path, text).map_err(TestbedError::file(&path))?;
        }
        Ok(folder)
    }
}

/// The compiler: of the path, or where archives are unpacked to.
async fn find_go() -> Result<&'static str, TestbedError> {
    for program in ["go", INSTALLED] {
        let Ok(told) = Command::new(program).arg("version").output().await else { continue };
        if release(&String::from_utf8_lossy(&told.stdout)).is_some_and(|found| found >= GO) {
            return Ok(program);
        }
    }
    Err(TestbedError::NoGo { major: GO.0, minor: GO.1 })
}

/// `(1, 26)` of `go version go1.26.8 linux/amd64`.
fn release(told: &str) -> Option<(u32, u32)> {
    let number = told.strip_prefix("go version go")?.split(' ').next()?;
    let mut parts = number.split('.').map(|part| part.trim_end_matches(|c: char| !c.is_ascii_digit()));
    Some((parts.next()?.parse().ok()?, parts.next()?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?))
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs(PathBuf);

impl Programs {
    /// Those of this version of Kubernetes, in the user's cache.
    pub(crate) fn of_user() -> Self {
        Self(jars::cache().join(format!("kubernetes-{KUBERNETES_VERSION}")))
    }

    #[cfg(test)]
    pub(crate) fn at(folder: &str) -> Self {
        Self(folder.into())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Builds what is missing or of other sources.
    pub(crate) async fn build(&self, sets: &[Set], progress: &dyn Progress) -> Result<(), TestbedError> {
        let missing = |program: &&Program| !self.is_built(program);
        let wanted = || sets.iter().flat_map(|set| set.programs());
        if wanted().find(missing).is_none() {
            return Ok(());
        }
        let go = find_go().await?;
        fs::create_dir_all(&self.0).map_err(TestbedError::file(&self.0))?;
        let _lock = self.lock(progress).await?;
        // Whoever had the lock may have built them.
        let missing: Vec<&Program> = wanted().filter(missing).collect();
        for (at, program) in missing.iter().enumerate() {
            let what = format!("go builds {}, {} of {}", program.0, at + 1, missing.len());
            self.build_one(program, go, &what, progress).await?;
        }
        Ok(())
    }

    fn mark(&self, program: &Program) -> PathBuf {
        self.0.join(format!(".{}.sha256", program.0))
    }

    /// Whether it is there, and of these sources.
    fn is_built(&self, program: &Program) -> bool {
        let same = |found: String| found == program.digest();
        self.path(program.0).exists() && fs::read_to_string(self.mark(program)).is_ok_and(same)
    }

    async fn build_one(
        &self,
        program: &Program,
        go: &str,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<(), TestbedError> {
        let start = Instant::now();
        let folder = program.1.unpack(&self.0.join("sources"))?;
        let fresh = self.path(&format!("{}.new", program.0));
        let mut command = Command::new("nice");
        command.args(["-n", "5"]).arg(go).args(["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags"]);
        command.arg(program.linker()).arg("-o").arg(&fresh).arg(program.2).current_dir(&folder);
        command.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").env("GOWORK", "off");
        compile(command, what, progress).await?;
        let place = self.path(program.0);
        fs::rename(&fresh, &place).map_err(TestbedError::file(&place))?;
        if program.0 == KUBERNETES {
            self.link()?;
        }
        let mark = self.mark(program);
        fs::write(&mark, program.digest()).map_err(TestbedError::file(&mark))?;
        let mib = fs::metadata(&place).map_err(TestbedError::file(&place))?.len() >> 20;
        progress.done(&format!("{} is built: {mib} MiB in {}", program.0, self.0.display()), start.elapsed());
        Ok(())
    }

    /// Names by which the one binary is called.
    fn link(&self) -> Result<(), TestbedError> {
        for name in CALLED {
            let path = self.path(name);
            match symlink(KUBERNETES, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(TestbedError::file(&path)(error)),
                _ => Ok(()),
            }?;
        }
        Ok(())
    }

    /// Waits until nobody else builds.
    async fn lock(&self, progress: &dyn Progress) -> Result<File, TestbedError> {
        let path = self.path("lock");
        let file = File::create(&path).map_err(TestbedError::file(&path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    progress.waiting("another command builds the programs", start.elapsed());
                    time::sleep(PAUSE).await;
                }
                Err(TryLockError::Error(error)) => return Err(TestbedError::file(&path)(error)),
            }
        }
    }
}

/// Runs Go's build to its end, and tells how many packages it has compiled.
async fn compile(mut command: Command, what: &str, progress: &dyn Progress) -> Result<(), TestbedError> {
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed = || TestbedError::program("go", "");
    let mut child = command.spawn().map_err(failed())?;
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (mut packages, mut said) = (0, String::new());
    loop {
        progress.waiting(&format!("{what}, {packages} packages"), start.elapsed());
        match time::timeout(PAUSE, lines.next_line()).await {
            Err(_) => {}
            Ok(line) => match line.map_err(failed())? {
                Some(line) => {
                    packages += u32::from(is_package(&line));
                    said = said + &line + "\n";
                }
                None => break,
            },
        }
    }
    if child.wait().await.map_err(failed())?.success() {
        return Ok(());
    }
    let told: Vec<&str> = said.lines().filter(|line| !is_package(line)).collect();
    Err(TestbedError::Tool { what: what.to_owned(), said: last_lines(&told.join("\n")) })
}

/// Whether a line of `go build -v` names a package and nothing else.
fn is_package(line: &str) -> bool {
    !line.is_empty() && !line.contains([' ', ':']) && !line.starts_with('#')
}

/// Builds Helm where it is not built: where it is. It needs no cluster to lint and render charts.
///
/// # Errors
///
/// [`TestbedError::NoGo`] and what Go says.
pub async fn build_helm(progress: &dyn Progress) -> Result<PathBuf, TestbedError> {
    let programs = Programs::of_user();
    programs.build(&[Set::Helm], progress).await?;
    progress.end();
    Ok(programs.path("helm"))
}

/// Where Helm is, when it is built.
pub fn built_helm() -> Option<PathBuf> {
    let programs = Programs::of_user();
    Set::Helm.programs().iter().all(|program| programs.is_built(program)).then(|| programs.path("helm"))
}

/// What has to be built for parts to start.
pub(crate) fn sets(components: &[Component]) -> Vec<Set> {
    let mut sets = vec![Set::ControlPlane];
    sets.extend(components.contains(&Component::Kwok).then_some(Set::Simulated));
    sets.extend(components.contains(&Component::Node).then_some(Set::RealNode));
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read() {
        assert_eq!(release("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(release("go version go1.27rc1 linux/arm64"), Some((1, 27)));
        assert_eq!(release("go version go2.0 linux/amd64"), Some((2, 0)));
        assert_eq!(release("go: cannot find GOROOT"), None);
    }

    #[test]
    fn versions_are_those_that_the_modules_require() {
        assert_eq!(CONTROL_PLANE.required("k8s.io/kubernetes"), Some(KUBERNETES_VERSION));
        let helm = &Set::Helm.programs()[0];
        assert!(helm.linker().contains("internal/version.version=v3."), "{}", helm.linker());
        let control = Set::ControlPlane.programs()[0].linker();
        assert!(
            control.contains("version.gitVersion=v1.34.4 ") && control.contains("version.gitMinor=34 "),
            "{control}"
        );
    }

    #[tokio::test]
    async fn only_what_is_of_the_same_sources_and_flags_counts_as_built() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs(folder.path().to_owned());
        let all: Vec<_> = [Set::ControlPlane, Set::Simulated, Set::RealNode, Set::Helm]
            .iter()
            .flat_map(|set| set.programs())
            .collect();
        for program in &all {
            assert!(!programs.is_built(program));
            fs::write(programs.path(program.0), "").unwrap();
            fs::write(programs.mark(program), program.digest()).unwrap();
            assert!(programs.is_built(program));
        }
        // Nothing is left to be done, so that no Go is looked for.
        programs.build(&[Set::ControlPlane, Set::Helm], &crate::Silent).await.unwrap();
        fs::write(programs.mark(all[0]), all[1].digest()).unwrap();
        assert!(!programs.is_built(all[0]));
    }

    #[test]
    fn a_package_is_told_from_what_else_go_says() {
        assert!(is_package("k8s.io/kubernetes/pkg/apis/core"));
        for line in ["", "go: downloading k8s.io/api v0.34.4", "# controlplane", "./main.go:3:2: undefined: x"] {
            assert!(!is_package(line), "{line}");
        }
    }

    #[test]
    fn sources_are_unpacked_whole() {
        let folder = tempfile::tempdir().unwrap();
        for module in [&CONTROL_PLANE, &KWOK, &HELM, &COREDNS, &NODE] {
            let unpacked = module.unpack(folder.path()).unwrap();
            let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes").join(module.name);
            assert_eq!(files(&unpacked), files(&repository), "{}", module.name);
        }
    }

    /// All files below a folder, with their text.
    fn files(folder: &Path) -> std::collections::BTreeMap<PathBuf, String> {
        let mut found = std::collections::BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(one) = folders.pop() {
            for path in one.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().to_owned();
                    found.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn only_what_is_needed_is_built() {
        assert_eq!(sets(&[Component::Etcd, Component::KubeApiserver]), [Set::ControlPlane]);
        assert_eq!(sets(&Component::ALL), [Set::ControlPlane, Set::Simulated, Set::RealNode]);
    }
}
