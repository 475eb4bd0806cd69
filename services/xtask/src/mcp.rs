//! MCP servers on a real Kubernetes: `cargo xtask e2e mcp` makes images, starts a cluster of the testbed with a real
//! node, installs the charts, and proves that servers start, scale and die without anybody losing a session or a call.
//!
//! In pieces: `cargo xtask e2e mcp PIECE…`, each on what those before it left; `--quick` takes debug builds.

use std::{
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, bail};

use crate::{
    e2e::target,
    image::{self, text},
    kubernetes::{self, is_root},
    testbed,
};

pub(crate) const SUITE: &str = "mcp";
/// Away from the ports of other clusters.
const PORT: &str = "16643";
/// Where the gateway sends spans, from that port: the machine as pods see it. The proof of traces listens there.
const COLLECTOR: &str = "http://198.19.14.1:16651";
const SYSTEM: &str = "echotune-system";
const IMAGES: [&str; 6] =
    ["echotune-operator", "echotune-gateway", "echotune", "mcp-echotune", "mcp-everything", "mcp-time"];
const VALUES: &str = "services/testbed/tests/mcp/values";
const OF: [&str; 7] = ["--package", "echotune-testbed", "--features", "kubernetes", "--locked", "--test", "mcp"];
type Piece = fn(&Place) -> anyhow::Result<()>;
/// What is done, in this order.
const PIECES: [(&str, Piece); 6] = [
    ("images", Place::images),
    ("cluster", Place::cluster),
    ("import", Place::import),
    ("install", Place::install),
    ("prove", Place::prove),
    ("down", Place::down),
];

/// Where it is done.
struct Place {
    run: PathBuf,
    options: image::Options,
    /// The proofs that are wanted; all when empty.
    only: Vec<String>,
}

/// `[PIECE…] [--quick] [--only PROOF]…`
pub(crate) fn suite(words: &[&str]) -> anyhow::Result<()> {
    let mut place = Place { run: run()?, options: image::Options::new(), only: Vec::new() };
    let (mut wanted, mut words) = (Vec::new(), words.iter());
    while let Some(word) = words.next() {
        match *word {
            "--quick" => place.options.quick = true,
            "--only" => place.only.push((*words.next().context("--only needs the name of a proof")?).to_owned()),
            piece if PIECES.iter().any(|(name, _)| *name == piece) => wanted.push(piece),
            other => bail!("'{other}' is no piece; there are {}", PIECES.map(|(name, _)| name).join(", ")),
        }
    }
    if !is_root() {
        println!("EXCLUDED {SUITE}: pods that truly run: a real node needs root");
        return Ok(());
    }
    for (name, piece) in PIECES.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        let start = Instant::now();
        if let Err(error) = piece(&place) {
            let run = place.run.display();
            println!("e2e {SUITE}: the cluster is left as it is; end it: cargo xtask testbed --run {run} down --wipe");
            return Err(error.context(format!("piece '{name}'; repeat it: `cargo xtask e2e {SUITE} {name}`")));
        }
        println!("e2e {SUITE}: {name}, {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("e2e {SUITE}: passed");
    Ok(())
}

fn run() -> anyhow::Result<PathBuf> {
    let folder = env::var_os(kubernetes::RUN).map_or_else(|| target().join("e2e/mcp"), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder.canonicalize()?)
}

impl Place {
    fn testbed(&self, words: &[&str]) -> anyhow::Result<()> {
        testbed::run(&[&["--run", text(&self.run)?], words].concat())
    }

    fn images(&self) -> anyhow::Result<()> {
        image::make(&IMAGES, &self.options).map(|_| ())
    }

    /// With a real node alone: all pods are to run.
    fn cluster(&self) -> anyhow::Result<()> {
        self.testbed(&["up", "kubernetes", "--port", PORT, "--nodes", "0", "--slot", "0", "--real-node"])
    }

    /// Before any pod looks for them: one that finds none waits out a back-off.
    fn import(&self) -> anyhow::Result<()> {
        let archives: Vec<PathBuf> =
            IMAGES.iter().map(|name| self.options.output.join(format!("{name}.tar"))).collect();
        let archives = archives.iter().map(|archive| text(archive)).collect::<anyhow::Result<Vec<_>>>()?;
        self.testbed(&[&["import"], &archives[..]].concat())
    }

    /// The charts, with the rights that they have for everybody.
    fn install(&self) -> anyhow::Result<()> {
        self.secrets()?;
        let tag = &self.options.tag;
        let helm = |release: &str, chart: &str, more: &[&str]| {
            let chart = format!("charts/{chart}");
            let words = ["helm", "upgrade", "--install", release, &chart, "--namespace", SYSTEM, "--wait"];
            self.testbed(&[&words[..], &["--timeout", "3m"], more].concat())
        };
        helm("crds", "echotune-operator-crds", &[])?;
        let [operator, gateway] = ["operator", "gateway"].map(|name| format!("{VALUES}/{name}.yaml"));
        let set = [format!("image.tag={tag}"), format!("adapter.image.tag={tag}")].join(",");
        let spans = format!("telemetry.otlpEndpoint={COLLECTOR}");
        helm("operator", "echotune-operator", &["--values", &operator, "--set", &set, "--set", &spans])?;
        let set = format!("gateway.image.tag={tag}");
        helm("platform", "echotune", &["--values", &gateway, "--set", &set, "--set", &spans])
    }

    /// The namespace, and what nobody but these programs knows.
    fn secrets(&self) -> anyhow::Result<()> {
        let folder = self.run.join("secrets");
        if folder.is_dir() {
            return Ok(());
        }
        self.testbed(&["kubectl", "create", "namespace", SYSTEM])?;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        self.testbed(&["kubectl", "label", "namespace", SYSTEM, restricted])?;
        fs::create_dir_all(&folder)?;
        let mut words = vec![];
        for name in ["token", "keys"] {
            let file = folder.join(name);
            fs::write(&file, random()?)?;
            words.push(format!("--from-file={name}={}", file.display()));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let make = ["kubectl", "create", "secret", "generic", "echotune-gateway", "--namespace", SYSTEM];
        self.testbed(&[&make[..], &words].concat())
    }

    /// One after the other: they are about seconds, and about two cores.
    fn prove(&self) -> anyhow::Result<()> {
        let report = self.run.join("report.tsv");
        let _ = fs::remove_file(&report);
        let token = fs::read_to_string(self.run.join("secrets/token")).context("`install` comes first")?;
        crate::cargo(&["build", "--quiet", "--locked", "--package", "echotune"])?;
        let platform = target().join("debug/echotune").canonicalize()?;
        let variables = [
            ("ECHOTUNE_E2E_PLATFORM", text(&platform)?),
            (kubernetes::RUN, text(&self.run)?),
            ("ECHOTUNE_E2E_REPORT", text(&report)?),
            ("ECHOTUNE_E2E_TOKEN", &token),
            ("ECHOTUNE_E2E_TAG", &self.options.tag),
        ];
        let only: Vec<&str> = self.only.iter().map(String::as_str).collect();
        let words = [&["test"], &OF[..], &["--"], &only, &["--test-threads=1", "--nocapture"]].concat();
        let done = crate::cargo_with(&words, &variables);
        println!("{}", table(&report));
        done.context("somebody lost something, or waited too long")
    }

    fn down(&self) -> anyhow::Result<()> {
        self.testbed(&["down", "kubernetes", "--wipe"])?;
        Ok(fs::remove_dir_all(self.run.join("secrets"))?)
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

/// The figures, side by side with what they are of.
fn table(report: &Path) -> String {
    let rows = fs::read_to_string(report).unwrap_or_default();
    let rows: Vec<(&str, &str)> = rows.lines().filter_map(|line| line.split_once('\t')).collect();
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or_default();
    rows.iter().map(|(what, figure)| format!("| {what:width$} | {figure}\n")).collect()
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
}
