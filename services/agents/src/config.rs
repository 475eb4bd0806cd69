//! What runs can be told, and the files of further workflows.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use echotune_kit::{auth::Token, config::Period};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{McpServer, McpTransport, Options};

/// Files in a folder of workflows at the most.
const MAX_WORKFLOWS: usize = 1_000;
/// Longest workflow file, in bytes.
const MAX_WORKFLOW_BYTES: u64 = 256 << 10;

/// The section `[agents]`, with `defaults.toml` beside this file as reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsConfig {
    /// Folder of further workflow files; empty for `workflows` in the data folder, if there is one.
    pub workflows: PathBuf,
    /// MCP servers beside those of the platform, each `NAME=URL`.
    pub servers: Vec<String>,
    /// File with the token to show them; empty for none.
    pub servers_token_file: PathBuf,
    /// Runs carried out at one time.
    pub concurrent_runs: usize,
    /// How long ended runs are kept.
    pub run_retention: Period,
}

impl AgentsConfig {
    /// What is wrong: the key at fault and why. `allow_plaintext` says that the network is trusted.
    pub fn faults(&self, allow_plaintext: bool) -> Vec<(&'static str, String)> {
        let mut faults = self.servers_faults(allow_plaintext);
        if self.run_retention.0 == Duration::ZERO {
            faults.push(("agents.run_retention", "must be longer than 0s".to_owned()));
        }
        let runs = self.concurrent_runs;
        if !(1..=1_000).contains(&runs) {
            faults.push(("agents.concurrent_runs", format!("{runs} is not between 1 and 1000")));
        }
        faults
    }

    fn servers_faults(&self, allow_plaintext: bool) -> Vec<(&'static str, String)> {
        let shows_token = !self.servers_token_file.as_os_str().is_empty();
        let wrong = |at: usize, text: &String| {
            let Some((name, url)) = named(text) else {
                return Some(format!("'{text}' is not NAME=URL, with a URL such as http://127.0.0.1:7480/mcp"));
            };
            if self.servers[..at].iter().filter_map(|other| named(other)).any(|(other, _)| other == name) {
                return Some(format!("'{name}' is named twice"));
            }
            let is_here = url.host_str().is_some_and(|host| {
                let host = host.trim_matches(['[', ']']);
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            });
            (shows_token && !is_here && !allow_plaintext).then(|| {
                format!(
                    "{url} is not on the loopback interface, and the token would travel in clear; set \
                     allow_plaintext = true where the network itself is trusted"
                )
            })
        };
        let faults = self.servers.iter().enumerate().filter_map(|(at, text)| wrong(at, text));
        let mut faults: Vec<_> = faults.map(|why| ("agents.servers", why)).collect();
        if shows_token && self.servers.is_empty() {
            faults.push(("agents.servers_token_file", "does nothing without agents.servers; set that too".to_owned()));
        }
        faults
    }

    /// The MCP servers beside those of the platform. Blocks.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn further(&self) -> io::Result<Vec<McpServer>> {
        let file = &self.servers_token_file;
        let token = if file.as_os_str().is_empty() { None } else { Some(Token::read_file(file)?) };
        let server = |(name, url): (&str, Url)| McpServer {
            name: name.to_owned(),
            transport: McpTransport::Http { url: url.into(), token: token.clone() },
        };
        Ok(self.servers.iter().filter_map(|text| named(text)).map(server).collect())
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

/// A name and a URL of HTTP: this program speaks no TLS to servers of tools.
fn named(text: &str) -> Option<(&str, Url)> {
    let (name, url) = text.split_once('=')?;
    let url = Url::parse(url.trim()).ok().filter(|url| url.scheme() == "http" && url.host().is_some())?;
    let name = name.trim();
    (!name.is_empty()).then_some((name, url))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(servers: &[&str], token: &str) -> AgentsConfig {
        AgentsConfig {
            workflows: PathBuf::new(),
            servers: servers.iter().map(|&server| server.to_owned()).collect(),
            servers_token_file: token.into(),
            concurrent_runs: 1,
            run_retention: Period(Duration::from_secs(1)),
        }
    }

    #[test]
    fn servers_are_named_and_shown_a_token_where_nobody_listens() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        fs::write(&file, "a token of those who may call tools").expect("written");
        let near = config(&["time=http://127.0.0.1:7480/servers/time/mcp"], &file.display().to_string());
        assert_eq!(near.faults(false), []);
        let further = near.further().expect("a token");
        let McpTransport::Http { url, token: Some(_) } = &further[0].transport else { panic!("{further:?}") };
        assert_eq!((further[0].name.as_str(), url.as_str()), ("time", "http://127.0.0.1:7480/servers/time/mcp"));

        let far = config(&["time=http://gateway.echotune:80/mcp"], "token");
        assert!(far.faults(false)[0].1.contains("in clear"));
        assert_eq!(far.faults(true), []);
        assert!(far.further().is_err(), "no such file");
        let told =
            |servers: &[&str]| config(servers, "").faults(false).into_iter().map(|(_, why)| why).collect::<Vec<_>>();
        for wrong in ["http://127.0.0.1:1/mcp", "=http://127.0.0.1:1/mcp", "time=https://x/mcp", "time=nowhere"] {
            assert!(told(&[wrong])[0].contains(wrong), "{wrong}");
        }
        assert_eq!(told(&["a=http://x/1", "a=http://x/2"]), ["'a' is named twice"]);
        assert_eq!(config(&[], "token").faults(true)[0].0, "agents.servers_token_file");
    }
}
