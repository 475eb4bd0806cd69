//! Where entries of the catalogue come from: those that come along, files in the data folder, and registries.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use echotune_gateway::catalogue::{Imported, Origin, Status, bundled, read_page, read_path, validate};
use echotune_model::{ErrorKind, Fault};
use serde_json::Value;

use crate::{output::printable, tools::CATALOGUE};

/// How long a registry may take for a page.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest page in bytes.
const MAX_PAGE_BYTES: usize = 32 << 20;
/// Pages of a registry at the most.
const MAX_PAGES: usize = 500;
/// The namespace of this platform's own servers.
const OURS: &str = "internal.echotune/";

/// Which catalogue is meant.
#[derive(Debug, Args)]
pub(super) struct Shelf {
    /// Look in a registry that speaks the MCP registry's API 0.1, such as http://127.0.0.1:7421.
    #[arg(long, value_name = "URL", conflicts_with = "from")]
    registry: Option<String>,
    /// Look in a file or a folder of server.json entries, or of pages of a registry.
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
}

/// An entry, and what is said of it.
#[derive(Debug, Clone)]
pub(crate) struct Shelved {
    pub(crate) server: Value,
    pub(crate) status: Status,
}

impl Shelved {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.server.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The name without its namespace.
    pub(crate) fn short(&self) -> &str {
        self.text("name").split('/').next_back().unwrap_or_default()
    }

    /// Whether it is one of this platform's own.
    pub(crate) fn is_ours(&self) -> bool {
        self.text("name").starts_with(OURS)
    }

    /// By which name the command line knows it.
    pub(crate) fn called(&self) -> &str {
        if self.is_ours() { self.short() } else { self.text("name") }
    }
}

impl Shelf {
    /// The entries with a text in their name, title or description; all when it is empty. The newest version of each.
    pub(super) async fn search(&self, data: &Path, text: &str) -> anyhow::Result<Vec<Shelved>> {
        let entries = match (&self.registry, &self.from) {
            (Some(url), _) => from_registry(url, text).await?,
            (None, Some(path)) => read_path(path)?,
            (None, None) => near(data)?,
        };
        let text = text.to_lowercase();
        let valid = entries.into_iter().filter_map(checked);
        let found = valid.filter(|entry| {
            let has = |name: &str| entry.text(name).to_lowercase().contains(&text);
            entry.status != Status::Deleted && ["name", "title", "description"].into_iter().any(has)
        });
        Ok(found.collect())
    }

    /// One entry by its name, or by its name without the namespace where one alone has it.
    pub(super) async fn find(&self, data: &Path, name: &str) -> anyhow::Result<Shelved> {
        let (wanted, version) = name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)));
        // A registry looks for what stands in the name.
        let mut found = self.search(data, wanted.split('/').next_back().unwrap_or_default()).await?;
        found.retain(|entry| {
            let is_named = entry.text("name") == wanted || entry.short() == wanted;
            is_named && version.is_none_or(|version| entry.text("version") == version)
        });
        if found.iter().any(|entry| entry.text("name") == wanted) {
            found.retain(|entry| entry.text("name") == wanted);
        }
        let last = found.pop().ok_or_else(|| {
            let why = format!("no server '{}' is in the catalogue; `echotune mcp list` names them", printable(name));
            Fault::new(ErrorKind::NotFound, why)
        })?;
        if let Some(other) = found.iter().find(|other| other.text("name") != last.text("name")) {
            let (one, other) = (last.text("name"), other.text("name"));
            return Err(Fault::invalid(format!("several servers are named so; name {one} or {other}")).into());
        }
        Ok(last)
    }
}

fn checked(entry: Imported) -> Option<Shelved> {
    let faults = validate(&entry.server);
    if faults.is_empty() {
        return Some(Shelved { server: entry.server, status: entry.status });
    }
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    eprintln!("left out: {} is no valid entry: {}", entry.origin, printable(&faults.join("; ")));
    None
}

/// What comes along, and files of the data folder. A file wins over what came along under the same name.
fn near(data: &Path) -> anyhow::Result<Vec<Imported>> {
    let mut entries: Vec<_> =
        bundled().into_iter().map(|(name, server)| Imported::new(Origin::Bundled(name), server)).collect();
    let folder = data.join(CATALOGUE);
    if folder.is_dir() {
        let own = read_path(&folder)?;
        let name = |entry: &Imported| entry.server.get("name").cloned();
        entries.retain(|entry| !own.iter().any(|other| name(other) == name(entry)));
        entries.extend(own);
    }
    Ok(entries)
}

async fn from_registry(url: &str, search: &str) -> anyhow::Result<Vec<Imported>> {
    let base = url.trim_end_matches('/');
    if !base.starts_with("http://") {
        let why = format!(
            "'{base}' is not http://HOST[:PORT]; keep a page of another registry in a file, and name it by --from"
        );
        return Err(Fault::invalid(why).into());
    }
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    for _ in 0..MAX_PAGES {
        let mut query = vec![("version", "latest"), ("limit", "100")];
        query.extend([("search", search), ("cursor", &cursor)].into_iter().filter(|(_, value)| !value.is_empty()));
        let query: Vec<_> = query.into_iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let answer = client.get(format!("{base}/v0.1/servers?{}", query.join("&"))).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let mut answer = answer.with_context(|| format!("the registry {base} does not answer as one"))?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            bytes.extend_from_slice(&piece);
            anyhow::ensure!(bytes.len() <= MAX_PAGE_BYTES, "a page of {base} has more than {MAX_PAGE_BYTES} bytes");
        }
        let page = serde_json::from_slice(&bytes).with_context(|| format!("{base} answers with no JSON"))?;
        let (page, next) = read_page(page).map_err(anyhow::Error::msg).with_context(|| format!("a page of {base}"))?;
        entries.extend(page);
        match next {
            Some(next) => cursor = next,
            None => return Ok(entries),
        }
    }
    anyhow::bail!("{base} has more than {MAX_PAGES} pages; search for less with --search")
}

/// A value of a query: everything but letters, digits and `-._~` escaped (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_queries_are_escaped() {
        assert_eq!(escaped("a b&c=ü/"), "a%20b%26c%3D%C3%BC%2F");
    }
}
