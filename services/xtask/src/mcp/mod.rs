//! MCP servers on a real Kubernetes: `cargo xtask e2e mcp` makes images, starts a cluster of the testbed with a real
//! node, installs the charts, and proves that servers start, scale and die without anybody losing a session or a call.
//! Then the conformance suite of the protocol is run against the gateway there. What pods said is kept, and the cluster
//! ended, whatever failed and whoever stops it; how each piece ended, and the figures, are told as a table at the end.
//!
//! In pieces: `cargo xtask e2e mcp PIECE…`, each on what those before it left. `--quick` takes debug builds, `--keep`
//! leaves the cluster as it is, `--reuse` takes the one that was left, `--write` keeps the report of conformance beside
//! that of the gateway alone.

mod guard;

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, ensure};

use self::guard::Guard;
use crate::{
    conformance,
    e2e::{self, target},
    image::{self, text},
    kubernetes::{self, is_root},
    testbed,
};

pub(crate) const SUITE: &str = "mcp";
/// Away from the ports of other clusters.
const PORT: &str = "16643";
/// Where the gateway sends spans, from that port: the machine as pods see it. The proof of traces listens there.
const COLLECTOR: &str = "http://198.19.14.1:16651";
/// Where the values of the proofs put the gateway.
const GATEWAY: &str = "http://198.18.0.80";
const SYSTEM: &str = "echotune-system";
const IMAGES: [&str; 7] = [
    "echotune-operator",
    "echotune-gateway",
    "echotune",
    "mcp-echotune",
    "mcp-everything",
    "mcp-time",
    "mcp-conformance",
];
const PROOFS: &str = "services/testbed/tests/mcp";
const OF: [&str; 7] = ["--package", "echotune-testbed", "--features", "kubernetes", "--locked", "--test", "mcp"];
const SERVERS: &str = "conformance.yaml";
/// What is written down of a cluster.
const KINDS: &str =
    "mcpservers,pods,services,endpointslices,leases,networkpolicies,poddisruptionbudgets,deployments,events";

/// What a piece is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing after it can be without it.
    Ground,
    /// Others are tried, however it ends.
    Proof,
    /// It is done however others ended.
    End,
}

struct Piece {
    name: &'static str,
    kind: Kind,
    run: fn(&Place) -> anyhow::Result<()>,
}

const PROVE: &str = "prove";
const CLUSTER: &str = "cluster";
const DOWN: &str = "down";
/// What is done, in this order.
const PIECES: [Piece; 9] = [
    Piece { name: "build", kind: Kind::Ground, run: |_| build() },
    Piece { name: "images", kind: Kind::Ground, run: Place::images },
    Piece { name: CLUSTER, kind: Kind::Ground, run: Place::cluster },
    Piece { name: "import", kind: Kind::Ground, run: Place::import },
    Piece { name: "install", kind: Kind::Ground, run: Place::install },
    Piece { name: PROVE, kind: Kind::Proof, run: Place::prove },
    Piece { name: "conformance", kind: Kind::Proof, run: Place::conformance },
    Piece { name: "logs", kind: Kind::End, run: Place::logs },
    Piece { name: DOWN, kind: Kind::End, run: Place::down },
];

/// What the command line says.
#[derive(Debug)]
struct Wanted {
    /// Pieces by name; all when empty.
    pieces: Vec<&'static str>,
    options: image::Options,
    /// The proofs that are wanted; all when empty.
    only: Vec<String>,
    /// Whether the cluster is left as it is.
    keeps: bool,
    /// Whether there is one already.
    reuses: bool,
    /// Whether the report of conformance is kept.
    writes: bool,
}

impl Wanted {
    /// `[PIECE…] [--quick] [--only PROOF]… [--keep] [--reuse] [--write]`
    fn read(words: &[&str]) -> anyhow::Result<Self> {
        let (options, pieces, only) = (image::Options::new(), Vec::new(), Vec::new());
        let mut wanted = Self { pieces, options, only, keeps: false, reuses: false, writes: false };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--quick" => wanted.options.quick = true,
                "--keep" => wanted.keeps = true,
                "--reuse" => wanted.reuses = true,
                "--write" => wanted.writes = true,
                "--only" => wanted.only.push((*words.next().context("--only needs the name of a proof")?).to_owned()),
                word => {
                    let known = || PIECES.map(|piece| piece.name).join(", ");
                    let piece = PIECES.iter().map(|piece| piece.name).find(|name| *name == word);
                    wanted.pieces.push(piece.with_context(|| format!("'{word}' is no piece; there are {}", known()))?);
                }
            }
        }
        Ok(wanted)
    }

    fn has(&self, name: &str) -> bool {
        if !self.pieces.is_empty() {
            return self.pieces.contains(&name);
        }
        match name {
            CLUSTER => !self.reuses,
            DOWN => self.ends(),
            _ => true,
        }
    }

    /// Whether nothing is to be left of the cluster. Whoever asks for pieces has others follow.
    fn ends(&self) -> bool {
        self.pieces.is_empty() && !self.keeps && !self.reuses
    }
}

/// Where it is done.
struct Place {
    run: PathBuf,
    wanted: Wanted,
}

pub(crate) fn suite(words: &[&str]) -> anyhow::Result<()> {
    let wanted = Wanted::read(words)?;
    if !is_root() {
        println!("EXCLUDED {SUITE}: pods that truly run: a real node needs root");
        return Ok(());
    }
    let place = Place { run: run()?, wanted };
    let watched = place.wanted.ends().then(|| Guard::begin(&testbed::program()?, &place.run));
    let guard = watched.transpose()?;
    let done = place.go();
    if !place.is_there() {
        guard.map_or(Ok(()), Guard::leave)?;
    } else if guard.is_none() {
        println!("e2e {SUITE}: the cluster is left as it is; end it: `cargo xtask e2e {SUITE} {DOWN}`");
    }
    done?;
    println!("e2e {SUITE}: passed");
    Ok(())
}

fn run() -> anyhow::Result<PathBuf> {
    let folder = env::var_os(kubernetes::RUN).map_or_else(|| target().join("e2e/mcp"), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder.canonicalize()?)
}

/// What is run beside the cluster, before there is one: servers and compilers at once are too much for a small machine.
fn build() -> anyhow::Result<()> {
    crate::cargo(&["build", "--locked", "--package", "echotune"])?;
    crate::cargo(&[&["test", "--no-run"], &OF[..]].concat())?;
    conformance::prepare()
}

impl Place {
    /// Does what is wanted, and tells how each piece ended as soon as it has.
    fn go(&self) -> anyhow::Result<()> {
        if self.wanted.pieces.is_empty() {
            gone(fs::remove_dir_all(self.run.join("logs")))?;
        }
        let (mut rows, mut failed) = (Vec::new(), Vec::new());
        let mut stands = true;
        for Piece { name, kind, run } in PIECES.iter().filter(|piece| self.wanted.has(piece.name)) {
            if !stands && *kind != Kind::End {
                rows.push(((*name).to_owned(), "not tried".to_owned()));
                continue;
            }
            println!("e2e {SUITE}: {name} begins");
            let start = Instant::now();
            let done = run(self);
            let took = start.elapsed().as_secs_f64();
            let told = match &done {
                Ok(()) => format!("passed in {took:.0} s"),
                Err(error) => format!("FAILED after {took:.0} s: {error:#}"),
            };
            println!("e2e {SUITE}: {name} {told}");
            rows.push(((*name).to_owned(), told));
            if done.is_err() {
                failed.push(*name);
                stands &= *kind != Kind::Ground;
            }
        }
        if self.wanted.has(PROVE) {
            rows.extend(figures(&self.report()));
        }
        let table = table(&rows);
        print!("{table}");
        // The end of a cluster removes a folder that has nothing else in it.
        fs::create_dir_all(&self.run)?;
        fs::write(self.run.join("report.md"), table)?;
        let (failed, run) = (failed.join(", "), self.run.display());
        ensure!(failed.is_empty(), "{failed} failed; what pods and parts said is in {run}/logs");
        Ok(())
    }

    fn testbed(&self, words: &[&str]) -> anyhow::Result<()> {
        testbed::run(&[&["--run", text(&self.run)?], words].concat())
    }

    /// Whether there is anything of a cluster.
    fn is_there(&self) -> bool {
        self.run.join("kubernetes/plan.json").is_file()
    }

    fn report(&self) -> PathBuf {
        self.run.join("report.tsv")
    }

    /// Where what is said is kept.
    fn kept(&self) -> anyhow::Result<PathBuf> {
        let folder = self.run.join("logs");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }

    fn images(&self) -> anyhow::Result<()> {
        image::make(&IMAGES, &self.wanted.options).map(|_| ())
    }

    /// With a real node alone: all pods are to run.
    fn cluster(&self) -> anyhow::Result<()> {
        self.testbed(&["up", "kubernetes", "--port", PORT, "--nodes", "0", "--slot", "0", "--real-node"])
    }

    /// Before any pod looks for them: one that finds none waits out a back-off.
    fn import(&self) -> anyhow::Result<()> {
        let output = &self.wanted.options.output;
        let archives: Vec<PathBuf> = IMAGES.iter().map(|name| output.join(format!("{name}.tar"))).collect();
        let archives = archives.iter().map(|archive| text(archive)).collect::<anyhow::Result<Vec<_>>>()?;
        self.testbed(&[&["import"], &archives[..]].concat())
    }

    /// The charts, with the rights that they have for everybody.
    fn install(&self) -> anyhow::Result<()> {
        self.secrets()?;
        let tag = &self.wanted.options.tag;
        let helm = |release: &str, chart: &str, more: &[&str]| {
            let chart = format!("charts/{chart}");
            let words = ["helm", "upgrade", "--install", release, &chart, "--namespace", SYSTEM, "--wait"];
            let done = self.testbed(&[&words[..], &["--timeout", "5m"], more].concat());
            // Helm says no more than that it has waited.
            done.inspect_err(|_| drop(self.testbed(&["kubectl", "get", "pods,events", "--namespace", SYSTEM])))
        };
        helm("crds", "echotune-operator-crds", &[])?;
        let [operator, gateway] = ["operator", "gateway"].map(|name| format!("{PROOFS}/values/{name}.yaml"));
        let set = [format!("image.tag={tag}"), format!("adapter.image.tag={tag}")].join(",");
        let spans = format!("telemetry.otlpEndpoint={COLLECTOR}");
        helm("operator", "echotune-operator", &["--values", &operator, "--set", &set, "--set", &spans])?;
        let set = format!("gateway.image.tag={tag}");
        helm("platform", "echotune", &["--values", &gateway, "--set", &set, "--set", &spans])
    }

    /// The namespace, and what nobody but these programs knows, which stays as it was made first.
    fn secrets(&self) -> anyhow::Result<()> {
        let folder = self.run.join("secrets");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let secret = |name: &str| -> anyhow::Result<String> {
            let file = folder.join(name);
            if !file.exists() {
                fs::write(&file, random()?)?;
            }
            Ok(fs::read_to_string(&file)?)
        };
        let (token, keys) = (secret("token")?, secret("keys")?);
        let objects = folder.join("objects.yaml");
        let told = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {SYSTEM}\n  labels: \
             {{pod-security.kubernetes.io/enforce: restricted}}\n---\napiVersion: v1\nkind: Secret\nmetadata: \
             {{name: echotune-gateway, namespace: {SYSTEM}}}\nstringData: {{token: \"{token}\", keys: \"{keys}\"}}\n"
        );
        fs::write(&objects, told)?;
        self.testbed(&["kubectl", "apply", "--server-side", "--filename", text(&objects)?])
    }

    /// One after the other: they are about seconds, and about two cores.
    fn prove(&self) -> anyhow::Result<()> {
        let (report, logs) = (self.report(), self.kept()?);
        let _ = fs::remove_file(&report);
        let token = fs::read_to_string(self.run.join("secrets/token")).context("`install` comes first")?;
        crate::cargo(&["build", "--quiet", "--locked", "--package", "echotune"])?;
        let platform = target().join("debug/echotune").canonicalize()?;
        let variables = [
            ("ECHOTUNE_E2E_PLATFORM", text(&platform)?),
            (kubernetes::RUN, text(&self.run)?),
            ("ECHOTUNE_E2E_REPORT", text(&report)?),
            ("ECHOTUNE_E2E_LOGS", text(&logs)?),
            ("ECHOTUNE_E2E_TOKEN", &token),
            ("ECHOTUNE_E2E_TAG", &self.wanted.options.tag),
        ];
        let only: Vec<&str> = self.wanted.only.iter().map(String::as_str).collect();
        let words = [&["test"], &OF[..], &["--"], &only, &["--test-threads=1", "--nocapture"]].concat();
        crate::cargo_with(&words, &variables).context("somebody lost something, or waited too long")
    }

    /// What the suite of the protocol says of the gateway before a server that it asks for, each in pods.
    fn conformance(&self) -> anyhow::Result<()> {
        let servers = fs::read_to_string(Path::new(PROOFS).join(SERVERS))?;
        let file = self.run.join(SERVERS);
        fs::write(&file, servers.replace("@IMAGE@", &self.wanted.options.full_name("mcp-conformance")))?;
        self.testbed(&["kubectl", "apply", "--filename", text(&file)?])?;
        let ready = ["--for=jsonpath={.status.readyReplicas}=1", "--timeout=180s"];
        let all = ["kubectl", "wait", "mcpservers", "--all", "--namespace", "conformance"];
        self.testbed(&[&all[..], &ready].concat())?;
        conformance::in_cluster(GATEWAY, &self.run.join("secrets/token"), self.wanted.writes)
    }

    /// What there is, and what pods and the parts of the cluster said, where it outlives them.
    fn logs(&self) -> anyhow::Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        let (cluster, kept) = (self.run.join("kubernetes"), self.kept()?);
        let words = ["--run", text(&self.run)?, "kubectl", "get", KINDS, "--all-namespaces", "--output=wide"];
        let told = testbed::run_into(File::create(kept.join("objects"))?, &words);
        for part in cluster.read_dir()? {
            let part = part?;
            let log = part.path().join("log");
            if log.is_file() {
                fs::copy(log, kept.join(part.file_name()).with_extension("log"))?;
            }
        }
        let (pods, place) = (cluster.join("node-state/pods"), kept.join("pods"));
        gone(fs::remove_dir_all(&place))?;
        if pods.is_dir() {
            e2e::run(Command::new("cp").arg("-r").arg(pods).arg(place))?;
        }
        told
    }

    fn down(&self) -> anyhow::Result<()> {
        if self.is_there() {
            self.testbed(&["down", "kubernetes", "--wipe"])?;
        }
        Ok(gone(fs::remove_dir_all(self.run.join("secrets")))?)
    }
}

/// What is not there need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A secret of 256 bits, in base64.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(base64(&bytes))
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or_default()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= three.len() { letter.into() } else { '=' });
        }
    }
    text
}

/// The figures of a file, each with what it is of.
fn figures(report: &Path) -> Vec<(String, String)> {
    let rows = fs::read_to_string(report).unwrap_or_default();
    let rows = rows.lines().filter_map(|line| line.split_once('\t'));
    rows.map(|(what, figure)| (what.to_owned(), figure.to_owned())).collect()
}

/// Side by side with what they are of. What fails may be told in several lines.
fn table(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or_default();
    let row = |(what, told): &(String, String)| {
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("| {what:width$} | {told} |\n")
    };
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_base64() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_cluster_is_ended_by_whoever_started_it_for_all_pieces() {
        let has = |words: &[&str]| {
            let wanted = Wanted::read(words).expect("right words");
            PIECES.iter().map(|piece| piece.name).filter(|name| wanted.has(name)).collect::<Vec<_>>()
        };
        let all = PIECES.map(|piece| piece.name);
        assert_eq!(has(&["--quick", "--only", "kills"]), all);
        assert_eq!(has(&["--keep"]), all[..8]);
        let reused = has(&["--reuse"]);
        assert!(!reused.contains(&CLUSTER) && !reused.contains(&DOWN) && reused.contains(&PROVE), "{reused:?}");
        assert_eq!(has(&["install", PROVE, "--write"]), ["install", PROVE]);
        assert!(Wanted::read(&["--only"]).is_err());
        let told = Wanted::read(&["instal"]).expect_err("no piece").to_string();
        assert!(told.starts_with("'instal' is no piece; there are build, images, cluster, "), "{told}");
    }

    #[test]
    fn a_row_is_a_line() {
        let rows = [("images", "passed in 3 s"), ("down", "FAILED after 1 s: no\n  way")];
        let rows = rows.map(|(what, told)| (what.to_owned(), told.to_owned()));
        assert_eq!(table(&rows), "| images | passed in 3 s |\n| down   | FAILED after 1 s: no way |\n");
    }
}
