//! The key that signs a ledger, and the one that verifies it.

use std::{fmt, fs, io, io::Write as _, path::Path, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};

use super::LedgerError;

/// File of the secret key in the folder of a ledger: PKCS #8 (RFC 8410) as base64.
pub const KEY_FILE: &str = "ledger.key";
/// File of the public key beside it, as hexadecimal digits.
pub const PUBLIC_KEY_FILE: &str = "ledger.pub";

/// Bytes of a signature.
pub(super) const SIGNATURE_BYTES: usize = 64;
const PUBLIC_BYTES: usize = 32;

/// By what the lines of a ledger are verified: a key of Ed25519 (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_BYTES]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || format!("a public key of a ledger has {} hexadecimal digits", 2 * PUBLIC_BYTES);
        unhex(text.trim()).map(Self).ok_or_else(told)
    }
}

impl PublicKey {
    /// Reads the public key beside a ledger.
    ///
    /// # Errors
    /// The file is absent or holds no key.
    pub fn read(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join(PUBLIC_KEY_FILE);
        let text = fs::read_to_string(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => {
                let why = "is not there; name the folder that metering.folder says, with the public key in it";
                LedgerError::Key { path: path.clone(), why: why.to_owned() }
            }
            _ => LedgerError::File { path: path.clone(), cause },
        })?;
        text.parse().map_err(|why| LedgerError::Key { path, why })
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// The secret key.
pub(super) struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads the key of a folder, making one (mode 0600) the first time, and writes the public one beside it.
    pub(super) fn read_or_create(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join(KEY_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => create(folder)?,
            Err(cause) => return Err(LedgerError::File { path, cause }),
        };
        let why = "it holds no key of Ed25519 as PKCS #8 in base64; bring back the file, or move the ledger away and \
                   begin another";
        let wrong = || LedgerError::Key { path: path.clone(), why: why.to_owned() };
        let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
        let key = Self(Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| wrong())?);
        write_new(&folder.join(PUBLIC_KEY_FILE), &format!("{}\n", key.public()))?;
        Ok(key)
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(*self.0.public_key().as_ref().first_chunk().expect("a public key of Ed25519 has 32 bytes"))
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        *self.0.sign(message).as_ref().first_chunk().expect("a signature of Ed25519 has 64 bytes")
    }
}

fn create(folder: &Path) -> Result<String, LedgerError> {
    let path = folder.join(KEY_FILE);
    let none = |_| LedgerError::Key { path: path.clone(), why: "the system gives no random bytes".to_owned() };
    let text = STANDARD.encode(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(none)?.as_ref());
    write_new(&path, &format!("{text}\n"))?;
    Ok(text)
}

/// Writes a file that is there as a whole or not at all, for its owner alone.
fn write_new(path: &Path, text: &str) -> Result<(), LedgerError> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let draft = path.with_extension("new");
    let written = || {
        drop(fs::remove_file(&draft));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    written().map_err(LedgerError::file(path))
}

/// Makes names in a folder durable; only Unix opens folders.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok().filter(|two| two.bytes().all(|one| one.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_as_they_were_written() {
        assert_eq!(hex(&[0, 0xa5, 0xff]), "00a5ff");
        assert_eq!(unhex::<3>("00a5ff"), Some([0, 0xa5, 0xff]));
        for wrong in ["", "00a5f", "00a5fg", "+0a5ff", "00a5ff00", "ßßß"] {
            assert_eq!(unhex::<3>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_its_owner_alone_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = SigningKey::read_or_create(folder.path()).expect("made").public();
        assert_eq!(SigningKey::read_or_create(folder.path()).expect("read").public(), first);
        assert_eq!(PublicKey::read(folder.path()).expect("read"), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.path().join(KEY_FILE)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(folder.path().join(KEY_FILE), "nonsense").expect("written");
        let error = SigningKey::read_or_create(folder.path()).err().expect("refused").to_string();
        assert!(error.contains(KEY_FILE) && error.contains("bring back"), "{error}");
    }
}
