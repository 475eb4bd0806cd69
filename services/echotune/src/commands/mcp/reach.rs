//! `echotune mcp inspect` and `echotune mcp call`.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use echotune_gateway::{
    Effect, FileRules, Listed, Reach as Reaching, ServersFile,
    catalogue::{EffectClass, Launch, Launched, runtime},
};
use echotune_kit::{auth::Token, config::Period};
use echotune_model::{ErrorKind, Fault};
use rmcp::model::Tool;
use serde_json::{Map, Value};

use super::{
    Output,
    add::pair,
    session::{About, Session, Way},
    shelf::{Shelf, Shelved},
    unlisted,
};
use crate::output;

const AFTER_REACH: &str = "\
A program is started as a gateway starts it: within the limits of its table or of its entry in the catalogue, and \
confined to what that lets it read, write and connect to. With --servers-file its table says how, by `reads`, \
`writes`, `connects` and `confinement`. One of the catalogue reads the paths that --with gives it, and none that its \
entry names by itself; what it gets at is told on standard error.

SIGINT and SIGTERM end the program too, a second one at once; the exit code is then 130 or 143.";

/// Which server, and how it is reached.
#[derive(Debug, Args)]
struct Reach {
    /// The server: a URL, a server of a gateway's file, or a name of the catalogue.
    server: String,
    /// Look for the server in this file with the servers of a gateway.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["with", "registry", "from", "confinement"])]
    servers_file: Option<PathBuf>,
    /// Whether a server of the catalogue is confined: not at all, as far as the system can, or else not started.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = ["none", "auto", "required"])]
    confinement: String,
    /// A setting of an entry of the catalogue.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    with: Vec<(String, String)>,
    /// File with a token that is shown to a server at a URL; that of the data folder for the platform's own servers.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long the server may take for its start and for each answer.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Period,
    /// Show what a started server writes to its standard error.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    shelf: Shelf,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_REACH)]
pub(crate) struct InspectArguments {
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_REACH)]
pub(crate) struct CallArguments {
    #[command(flatten)]
    reach: Reach,
    /// The tool, as the server names it.
    tool: String,
    /// An argument: JSON where it is, else text.
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "json")]
    args: Vec<(String, String)>,
    /// All arguments, as one JSON object.
    #[arg(long)]
    json: Option<String>,
}

/// A server as it is reached, with what is known of its tools.
struct Reached {
    way: Way,
    /// What calls change, by whoever declares it.
    effects: BTreeMap<String, String>,
}

/// What a server was found to be.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) about: About,
    pub(crate) transport: &'static str,
    pub(crate) connected: Duration,
    pub(crate) listed: Duration,
    pub(crate) tools: Vec<InspectedTool>,
    /// Tools that are declared and that the server does not have.
    pub(crate) missing: Vec<String>,
}

/// A tool of a server.
#[derive(Debug)]
pub(crate) struct InspectedTool {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) effect: String,
    /// Who says so: `declared` by the catalogue or the configuration, `annotations` of the server, or `nobody`.
    pub(crate) by: &'static str,
}

impl Reach {
    async fn resolve(&self, data: &Path, rules: FileRules) -> anyhow::Result<Reached> {
        if self.server.starts_with("http://") || self.server.starts_with("https://") {
            let headers = self.token(None)?.into_iter().collect();
            return Ok(Reached { way: Way::Http { url: self.server.clone(), headers }, effects: BTreeMap::new() });
        }
        if let Some(file) = &self.servers_file {
            return configured(file, &self.server, rules);
        }
        let entry = self.shelf.find(data, &self.server).await?;
        let effects = runtime(&entry.server).effects;
        let effects = effects.into_iter().map(|(tool, effect)| (tool, effect.name().to_owned())).collect();
        let launch =
            Launch::of(&entry.server).map_err(|why| Fault::new(ErrorKind::FailedPrecondition, why.to_string()))?;
        let mut given: BTreeMap<_, _> = self.with.iter().cloned().collect();
        if entry.is_ours() && !given.contains_key("token") {
            let token = self.token(Some(data))?.map(|(_, header)| header);
            given.extend(
                token.and_then(|header| Some(("token".to_owned(), header.strip_prefix("Bearer ")?.to_owned()))),
            );
        }
        let launched = launch.with(&given).map_err(|why| Fault::invalid(format!("{}: {why}", entry.called())))?;
        let way = match launched {
            Launched::Http { url, headers } => Way::Http { url, headers },
            program @ Launched::Stdio { .. } => Way::Program(Box::new(self.unlisted(&entry, program, &rules)?)),
        };
        Ok(Reached { way, effects })
    }

    /// A program of the catalogue, of which it is told what it gets at.
    fn unlisted(&self, entry: &Shelved, program: Launched, rules: &FileRules) -> anyhow::Result<Listed> {
        let listed = unlisted::listed(entry, program, &self.with, &self.confinement, rules)?;
        if let Reaching::Process(process) = &listed.server().reach {
            eprintln!("{}", unlisted::told(entry.called(), process));
        }
        Ok(listed)
    }

    /// The header with a token, if there is one to be shown.
    fn token(&self, data: Option<&Path>) -> anyhow::Result<Option<(String, String)>> {
        let token = match (&self.token_file, data) {
            (Some(file), _) => Some(Token::read_file(file).context("--token-file")?),
            (None, Some(data)) => match Token::read(data) {
                Ok(token) => Some(token),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
                Err(cause) => return Err(cause).context("the token of the data folder cannot be read"),
            },
            (None, None) => None,
        };
        Ok(token.map(|token| ("authorization".to_owned(), token.header())))
    }

    async fn session(&self, reached: &Reached) -> anyhow::Result<Session> {
        let opened = Session::open(&reached.way, self.timeout.0, self.verbose).await;
        opened.with_context(|| format!("server '{}'", output::printable(&self.server)))
    }
}

/// A server of a file of a gateway.
fn configured(path: &Path, name: &str, rules: FileRules) -> anyhow::Result<Reached> {
    let (_, listed) = ServersFile::read(path, rules)?;
    let known: Vec<_> = listed.iter().map(|one| one.name().to_owned()).collect();
    let one = listed.into_iter().find(|one| one.name() == name).ok_or_else(|| {
        let why = format!("{} has no server '{name}'; it has {}", path.display(), known.join(", "));
        Fault::new(ErrorKind::NotFound, why)
    })?;
    let effects = one.server().effects.iter().map(|(tool, effect)| (tool.clone(), class(*effect).name().to_owned()));
    let effects = effects.collect();
    let way = match &one.server().reach {
        Reaching::Http { endpoints, authorization } => {
            let authorization = authorization.as_ref().and_then(|secret| secret.reveal());
            let headers = authorization.map(|value| ("authorization".to_owned(), value.to_owned()));
            let url = endpoints.first().cloned().unwrap_or_default();
            Way::Http { url, headers: headers.into_iter().collect() }
        }
        Reaching::Process(_) | Reaching::Pods(_) => Way::Program(Box::new(one)),
    };
    Ok(Reached { way, effects })
}

const fn class(effect: Effect) -> EffectClass {
    match effect {
        Effect::Reads => EffectClass::Reads,
        Effect::Idempotent => EffectClass::Idempotent,
        Effect::Once => EffectClass::Once,
    }
}

fn effect_of(tool: &Tool, declared: &BTreeMap<String, String>) -> (String, &'static str) {
    if let Some(effect) = declared.get(tool.name.as_ref()) {
        return (effect.clone(), "declared");
    }
    let hints = tool.annotations.clone().unwrap_or_default();
    match (hints.read_only_hint, hints.idempotent_hint) {
        (Some(true), _) => (EffectClass::Reads.name().to_owned(), "annotations"),
        (_, Some(true)) => (EffectClass::Idempotent.name().to_owned(), "annotations"),
        (None, None) => (EffectClass::Once.name().to_owned(), "nobody"),
        _ => (EffectClass::Once.name().to_owned(), "annotations"),
    }
}

impl InspectArguments {
    pub(super) async fn run(&self, data: &Path, rules: FileRules, output: Output) -> anyhow::Result<()> {
        let reached = self.reach.resolve(data, rules).await?;
        let mut session = self.reach.session(&reached).await?;
        let about = session.about();
        let tools = if about.capabilities.iter().any(|name| name == "tools") {
            session.tools().await
        } else {
            Ok((Vec::new(), Duration::ZERO))
        };
        let connected = session.connected;
        session.close().await;
        let (tools, listed) = tools.with_context(|| format!("server '{}'", output::printable(&self.reach.server)))?;
        let is_there = |name: &String| tools.iter().any(|tool| tool.name == name.as_str());
        let missing = reached.effects.keys().filter(|name| !is_there(name)).cloned().collect();
        let tools = tools.iter().map(|tool| {
            let (effect, by) = effect_of(tool, &reached.effects);
            let description = tool.description.as_deref().unwrap_or_default().to_owned();
            InspectedTool { name: tool.name.to_string(), description, effect, by }
        });
        let transport = match reached.way {
            Way::Program(_) => "stdio",
            Way::Http { .. } => "streamable-http",
        };
        let found = Inspection { about, transport, connected, listed, tools: tools.collect(), missing };
        output::inspection(&found, output)
    }
}

impl CallArguments {
    fn arguments(&self) -> anyhow::Result<Map<String, Value>> {
        match &self.json {
            Some(text) => serde_json::from_str(text)
                .map_err(|cause| Fault::invalid(format!("--json is no JSON object: {cause}")).into()),
            None => {
                let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
                Ok(self.args.iter().map(|(name, text)| (name.clone(), value(text))).collect())
            }
        }
    }

    pub(super) async fn run(&self, data: &Path, rules: FileRules, output: Output) -> anyhow::Result<()> {
        let arguments = self.arguments()?;
        let reached = self.reach.resolve(data, rules).await?;
        let mut session = self.reach.session(&reached).await?;
        let called = session.call(&self.tool, arguments).await;
        session.close().await;
        let (result, took) = called.with_context(|| format!("server '{}'", output::printable(&self.reach.server)))?;
        output::tool_result(&self.tool, &result, took, output)?;
        if result.is_error == Some(true) {
            anyhow::bail!("tool '{}' says that it failed", output::printable(&self.tool));
        }
        Ok(())
    }
}
