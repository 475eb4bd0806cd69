//! What the gateway is told of the tokens of a server.

use echotune_kit::config::Secret;
use serde::Deserialize;
use url::Url;

use super::{client::Signer, guard::is_loopback};

/// Where people come back to the gateway from an authorization server.
pub(crate) const CALLBACK: &str = "/oauth/callback";
/// Longest address or name, in bytes.
const MAX_BYTES: usize = 2 << 10;

/// By whose leave the gateway gets a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OauthGrant {
    /// Somebody's, who is sent to the authorization server.
    #[default]
    AuthorizationCode,
    /// Its own.
    ClientCredentials,
}

/// How tokens for a server are got (OAuth 2.1, as the protocol's section on authorization says).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OauthConfig {
    /// By whose leave.
    pub grant: OauthGrant,
    /// The authorization server, exactly as it calls itself. Without it the first is taken that the server names.
    pub issuer: Option<String>,
    /// As what the gateway was registered there before. It is shown to `issuer` and to nobody else.
    pub client_id: Option<String>,
    /// The secret of that.
    pub client_secret: Option<Secret>,
    /// A private key instead, in PEM (PKCS #8), of P-256 or RSA.
    pub private_key: Option<Secret>,
    /// Where the gateway's own description is, for authorization servers that read such; it is the client's id there.
    pub client_metadata_url: Option<String>,
    /// What to ask for instead of all that the server says that it knows.
    pub scopes: Vec<String>,
    /// Where people reach this gateway's `/oauth/callback`, such as `https://mcp.example.org/oauth/callback`.
    pub redirect_url: Option<String>,
    /// Whether the gateway itself goes to the authorization server and follows it back. For those that ask nobody, as
    /// in tests.
    pub follow_redirect: bool,
}

fn present(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn secret(secret: Option<&Secret>) -> Option<&str> {
    secret.and_then(Secret::reveal)
}

/// Whether the gateway may show a token there, or go there with what makes one.
fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

impl OauthConfig {
    /// What is wrong for a server at these addresses.
    pub(crate) fn check(&self, endpoints: &[String]) -> Vec<String> {
        let mut faults = Vec::new();
        match endpoints {
            [one] if Url::parse(one).is_ok_and(|url| is_safe(&url)) => {}
            [_] => {
                faults.push("oauth needs an https url, or one of the loopback: tokens would travel in clear".to_owned())
            }
            _ => faults.push("oauth needs one url: a token is for one resource".to_owned()),
        }
        self.check_client(&mut faults);
        self.check_addresses(&mut faults);
        let is_one = |scope: &String| !scope.contains(' ') && super::Scopes::read(scope).to_string() == *scope;
        if self.scopes.len() > 64 || !self.scopes.iter().all(|scope| !scope.is_empty() && is_one(scope)) {
            faults.push("oauth.scopes are at most 64, each of printable ASCII without spaces and quotes".to_owned());
        }
        faults
    }

    fn check_client(&self, faults: &mut Vec<String>) {
        let mut wrong = |why: &str| faults.push(why.to_owned());
        let has_id = present(self.client_id.as_ref()).is_some();
        let (has_secret, key) = (secret(self.client_secret.as_ref()).is_some(), secret(self.private_key.as_ref()));
        if has_id && present(self.issuer.as_ref()).is_none() {
            wrong("oauth.client_id needs oauth.issuer, where it was registered: it is shown to nobody else");
        }
        if has_secret && !has_id {
            wrong("oauth.client_secret needs oauth.client_id");
        }
        if has_secret && key.is_some() {
            wrong("oauth has a client_secret and a private key; keep one of them");
        }
        if key.is_some() && !has_id && present(self.client_metadata_url.as_ref()).is_none() {
            wrong("oauth's private key needs client_id or client_metadata_url");
        }
        if let Some(Err(why)) = key.map(Signer::read) {
            wrong(&format!("oauth's private key: {why}"));
        }
        if self.grant == OauthGrant::ClientCredentials && !(has_id && (has_secret || key.is_some())) {
            wrong("oauth.grant = \"client_credentials\" needs client_id with client_secret or private_key_file");
        }
    }

    fn check_addresses(&self, faults: &mut Vec<String>) {
        for (key, text) in [("issuer", &self.issuer), ("client_metadata_url", &self.client_metadata_url)] {
            let is_right = |text: &String| {
                let url = Url::parse(text).ok().filter(|url| is_safe(url) && url.fragment().is_none());
                // A document has a name (OAuth Client ID Metadata Document, section 3).
                let is_named =
                    key == "issuer" || url.as_ref().is_some_and(|url| url.scheme() == "https" && url.path() != "/");
                text.len() <= MAX_BYTES && url.is_some() && is_named
            };
            if text.as_ref().is_some_and(|text| !is_right(text)) {
                faults.push(format!("oauth.{key} is no https address that it can be"));
            }
        }
        if self.grant == OauthGrant::ClientCredentials {
            return;
        }
        match self.redirect_url.as_deref().map(Url::parse) {
            None => faults.push(format!("oauth.redirect_url is needed: where people reach this gateway's {CALLBACK}")),
            Some(Ok(url)) if is_safe(&url) && url.path().ends_with(CALLBACK) && url.query().is_none() => {}
            Some(_) => faults.push(format!("oauth.redirect_url is no https address that ends with {CALLBACK}")),
        }
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        present(self.issuer.as_ref())
    }

    pub(super) fn client_id(&self) -> Option<&str> {
        present(self.client_id.as_ref())
    }

    pub(super) fn client_metadata_url(&self) -> Option<&str> {
        present(self.client_metadata_url.as_ref())
    }

    pub(super) fn redirect_url(&self) -> &str {
        self.redirect_url.as_deref().unwrap_or_default()
    }

    pub(super) fn signer(&self) -> Option<Signer> {
        Signer::read(secret(self.private_key.as_ref())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(url: &str, config: &OauthConfig) -> String {
        config.check(&[url.to_owned()]).join("\n")
    }

    fn code() -> OauthConfig {
        OauthConfig { redirect_url: Some(format!("https://mcp.example.org{CALLBACK}")), ..OauthConfig::default() }
    }

    #[test]
    fn what_would_give_a_secret_away_or_cannot_work_is_told_at_the_start() {
        let own = |text: &str| Some(text.to_owned());
        let kept = |text: &str| Some(Secret::from(text.to_owned()));
        let here = "https://far.example.org/mcp";
        assert_eq!(faults(here, &code()), "");
        assert_eq!(faults("http://localhost:1/mcp", &code()), "");
        assert!(faults("http://far.example.org/mcp", &code()).contains("in clear"));
        assert!(code().check(&[here.to_owned(), here.to_owned()])[0].contains("one url"));
        let own_leave = OauthConfig { grant: OauthGrant::ClientCredentials, ..OauthConfig::default() };
        for (config, why) in [
            (OauthConfig::default(), "redirect_url is needed"),
            (OauthConfig { redirect_url: own("https://mcp.example.org/other"), ..code() }, "ends with /oauth/callback"),
            (OauthConfig { client_id: own("a"), ..code() }, "needs oauth.issuer"),
            (OauthConfig { client_secret: kept("hidden"), ..code() }, "needs oauth.client_id"),
            (OauthConfig { private_key: kept("hidden"), ..code() }, "private key: "),
            (OauthConfig { client_metadata_url: own("https://a.example"), ..code() }, "client_metadata_url"),
            (OauthConfig { issuer: own("http://login.example.org"), ..code() }, "oauth.issuer"),
            (OauthConfig { scopes: vec!["a b".to_owned()], ..code() }, "oauth.scopes"),
            (OauthConfig { scopes: vec![String::new()], ..code() }, "oauth.scopes"),
            (own_leave, "needs client_id with client_secret"),
        ] {
            let told = faults(here, &config);
            assert!(told.contains(why) && !told.contains("hidden"), "{why} is not in {told}");
            assert!(!format!("{config:?}").contains("hidden"));
        }
    }
}
