//! `echotune mcp add`: from an entry of the catalogue to a table in the file of a gateway's servers.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use echotune_gateway::catalogue::{EgressPolicy, Era, Launch, Launched, Missing, Runtime, Setting, SharedBy, runtime};
use echotune_model::{ErrorKind, Fault};
use serde::Serialize;

use super::{
    Output,
    shelf::{Shelf, Shelved},
};
use crate::{gateway::is_ours, output};

/// Longest configuration that is added to, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Longest name of a server in a gateway.
const MAX_NAME: usize = 32;
/// The port of HTTPS, where packages are fetched from.
const HTTPS: u16 = 443;

const AFTER_ADD: &str = "\
The server is started as its entry says; what that leaves open is given with --with. What its calls change, who shares \
a process and what that may use go into the table too; files that it writes have to be named there by hand, as \
`writes = [\"/data\"]`. A platform that serves the data folder takes it up within \
seconds, at /servers/NAME/mcp and among all others at /mcp. Secrets stand in the file as they were given: keep it to \
its owner.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_ADD)]
pub(crate) struct AddArguments {
    /// The server: its name, without the namespace where that is clear, and with @VERSION for another than the newest.
    name: String,
    /// The file with the servers of a gateway, which that names as `servers_file`; it is made when it is not there
    /// [default: that of the platform, `servers.toml` in the data folder].
    #[arg(long, value_name = "FILE")]
    servers_file: Option<PathBuf>,
    /// Under which name the gateway serves it.
    #[arg(long = "as", value_name = "NAME")]
    called: Option<String>,
    /// A setting of the entry.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    with: Vec<(String, String)>,
    /// Show the table and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    shelf: Shelf,
}

/// `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// A server as a gateway's configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ServerTable {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) authorization: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) command: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    pub(crate) era: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sharing: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connects: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confinement: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) effects: BTreeMap<String, &'static str>,
}

#[derive(Serialize)]
struct File<'t> {
    servers: [&'t ServerTable; 1],
}

/// What was added.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) entry: Shelved,
    pub(crate) table: ServerTable,
    pub(crate) text: String,
    /// `None` when nothing was written.
    pub(crate) config: Option<PathBuf>,
    /// What the entry lets one set.
    pub(crate) settings: Vec<Setting>,
}

impl AddArguments {
    /// `near` is the file with the servers of the platform.
    pub(super) async fn run(&self, data: &Path, near: &Path, output: Output) -> anyhow::Result<()> {
        let entry = self.shelf.find(data, &self.name).await?;
        let called = match &self.called {
            Some(called) => called.clone(),
            None => gateway_name(entry.short()),
        };
        if self.servers_file.is_none() && is_ours(&called) {
            let why = format!("a platform has a server '{called}' of its own; name this one otherwise with --as");
            return Err(Fault::new(ErrorKind::AlreadyExists, why).into());
        }
        let launch = Launch::of(&entry.server).map_err(|why| told(&entry, &why))?;
        let settings = launch.settings();
        let launched = launch.with(&self.with.iter().cloned().collect()).map_err(|why| told(&entry, &why))?;
        let table = table(called, launched, &runtime(&entry.server))?;
        let text = text(&entry, &table)?;
        let file = self.servers_file.as_deref().unwrap_or(near);
        if !self.dry_run {
            if self.servers_file.is_none()
                && let Some(folder) = near.parent()
            {
                fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            }
            append(file, &table.name, &text)?;
        }
        let config = (!self.dry_run).then(|| file.to_owned());
        output::server_added(&Added { entry, table, text, config, settings }, output)
    }
}

fn told(entry: &Shelved, why: &Missing) -> Fault {
    let kind = if *why == Missing::Nothing { ErrorKind::FailedPrecondition } else { ErrorKind::InvalidArgument };
    Fault::new(kind, format!("{}: {why}", entry.called()))
}

/// A name that a gateway takes: lower-case letters, digits and single hyphens within.
fn gateway_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let mut whole = String::new();
    for part in parts {
        let hyphen = usize::from(!whole.is_empty());
        if whole.len() + hyphen + part.len() > MAX_NAME {
            break;
        }
        if hyphen == 1 {
            whole.push('-');
        }
        whole.push_str(part);
    }
    whole
}

pub(super) fn table(name: String, launched: Launched, runtime: &Runtime) -> anyhow::Result<ServerTable> {
    let right = gateway_name(&name) == name && !name.is_empty();
    if !right {
        let why = format!(
            "'{name}' is not 1 to {MAX_NAME} lower-case letters, digits and single hyphens within; name it by --as"
        );
        return Err(Fault::invalid(why).into());
    }
    let era = match runtime.era {
        Era::Auto => "auto",
        Era::Modern => "modern",
        Era::Legacy => "legacy",
    };
    let effects = runtime.effects.iter().map(|(tool, effect)| (tool.clone(), effect.name())).collect();
    let empty = || ServerTable {
        name: name.clone(),
        url: String::new(),
        authorization: String::new(),
        command: String::new(),
        args: Vec::new(),
        era,
        sharing: None,
        memory: None,
        files: None,
        cpu: None,
        connects: None,
        confinement: None,
        env: BTreeMap::new(),
        effects,
    };
    match launched {
        Launched::Stdio { command, args, env } => {
            let sharing = match runtime.shared_by {
                SharedBy::All => "all",
                SharedBy::Caller => "caller",
                SharedBy::Session => "session",
            };
            let limits = runtime.limits;
            let memory = limits.address_space_mib.map(|mib| mib << 20);
            let (files, cpu) = (limits.open_files, limits.cpu_seconds);
            let (sharing, connects) = (Some(sharing), ports(runtime, &command));
            Ok(ServerTable { command, args, env, sharing, memory, files, cpu, connects, ..empty() })
        }
        Launched::Http { url, mut headers } => {
            let authorization = headers.remove("Authorization").or_else(|| headers.remove("authorization"));
            if let Some(other) = headers.keys().next() {
                let why = format!("it wants a header '{other}', and a gateway sends 'authorization' alone");
                return Err(Fault::new(ErrorKind::FailedPrecondition, why).into());
            }
            Ok(ServerTable { url, authorization: authorization.unwrap_or_default(), ..empty() })
        }
    }
}

/// The ports that it connects to, where its entry names them all. What fetches a package first needs that of HTTPS.
fn ports(runtime: &Runtime, command: &str) -> Option<Vec<u16>> {
    let named = |host: &String| host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let mut ports = match runtime.egress.policy {
        EgressPolicy::None => Vec::new(),
        EgressPolicy::Hosts => runtime.egress.hosts.iter().map(named).collect::<Option<Vec<u16>>>()?,
        EgressPolicy::Any => return None,
    };
    if matches!(command, "npx" | "uvx") {
        ports.push(HTTPS);
    }
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

pub(super) fn text(entry: &Shelved, table: &ServerTable) -> anyhow::Result<String> {
    let text = toml::to_string(&File { servers: [table] }).context("the table cannot be written")?;
    // A line of it must not end before its end: what follows would be a table of its own.
    let [name, version] = ["name", "version"].map(|part| output::printable(entry.text(part)));
    Ok(format!("# {name} {version}\n{text}"))
}

/// Adds a table to a configuration, which stays as it is otherwise: written beside and renamed.
fn append(path: &Path, name: &str, table: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let before = match fs::metadata(path) {
        Ok(about) if about.len() > MAX_CONFIG_BYTES => {
            anyhow::bail!("{shown} has more than {MAX_CONFIG_BYTES} bytes")
        }
        Ok(_) => fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => String::new(),
        Err(cause) => return Err(cause).with_context(|| format!("{shown} cannot be read")),
    };
    let parsed: toml::Table = before.parse().with_context(|| format!("{shown} is no TOML; mend it first"))?;
    let servers = parsed.get("servers").and_then(toml::Value::as_array).into_iter().flatten();
    if servers.clone().any(|server| server.get("name").and_then(toml::Value::as_str) == Some(name)) {
        let why =
            format!("{shown} has a server '{name}' already; take it out, or add this one under another name with --as");
        return Err(Fault::new(ErrorKind::AlreadyExists, why).into());
    }
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let line = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let after = format!("{before}{line}{gap}{table}");
    after.parse::<toml::Table>().with_context(|| {
        format!("{shown} holds its servers in a way that nothing can be added to; write them as tables [[servers]]")
    })?;
    write(path, &after).with_context(|| format!("{shown} cannot be written"))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("toml.new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // It may hold secrets.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if let Ok(about) = fs::metadata(path) {
        fs::set_permissions(&draft, about.permissions())?;
    }
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_a_gateway_takes() {
        for (name, taken) in [
            ("server-filesystem", "server-filesystem"),
            ("Office_Word.MCP", "office-word-mcp"),
            ("--x--y", "x-y"),
            ("a-very-long-name-that-goes-on-and-on-for-ever", "a-very-long-name-that-goes-on"),
        ] {
            assert_eq!(gateway_name(name), taken);
        }
    }

    #[test]
    fn ports_are_told_where_the_entry_names_them_all() {
        let to = |policy, hosts: &[&str], command: &str| {
            let mut runtime = Runtime::default();
            runtime.egress.policy = policy;
            runtime.egress.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            ports(&runtime, command)
        };
        assert_eq!(to(EgressPolicy::None, &[], "program"), Some(vec![]));
        assert_eq!(to(EgressPolicy::None, &[], "npx"), Some(vec![443]));
        let named = ["a.example.org:8443", "b.example.org:443"];
        assert_eq!(to(EgressPolicy::Hosts, &named, "uvx"), Some(vec![443, 8443]));
        for unclear in ["{DATABASE_URI}", "a.example.org"] {
            assert_eq!(to(EgressPolicy::Hosts, &[named[0], unclear], "uvx"), None, "{unclear}");
        }
        assert_eq!(to(EgressPolicy::Any, &[], "npx"), None);
    }

    #[test]
    fn a_file_is_added_to_and_stays_what_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("servers.toml");
        append(&path, "one", "[[servers]]\nname = \"one\"\n").expect("made");
        fs::write(&path, format!("# mine\nlisten = \"127.0.0.1:0\"\n\n{}", fs::read_to_string(&path).expect("text")))
            .expect("written");
        append(&path, "two", "[[servers]]\nname = \"two\"\n\n[servers.env]\nA = \"b\"\n").expect("added");
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("# mine\n"), "{text}");
        let parsed: toml::Table = text.parse().expect("TOML");
        assert_eq!(parsed["servers"].as_array().expect("two").len(), 2);
        let twice = append(&path, "two", "").expect_err("twice").to_string();
        assert!(twice.contains("'two'") && twice.contains("--as"), "{twice}");
        fs::write(&path, "servers = [{ name = \"three\" }]").expect("written");
        let inline = append(&path, "one", "[[servers]]\nname = \"one\"\n").expect_err("inline").to_string();
        assert!(inline.contains("[[servers]]"), "{inline}");
    }
}
