//! What the gateway is to an authorization server, and how it shows that (RFC 6749 section 2.3, RFC 7523, RFC 7591,
//! OAuth Client ID Metadata Documents).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use echotune_kit::config::Secret;
use http::HeaderValue;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde::Deserialize;
use serde_json::json;
use url::{
    Url,
    form_urlencoded::{Serializer, byte_serialize},
};

use super::{
    Wrong,
    config::{OauthConfig, OauthGrant},
    discovery::ServerMetadata,
    guard::is_loopback,
    web::Web,
};

const BASIC: &str = "client_secret_basic";
const POST: &str = "client_secret_post";
const NONE: &str = "none";
const KEY: &str = "private_key_jwt";
/// For how long an assertion holds, in seconds.
const ASSERTED: u64 = 60;

/// Signs assertions.
pub(super) enum Signer {
    P256(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    /// Reads a private key in PEM; why it cannot, and nothing of what it is.
    pub(super) fn read(pem: &str) -> Result<Self, String> {
        let inner = pem.split_once("-----BEGIN PRIVATE KEY-----").and_then(|(_, rest)| rest.split_once("-----END"));
        let (inner, _) = inner.ok_or("is no key in PEM (PKCS #8); `openssl genpkey` makes one")?;
        let text: String = inner.split_whitespace().collect();
        let der = STANDARD.decode(text).map_err(|_| "is no base64")?;
        let random = SystemRandom::new();
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random) {
            return Ok(Self::P256(Box::new(key)));
        }
        let key = RsaKeyPair::from_pkcs8(&der).map_err(|_| "is of neither P-256 nor RSA of 2048 bits or more")?;
        Ok(Self::Rsa(Box::new(key)))
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    /// Signs claims as a JWT; nothing when the system gives no random bytes.
    fn sign(&self, claims: &serde_json::Value) -> Option<String> {
        let header = json!({ "alg": self.algorithm(), "typ": "JWT" });
        let [header, claims] = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let random = SystemRandom::new();
        let signature = match self {
            Self::P256(key) => key.sign(&random, text.as_bytes()).ok()?.as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).ok()?;
                signature
            }
        };
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// How a client shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Nothing,
    Basic,
    Post,
    Key,
}

impl Method {
    fn named(name: &str) -> Option<Self> {
        [(NONE, Self::Nothing), (BASIC, Self::Basic), (POST, Self::Post), (KEY, Self::Key)]
            .into_iter()
            .find_map(|(known, method)| (known == name).then_some(method))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => NONE,
            Self::Basic => BASIC,
            Self::Post => POST,
            Self::Key => KEY,
        }
    }

    /// The first of some that an authorization server takes. One that does not say takes the first of RFC 8414.
    fn of(server: &ServerMetadata, wanted: &[Self]) -> Option<Self> {
        let Some(taken) = &server.token_endpoint_auth_methods_supported else { return wanted.first().copied() };
        wanted.iter().copied().find(|method| taken.iter().any(|name| name == method.name()))
    }
}

/// The gateway as one authorization server knows it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: String,
    method: Method,
    secret: Option<Secret>,
    /// Whether it was registered by the gateway itself, and may be forgotten there.
    pub(super) is_registered: bool,
}

/// What an authorization server answers to a registration.
#[derive(Deserialize)]
struct Registered {
    client_id: String,
    client_secret: Option<Secret>,
    token_endpoint_auth_method: Option<String>,
}

impl Client {
    /// As it was registered before, or as it describes itself; nothing where it has to be registered.
    pub(super) fn known(
        config: &OauthConfig,
        signer: Option<&Signer>,
        server: &ServerMetadata,
    ) -> Result<Option<Self>, Wrong> {
        let by_key = || {
            let signer = signer?;
            let taken = server.token_endpoint_auth_signing_alg_values_supported.as_ref();
            let fits = taken.is_none_or(|taken| taken.iter().any(|one| one == signer.algorithm()));
            Method::of(server, &[Method::Key]).filter(|_| fits)
        };
        let refused = |what: &str| Wrong::Refused(format!("the authorization server takes no {what}"));
        if let Some(id) = config.client_id() {
            let secret = config.client_secret.clone().filter(|secret| secret.reveal().is_some());
            let method = match (signer, &secret) {
                (Some(_), _) => by_key().ok_or_else(|| refused(KEY))?,
                (None, Some(_)) => {
                    Method::of(server, &[Method::Basic, Method::Post]).ok_or_else(|| refused("client_secret"))?
                }
                (None, None) => Method::Nothing,
            };
            return Ok(Some(Self { id: id.to_owned(), method, secret, is_registered: false }));
        }
        let described = config.client_metadata_url().filter(|_| server.client_id_metadata_document_supported);
        Ok(described.map(|url| {
            let method = by_key().unwrap_or(Method::Nothing);
            Self { id: url.to_owned(), method, secret: None, is_registered: false }
        }))
    }

    /// Registers the gateway (RFC 7591).
    pub(super) async fn register(
        config: &OauthConfig,
        server: &ServerMetadata,
        web: &Web,
        url: &Url,
    ) -> Result<Self, Wrong> {
        let method = Method::of(server, &[Method::Basic, Method::Post, Method::Nothing])
            .ok_or_else(|| Wrong::Refused("the authorization server takes no client that it registers".to_owned()))?;
        let told = registration(config, method);
        let answer = web.json(url, &told).await?;
        if !answer.status.is_success() {
            let why = super::grant::error_of(&answer.body);
            return Err(Wrong::Refused(format!(
                "the gateway was not registered, with status {}: {why}",
                answer.status
            )));
        }
        let unread = |_| Wrong::Refused("the answer to its registration is none".to_owned());
        let found: Registered = serde_json::from_slice(&answer.body).map_err(unread)?;
        let secret = found.client_secret.filter(|secret| secret.reveal().is_some());
        let method = found.token_endpoint_auth_method.map_or(Some(method), |name| Method::named(&name));
        let fits = |method: &Method| match method {
            Method::Nothing => true,
            Method::Basic | Method::Post => secret.is_some(),
            Method::Key => false,
        };
        let method = method.filter(fits);
        let method = method.ok_or_else(|| Wrong::Refused("it was registered as what it is not".to_owned()))?;
        Ok(Self { id: found.client_id, method, secret, is_registered: true })
    }

    /// Puts into a form, or returns as a header, what shows who the gateway is.
    pub(super) fn show(
        &self,
        form: &mut Serializer<'_, String>,
        signer: Option<&Signer>,
        issuer: &str,
    ) -> Result<Option<HeaderValue>, Wrong> {
        let secret = self.secret.as_ref().and_then(Secret::reveal).unwrap_or_default();
        match self.method {
            Method::Basic => {
                // Encoded before they are joined (RFC 6749 section 2.3.1).
                let [id, secret] =
                    [self.id.as_str(), secret].map(|part| byte_serialize(part.as_bytes()).collect::<String>());
                let text = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
                let mut header = HeaderValue::try_from(text).map_err(|cause| Wrong::Refused(cause.to_string()))?;
                header.set_sensitive(true);
                return Ok(Some(header));
            }
            Method::Post => {
                form.append_pair("client_secret", secret);
            }
            Method::Key => {
                let signed = signer.and_then(|signer| signer.sign(&claims(&self.id, issuer)));
                let signed = signed.ok_or_else(|| Wrong::Refused("nothing can be signed".to_owned()))?;
                form.append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                form.append_pair("client_assertion", &signed);
            }
            Method::Nothing => {}
        }
        form.append_pair("client_id", &self.id);
        Ok(None)
    }
}

/// What an assertion says: for this authorization server, now, once.
fn claims(id: &str, issuer: &str) -> serde_json::Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let number = URL_SAFE_NO_PAD.encode(crate::token::random::<16>());
    json!({ "iss": id, "sub": id, "aud": issuer, "iat": now, "exp": now + ASSERTED, "jti": number })
}

/// What the gateway says of itself to be registered.
fn registration(config: &OauthConfig, method: Method) -> serde_json::Value {
    let is_native = Url::parse(config.redirect_url()).is_ok_and(|url| is_loopback(&url));
    let grants = match config.grant {
        OauthGrant::AuthorizationCode => vec!["authorization_code", "refresh_token"],
        OauthGrant::ClientCredentials => vec!["client_credentials"],
    };
    json!({
        "client_name": "EchoTune gateway",
        "redirect_uris": [config.redirect_url()],
        "grant_types": grants,
        "response_types": ["code"],
        "token_endpoint_auth_method": method.name(),
        // Where people come back to this machine, or to a host.
        "application_type": if is_native { "native" } else { "web" },
    })
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, UnparsedPublicKey};

    use super::*;

    fn server(rest: &str) -> ServerMetadata {
        serde_json::from_str(&format!(r#"{{"issuer": "https://a.example", "token_endpoint": "t"{rest}}}"#))
            .expect("metadata")
    }

    fn config(secret: Option<&str>) -> OauthConfig {
        OauthConfig {
            client_id: Some("id".to_owned()),
            client_secret: secret.map(|secret| Secret::from(secret.to_owned())),
            client_metadata_url: Some("https://mcp.example.org/client.json".to_owned()),
            ..OauthConfig::default()
        }
    }

    fn shown(client: &Client, signer: Option<&Signer>) -> (String, String) {
        let mut form = Serializer::new(String::new());
        let header = client.show(&mut form, signer, "https://a.example").expect("shown");
        let header = header.map_or_else(String::new, |header| header.to_str().expect("text").to_owned());
        (form.finish(), header)
    }

    #[test]
    fn a_client_shows_who_it_is_in_a_way_that_is_taken() {
        let of = |methods: &str| {
            let server = server(&format!(r#", "token_endpoint_auth_methods_supported": {methods}"#));
            Client::known(&config(Some("a secret:+")), None, &server)
        };
        let basic = STANDARD.encode("id:a+secret%3A%2B");
        let client = of(r#"["client_secret_post", "client_secret_basic"]"#).ok().flatten().expect("known");
        assert_eq!(shown(&client, None), (String::new(), format!("Basic {basic}")));
        let client = of(r#"["client_secret_post"]"#).ok().flatten().expect("known");
        assert_eq!(shown(&client, None).0, "client_secret=a+secret%3A%2B&client_id=id");
        assert!(of(r#"["none"]"#).is_err(), "a secret is not left out");
        assert!(!format!("{client:?}").contains("a secret"));
        let client = Client::known(&config(None), None, &server("")).ok().flatten().expect("known");
        assert_eq!(shown(&client, None).0, "client_id=id");
    }

    #[test]
    fn what_was_registered_before_comes_before_a_description_and_that_where_it_is_read() {
        let reads = server(r#", "client_id_metadata_document_supported": true"#);
        let id = |config: &OauthConfig, server: &ServerMetadata| {
            Client::known(config, None, server).ok().flatten().map(|client| client.id)
        };
        assert_eq!(id(&config(None), &reads).as_deref(), Some("id"));
        let described = OauthConfig { client_id: None, ..config(None) };
        assert_eq!(id(&described, &reads).as_deref(), Some("https://mcp.example.org/client.json"));
        assert_eq!(id(&described, &server("")), None, "it has to be registered");
    }

    #[test]
    fn an_assertion_is_signed_for_one_authorization_server() {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).expect("a key");
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(&der));
        let signer = Signer::read(&pem).expect("read");
        let Signer::P256(key) = &signer else { panic!("of P-256") };
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref());
        let client = Client::known(&config(None), Some(&signer), &server("")).ok().flatten().expect("known");
        let (form, _) = shown(&client, Some(&signer));
        let pairs: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).collect();
        let assertion = pairs.iter().find(|(name, _)| name == "client_assertion").expect("signed").1.to_string();
        let (text, signature) = assertion.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        public.verify(text.as_bytes(), &signature).expect("signed by the key");
        let claims = URL_SAFE_NO_PAD.decode(text.split_once('.').expect("two parts").1).expect("base64");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("claims");
        assert_eq!(
            (&claims["iss"], &claims["sub"], &claims["aud"]),
            (&json!("id"), &json!("id"), &json!("https://a.example"))
        );
        let only = server(r#", "token_endpoint_auth_signing_alg_values_supported": ["RS256"]"#);
        assert!(Client::known(&config(None), Some(&signer), &only).is_err());
        for wrong in ["", "hidden", "-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----"] {
            let why = Signer::read(wrong).err().expect("no key");
            assert!(!why.contains("hidden"), "{why}");
        }
    }
}
