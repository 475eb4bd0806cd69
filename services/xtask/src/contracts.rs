//! The contracts: lint, and what would break a caller of the last release.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::Excluded;

const BASE: &str = "target/xtask/contracts-before";

/// Lints the contracts and compares them with the last tag, else with main, else with the commit
/// before. Needs `buf` on the path or named by BUF; what cannot be done is said and counted.
pub(crate) fn check(excluded: &mut Excluded) -> anyhow::Result<()> {
    let buf = env::var_os("BUF").map_or_else(|| PathBuf::from("buf"), PathBuf::from);
    if Command::new(&buf).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        excluded.add("proto: no `buf` on the path or in BUF; install it with `npm install -g @bufbuild/buf`");
        return Ok(());
    }
    let run = |arguments: &[&str]| -> anyhow::Result<()> {
        let done = Command::new(&buf).args(arguments).status()?;
        ensure!(done.success(), "buf {} ended with {done}", arguments.join(" "));
        Ok(())
    };
    run(&["lint", "proto"])?;
    let Some(base) = base()? else {
        excluded.add("proto: nothing to compare the contracts with: no tag, no main, no commit before this one");
        return Ok(());
    };
    extract(&base)?;
    println!("the contracts are compared with {base}");
    run(&["breaking", "proto", "--against", &format!("{BASE}/proto")])
}

/// The revision to compare with.
fn base() -> anyhow::Result<Option<String>> {
    if let Some(tag) = git(&["describe", "--tags", "--abbrev=0", "HEAD"])? {
        return Ok(Some(tag));
    }
    let head = git(&["rev-parse", "HEAD"])?;
    for name in ["origin/main", "main", "HEAD^"] {
        let found = git(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])?;
        if found.is_some() && found != head {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// What git answers; nothing when it refuses.
fn git(arguments: &[&str]) -> anyhow::Result<Option<String>> {
    let done = Command::new("git").args(arguments).output().context("git cannot be run")?;
    Ok(done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned()))
}

fn extract(revision: &str) -> anyhow::Result<()> {
    let folder = Path::new(BASE);
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let archive = folder.join("proto.tar");
    let output = format!("--output={}", archive.display());
    if git(&["archive", &output, revision, "proto"])?.is_none() {
        bail!("git cannot read proto/ of {revision}");
    }
    let done = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder).status()?;
    ensure!(done.success(), "tar ended with {done}");
    Ok(())
}
