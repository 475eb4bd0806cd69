//! Proofs on a real Kubernetes, which the testbed builds from Go modules and starts for them: with a real node as root,
//! and else without those that need one. ECHOTUNE_KUBERNETES names the run folder of a cluster that is there instead.

use std::{env, fs, path::Path};

use anyhow::Context as _;

use crate::{e2e::target, testbed};

pub(crate) const SUITE: &str = "kubernetes";
/// Where the tests look for a cluster.
pub(crate) const RUN: &str = "ECHOTUNE_KUBERNETES";
const OF: [&str; 5] = ["--package", "echotune-testbed", "--features", "kubernetes", "--locked"];
const TEST: [&str; 2] = ["--test", "kubernetes"];
/// Away from the port that a cluster has when none is named, so that both may run.
const PORT: &str = "16543";
/// What only a real node shows.
const OF_NODE: [&str; 2] = ["running::", "stopping::"];

/// Starts a cluster, runs all proofs on it and ends it.
pub(crate) fn suite() -> anyhow::Result<()> {
    crate::cargo(&[&["test", "--no-run"], &OF[..], &TEST].concat())?;
    if let Ok(run) = env::var(RUN) {
        println!("e2e {SUITE}: runs on the cluster in {run}");
        return prove(Path::new(&run), true);
    }
    let real = is_root();
    if !real {
        println!("EXCLUDED pods that truly run: a real node needs root");
    }
    let folder = target().join("e2e/kubernetes");
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let run = ["--run", folder.to_str().context("a path of letters")?];
    let up = ["up", "kubernetes", "--port", PORT];
    testbed::run(&[&run[..], &up, if real { &["--real-node"] } else { &[] }].concat())?;
    println!(
        "e2e {SUITE}: runs on Kubernetes of the testbed, {}",
        if real { "with a real node" } else { "simulated nodes" }
    );
    let done = prove(&folder, real);
    if done.is_ok() {
        testbed::run(&[&run[..], &["down", "kubernetes", "--wipe"]].concat())?;
    } else {
        println!(
            "e2e {SUITE}: the cluster still runs, to be looked at; end it: cargo xtask testbed --run {} down --wipe",
            folder.display()
        );
    }
    done?;
    println!("e2e {SUITE}: passed");
    Ok(())
}

/// One after the other: they are about seconds, and drain nodes that others would be on.
fn prove(run: &Path, real: bool) -> anyhow::Result<()> {
    let run = run.canonicalize().with_context(|| run.display().to_string())?;
    let mut words = [&["test"], &OF[..], &TEST, &["--", "--test-threads=1", "--nocapture"]].concat();
    if !real {
        words.extend(OF_NODE.iter().flat_map(|name| ["--skip", name]));
    }
    let proved = crate::cargo_with(&words, &[(RUN, run.to_str().context("a path of letters")?)]);
    proved.context("this Kubernetes does not do what a real one does")
}

/// By the owner of what the system tells of this very process.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
