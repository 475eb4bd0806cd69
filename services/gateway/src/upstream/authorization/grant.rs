//! Requests for tokens and what comes back: the authorization code with its proof (RFC 7636), for one resource
//! (RFC 8707), from the authorization server that was asked and no other (RFC 9207).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_kit::config::Secret;
use http::HeaderValue;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::{
    Url,
    form_urlencoded::{Serializer, parse},
};

use super::{
    Wrong,
    client::{Client, Signer},
    discovery::Place,
    guard::Guard,
    scopes::Scopes,
    web::Web,
};

/// Longest token, and longest answer of somebody who comes back, in bytes.
const TOKEN_BYTES: usize = 16 << 10;
const QUERY_BYTES: usize = 8 << 10;
/// For how long a token is used at the most without another look, whatever is said of it.
const LASTS: Duration = Duration::from_secs(24 * 3_600);

/// Something that nobody can guess.
pub(super) fn unguessable() -> String {
    URL_SAFE_NO_PAD.encode(crate::token::random::<32>())
}

/// What is kept of something that nobody can guess: what compares equal to it tells nothing of how near another was.
pub(super) fn hidden(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// One request for somebody's leave.
pub(super) struct Request<'a> {
    pub(super) place: &'a Place,
    pub(super) client: &'a Client,
    pub(super) scopes: &'a Scopes,
    pub(super) redirect: &'a str,
    pub(super) state: &'a str,
    pub(super) verifier: &'a str,
}

impl Request<'_> {
    /// The address to open.
    pub(super) fn url(&self, guard: &Guard) -> Result<Url, Wrong> {
        let server = &self.place.server;
        if !server.has_pkce() {
            return Err(Wrong::Refused("the authorization server does not take proofs by S256 (PKCE)".to_owned()));
        }
        let endpoint = server.authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| Wrong::Refused("the authorization server asks nobody".to_owned()))?;
        let mut url = guard.check(endpoint).map_err(Wrong::Refused)?;
        let challenge = URL_SAFE_NO_PAD.encode(hidden(self.verifier));
        let mut pairs = url.query_pairs_mut();
        pairs
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client.id)
            .append_pair("redirect_uri", self.redirect)
            .append_pair("state", self.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("resource", &self.place.resource);
        if !self.scopes.is_empty() {
            pairs.append_pair("scope", &self.scopes.to_string());
        }
        drop(pairs);
        Ok(url)
    }
}

/// What somebody brings back from an authorization server.
#[derive(Default)]
pub(crate) struct Brought {
    pub(super) state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

impl Brought {
    /// Reads a query; nothing where something comes twice, for two readers would choose differently.
    pub(crate) fn read(query: &str) -> Option<Self> {
        if query.len() > QUERY_BYTES {
            return None;
        }
        let mut brought = Self::default();
        for (name, value) in parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "state" => &mut brought.state,
                "code" => &mut brought.code,
                "iss" => &mut brought.iss,
                "error" => &mut brought.error,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(brought)
    }

    /// The code, where it comes from the authorization server that was asked. What another says is not even told.
    pub(super) fn code(&self, place: &Place) -> Result<&str, Wrong> {
        let is_told = place.server.authorization_response_iss_parameter_supported;
        if !is_from(self.iss.as_deref(), &place.server.issuer, is_told) {
            return Err(Wrong::Refused(
                "what was brought is not from the authorization server that was asked".to_owned(),
            ));
        }
        if let Some(error) = &self.error {
            return Err(Wrong::Refused(format!("the authorization server refuses it: {}", shown(error))));
        }
        let code = self.code.as_deref().filter(|code| !code.is_empty());
        code.ok_or_else(|| Wrong::Refused("nothing was brought from the authorization server".to_owned()))
    }
}

/// Whether an answer is from an issuer, by simple comparison (2026-07-28, "Authorization Response Validation").
fn is_from(iss: Option<&str>, issuer: &str, is_told: bool) -> bool {
    iss.map_or(!is_told, |iss| iss == issuer)
}

/// A short word of somebody else's.
fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}

/// What an authorization server gave.
pub(super) struct Given {
    pub(super) header: HeaderValue,
    pub(super) lasts: Option<Duration>,
    pub(super) refresh: Option<Secret>,
    /// Where it differs from what was asked for.
    pub(super) scopes: Option<Scopes>,
}

/// The answer of a token endpoint.
#[derive(Deserialize)]
struct Answered {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
}

/// The code of an error in an answer.
pub(super) fn error_of(body: &[u8]) -> String {
    serde_json::from_slice::<Denied>(body)
        .map_or_else(|_| "it does not say why".to_owned(), |denied| shown(&denied.error))
}

fn read(body: &[u8]) -> Result<Given, Wrong> {
    let wrong = |why: &str| Wrong::Refused(format!("the answer of the token endpoint {why}"));
    // What serde says of a wrong one may hold a part of it.
    let answered: Answered = serde_json::from_slice(body).map_err(|_| wrong("is none"))?;
    if !answered.token_type.eq_ignore_ascii_case("Bearer") {
        return Err(wrong("is a token of another type than Bearer"));
    }
    let fits = |token: &str| {
        !token.is_empty() && token.len() <= TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !fits(&answered.access_token) {
        return Err(wrong("holds what can be no token"));
    }
    let header = HeaderValue::try_from(format!("Bearer {}", answered.access_token));
    let mut header = header.map_err(|_| wrong("holds what can be no token"))?;
    header.set_sensitive(true);
    Ok(Given {
        header,
        lasts: answered.expires_in.map(|seconds| Duration::from_secs(seconds).min(LASTS)),
        refresh: answered.refresh_token.filter(|token| fits(token)).map(Secret::from),
        scopes: answered.scope.map(|scope| Scopes::read(&scope)),
    })
}

/// A token endpoint, and who asks it for what.
pub(super) struct Endpoint<'a> {
    pub(super) web: &'a Web,
    pub(super) guard: &'a Guard,
    pub(super) place: &'a Place,
    pub(super) client: &'a Client,
    pub(super) signer: Option<&'a Signer>,
}

impl Endpoint<'_> {
    /// Asks for a token.
    pub(super) async fn token(&self, grant: &str, of: &[(&str, &str)], scopes: &Scopes) -> Result<Given, Wrong> {
        let url = self.guard.check(&self.place.server.token_endpoint).map_err(Wrong::Refused)?;
        let (form, shown) = self.form(grant, of, scopes)?;
        let answer = self.web.form(&url, form, shown).await?;
        if answer.status.is_success() {
            return read(&answer.body);
        }
        let (status, error) = (answer.status, error_of(&answer.body));
        let why = format!("the token endpoint answers with status {status}: {error}");
        Err(match error.as_str() {
            "invalid_grant" => Wrong::Spent(why),
            "invalid_client" | "unauthorized_client" => Wrong::Unknown(why),
            _ if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS => Wrong::Unreachable(why),
            _ => Wrong::Refused(why),
        })
    }

    fn form(&self, grant: &str, of: &[(&str, &str)], scopes: &Scopes) -> Result<(String, Option<HeaderValue>), Wrong> {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", grant);
        for (name, value) in of {
            form.append_pair(name, value);
        }
        form.append_pair("resource", &self.place.resource);
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes.to_string());
        }
        let shown = self.client.show(&mut form, self.signer, &self.place.server.issuer)?;
        Ok((form.finish(), shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_from_the_one_that_was_asked_alone() {
        let issuer = "https://login.example.org";
        for (iss, is_told, taken) in [
            (Some(issuer), true, true),
            (Some(issuer), false, true),
            (None, false, true),
            (None, true, false),
            (Some("https://evil.example"), true, false),
            (Some("https://evil.example"), false, false),
            (Some("https://login.example.org/"), true, false),
            (Some("HTTPS://login.example.org"), true, false),
            (Some("https://login.example.org:443"), false, false),
            (Some(""), false, false),
        ] {
            assert_eq!(is_from(iss, issuer, is_told), taken, "{iss:?}, told: {is_told}");
        }
    }

    #[test]
    fn what_is_brought_twice_or_is_too_long_is_not_read() {
        let brought = Brought::read("code=a%20b&state=s&iss=https%3A%2F%2Fa.example&other=1&other=2").expect("read");
        let told = (brought.code.as_deref(), brought.state.as_deref(), brought.iss.as_deref());
        assert_eq!(told, (Some("a b"), Some("s"), Some("https://a.example")));
        assert!(Brought::read("state=a&state=b").is_none());
        assert!(Brought::read(&format!("code={}", "a".repeat(QUERY_BYTES))).is_none());
    }

    #[test]
    fn a_token_is_one_of_bearers_that_a_header_can_hold() {
        let given = |text: &str| read(text.as_bytes());
        let whole = given(
            r#"{"access_token": "a.b", "token_type": "bearer", "expires_in": 99999999999, "scope": "b a",
                "refresh_token": "again", "more": 1}"#,
        );
        let whole = whole.expect("a token");
        assert_eq!((whole.header.to_str().expect("text"), whole.lasts), ("Bearer a.b", Some(LASTS)));
        assert_eq!(whole.scopes.expect("told").to_string(), "a b");
        assert!(!format!("{:?}", whole.header).contains("a.b"));
        for wrong in [
            r#"{"access_token": "a", "token_type": "DPoP"}"#,
            r#"{"access_token": "", "token_type": "Bearer"}"#,
            r#"{"access_token": "a\r\nx: y", "token_type": "Bearer"}"#,
            r#"{"token_type": "Bearer"}"#,
            "<html>",
        ] {
            assert!(given(wrong).is_err(), "{wrong}");
        }
    }

    /// The example of RFC 7636, appendix B.
    #[test]
    fn the_proof_is_the_digest_of_the_verifier() {
        let challenge = URL_SAFE_NO_PAD.encode(hidden("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(unguessable().len() == 43 && unguessable() != unguessable());
    }
}
