//! Stores and the log on real servers: every crate with a feature `cql` has a test of that name, which runs on the CQL
//! servers of the testbed, or on those that ECHOTUNE_CQL tells of; the event log runs on its brokers, or on ECHOTUNE_KAFKA.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{ALL, e2e::target, faults, testbed};

pub(crate) const SUITE: &str = "data";
/// Where the tests look for servers.
const SERVERS: &str = "ECHOTUNE_CQL";
/// Where the tests look for a broker.
const BROKER: &str = "ECHOTUNE_KAFKA";
/// A broker of the testbed.
const TESTBED_BROKER: &str = "127.0.0.1:9092";
/// Where the testbed is; one that somebody names is not ended here.
const RUN: &str = "ECHOTUNE_TESTBED_RUN";
/// What the testbed listens on, by region.
const TESTBED: &str = "us=127.0.0.1:9042,eu=127.0.0.2:9042,ap=127.0.0.3:9042";

/// The crates with a feature `cql`.
fn crates() -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("services").context("run this from the root of the repository")? {
        let folder = entry?.path();
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        if manifest.lines().any(|line| line.starts_with("cql = [")) {
            let name = folder.file_name().and_then(|name| name.to_str()).context("a name of letters")?;
            ensure!(folder.join("tests/cql").is_dir(), "{name} has a feature 'cql' and no tests/cql for it");
            found.push(format!("echotune-{name}"));
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "no crate has a feature 'cql'");
    Ok(found)
}

/// Runs the tests of all stores on real servers, and then the programs of three regions while parts of them fail, told
/// `words`: `--hetrec FOLDER` has HetRec 2011 imported before, a part of it in each region.
pub(crate) fn suite(words: &[&str]) -> anyhow::Result<()> {
    let crates = crates()?;
    // Built first: servers and compilers at once are too much for a small machine.
    crate::cargo(&[&["test", "--no-run", "--test", "cql", "--test", "kafka"], &ALL[..]].concat())?;
    if let Ok(servers) = env::var(SERVERS) {
        let broker = env::var(BROKER).with_context(|| format!("{SERVERS} is set and {BROKER} is not"))?;
        println!("e2e {SUITE}: runs on the servers of {SERVERS}, {servers}, and of {BROKER}, {broker}");
        return run(&crates, &servers, &broker);
    }
    let named = env::var_os(RUN).is_some();
    let folder = if named { None } else { Some(folder()?) };
    start(folder.as_deref())?;
    println!(
        "e2e {SUITE}: runs on Apache Cassandra in three regions of the testbed, {TESTBED}, and Apache Kafka, {TESTBED_BROKER}"
    );
    let done = run(&crates, TESTBED, TESTBED_BROKER);
    if let Some(folder) = folder {
        testbed::run(&["--run", text(&folder)?, "down", "--wipe"])?;
    }
    done?;
    if words.is_empty() {
        println!("EXCLUDED the import of HetRec 2011: name its folder by --hetrec FOLDER");
    }
    faults::run(&[&["--quick"], words].concat())
}

fn folder() -> anyhow::Result<PathBuf> {
    let folder = target().join("e2e/testbed");
    fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

fn text(folder: &Path) -> anyhow::Result<&str> {
    folder.to_str().context("a path of letters")
}

fn start(folder: Option<&Path>) -> anyhow::Result<()> {
    let up = ["up", "data", "--no-mirror"];
    match folder {
        Some(folder) => testbed::run(&[&["--run", text(folder)?], &up[..]].concat()),
        None => testbed::run(&up),
    }
}

/// One crate after the other, so that each has the servers for itself; all of them, whatever fails.
fn run(crates: &[String], servers: &str, broker: &str) -> anyhow::Result<()> {
    let log = crate::cargo_with(&[&["test", "--test", "kafka"], &ALL[..]].concat(), &[(BROKER, broker)]);
    crate::cargo_with(&[&["test", "--no-fail-fast", "--test", "cql"], &ALL[..]].concat(), &[(SERVERS, servers)])
        .context("a store does not do on these servers what it should")?;
    log.context("the event log does not do on these brokers what it should")?;
    println!("e2e {SUITE}: passed for echotune-eventlog, {}", crates.join(", "));
    Ok(())
}
