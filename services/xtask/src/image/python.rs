//! A server for Python: the packages of a list, and the interpreter of this machine with what it brings.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{Options, Started, adapted, text, tree};
use crate::e2e::{run, target};

const LIST: &str = "services/xtask/images/mcp-time/requirements.txt";
/// The interpreter by a name without its version.
const PROGRAM: &str = "/usr/local/bin/python3";
/// Where packages are in the image.
const SITE: &str = "app";
/// What the interpreter is told: where it is, where packages are, and that nothing is written.
pub(super) const ENV: &[&str] =
    &["PYTHONHOME=/usr/local", "PYTHONPATH=/app", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"];
/// Parts of the standard library that no server needs.
const LEFT_OUT: [&str; 12] = [
    "__pycache__",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "venv",
];

pub(super) fn fill(root: &Path, options: &Options) -> anyhow::Result<Started> {
    let [program, library, version] = interpreter()?;
    let named = format!("python{version}");
    tree::copy(Path::new(&program), &root.join("usr/local/bin").join(&named))?;
    symlink(&named, root.join(&PROGRAM[1..]))?;
    let wanted = |name: &str| {
        let tested = ["_test", "_tkinter", "_xxtest", "config-"].iter().any(|start| name.starts_with(start));
        !LEFT_OUT.contains(&name) && !tested
    };
    tree::copy_all(Path::new(&library), &root.join(format!("usr/local/lib/python{version}")), &wanted)?;
    let packages = |name: &str| !["__pycache__", "bin"].contains(&name);
    tree::copy_all(&installed()?, &root.join(SITE), &packages)?;
    compile(&program, root)?;
    adapted(root, options, &[PROGRAM, "-m", "mcp_server_time"])
}

/// The program of the interpreter, its standard library and its version.
fn interpreter() -> anyhow::Result<[String; 3]> {
    const TELL: &str = "import os, sys, sysconfig\n\
        print(os.path.realpath(sys.executable), sysconfig.get_path('stdlib'), sep='\\n')\n\
        print('%d.%d' % sys.version_info[:2])";
    let told = Command::new("python3").args(["-c", TELL]).output().context("python3 cannot be run")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let lines: Vec<String> = told.lines().map(str::to_owned).collect();
    lines.try_into().map_err(|lines| anyhow::anyhow!("python3 tells {lines:?} of itself"))
}

/// The packages, installed once for each list.
fn installed() -> anyhow::Result<PathBuf> {
    let list = fs::read_to_string(LIST).context("run this from the root of the repository")?;
    let folder = target().join("images/packages/mcp-time");
    let (mark, site) = (folder.join("installed.txt"), folder.join("site"));
    if fs::read_to_string(&mark).is_ok_and(|found| found == list) {
        return Ok(site);
    }
    tree::fresh(&folder)?;
    let words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--disable-pip-version-check"];
    let into = ["--only-binary", ":all:", "--target", text(&site)?, "--requirement", LIST];
    run(Command::new("python3").args(words).args(into))?;
    fs::write(mark, list)?;
    Ok(site)
}

/// Compiles all of it, so that a pod need not when it starts. What is compiled is believed without a look at the
/// source, knows no path of this machine, and its sets are ordered alike each time.
fn compile(program: &str, root: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(["-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash"]);
    command.args(["-s", text(root)?, "-p", "/"]).arg(root.join("usr/local/lib")).arg(root.join(SITE));
    let done = command.env("PYTHONHASHSEED", "0").output().context("python3 cannot be run")?;
    // Some packages bring templates that are no Python: they say so, and stay as they are.
    ensure!(done.status.code().is_some(), "python3 was ended: {}", done.status);
    Ok(())
}
