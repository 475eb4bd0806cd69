//! What a JWT must be to be believed: RFC 7519 section 7.2 with the rules of RFC 8725. Pure but for the clock.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_model::Fault;
use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use super::{keys::Key, provider, refused};
use crate::process::IdentityConfig;

/// Kinds of JWTs that say who calls (RFC 7519 section 5.1, RFC 9068 section 2.1), without `application/`. Others, such as
/// those of a logout, are not to be taken for these (RFC 8725 section 3.11).
const TYPES: [&str; 2] = ["jwt", "at+jwt"];
/// Claims that a JWT must have.
const REQUIRED: [&str; 3] = ["iss", "aud", "exp"];

/// What is asked of a JWT.
#[derive(Debug)]
pub(super) struct Rules {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<(String, Algorithm)>,
    leeway_s: u64,
    /// The claim that names the account.
    pub(super) account: String,
    /// The claim that makes an operator, and what it must hold.
    pub(super) operator: Option<(String, String)>,
    /// The claim that allows writing, and what it must hold; all may where there is none.
    pub(super) writer: Option<(String, String)>,
}

/// What a JWT says of its signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) algorithm: Algorithm,
    /// Identity of the key.
    pub(super) key: Option<String>,
}

/// Whatever else a header may hold is not looked at: keys and addresses of keys in it are its sender's.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
}

impl Rules {
    pub(super) fn of(config: &IdentityConfig) -> Self {
        provider::install();
        let pair = |claim: &String, value: &String| (!claim.is_empty()).then(|| (claim.clone(), value.clone()));
        let known = |name: &String| name.parse().ok().map(|algorithm| (name.clone(), algorithm));
        Self {
            issuer: config.issuer.clone(),
            audiences: config.audiences.clone(),
            algorithms: config.algorithms.iter().filter_map(known).collect(),
            leeway_s: config.leeway.0.as_secs(),
            account: config.account_claim.clone(),
            operator: pair(&config.operator_claim, &config.operator_value),
            writer: pair(&config.writer_claim, &config.writer_value),
        }
    }

    /// Reads what a JWT says of its signature, none of which is believed yet.
    ///
    /// # Errors
    /// `Unauthenticated`: it is no signed JWT, or of a kind or signature that is not accepted.
    pub(super) fn head(&self, jwt: &str) -> Result<Head, Fault> {
        let parts = jwt.split('.').count();
        if parts != 3 {
            let why = "where a signed one has 3 (RFC 7515 section 3.1); encrypted ones are not taken";
            return Err(refused(format!("the JWT has {parts} parts, {why}")));
        }
        let header = jwt.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
        let header = header.and_then(|header| serde_json::from_slice::<Header>(&header).ok());
        let Header { alg, typ, kid } =
            header.ok_or_else(|| refused("the JWT's header is no JSON with an 'alg' in base64url"))?;
        let accepted = self.algorithms.iter().find(|(name, _)| *name == alg);
        let Some((_, algorithm)) = accepted else {
            let names: Vec<_> = self.algorithms.iter().map(|(name, _)| name.as_str()).collect();
            return Err(refused(format!("the JWT is not signed by one of {}", names.join(", "))));
        };
        let typ = typ.map(|typ| typ.to_ascii_lowercase());
        if typ.is_some_and(|typ| !TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))) {
            return Err(refused("the JWT's 'typ' is neither JWT nor at+jwt: it is for something else"));
        }
        Ok(Head { algorithm: *algorithm, key: kid })
    }

    /// The claims of a JWT whose signature and claims hold.
    ///
    /// # Errors
    /// `Unauthenticated`, telling what does not.
    pub(super) fn claims(&self, jwt: &str, head: &Head, key: &Key) -> Result<Value, Fault> {
        let mut rules = Validation::new(head.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&self.audiences);
        rules.set_required_spec_claims(&REQUIRED);
        rules.validate_nbf = true;
        rules.leeway = self.leeway_s;
        let read = jsonwebtoken::decode::<Value>(jwt, &key.decoding, &rules);
        let claims = read.map_err(|cause| refused(self.why(cause.kind())))?.claims;
        // The library takes a list of issuers too, and RFC 7519 section 4.1.1 knows one.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(refused(self.why(&ErrorKind::InvalidIssuer)));
        }
        Ok(claims)
    }

    fn why(&self, kind: &ErrorKind) -> String {
        match kind {
            ErrorKind::InvalidSignature => "the JWT's signature is not by the issuer's key".to_owned(),
            ErrorKind::ExpiredSignature => "the JWT has expired ('exp'); get a new one from the issuer".to_owned(),
            ErrorKind::ImmatureSignature => "the JWT is not valid yet ('nbf'); are the clocks right?".to_owned(),
            ErrorKind::InvalidIssuer => {
                format!("the JWT is not by the issuer ('iss') that is known here, {}", self.issuer)
            }
            ErrorKind::InvalidAudience => {
                format!("the JWT is for somebody else: its 'aud' has none of {}", self.audiences.join(", "))
            }
            ErrorKind::MissingRequiredClaim(claim) => format!("the JWT has no claim '{claim}', or it is malformed"),
            ErrorKind::InvalidClaimFormat(claim) => format!("the JWT's claim '{claim}' is malformed"),
            _ => "the JWT is malformed".to_owned(),
        }
    }
}
