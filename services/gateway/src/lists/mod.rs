//! What servers offer: read, kept for as long as they say, merged under names that stay.

use std::collections::HashSet;

use crate::{
    config::Effect,
    message::{Json, Malformed, Object},
    upstream::Changed,
};

mod fetch;
mod file;
pub(crate) mod names;
mod page;
mod params;
mod table;
mod takeover;

pub(crate) use self::{
    fetch::{Asker, Lists},
    page::{Hints, Page},
    params::ParamHeaders,
    table::{Found, Offer, Table},
};

/// Longest name of an entry in bytes.
const MAX_NAME_BYTES: usize = 2_048;

/// The lists that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    pub(crate) fn of_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method() == method)
    }

    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The member of a result that holds the entries.
    pub(crate) const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The member of an entry that names it.
    const fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }

    /// The capability of servers that have such a list.
    const fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    pub(crate) const fn changed(self) -> Changed {
        match self {
            Self::Tools => Changed::Tools,
            Self::Prompts => Changed::Prompts,
            Self::Resources | Self::Templates => Changed::Resources,
        }
    }

    /// Whether its names get prefixes: addresses of resources are what they are.
    pub(crate) const fn is_prefixed(self) -> bool {
        matches!(self, Self::Tools | Self::Prompts)
    }
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// As the server names it.
    pub(crate) name: String,
    /// As the server wrote it.
    pub(crate) json: Json,
    /// What the server says that a call changes.
    pub(crate) says: Effect,
    /// Arguments that travel as headers too.
    pub(crate) headers: ParamHeaders,
}

impl Entry {
    fn read(kind: Kind, json: &Json) -> Result<Self, Malformed> {
        let object = Object::read(json)?;
        let key = kind.key();
        let name = object.text(key).ok_or_else(|| Malformed(format!("an entry has no '{key}'")))?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Malformed(format!("the '{key}' of an entry has not 1 to {MAX_NAME_BYTES} bytes")));
        }
        let hints = object.object("annotations").unwrap_or_default();
        let hint = |name: &str| hints.get(name).and_then(Json::read) == Some(true);
        let says = match (hint("readOnlyHint"), hint("idempotentHint")) {
            (true, _) => Effect::Reads,
            (_, true) => Effect::Idempotent,
            _ => Effect::Once,
        };
        let headers = match kind {
            Kind::Tools => ParamHeaders::read(object.get("inputSchema"))
                .map_err(|Malformed(why)| Malformed(format!("tool '{}': {why}", name.escape_debug())))?,
            _ => ParamHeaders::default(),
        };
        Ok(Self { name, json: json.clone(), says, headers })
    }

    /// The entry under another name.
    fn shown(&self, kind: Kind, name: &str) -> Json {
        if self.name == name {
            return self.json.clone();
        }
        let mut object = Object::read(&self.json).unwrap_or_default();
        object.set(kind.key(), Json::of(name));
        object.write()
    }
}

/// One page of a server's list.
struct Read {
    entries: Vec<Entry>,
    next: Option<String>,
    ttl_ms: Option<u64>,
    is_public: Option<bool>,
}

/// Reads a page. Entries that are none are left out, so that one does not take the others with it.
fn read_page(kind: Kind, result: &Json, server: &str) -> Result<Read, Malformed> {
    let object = Object::read(result)?;
    let entries = object.get(kind.member()).and_then(Json::elements);
    let entries = entries.ok_or_else(|| Malformed(format!("the result has no '{}'", kind.member())))?;
    let mut known = HashSet::new();
    let mut read = Vec::with_capacity(entries.len());
    for json in &entries {
        match Entry::read(kind, json) {
            Ok(entry) if known.insert(entry.name.clone()) => read.push(entry),
            Ok(entry) => tracing::warn!(server, name = entry.name, "an entry comes twice in a list of an MCP server"),
            Err(Malformed(why)) => tracing::warn!(server, why, "an entry of a list of an MCP server is left out"),
        }
    }
    Ok(Read {
        entries: read,
        next: object.text("nextCursor"),
        ttl_ms: object.get("ttlMs").and_then(|ttl| ttl.read::<i64>()).map(|ttl| ttl.max(0).unsigned_abs()),
        is_public: object.text("cacheScope").map(|scope| scope == "public"),
    })
}
