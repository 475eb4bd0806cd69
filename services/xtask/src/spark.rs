//! Training on Apache Spark: the suite that goes the whole way with a real one, and `cargo xtask spark`, which
//! compares its factors with ours on Gowalla.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    Excluded,
    e2e::{environment, run as run_command, script, target},
};

pub(crate) const SUITE: &str = "spark";
pub(crate) const PACKAGES: &str = "services/echotune/tests/python";
/// What als.py is told for Gowalla; what is given later wins.
const CHOSEN: [&str; 10] = ["--kind", "artist", "--weights", "one", "--rank", "64", "--alpha", "100", "--reg", "3"];
const JOB: &str = "services/recommendations/spark/als.py";

/// Goes from histories to lists through Spark, with the command as it is built for it.
pub(crate) fn suite(python: &Path, folder: &Path) -> anyhow::Result<()> {
    java()?;
    crate::cargo(&["build", "--quiet", "--locked", "--package", "echotune", "--features", "spark"])?;
    run_command(script(python, PACKAGES, "spark.py", folder).arg(target().join("debug/echotune")).arg(JOB))
}

/// Compiles the job where there is a Python.
pub(crate) fn check(excluded: &mut Excluded) -> anyhow::Result<()> {
    let compile = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
    match Command::new("python3").args(["-c", compile, JOB]).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{JOB} is no Python: {status}"),
        Err(_) => {
            excluded.add("python: no python3, so that als.py was not compiled");
            Ok(())
        }
    }
}

/// `--data DIR [OPTION of als.py]…`: trains on Gowalla with Spark and judges beside our iALS; fails when recall or
/// NDCG differ by more than 3 %. Spark trains twice: without the validation part, by which it is chosen how listeners
/// are folded in, and with it.
pub(crate) fn run(words: &[&str]) -> anyhow::Result<()> {
    let ["--data", data, options @ ..] = words else {
        bail!("usage: cargo xtask spark --data DIR [--rank 64] [--reg R] [--alpha A] [--iterations 15]");
    };
    java()?;
    let python = environment(Path::new(PACKAGES))?;
    let folder = target().join("e2e/spark");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let [train, test] = ["train.txt", "test.txt"].map(|file| format!("{data}/gowalla/{file}"));
    let mut factors = Vec::new();
    for part in ["train", "whole"] {
        fs::create_dir_all(folder.join(part))?;
        let (export, fitted) = (folder.join(part).join("export"), folder.join(part).join("factors"));
        example(&["write", &train, part, path(&export)?])?;
        fit(&python, &export, &fitted, options)?;
        factors.push(fitted);
    }
    example(&["judge", &train, &test, path(&factors[0])?, path(&factors[1])?])
}

/// Runs the job on two cores of this machine.
fn fit(python: &Path, export: &Path, factors: &Path, options: &[&str]) -> anyhow::Result<()> {
    let mut job = Command::new(python);
    job.arg(JOB).arg("--input").arg(export).arg("--output").arg(factors).args(CHOSEN).args(options);
    let memory = env::var("SPARK_DRIVER_MEMORY").unwrap_or_else(|_| "5g".into());
    job.env("PYSPARK_PYTHON", python).env("SPARK_LOCAL_IP", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    job.env("PYSPARK_SUBMIT_ARGS", format!("--master local[2] --driver-memory {memory} pyspark-shell"));
    run_command(&mut job)
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path of letters")
}

fn example(words: &[&str]) -> anyhow::Result<()> {
    const OF: [&str; 4] = ["--package", "echotune-recommendations", "--features", "spark"];
    let run = ["run", "--quiet", "--release", "--locked", "--example", "spark_gowalla"];
    crate::cargo(&[&run[..], &OF[..], &["--"], words].concat())
}

/// Spark runs on Java 17 or newer.
fn java() -> anyhow::Result<()> {
    let found = Command::new("java").arg("-version").output();
    found.context("Apache Spark needs Java 17 or newer on the path").map(|_| ())
}
