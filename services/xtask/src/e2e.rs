//! What others make of what leaves the platform: `cargo xtask e2e` runs real tools beside it and says by name
//! what it ran on. Packages of Python are installed into an environment of their own below `target/e2e`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use crate::{cache, conformance, data, kubernetes, mcp, spark};

const ENGINE: &str = "services/engine/tests/python";
const RECOMMENDATIONS: &str = "services/recommendations/tests/python";

/// Suites by name, with the folder of their script and packages.
const SUITES: [(&str, &str, Suite); 5] = [
    ("onnx", ENGINE, |python, folder| run(&mut script(python, ENGINE, "scores.py", folder))),
    ("explanations", ENGINE, |python, folder| run(&mut script(python, ENGINE, "explanations.py", folder))),
    ("mlflow", RECOMMENDATIONS, |python, folder| {
        crate::cargo(&[
            "build",
            "--quiet",
            "--locked",
            "--package",
            "echotune-recommendations",
            "--features",
            "mlflow",
            "--example",
            "mlflow",
        ])?;
        let client = target().join("debug/examples/mlflow");
        run(script(python, RECOMMENDATIONS, "tracking.py", folder).arg(client))
    }),
    ("releases", RECOMMENDATIONS, |python, folder| {
        crate::cargo(&["build", "--quiet", "--locked", "--package", "echotune", "--features", "mlflow"])?;
        run(script(python, RECOMMENDATIONS, "releases.py", folder).arg(target().join("debug/echotune")))
    }),
    (spark::SUITE, spark::PACKAGES, spark::suite),
];

type Suite = fn(&Path, &Path) -> anyhow::Result<()>;

/// Suites on servers that are started for them.
const OF_SERVERS: [(&str, OfServers); 5] = [
    (data::SUITE, data::suite),
    (cache::SUITE, |_| cache::suite()),
    (kubernetes::SUITE, |_| kubernetes::suite()),
    (conformance::SUITE, conformance::suite),
    (mcp::SUITE, mcp::suite),
];

/// What is told more words, if it takes any.
type OfServers = fn(&[&str]) -> anyhow::Result<()>;

/// Runs all suites, or the one of a name, which is told `words`.
pub(crate) fn run_all(wanted: Option<&str>, words: &[&str]) -> anyhow::Result<()> {
    let told_more = [data::SUITE, conformance::SUITE, mcp::SUITE];
    ensure!(
        words.is_empty() || wanted.is_some_and(|wanted| told_more.contains(&wanted)),
        "only the suites {} are told more",
        told_more.join(" and ")
    );
    for (name, suite) in OF_SERVERS.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name)) {
        suite(words).with_context(|| format!("suite '{name}' failed; repeat it: `cargo xtask e2e {name}`"))?;
        if wanted.is_some() {
            return Ok(());
        }
    }
    let suites: Vec<_> = SUITES.iter().filter(|(name, ..)| wanted.is_none_or(|wanted| wanted == *name)).collect();
    if suites.is_empty() {
        let names = SUITES.map(|(name, ..)| name).join(", ");
        let others = OF_SERVERS.map(|(name, _)| name).join(", ");
        bail!("no suite is named '{}'; there are {names}, {others}", wanted.unwrap_or_default());
    }
    let folder = target().join("e2e/export");
    export(&folder)?;
    for (name, packages, suite) in suites {
        let python = environment(Path::new(packages))?;
        println!("e2e {name}: runs on {}", version(&python)?);
        suite(&python, &folder)
            .with_context(|| format!("suite '{name}' failed; repeat it: `cargo xtask e2e {name}`"))?;
        println!("e2e {name}: passed");
    }
    Ok(())
}

/// Writes a model in every way that it leaves the engine.
fn export(folder: &Path) -> anyhow::Result<()> {
    let folder = folder.to_str().context("a path of letters")?;
    let example = ["--package", "echotune-engine", "--features", "eval", "--example", "export"];
    crate::cargo(&[&["run", "--quiet", "--locked"], &example[..], &["--", folder]].concat())
}

/// An environment of Python that holds the packages of a folder; made once for each list of them.
pub(crate) fn environment(packages: &Path) -> anyhow::Result<PathBuf> {
    let list = packages.join("requirements.txt");
    let wanted = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let owner = packages.iter().nth(1).and_then(|name| name.to_str()).context("a folder below services")?;
    let folder = target().join("e2e").join(format!("python-{owner}"));
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    println!("e2e: installs {} into {}", wanted.split_whitespace().collect::<Vec<_>>().join(" "), folder.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        .context("Python 3 with venv is needed")?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&list))?;
    fs::write(installed, wanted)?;
    Ok(python)
}

fn version(python: &Path) -> anyhow::Result<String> {
    let told = Command::new(python).arg("--version").output()?;
    Ok(format!("{} ({})", String::from_utf8_lossy(&told.stdout).trim(), python.display()))
}

pub(crate) fn script(python: &Path, folder: &str, name: &str, export: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(folder).join(name)).arg(export).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}
