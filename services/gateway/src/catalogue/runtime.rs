//! How this platform runs a server of the catalogue: what `server.json` has no words for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::metering::Tariff;

/// The member of an entry's `_meta` that holds a [`Runtime`].
pub const RUNTIME: &str = "internal.echotune/runtime";
/// The member that holds a [`Tariff`].
pub const TARIFF: &str = "internal.echotune/tariff";

/// Tools of one server at the most.
const MAX_TOOLS: usize = 1_000;
/// Hosts of one server at the most.
const MAX_HOSTS: usize = 100;
/// Longest name of a tool or a host in bytes.
const MAX_NAME_BYTES: usize = 253;
/// Longest reason that is told in characters.
const MAX_TOLD_CHARS: usize = 300;
/// Longest note in characters.
const MAX_NOTE_CHARS: usize = 1_000;

/// How a server is run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// The program in the package, where its name is not the package's.
    pub program: Option<String>,
    /// Which revisions of the protocol it speaks.
    pub era: Era,
    /// Who may share one process of it.
    pub shared_by: SharedBy,
    /// What a call of each of its tools changes.
    pub effects: BTreeMap<String, EffectClass>,
    /// What a process of it may use.
    pub limits: RuntimeLimits,
    /// Where it may connect to.
    pub egress: Egress,
    /// How its tools were found out.
    pub verified: Verified,
}

/// Which revisions of the protocol a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// It is found out.
    #[default]
    Auto,
    /// 2026-07-28 and later.
    Modern,
    /// 2025-11-25 and before.
    Legacy,
}

/// Who may share a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedBy {
    /// Everybody: it keeps nothing between requests.
    All,
    /// The sessions of one caller.
    Caller,
    /// Nobody.
    #[default]
    Session,
}

/// What a call of a tool changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Nothing.
    Reads,
    /// The same call again changes nothing more.
    Idempotent,
    /// It must not be made twice.
    Once,
}

impl EffectClass {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Idempotent => "idempotent",
            Self::Once => "once",
        }
    }
}

/// What a process may use; nothing said is no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeLimits {
    /// Memory that it works with, in MiB. Runtimes that reserve far more address space than they use are bounded by the
    /// container that they run in.
    pub memory_mib: Option<u64>,
    /// Address space in MiB, where it can be bounded.
    pub address_space_mib: Option<u64>,
    /// Processor time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes at once.
    pub processes: Option<u64>,
}

/// Where a server may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// To what kind of places.
    pub policy: EgressPolicy,
    /// Which ones, as `HOST` or `HOST:PORT`; a setting of the entry may stand in braces.
    pub hosts: Vec<String>,
}

/// To what kind of places a server may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressPolicy {
    /// Nowhere.
    #[default]
    None,
    /// To the hosts that are named.
    Hosts,
    /// Anywhere: that is what it is for.
    Any,
}

/// How the tools of an entry were found out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verified {
    /// In which way.
    pub how: HowVerified,
    /// On which day, such as `2026-11-30`; empty when nobody did.
    pub on: String,
    /// The revision of the protocol that it agreed on, where it was run.
    pub revision: String,
    /// What else is to be known.
    pub note: String,
}

/// In which way the tools of an entry were found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HowVerified {
    /// Not at all: the publisher says so.
    #[default]
    Claimed,
    /// The server was run, and its list of tools read.
    Run,
    /// From its documentation.
    Documentation,
}

/// The block of an entry; what is not said is the default.
pub fn runtime(server: &Value) -> Runtime {
    let block = server.get("_meta").and_then(|meta| meta.get(RUNTIME));
    block.and_then(|block| Runtime::deserialize(block).ok()).unwrap_or_default()
}

/// What calls of an entry's server cost, if it says so.
pub fn tariff(server: &Value) -> Option<Tariff> {
    read_tariff(server.get("_meta")?.get(TARIFF)?).ok()
}

pub(super) fn read_tariff(block: &Value) -> Result<Tariff, String> {
    let tariff = Tariff::deserialize(block).map_err(|cause| told(&cause))?;
    tariff.check()?;
    Ok(tariff)
}

/// Why a block cannot be read. It repeats what stands there, which others wrote.
fn told(cause: &serde_json::Error) -> String {
    cause
        .to_string()
        .chars()
        .take(MAX_TOLD_CHARS)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// What is wrong with a block: where in it, and why.
pub(super) fn faults(block: &Value) -> Vec<(String, String)> {
    let read = match Runtime::deserialize(block) {
        Ok(read) => read,
        Err(cause) => return vec![(String::new(), told(&cause))],
    };
    let mut faults = Vec::new();
    let mut add = |path: &str, why: String| faults.push((path.to_owned(), why));
    let is_name = |text: &str| (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control);
    if read.effects.len() > MAX_TOOLS {
        add(".effects", format!("has {} tools; at most {MAX_TOOLS} are taken", read.effects.len()));
    }
    if read.effects.keys().any(|tool| !is_name(tool)) {
        add(".effects", format!("a tool's name has 1 to {MAX_NAME_BYTES} bytes and no control characters"));
    }
    let Egress { policy, hosts } = &read.egress;
    match policy {
        EgressPolicy::Hosts if hosts.is_empty() => add(".egress.hosts", "is empty where the policy is 'hosts'".into()),
        EgressPolicy::None | EgressPolicy::Any if !hosts.is_empty() => {
            add(".egress.hosts", "has no place unless the policy is 'hosts'".into());
        }
        _ => {}
    }
    let is_host = |host: &String| is_name(host) && !host.contains(['/', ' ', '@']);
    if hosts.len() > MAX_HOSTS || !hosts.iter().all(is_host) {
        add(".egress.hosts", format!("are at most {MAX_HOSTS} of HOST or HOST:PORT"));
    }
    let RuntimeLimits { memory_mib, address_space_mib, cpu_seconds, open_files, processes } = read.limits;
    if [memory_mib, address_space_mib, cpu_seconds, open_files, processes].contains(&Some(0)) {
        add(".limits", "a limit of 0 lets it do nothing; leave it out for none".into());
    }
    if read.verified.note.chars().count() > MAX_NOTE_CHARS {
        add(".verified.note", format!("has more than {MAX_NOTE_CHARS} characters"));
    }
    let program = read.program.as_deref().unwrap_or("x");
    if !is_name(program) || program.contains(['/', ' ']) {
        add(".program", "is not the name of a program".into());
    }
    faults
}
