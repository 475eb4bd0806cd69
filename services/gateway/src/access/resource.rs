//! The gateway as a resource server of OAuth 2.1: it says where its tokens come from (RFC 9728), takes those that were
//! issued for it alone (RFC 8707), and tells what a token lacks (RFC 6750 section 3).

use std::collections::BTreeSet;

use axum::response::{IntoResponse as _, Response};
use echotune_kit::auth::Grant;
use http::{
    HeaderValue,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL},
};
use serde_json::json;

use super::config::ResourceConfig;

/// Where the metadata is; the path of the resource follows (RFC 9728 section 3.1).
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// A resource server.
pub(super) struct Resource {
    config: ResourceConfig,
}

/// What is wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// It was issued for somebody else.
    Audience { wanted: String },
    /// It was not issued for what is asked.
    Scopes(Vec<String>),
}

impl Resource {
    pub(super) fn new(config: &ResourceConfig) -> Option<Self> {
        config.is_set().then(|| Self { config: config.clone() })
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.config.base)
    }

    /// Checks a token's audience and the scopes that all need.
    pub(super) fn check(&self, grant: &Grant, path: &str) -> Result<(), Lacks> {
        let wanted = self.at(path);
        let base = self.config.base.as_str();
        let is_meant = |audience: &String| {
            let audience = audience.strip_suffix('/').unwrap_or(audience);
            same(audience, &wanted) || same(audience, base)
        };
        if !grant.audiences.iter().any(is_meant) {
            return Err(Lacks::Audience { wanted });
        }
        self.check_base(grant)
    }

    /// Checks a token's scopes for those that all need.
    pub(super) fn check_base(&self, grant: &Grant) -> Result<(), Lacks> {
        self.check_scopes(grant, &self.config.scopes)
    }

    /// Checks a token's scopes.
    pub(super) fn check_scopes(&self, grant: &Grant, needed: &[String]) -> Result<(), Lacks> {
        let held = self.held(grant);
        if needed.iter().all(|scope| held.contains(scope.as_str())) {
            return Ok(());
        }
        // All of them at once, so that nobody has to come again for the next (2026-07-28, Authorization, "Runtime
        // Insufficient Scope Errors").
        let mut all = self.config.scopes.clone();
        all.extend(needed.iter().filter(|scope| !self.config.scopes.contains(scope)).cloned());
        Err(Lacks::Scopes(all))
    }

    /// A token's scopes with those that they include.
    fn held<'a>(&'a self, grant: &'a Grant) -> BTreeSet<&'a str> {
        let mut held: BTreeSet<&str> = BTreeSet::new();
        let mut new: Vec<&str> = grant.scopes.iter().map(String::as_str).collect();
        while let Some(scope) = new.pop() {
            if held.insert(scope) {
                new.extend(self.config.includes.get(scope).into_iter().flatten().map(String::as_str));
            }
        }
        held
    }

    /// The challenge to one who is not known, by a token or without any.
    pub(super) fn challenge(&self, path: &str, has_token: bool) -> HeaderValue {
        let error = if has_token { ", error=\"invalid_token\"" } else { "" };
        self.header(path, error, &self.config.scopes)
    }

    /// The challenge to one whose token does not do.
    pub(super) fn challenge_lacking(&self, path: &str, lacks: &Lacks) -> HeaderValue {
        match lacks {
            Lacks::Audience { .. } => self.challenge(path, true),
            Lacks::Scopes(scopes) => self.header(path, ", error=\"insufficient_scope\"", scopes),
        }
    }

    fn header(&self, path: &str, error: &str, scopes: &[String]) -> HeaderValue {
        let metadata = self.at(&format!("{WELL_KNOWN}{path}"));
        let scope = if scopes.is_empty() { String::new() } else { format!(", scope=\"{}\"", scopes.join(" ")) };
        let text = format!("Bearer realm=\"echotune\", resource_metadata=\"{metadata}\"{error}{scope}");
        HeaderValue::from_str(&text).expect("addresses and scopes were checked to be ASCII")
    }

    /// The metadata of the resource at a path.
    pub(super) fn metadata(&self, path: &str) -> Response {
        let mut told = json!({
            "resource": self.at(path),
            "authorization_servers": self.config.issuers,
            "bearer_methods_supported": ["header"],
            "resource_name": "EchoTune",
        });
        if !self.config.scopes.is_empty() {
            told["scopes_supported"] = json!(self.config.scopes);
        }
        // There is nothing in it that a page may not read.
        let headers = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
            (CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
        ];
        (headers, axum::Json(told)).into_response()
    }
}

/// Whether two addresses are the same but for the case of scheme and host, which RFC 3986 section 6.2.2.1 says is none.
fn same(one: &str, other: &str) -> bool {
    let parts = |of: &str| {
        let end = of.find("://").and_then(|at| of[at + 3..].find('/').map(|slash| at + 3 + slash)).unwrap_or(of.len());
        (of[..end].to_ascii_lowercase(), of[end..].to_owned())
    };
    parts(one) == parts(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource() -> Resource {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Resource {
            config: ResourceConfig {
                base: "https://mcp.example.org".to_owned(),
                issuers: own(&["https://login.example.org"]),
                scopes: own(&["mcp"]),
                includes: [("files".to_owned(), own(&["files:read", "files:write"]))].into(),
            },
        }
    }

    fn grant(scopes: &[&str], audiences: &[&str]) -> Grant {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Grant { scopes: own(scopes), audiences: own(audiences) }
    }

    #[test]
    fn a_token_is_for_this_endpoint_or_the_whole_gateway() {
        let check = |audience: &str| resource().check(&grant(&["mcp"], &["other", audience]), "/servers/a/mcp");
        for audience in ["https://mcp.example.org", "https://MCP.example.org/", "https://mcp.example.org/servers/a/mcp"]
        {
            assert_eq!(check(audience), Ok(()), "{audience}");
        }
        for audience in [
            "https://mcp.example.org/servers/b/mcp",
            "https://mcp.example.org/mcp",
            "https://mcp.example.org.evil.org",
            "http://mcp.example.org",
            "https://mcp.example.org/servers/A/mcp",
        ] {
            assert!(matches!(check(audience), Err(Lacks::Audience { .. })), "{audience}");
        }
    }

    #[test]
    fn broader_scopes_include_narrower_ones_and_all_that_lack_are_told_at_once() {
        let needs = |scopes: &[&str]| {
            let needed = ["files:read".to_owned(), "mail".to_owned()];
            resource().check_scopes(&grant(scopes, &[]), &needed)
        };
        assert_eq!(needs(&["files", "mail"]), Ok(()));
        let all = vec!["mcp".to_owned(), "files:read".to_owned(), "mail".to_owned()];
        assert_eq!(needs(&["files:read"]), Err(Lacks::Scopes(all)));
    }

    #[test]
    fn challenges_say_where_to_go_and_what_for() {
        let unknown = resource().challenge("/mcp", false);
        assert_eq!(
            unknown,
            "Bearer realm=\"echotune\", \
             resource_metadata=\"https://mcp.example.org/.well-known/oauth-protected-resource/mcp\", scope=\"mcp\""
        );
        let lacking = resource().challenge_lacking("/mcp", &Lacks::Scopes(vec!["a".to_owned(), "b".to_owned()]));
        let text = lacking.to_str().expect("text");
        assert!(text.contains("error=\"insufficient_scope\"") && text.ends_with("scope=\"a b\""), "{text}");
        assert!(resource().challenge("/mcp", true).to_str().expect("text").contains("error=\"invalid_token\""));
    }
}
