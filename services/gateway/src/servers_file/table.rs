//! A table `[[servers]]`: a server as the file says it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use echotune_autoscaler::Policy;
use echotune_kit::config::{Period, Secret, Size};
use serde::Deserialize;

use super::{Listed, oauth::OauthTable};
use crate::{
    BreakerConfig, Confinement, Effect, EraChoice, ProcessConfig, Reach, ServerConfig, Sharing, metering::Tariff,
};

/// Processes of a server that come and go, where the file does not say how many there may be.
const CHILDREN: u32 = 8;

/// A server by HTTP (`url` or `urls`) or a program (`command`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub(super) name: String,
    url: Option<String>,
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    authorization: Secret,
    oauth: Option<OauthTable>,
    command: Option<PathBuf>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    folder: Option<PathBuf>,
    sharing: Option<Sharing>,
    children: Option<usize>,
    calls_per_child: Option<u32>,
    idle: Option<Period>,
    start: Option<Period>,
    grace: Option<Period>,
    memory: Option<Bytes>,
    files: Option<u64>,
    cpu: Option<u64>,
    file_size: Option<Bytes>,
    confinement: Option<Confinement>,
    #[serde(default)]
    reads: Vec<PathBuf>,
    #[serde(default)]
    writes: Vec<PathBuf>,
    connects: Option<Vec<u16>>,
    #[serde(default)]
    namespaces: bool,
    #[serde(default)]
    unix_sockets: bool,
    era: Option<EraChoice>,
    #[serde(default)]
    effects: BTreeMap<String, Effect>,
    #[serde(default)]
    trust_annotations: bool,
    #[serde(default)]
    forward_caller: bool,
    #[serde(default)]
    keep_session: bool,
    lists_kept: Option<Period>,
    concurrency: Option<usize>,
    queue: Option<usize>,
    queue_wait: Option<Period>,
    per_caller: Option<usize>,
    deadline: Option<Period>,
    deadline_max: Option<Period>,
    failures: Option<u32>,
    rest: Option<Period>,
    rest_max: Option<Period>,
    tariff: Option<Tariff>,
}

/// An amount of bytes, as a number or with its unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Bytes {
    Number(u64),
    Size(Size),
}

impl Table {
    /// The file of the key by which the gateway gets tokens for it.
    pub(super) fn key_file(&self) -> Option<PathBuf> {
        self.oauth.as_ref()?.private_key_file.clone()
    }

    /// Without a number of calls for each process, all that share one are served by one.
    fn policy(&self) -> Result<Option<Policy>, String> {
        let Some(calls_per_pod) = self.calls_per_child else { return Ok(None) };
        if self.sharing != Some(Sharing::All) {
            let shown = self.name.escape_debug();
            return Err(format!("server '{shown}': 'calls_per_child' needs sharing = \"all\""));
        }
        let max_pods = self.children.and_then(|children| children.try_into().ok()).unwrap_or(CHILDREN);
        Ok(Some(Policy { calls_per_pod, max_pods, start_ms: 1_000, tick_ms: 1_000, ..Policy::default() }))
    }

    pub(super) fn listed(self) -> Result<Listed, String> {
        let policy = self.policy()?;
        let tariff = self.tariff.clone();
        if let Some(Err(why)) = tariff.as_ref().map(Tariff::check) {
            return Err(format!("server '{}': tariff: {why}", self.name.escape_debug()));
        }
        Ok(Listed { server: self.server()?, policy, tariff })
    }

    fn server(self) -> Result<ServerConfig, String> {
        let reach = self.reach()?;
        let oauth = self.oauth.map(OauthTable::config).transpose();
        let oauth = oauth.map_err(|why| format!("server '{}': {why}", self.name.escape_debug()))?;
        let base = ServerConfig::new(self.name, reach);
        let time = |period: Option<Period>, otherwise: Duration| period.map_or(otherwise, |period| period.0);
        let breaker = BreakerConfig {
            failures: self.failures.unwrap_or(base.breaker.failures),
            rest: time(self.rest, base.breaker.rest),
            rest_max: time(self.rest_max, base.breaker.rest_max),
        };
        Ok(ServerConfig {
            era: self.era.unwrap_or(base.era),
            effects: self.effects,
            trust_annotations: self.trust_annotations,
            forward_caller: self.forward_caller,
            oauth,
            keep_session: self.keep_session,
            lists_kept: time(self.lists_kept, base.lists_kept),
            concurrency: self.concurrency.unwrap_or(base.concurrency),
            queue: self.queue.unwrap_or(base.queue),
            queue_wait: time(self.queue_wait, base.queue_wait),
            per_caller: self.per_caller.unwrap_or(base.per_caller),
            deadline: time(self.deadline, base.deadline),
            deadline_max: time(self.deadline_max, base.deadline_max),
            breaker,
            ..base
        })
    }

    fn reach(&self) -> Result<Reach, String> {
        let shown = self.name.escape_debug();
        match (&self.command, self.url.is_some() || !self.urls.is_empty()) {
            (Some(command), false) if self.authorization == Secret::default() => {
                Ok(Reach::Process(self.process(command)))
            }
            (Some(_), false) => Err(format!("server '{shown}': 'authorization' is for servers by HTTP; use 'env'")),
            (None, true) if self.is_program() => {
                Err(format!("server '{shown}': args, env, folder, sharing, limits and confinement are for a 'command'"))
            }
            (None, true) => Ok(Reach::Http {
                endpoints: self.url.iter().chain(&self.urls).cloned().collect(),
                authorization: Some(self.authorization.clone()).filter(|secret| *secret != Secret::default()),
            }),
            (Some(_), true) => Err(format!("server '{shown}': has a 'command' and a 'url'; keep one of them")),
            (None, false) => Err(format!("server '{shown}': has neither 'url' nor 'command'")),
        }
    }

    /// Whether it says what only a program has.
    fn is_program(&self) -> bool {
        !self.args.is_empty()
            || !self.env.is_empty()
            || self.folder.is_some()
            || self.sharing.is_some()
            || self.children.is_some()
            || self.calls_per_child.is_some()
            || self.idle.is_some()
            || self.start.is_some()
            || self.grace.is_some()
            || self.memory.is_some()
            || self.files.is_some()
            || self.cpu.is_some()
            || self.file_size.is_some()
            || self.confinement.is_some()
            || !self.reads.is_empty()
            || !self.writes.is_empty()
            || self.connects.is_some()
            || self.namespaces
            || self.unix_sockets
    }

    fn process(&self, command: &Path) -> ProcessConfig {
        let base = ProcessConfig::new(command, &self.args);
        let time = |period: Option<Period>, otherwise: Duration| period.map_or(otherwise, |period| period.0);
        let bytes = |bytes: &Bytes| match bytes {
            Bytes::Number(number) => *number,
            Bytes::Size(size) => size.0,
        };
        ProcessConfig {
            env: self.env.clone(),
            folder: self.folder.clone(),
            sharing: self.sharing.unwrap_or(base.sharing),
            children: self.children.unwrap_or(base.children),
            idle: time(self.idle, base.idle),
            start: time(self.start, base.start),
            grace: time(self.grace, base.grace),
            memory: self.memory.as_ref().map(bytes).or(base.memory),
            files: self.files.or(base.files),
            cpu: self.cpu.or(base.cpu),
            file_size: self.file_size.as_ref().map(bytes).or(base.file_size),
            confinement: self.confinement.unwrap_or(base.confinement),
            reads: self.reads.clone(),
            writes: self.writes.clone(),
            connects: self.connects.clone(),
            namespaces: self.namespaces,
            unix_sockets: self.unix_sockets,
            ..base
        }
    }
}
