//! Where the tokens of a server come from: the metadata of the resource (RFC 9728) and of its authorization server
//! (RFC 8414, OpenID Connect Discovery), by the order of 2026-07-28, "Authorization Server Discovery".

use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::{Wrong, guard::Guard, web::Web};

/// Authorization servers of one resource, and scopes, that are looked at.
const LISTED: usize = 64;
const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";

/// What a server says of itself as a resource.
#[derive(Deserialize)]
pub(super) struct ResourceMetadata {
    pub(super) resource: String,
    #[serde(default)]
    pub(super) authorization_servers: Vec<String>,
    pub(super) scopes_supported: Option<Vec<String>>,
}

/// What an authorization server says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ServerMetadata {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: String,
    pub(super) registration_endpoint: Option<String>,
    pub(super) scopes_supported: Option<Vec<String>>,
    pub(super) code_challenge_methods_supported: Option<Vec<String>>,
    pub(super) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    pub(super) token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    pub(super) client_id_metadata_document_supported: bool,
}

impl ServerMetadata {
    /// Whether it takes proofs of who began a request by SHA-256. One that does not say so does not.
    pub(super) fn has_pkce(&self) -> bool {
        self.code_challenge_methods_supported.iter().flatten().any(|method| method == "S256")
    }
}

/// A resource and its authorization server.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What tokens are for, as the resource calls itself.
    pub(super) resource: String,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) server: ServerMetadata,
    /// Where the server said that its metadata is, if it did.
    pub(super) told: Option<String>,
}

/// An address with another path, and without a query.
fn at(url: &Url, path: &str) -> Url {
    let mut at = url.clone();
    at.set_path(path);
    at.set_query(None);
    at.set_fragment(None);
    at
}

/// Where the metadata of a resource is that does not say where: for its path, then for all of its host.
pub(super) fn resource_urls(server: &Url) -> Vec<Url> {
    let path = server.path().trim_end_matches('/');
    let mut urls = vec![at(server, &format!("{PROTECTED_RESOURCE}{path}"))];
    if !path.is_empty() {
        urls.push(at(server, PROTECTED_RESOURCE));
    }
    urls
}

/// Where the metadata of an authorization server is.
pub(super) fn issuer_urls(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let inserted = |name: &str| at(issuer, &format!("/.well-known/{name}{path}"));
    let mut urls = vec![inserted("oauth-authorization-server"), inserted("openid-configuration")];
    if !path.is_empty() {
        urls.push(at(issuer, &format!("{path}/.well-known/openid-configuration")));
    }
    urls
}

/// Whether a token for the resource is one for the server: it is the server itself, or what the server is a part of.
pub(super) fn covers(resource: &str, server: &Url) -> bool {
    let Ok(resource) = Url::parse(resource) else { return false };
    let rest = server.path().strip_prefix(resource.path().trim_end_matches('/'));
    let is_part = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_same_query = resource.query().is_none() || resource.query() == server.query();
    resource.origin() == server.origin() && is_part && is_same_query && resource.fragment().is_none()
}

/// The authorization server to take of those that a resource names: the one that is configured and no other, or the
/// one that was taken before, or the first.
pub(super) fn chosen<'a>(
    named: &'a [String],
    configured: Option<&str>,
    before: Option<&str>,
) -> Result<&'a str, String> {
    let named = &named[..named.len().min(LISTED)];
    if let Some(configured) = configured {
        let found = named.iter().find(|one| *one == configured).map(String::as_str);
        return found.ok_or_else(|| format!("it does not name oauth.issuer, '{configured}', as its issuer of tokens"));
    }
    let kept = before.and_then(|before| named.iter().find(|one| *one == before));
    let first = kept.or_else(|| named.first()).map(String::as_str);
    first.ok_or_else(|| "its metadata names no authorization server".to_owned())
}

/// Reads the first of some documents that is there.
async fn first<T: DeserializeOwned>(web: &Web, urls: &[Url]) -> Result<Option<T>, Wrong> {
    for url in urls {
        let answer = web.get(url).await?;
        // Some have a page for whatever is asked.
        if answer.status.is_success()
            && let Ok(document) = serde_json::from_slice(&answer.body)
        {
            return Ok(Some(document));
        }
    }
    Ok(None)
}

/// What is looked for.
pub(super) struct Search<'a> {
    pub(super) web: &'a Web,
    pub(super) guard: &'a Guard,
    pub(super) server: &'a Url,
    /// Where the metadata of the resource is, as the server has said.
    pub(super) told: Option<String>,
    pub(super) configured: Option<&'a str>,
    pub(super) before: Option<&'a str>,
}

impl Search<'_> {
    pub(super) async fn find(self) -> Result<Place, Wrong> {
        let urls = match &self.told {
            Some(told) => vec![self.guard.check(told).map_err(Wrong::Refused)?],
            None => resource_urls(self.server),
        };
        let found: Option<ResourceMetadata> = first(self.web, &urls).await?;
        let (resource, scopes, issuer) = match (found, self.configured) {
            (Some(found), _) => {
                if !covers(&found.resource, self.server) {
                    let shown: String = found.resource.chars().take(200).collect();
                    let why = format!("its metadata is of another resource, '{}'", shown.escape_debug());
                    return Err(Wrong::Refused(why));
                }
                let issuer = chosen(&found.authorization_servers, self.configured, self.before);
                let issuer = issuer.map_err(Wrong::Refused)?.to_owned();
                (found.resource, found.scopes_supported, issuer)
            }
            (None, Some(configured)) => (self.server.as_str().to_owned(), None, configured.to_owned()),
            (None, None) => {
                let why = "it wants a token, and says nowhere where there are any; set oauth.issuer";
                return Err(Wrong::Refused(why.to_owned()));
            }
        };
        let server = self.server_metadata(&issuer).await?;
        Ok(Place { resource, scopes, server, told: self.told })
    }

    async fn server_metadata(&self, issuer: &str) -> Result<ServerMetadata, Wrong> {
        let url = self.guard.check(issuer).map_err(Wrong::Refused)?;
        let shown = super::guard::place(&url);
        let found: Option<ServerMetadata> = first(self.web, &issuer_urls(&url)).await?;
        let found = found.ok_or_else(|| Wrong::Refused(format!("the authorization server {shown} has no metadata")))?;
        // One that writes another's name there would have the gateway take it for that one.
        if found.issuer != issuer {
            let other: String = found.issuer.chars().take(200).collect();
            let why = format!("the metadata of the authorization server {shown} is of '{}'", other.escape_debug());
            return Err(Wrong::Refused(why));
        }
        let endpoints = [Some(&found.token_endpoint), found.authorization_endpoint.as_ref()];
        for endpoint in endpoints.into_iter().flatten().chain(&found.registration_endpoint) {
            self.guard.check(endpoint).map_err(Wrong::Refused)?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("an address")
    }

    fn texts(urls: &[Url]) -> Vec<&str> {
        urls.iter().map(Url::as_str).collect()
    }

    #[test]
    fn metadata_is_looked_for_in_the_order_of_the_specification() {
        assert_eq!(
            texts(&resource_urls(&url("https://a.example/public/mcp"))),
            [
                "https://a.example/.well-known/oauth-protected-resource/public/mcp",
                "https://a.example/.well-known/oauth-protected-resource",
            ]
        );
        assert_eq!(
            texts(&resource_urls(&url("https://a.example:8443/"))),
            ["https://a.example:8443/.well-known/oauth-protected-resource"]
        );
        assert_eq!(
            texts(&issuer_urls(&url("https://auth.example.com/tenant1"))),
            [
                "https://auth.example.com/.well-known/oauth-authorization-server/tenant1",
                "https://auth.example.com/.well-known/openid-configuration/tenant1",
                "https://auth.example.com/tenant1/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            texts(&issuer_urls(&url("https://auth.example.com"))),
            [
                "https://auth.example.com/.well-known/oauth-authorization-server",
                "https://auth.example.com/.well-known/openid-configuration",
            ]
        );
    }

    #[test]
    fn a_resource_is_the_server_or_what_it_is_a_part_of() {
        let server = url("https://a.example/public/mcp");
        for resource in [
            "https://a.example/public/mcp",
            "https://A.example:443/public/mcp/",
            "https://a.example",
            "https://a.example/public",
        ] {
            assert!(covers(resource, &server), "{resource}");
        }
        for resource in [
            "https://evil.example/public/mcp",
            "http://a.example/public/mcp",
            "https://a.example/pub",
            "https://a.example/public/mcp/more",
            "https://a.example/public/mcp?tenant=1",
            "https://a.example/public#mcp",
            "https://a.example.evil.example",
            "a.example",
        ] {
            assert!(!covers(resource, &server), "{resource}");
        }
    }

    #[test]
    fn the_configured_issuer_is_taken_or_none() {
        let named = ["https://one.example".to_owned(), "https://two.example".to_owned()];
        assert_eq!(chosen(&named, None, None), Ok("https://one.example"));
        assert_eq!(chosen(&named, None, Some("https://two.example")), Ok("https://two.example"));
        assert_eq!(chosen(&named, None, Some("https://gone.example")), Ok("https://one.example"));
        assert_eq!(chosen(&named, Some("https://two.example"), Some("https://one.example")), Ok("https://two.example"));
        assert!(chosen(&named, Some("https://two.example/"), None).expect_err("another").contains("oauth.issuer"));
        assert!(chosen(&[], None, None).is_err());
    }

    #[test]
    fn proofs_are_never_taken_for_granted() {
        let read = |methods: &str| {
            let text = format!(r#"{{"issuer": "i", "token_endpoint": "t"{methods}}}"#);
            serde_json::from_str::<ServerMetadata>(&text).expect("metadata").has_pkce()
        };
        assert!(read(r#", "code_challenge_methods_supported": ["plain", "S256"]"#));
        assert!(!read("") && !read(r#", "code_challenge_methods_supported": ["plain"]"#));
    }
}
