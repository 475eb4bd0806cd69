//! One line of a ledger: a digest that takes in the line before, a signature of it, and the record.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::{
    entry::Record,
    key::{PublicKey, SIGNATURE_BYTES, SigningKey, hex, unhex},
};

/// A digest of a line.
pub(super) type Hash = [u8; 32];

/// Longest line in bytes, its end included.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;
/// What digests and signatures are of, so that none passes for something else.
const DOMAIN: &[u8] = b"echotune ledger 1\n";
const SIGNED_BYTES: usize = DOMAIN.len() + size_of::<Hash>();
const HASH_CHARS: usize = 64;
const SIGNATURE_CHARS: usize = 86;

/// A line that was read.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) hash: Hash,
    signature: [u8; SIGNATURE_BYTES],
    text: &'a [u8],
}

/// The digest of a record after another line.
pub(super) fn chained(previous: &Hash, text: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(previous);
    hash.update(text);
    hash.finalize().into()
}

fn signed(hash: &Hash) -> [u8; SIGNED_BYTES] {
    let mut message = [0; SIGNED_BYTES];
    message[..DOMAIN.len()].copy_from_slice(DOMAIN);
    message[DOMAIN.len()..].copy_from_slice(hash);
    message
}

/// Appends a record to `to`, after the line of digest `previous`; its own digest.
pub(super) fn write(record: &Record, previous: &Hash, key: &SigningKey, to: &mut Vec<u8>) -> Hash {
    let text = serde_json::to_vec(record).expect("records are plain data, which always serialises");
    let hash = chained(previous, &text);
    to.extend_from_slice(hex(&hash).as_bytes());
    to.push(b' ');
    to.extend_from_slice(URL_SAFE_NO_PAD.encode(key.sign(&signed(&hash))).as_bytes());
    to.push(b' ');
    to.extend_from_slice(&text);
    to.push(b'\n');
    hash
}

impl<'a> Line<'a> {
    /// Reads a line without its end.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, String> {
        let shape = || "it is no line of a ledger: DIGEST SIGNATURE RECORD".to_owned();
        let at = HASH_CHARS + 1 + SIGNATURE_CHARS;
        let is_shaped = line.len() > at && line[HASH_CHARS] == b' ' && line[at] == b' ';
        if !is_shaped {
            return Err(shape());
        }
        let digits = std::str::from_utf8(&line[..HASH_CHARS]).map_err(|_| shape())?;
        let signature = URL_SAFE_NO_PAD.decode(&line[HASH_CHARS + 1..at]).map_err(|_| shape())?;
        Ok(Self {
            hash: unhex(digits).ok_or_else(shape)?,
            signature: *signature.first_chunk().ok_or_else(shape)?,
            text: &line[at + 1..],
        })
    }

    /// The record. Nothing is proven of it.
    pub(super) fn record(&self) -> Result<Record, String> {
        serde_json::from_slice(self.text).map_err(|cause| format!("its record cannot be read: {cause}"))
    }

    /// Whether it stands where it was written: after the line of this digest, with this content.
    pub(super) fn follows(&self, previous: &Hash) -> bool {
        chained(previous, self.text) == self.hash
    }

    /// Whether its writer had the key.
    pub(super) fn is_signed(&self, key: &PublicKey) -> bool {
        key.verifies(&signed(&self.hash), &self.signature)
    }
}
