//! A Python subprocess that answers jobs, one line of JSON each.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail};
use echotune_engine::Interactions;
use serde_json::Value;
use tempfile::TempDir;

/// What every script begins with: how jobs come and answers go.
const PRELUDE: &str = include_str!("prelude.py");

/// The subprocess, with a folder that it shares with us.
pub(crate) struct Python {
    child: Child,
    jobs: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Drop for Python {
    fn drop(&mut self) {
        // Without jobs it ends by itself; one that is at work is not waited for.
        self.jobs = None;
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

impl Python {
    /// Starts a script that goes on from the prelude.
    pub(crate) fn start(python: &Path, script: &str) -> anyhow::Result<Self> {
        let folder = TempDir::new().context("no temporary folder can be made")?;
        let path = folder.path().join("peers.py");
        fs::write(&path, [PRELUDE, script].join("\n\n")).context("the temporary folder cannot be written")?;
        let mut command = Command::new(python);
        command.arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| {
            format!("{} cannot be started; --peers needs Python, --python PATH says which", python.display())
        })?;
        let jobs = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the subprocess has no output")?);
        let mut started = Self { child, jobs, answers, folder };
        let hello = started.answer()?;
        if let Some(missing) = hello["missing"].as_array() {
            let missing: Vec<&str> = missing.iter().filter_map(Value::as_str).collect();
            let (python, missing) = (python.display(), missing.join(" "));
            bail!("{python} lacks {missing}: `{python} -m pip install {missing}`, or name another with --python PATH");
        }
        eprintln!("peers: {}", hello["versions"]);
        Ok(started)
    }

    /// Hands a job over and waits for its answer.
    pub(crate) fn ask(&mut self, job: &Value) -> anyhow::Result<Value> {
        let jobs = self.jobs.as_mut().context("the subprocess has ended")?;
        writeln!(jobs, "{job}").and_then(|()| jobs.flush()).context("the subprocess takes no more jobs")?;
        let answer = self.answer()?;
        if let Some(failed) = answer["failed"].as_str() {
            bail!("{failed}");
        }
        Ok(answer)
    }

    fn answer(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the answer of the subprocess cannot be read")?;
        if line.is_empty() {
            bail!("the subprocess ended without an answer; what it wrote to stderr is above");
        }
        serde_json::from_str(&line).with_context(|| format!("the subprocess answered '{}'", line.trim_end()))
    }

    /// A file in the folder that both read.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a matrix as three files, little-endian, and returns what their names begin with.
    pub(crate) fn written(&self, name: &str, matrix: &Interactions) -> anyhow::Result<PathBuf> {
        let prefix = self.path(name);
        let (mut data, mut indices, mut offsets) = (Vec::new(), Vec::new(), 0_i64.to_le_bytes().to_vec());
        for user in 0..matrix.user_count() {
            for (item, weight) in matrix.entries(user) {
                data.extend(weight.to_le_bytes());
                indices.extend(item.to_le_bytes());
            }
            offsets.extend((indices.len() as u64 / 4).to_le_bytes());
        }
        for (part, bytes) in [("data", data), ("indices", indices), ("indptr", offsets)] {
            fs::write(prefix.with_extension(part), bytes).context("the temporary folder cannot be written")?;
        }
        Ok(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_that_is_not_there_is_named() {
        let error = Python::start(Path::new("no/such/python"), "").err().expect("refused");
        assert!(error.to_string().starts_with("no/such/python cannot be started"), "{error}");
    }
}
