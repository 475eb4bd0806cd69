//! What the gateway is told of who may call what.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use echotune_kit::config::{Period, Size};
use serde::{Deserialize, Serialize};

/// The settings of [`AccessConfig`] with what they mean: a file of its form.
pub const ACCESS_DEFAULTS: &str = include_str!("access.toml");

/// Most rules, and most rates of single tools.
const MAX_RULES: usize = 256;
/// Longest file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Who may call what, how often, and what is written of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// Rules in the order in which they are asked. Where there are any, what none allows is refused.
    pub rules: Vec<RuleConfig>,
    /// The gateway as a resource server of OAuth 2.1.
    pub resource: ResourceConfig,
    /// How often one may call.
    pub rates: RatesConfig,
    /// The record of calls.
    pub audit: AuditConfig,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// By which it is told who was stopped by what.
    pub name: String,
    /// An expression of CEL that is true for the calls it is about.
    pub when: String,
    /// What happens to these.
    pub then: Then,
    /// What the caller's JWT must have been issued for besides, where the rule allows. Other tokens have no scopes, and
    /// are not asked for any.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// The call is made.
    Allow,
    /// The call is refused.
    Deny,
}

/// The gateway as a resource server of OAuth 2.1 (RFC 9728, RFC 8707).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceConfig {
    /// The address by which clients know it, without a path; empty for none.
    pub base: String,
    /// Issuers of its tokens.
    pub issuers: Vec<String>,
    /// Scopes that every JWT needs.
    pub scopes: Vec<String>,
    /// Scopes that include others.
    pub includes: BTreeMap<String, Vec<String>>,
}

/// How often one may call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RatesConfig {
    /// Of a caller over all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Rate>,
    /// Of a caller for each tool, prompt or resource of a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_and_tool: Option<Rate>,
    /// The same for single tools.
    pub tools: Vec<ToolRate>,
}

/// The rate of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRate {
    /// The server.
    pub server: String,
    /// The tool, as the server names it.
    pub tool: String,
    /// How often one caller may call it.
    pub rate: Rate,
}

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So often.
    pub calls: u32,
    /// In so much time.
    pub per: Period,
    /// How many of them at once.
    pub burst: u32,
}

/// The record of calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Its file; empty for none.
    pub path: PathBuf,
    /// Above which size a new one begins.
    pub rotate_at: Size,
    /// How many full ones are kept.
    pub keep: u32,
    /// Lines that wait to be written.
    pub queue: usize,
    /// What happens while it cannot be written.
    pub on_failure: OnFailure,
}

/// What happens to calls of which no record can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are refused.
    Refuse,
    /// They are made, and their lines are lost and counted.
    Drop,
}

impl Default for AuditConfig {
    fn default() -> Self {
        let path = PathBuf::new();
        Self { path, rotate_at: Size(64 << 20), keep: 8, queue: 4_096, on_failure: OnFailure::Refuse }
    }
}

impl AccessConfig {
    /// Reads a file of the form of [`ACCESS_DEFAULTS`].
    ///
    /// # Errors
    /// It cannot be read, or is of another form; the text names it and the place.
    pub fn read(path: &Path) -> io::Result<Self> {
        let named = |kind, why: &dyn std::fmt::Display| io::Error::new(kind, format!("{}: {why}", path.display()));
        let mut text = String::new();
        let file = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
        file.map_err(|cause| named(cause.kind(), &cause))?;
        if text.len() as u64 > MAX_FILE {
            let why = format!("has more than {MAX_FILE} bytes, and so many are read");
            return Err(named(io::ErrorKind::InvalidData, &why));
        }
        toml::from_str(&text).map_err(|cause| named(io::ErrorKind::InvalidData, &cause))
    }

    /// What is wrong, each with the setting it is about. Rules are read where they are used.
    pub(super) fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.rules.len() > MAX_RULES || self.rates.tools.len() > MAX_RULES {
            faults.push(format!("access: there are more than {MAX_RULES} rules or rates of tools"));
        }
        for (at, rule) in self.rules.iter().enumerate() {
            if rule.name.is_empty() || self.rules[..at].iter().any(|other| other.name == rule.name) {
                faults.push(format!("access.rules: rule {} needs a name that no other has", at + 1));
            }
            if rule.then == Then::Deny && !rule.scopes.is_empty() {
                faults.push(format!(
                    "access.rules: '{}' refuses, so that its scopes do nothing; leave them out",
                    rule.name
                ));
            }
            faults.extend(wrong_scopes(&rule.scopes).map(|why| format!("access.rules: '{}': {why}", rule.name)));
        }
        faults.extend(self.resource.check());
        faults.extend(self.rates.check());
        if self.audit.queue == 0 {
            faults.push("access.audit.queue: is at least 1".to_owned());
        }
        faults
    }
}

impl ResourceConfig {
    /// Whether there is one.
    pub const fn is_set(&self) -> bool {
        !self.base.is_empty()
    }

    fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.is_set() {
            let idle = [("issuers", self.issuers.is_empty()), ("scopes", self.scopes.is_empty())];
            let idle = idle.into_iter().filter(|(_, is_empty)| !is_empty);
            return idle
                .map(|(key, _)| format!("access.resource.{key}: does nothing without access.resource.base"))
                .collect();
        }
        let uri: Option<http::Uri> = self.base.parse().ok();
        let right = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("https" | "http")) && uri.query().is_none() && uri.authority().is_some()
        });
        let path = self.base.splitn(4, '/').nth(3);
        if !right || path.is_some() || self.base.contains('#') {
            faults.push(format!(
                "access.resource.base: '{}' is no address without a path, such as \"https://mcp.example.org\"",
                self.base.escape_debug()
            ));
        }
        if self.issuers.is_empty() {
            faults.push("access.resource.issuers: name who issues its tokens".to_owned());
        }
        let all = self.scopes.iter().chain(self.includes.keys()).chain(self.includes.values().flatten());
        faults.extend(wrong_scopes(all).map(|why| format!("access.resource: {why}")));
        faults
    }
}

/// What RFC 6749 section 3.3 does not take for a scope. They stand in quotes in a header.
fn wrong_scopes<'a>(scopes: impl IntoIterator<Item = &'a String>) -> Option<String> {
    let right =
        |scope: &str| !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    let wrong = scopes.into_iter().find(|scope| !right(scope))?;
    Some(format!(
        "'{}' is no scope: one is printable ASCII without spaces, quotes and backslashes",
        wrong.escape_debug()
    ))
}

impl RatesConfig {
    fn check(&self) -> Vec<String> {
        let named = [("caller", self.caller), ("caller_and_tool", self.caller_and_tool)];
        let named = named.into_iter().filter_map(|(name, rate)| Some((name.to_owned(), rate?)));
        let single = self.tools.iter().map(|one| (format!("tools: '{}' of '{}'", one.tool, one.server), one.rate));
        let wrong = named.chain(single).filter(|(_, rate)| !rate.is_right());
        let why = "needs at least one call and burst, and a time of a millisecond to a day";
        wrong.map(|(name, _)| format!("access.rates.{name}: {why}")).collect()
    }
}

impl Rate {
    fn is_right(&self) -> bool {
        let time = Duration::from_millis(1)..=Duration::from_secs(24 * 3_600);
        self.calls > 0 && self.burst > 0 && time.contains(&self.per.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> AccessConfig {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("access.toml");
        std::fs::write(&path, text).expect("written");
        AccessConfig::read(&path).expect("settings that are read")
    }

    #[test]
    fn a_file_that_is_none_is_told_with_its_name_and_place() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("access.toml");
        for (text, told) in
            [("[audit]\nwhere = 1\n", "where"), ("rules = 1", "line 1"), ("[[rules]]\nname = \"x\"", "when")]
        {
            std::fs::write(&path, text).expect("written");
            let error = AccessConfig::read(&path).expect_err("no settings").to_string();
            assert!(error.contains("access.toml") && error.contains(told), "{error}");
        }
        assert!(AccessConfig::read(Path::new("/nowhere")).expect_err("no file").to_string().contains("/nowhere"));
    }

    #[test]
    fn the_defaults_with_their_meaning_are_those_of_the_type_and_right() {
        let read = read(ACCESS_DEFAULTS);
        assert_eq!(read, AccessConfig::default());
        assert_eq!(read.check(), Vec::<String>::new());
    }

    #[test]
    fn what_the_comments_show_is_read_and_right() {
        let shown = ACCESS_DEFAULTS.replace("#   [[", "[[").replace("#   ", "").replace("# caller", "caller");
        let lines = shown.lines().filter(|line| !matches!(line.trim(), "rules = []" | "tools = []"));
        let whole: Vec<_> = lines.filter(|line| line.contains('=') || line.starts_with('[')).collect();
        let whole: Vec<_> = whole.into_iter().filter(|line| !line.starts_with('#')).collect();
        let config = read(&whole.join("\n"));
        assert_eq!(config.check(), Vec::<String>::new());
        assert_eq!((config.rules.len(), config.rates.tools.len()), (2, 1));
        assert!(config.rates.caller.is_some() && config.rates.caller_and_tool.is_some());
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let rule = |name: &str, then| RuleConfig {
            name: name.to_owned(),
            when: "true".to_owned(),
            then,
            scopes: vec!["a b".to_owned()],
        };
        let none = Rate { calls: 0, per: Period(Duration::from_secs(1)), burst: 1 };
        let config = AccessConfig {
            rules: vec![rule("one", Then::Allow), rule("one", Then::Deny)],
            resource: ResourceConfig { base: "https://a.example/path".to_owned(), ..ResourceConfig::default() },
            rates: RatesConfig { caller: Some(none), ..RatesConfig::default() },
            audit: AuditConfig { queue: 0, ..AuditConfig::default() },
        };
        let faults = config.check().join("\n");
        for told in [
            "rule 2 needs a name",
            "'one' refuses",
            "'a b' is no scope",
            "resource.base",
            "issuers",
            "rates.caller:",
            "queue",
        ] {
            assert!(faults.contains(told), "{told} is not in:\n{faults}");
        }
        let idle = ResourceConfig { scopes: vec!["x".to_owned()], ..ResourceConfig::default() };
        assert_eq!(idle.check().len(), 1, "what would do nothing");
    }
}
