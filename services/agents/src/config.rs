//! What runs can be told, and the files of further workflows.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use echotune_kit::config::Period;
use serde::{Deserialize, Serialize};

use crate::Options;

/// Files in a folder of workflows at the most.
const MAX_WORKFLOWS: usize = 1_000;
/// Longest workflow file, in bytes.
const MAX_WORKFLOW_BYTES: u64 = 256 << 10;

/// The section `[agents]`, with `defaults.toml` beside this file as reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsConfig {
    /// Folder of further workflow files; empty for `workflows` in the data folder, if there is one.
    pub workflows: PathBuf,
    /// Runs carried out at one time.
    pub concurrent_runs: usize,
    /// How long ended runs are kept.
    pub run_retention: Period,
}

impl AgentsConfig {
    /// What is wrong: the key at fault and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.run_retention.0 == Duration::ZERO {
            faults.push(("agents.run_retention", "must be longer than 0s".to_owned()));
        }
        let runs = self.concurrent_runs;
        if !(1..=1_000).contains(&runs) {
            faults.push(("agents.concurrent_runs", format!("{runs} is not between 1 and 1000")));
        }
        faults
    }

    /// How the service works.
    pub fn options(&self) -> Options {
        Options { concurrent: self.concurrent_runs, retention: self.run_retention.0, ..Options::default() }
    }

    /// Names and texts of the workflow files beside those that come along: in the folder that is told, else in
    /// `otherwise`, if there is such a folder. Blocks.
    ///
    /// # Errors
    /// A folder or a file cannot be read, or there is too much; the text names it.
    pub fn sources(&self, otherwise: Option<&Path>) -> io::Result<Vec<(String, String)>> {
        let is_named = !self.workflows.as_os_str().is_empty();
        let Some(folder) = (if is_named { Some(self.workflows.as_path()) } else { otherwise }) else {
            return Ok(Vec::new());
        };
        let told = |cause: io::Error| io::Error::new(cause.kind(), format!("folder {}: {cause}", folder.display()));
        let files = match fs::read_dir(folder) {
            Ok(files) => files,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && !is_named => return Ok(Vec::new()),
            Err(cause) => return Err(told(cause)),
        };
        let mut paths = files.map(|file| Ok(file?.path())).collect::<io::Result<Vec<PathBuf>>>().map_err(told)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
        paths.sort();
        if paths.len() > MAX_WORKFLOWS {
            let why = format!("folder {} holds more than {MAX_WORKFLOWS} workflows", folder.display());
            return Err(io::Error::other(why));
        }
        paths.into_iter().map(|path| workflow(&path)).collect()
    }
}

fn workflow(path: &Path) -> io::Result<(String, String)> {
    let told = |cause: io::Error| io::Error::new(cause.kind(), format!("workflow {}: {cause}", path.display()));
    let bytes = fs::metadata(path).map_err(told)?.len();
    if bytes > MAX_WORKFLOW_BYTES {
        let why = format!("it has {bytes} bytes; at most {MAX_WORKFLOW_BYTES} are read");
        return Err(told(io::Error::other(why)));
    }
    Ok((path.display().to_string(), fs::read_to_string(path).map_err(told)?))
}
