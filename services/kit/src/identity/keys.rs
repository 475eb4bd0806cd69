//! Keys of an issuer as a JWK set (RFC 7517) tells them. Pure.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::{refused, verify::Head};
use echotune_model::Fault;

/// Keys in a set at the most; issuers have two or three.
const MAX_KEYS: usize = 100;
/// Bits of an RSA modulus (RFC 7518 section 3.3); ring takes no more.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// One key that signatures can be checked by.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// What it may be used with.
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// The keys of an issuer.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<Arc<Key>>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWK set. Keys of other kinds and for other uses are passed over, as RFC 7517 section 5 has it.
    ///
    /// # Errors
    /// What is wrong: it is none, or no key of it can be used.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let Document { keys } = serde_json::from_slice(json).map_err(|cause| format!("it is no JWK set: {cause}"))?;
        if keys.len() > MAX_KEYS {
            return Err(format!("it has {} keys, more than the {MAX_KEYS} that are read", keys.len()));
        }
        let (mut read, mut over) = (Vec::new(), Vec::new());
        for (nth, key) in keys.into_iter().enumerate() {
            match key_of(key) {
                Ok(key) => read.push(Arc::new(key)),
                Err(why) => over.push(format!("key {} {why}", nth + 1)),
            }
        }
        if read.is_empty() {
            over.truncate(3);
            let over = if over.is_empty() { "it is empty".to_owned() } else { over.join(", ") };
            return Err(format!("it has no key that a signature can be checked by: {over}"));
        }
        Ok(Self(read))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their identities, for people.
    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|key| key.id.as_deref().unwrap_or("(no kid)")).collect()
    }

    /// The key that a JWT says it was signed by; `None` when it is not among these.
    ///
    /// # Errors
    /// It is, and is not for such signatures; or the JWT does not say which of several.
    pub(super) fn find(&self, head: &Head) -> Result<Option<Arc<Key>>, Fault> {
        let fits = |key: &&Arc<Key>| key.algorithms.contains(&head.algorithm);
        let Some(id) = &head.key else {
            let mut fitting = self.0.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (one, None) => Ok(one.cloned()),
                _ => Err(refused("the JWT has no 'kid', and the issuer has several keys that could have signed it")),
            };
        };
        let mut named = self.0.iter().filter(|key| key.id.as_ref() == Some(id)).peekable();
        if named.peek().is_none() {
            return Ok(None);
        }
        // RFC 7517 section 4.5: keys of different kinds may share an identity.
        match named.find(fits) {
            Some(key) => Ok(Some(Arc::clone(key))),
            None => Err(refused("the key of the JWT's 'kid' is not for signatures by its 'alg'")),
        }
    }
}

fn key_of(json: Value) -> Result<Key, &'static str> {
    let jwk: Jwk = serde_json::from_value(json).map_err(|_| "is of a kind or curve that is not known")?;
    let common = jwk.common;
    if common.public_key_use.is_some_and(|purpose| purpose != PublicKeyUse::Signature)
        || common.key_operations.is_some_and(|purposes| !purposes.contains(&KeyOperations::Verify))
    {
        return Err("is not for signatures");
    }
    let (decoding, mut algorithms) = material(&jwk.algorithm)?;
    if let Some(only) = common.key_algorithm {
        // RFC 8725 section 3.1: a key is used with the algorithm it is for.
        algorithms.retain(|one| Algorithm::try_from(only).as_ref() == Ok(one));
        if algorithms.is_empty() {
            return Err("is for an algorithm that is not known");
        }
    }
    Ok(Key { id: common.key_id, algorithms, decoding })
}

/// The key itself and what its kind can be used with.
fn material(parameters: &AlgorithmParameters) -> Result<(DecodingKey, Vec<Algorithm>), &'static str> {
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let (n, e) = (number(&rsa.n)?, number(&rsa.e)?);
            let zeros = n.first().map_or(0, |byte| byte.leading_zeros());
            let bits = (n.len() * 8).saturating_sub(usize::try_from(zeros).unwrap_or_default());
            if !RSA_BITS.contains(&bits) {
                return Err("is an RSA key of other than 2,048 to 8,192 bits");
            }
            Ok((DecodingKey::from_rsa_raw_components(&n, &e), AlgorithmFamily::Rsa.algorithms().to_vec()))
        }
        AlgorithmParameters::EllipticCurve(point) => {
            let (algorithm, bytes) = match point.curve {
                EllipticCurve::P256 => (Algorithm::ES256, 32),
                EllipticCurve::P384 => (Algorithm::ES384, 48),
                _ => return Err("is on a curve other than P-256 and P-384"),
            };
            let whole = [vec![4], exactly(&point.x, bytes)?, exactly(&point.y, bytes)?].concat();
            Ok((DecodingKey::from_ec_der(&whole), vec![algorithm]))
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Ok((DecodingKey::from_ed_der(&exactly(&pair.x, 32)?), vec![Algorithm::EdDSA]))
        }
        _ => Err("is none of RSA, EC and Ed25519"),
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "is not in base64url")
}

fn exactly(text: &str, length: usize) -> Result<Vec<u8>, &'static str> {
    Some(bytes(text)?).filter(|bytes| bytes.len() == length).ok_or("has a coordinate of a wrong length")
}

/// RFC 7518 section 6.3.1.1: some write a zero before a number, which is not part of it.
fn number(text: &str) -> Result<Vec<u8>, &'static str> {
    Ok(bytes(text)?.into_iter().skip_while(|byte| *byte == 0).collect())
}
