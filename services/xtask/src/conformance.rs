//! The gateway under the conformance suite of the Model Context Protocol, which is a package of Node.js.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::e2e::{run, target};

pub(crate) const SUITE: &str = "conformance";
/// Where the packages are named, the results kept and the failures that are expected told.
const FOLDER: &str = "services/gateway/conformance";

fn version() -> Option<String> {
    let told = Command::new("npm").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

/// Runs the requirement sets of both revisions, as a server and as a client. `words` are `--write` to keep the report, and
/// `--server URL` to put the gateway before another server.
pub(crate) fn suite(words: &[&str]) -> anyhow::Result<()> {
    let mut rest = words;
    while let [first, more @ ..] = rest {
        rest = match (*first, more) {
            ("--write", more) => more,
            ("--server", [_, more @ ..]) => more,
            _ => bail!("usage: cargo xtask e2e {SUITE} [--write] [--server URL]"),
        };
    }
    let Some(version) = version() else {
        println!("EXCLUDED the conformance suite of the protocol: install Node.js with npm");
        return Ok(());
    };
    println!("e2e {SUITE}: runs on npm {version}");
    let packages = installed(Path::new(FOLDER))?;
    crate::cargo(&["build", "--quiet", "--locked", "--package", "echotune-gateway", "--example", "conformance"])?;
    let example = fs::canonicalize(target().join("debug/examples/conformance"))?;
    run(script(&packages).arg("--example").arg(example).args(words))?;
    println!("e2e {SUITE}: passed");
    Ok(())
}

/// Brings what the suite needs.
pub(crate) fn prepare() -> anyhow::Result<()> {
    version().context("the conformance suite of the protocol needs Node.js with npm")?;
    installed(Path::new(FOLDER)).map(|_| ())
}

/// Runs the requirement sets for servers against a gateway in a cluster, as whoever has the token of a file; `keep` has
/// the report kept.
pub(crate) fn in_cluster(gateway: &str, token: &Path, keep: bool) -> anyhow::Result<()> {
    let packages = installed(Path::new(FOLDER))?;
    let mut command = script(&packages);
    command.args(["--gateway", gateway, "--token-file"]).arg(token);
    run(if keep { command.arg("--write") } else { &mut command })
}

/// The script that runs the suite, with what it takes of packages.
fn script(packages: &Path) -> Command {
    let mut command = Command::new(packages.join("node_modules/.bin/node"));
    command.arg(Path::new(FOLDER).join("suite.mjs")).arg("--packages").arg(packages);
    command
}

/// A folder with the packages that `of` names, and their Node.js; made once for each list of them.
fn installed(of: &Path) -> anyhow::Result<std::path::PathBuf> {
    let folder = target().join("e2e/conformance");
    fs::create_dir_all(&folder)?;
    let lock = fs::read_to_string(of.join("package-lock.json")).context("the list of packages")?;
    let done = folder.join("installed.json");
    let folder = fs::canonicalize(folder)?;
    if fs::read_to_string(&done).is_ok_and(|found| found == lock) {
        return Ok(folder);
    }
    for name in ["package.json", "package-lock.json"] {
        fs::copy(of.join(name), folder.join(name))?;
    }
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder))?;
    fs::write(done, lock)?;
    Ok(folder)
}
