//! `cargo xtask faults`: the platform's programs in three regions of the testbed, of which parts fail one after the
//! other. Words go to `echotune-testbed faults`; `--quick` goes through those faults alone that take little time, for a
//! short while each.

use std::process::Command;

use anyhow::Context as _;

use crate::{ALL, e2e::target};

/// The programs of a region, and what drives them; selected as checks do, so that those have built most of it.
const PROGRAMS: [&str; 6] = [
    "echotune",
    "echotune-users",
    "echotune-recommendations",
    "echotune-agents",
    "echotune-mcp-servers",
    "echotune-testbed",
];
/// Faults that want the same servers.
struct Pass {
    /// What `up data` is told as root.
    servers: &'static [&'static str],
    /// What it is told by others, or for a short while.
    any_servers: &'static [&'static str],
    /// What `faults` is told where nobody asks for others.
    faults: &'static [&'static str],
    /// Folder of its report.
    report: &'static str,
}

/// All faults, then an outage that is longer than hints are kept: no other would pass without hints.
const PASSES: [Pass; 2] = [
    Pass {
        servers: &["--disk", "1024"],
        any_servers: &[],
        faults: &["--operations", "100000"],
        report: "faults-report",
    },
    Pass {
        servers: &["--hint-window", "15"],
        any_servers: &["--hint-window", "15"],
        faults: &["--only", "outlast"],
        report: "faults-report-hints",
    },
];
/// The faults that take little time, once, in four minutes.
const QUICK: [&str; 7] = ["--quick", "--seconds", "5", "--rest", "6", "--listeners", "4"];

/// Whether regions can live in namespaces of their own.
fn can_cut() -> bool {
    let says = |program: &str, word: &str| Command::new(program).arg(word).output().ok();
    let is_root = says("id", "-u").is_some_and(|id| id.stdout.trim_ascii() == b"0");
    is_root && ["ip", "iptables"].iter().all(|program| says(program, "-V").is_some_and(|told| told.status.success()))
}

/// Those that have what is asked for: an outage longer than hints is gone through where nobody asks for others.
fn passes(is_quick: bool, words: &[&str]) -> &'static [Pass] {
    let only = words.iter().position(|word| *word == "--only").and_then(|at| words.get(at + 1));
    match only {
        Some(text) if text.contains("outlast") => &PASSES[1..],
        None if !is_quick => &PASSES,
        _ => &PASSES[..1],
    }
}

/// Whether faults are gone through quickly, and what their driver is told.
fn asked<'w>(words: &[&'w str]) -> (bool, Vec<&'w str>) {
    let is_quick = words.contains(&"--quick");
    let quick = if is_quick { &QUICK[..] } else { &[][..] };
    let others = words.iter().filter(|word| **word != "--quick");
    (is_quick, quick.iter().chain(others).copied().collect())
}

/// Builds all of it, starts three regions, drives them and ends them.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<()> {
    let (is_quick, words) = asked(words);
    // A long run is for many operations, of which programs that are not optimized leave servers little time.
    let profile = if is_quick { "dev" } else { "driven" };
    let programs = PROGRAMS.iter().flat_map(|name| ["--bin", name]).collect::<Vec<_>>();
    crate::cargo(&[&["build", "--profile", profile], &ALL[..], &programs].concat())?;
    let programs = target().join(if is_quick { "debug" } else { profile });
    let folder = target().join("faults");
    std::fs::create_dir_all(&folder)?;
    let (programs, folder) = (programs.canonicalize()?, folder.canonicalize()?);
    let network = if can_cut() {
        "namespaces"
    } else {
        println!("EXCLUDED cuts between regions: they need root, iproute2 and iptables");
        "loopback"
    };
    let driver = programs.join("echotune-testbed");
    let testbed = |words: &[&str]| {
        let status = Command::new(&driver)
            .arg("--run")
            .arg(&folder)
            .args(words)
            .status()
            .with_context(|| driver.display().to_string())?;
        anyhow::ensure!(status.success(), "{} ended with {status}", words.join(" "));
        Ok(())
    };
    println!("faults: on Apache Cassandra, Apache Kafka and MirrorMaker 2 of three regions in {network}");
    let programs = programs.to_str().context("a path of letters")?;
    let mut done = Ok(());
    for pass in passes(is_quick, &words) {
        // Disks in memory are mounted, as only root may.
        let servers = if network == "namespaces" && !is_quick { pass.servers } else { pass.any_servers };
        let up = ["up", "data", "--network", network, "--mirror-topics", "users\\.v1"];
        // Beside the folder that is wiped.
        let report = folder.with_file_name(pass.report);
        let report = ["--report", report.to_str().context("a path of letters")?];
        let report = if words.contains(&"--report") { &[][..] } else { &report[..] };
        let faults = if is_quick || words.contains(&"--only") { &[][..] } else { pass.faults };
        let drive = [&["faults", "--programs", programs], report, faults, &words[..]].concat();
        let driven = testbed(&[&up, servers].concat()).and_then(|()| testbed(&drive));
        done = done.and(driven).and(testbed(&["down", "--wipe"]));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_is_heeded_wherever_it_stands() {
        let quick = [&QUICK[..], &["--only", "cut", "--seed", "7"]].concat();
        for words in [
            ["--quick", "--only", "cut", "--seed", "7"],
            ["--only", "cut", "--quick", "--seed", "7"],
            ["--only", "cut", "--seed", "7", "--quick"],
        ] {
            assert_eq!(asked(&words), (true, quick.clone()), "{words:?}");
        }
        assert_eq!(asked(&["--seed", "7"]), (false, vec!["--seed", "7"]));
    }
}
