use std::{fmt, io, path::Path};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::seal::read_secrets;

/// The key by which names are told where they may not stand: HMAC-SHA256 (RFC 2104, FIPS 198-1), of which nobody
/// without the key can find out a name by trying names. It is never printed.
#[derive(Clone)]
pub struct NamesKey([u8; 32]);

impl fmt::Debug for NamesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamesKey(redacted)")
    }
}

impl NamesKey {
    /// Of these bytes.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// From a file with 32 bytes in base64.
    ///
    /// # Errors
    /// The file cannot be read or does not hold one key; the text names file and line, and nothing of it.
    pub fn read(path: &Path) -> io::Result<Self> {
        match read_secrets(path)?.as_slice() {
            [secret] => Ok(Self(*secret)),
            secrets => {
                let why = "what one key names no other finds, so that it is never replaced";
                let message = format!("{}: holds {} keys of names and not one: {why}", path.display(), secrets.len());
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
        }
    }

    /// From a secret that has another use too, of which this key tells nothing: HKDF-SHA256 (RFC 5869).
    pub(super) fn derived(secret: &[u8]) -> Self {
        let extracted = mac_of(b"echotune: names by a data key", &[secret]);
        Self(mac_of(&extracted, &[b"names", &[1]]))
    }

    /// What stands for bytes of a kind. The same bytes of another kind are told by others.
    pub fn mac(&self, kind: &str, bytes: &[u8]) -> [u8; 32] {
        let length = u64::try_from(kind.len()).unwrap_or(u64::MAX).to_be_bytes();
        mac_of(&self.0, &[&length, kind.as_bytes(), bytes])
    }
}

fn mac_of(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is taken");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_by_its_key_and_kind_alone() {
        let (one, other) = (NamesKey::new([7; 32]), NamesKey::new([8; 32]));
        assert_eq!(one.mac("name", b"ann"), one.clone().mac("name", b"ann"));
        let macs =
            [one.mac("name", b"ann"), one.mac("name", b"ben"), one.mac("asked", b"ann"), other.mac("name", b"ann")];
        assert_eq!(macs.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert_ne!(one.mac("na", b"meann"), one.mac("name", b"ann"), "kind and bytes are parted");
        assert!(!format!("{one:?}").contains('7'));
    }

    #[test]
    fn names_have_one_key() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("names");
        let line = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
        std::fs::write(&file, line).expect("written");
        assert_eq!(NamesKey::read(&file).expect("read").mac("name", b"a"), NamesKey::new([7; 32]).mac("name", b"a"));
        std::fs::write(&file, line.repeat(2)).expect("written");
        assert!(NamesKey::read(&file).expect_err("two").to_string().contains("holds 2 keys"));
        std::fs::write(&file, "short\n").expect("written");
        assert!(NamesKey::read(&file).expect_err("wrong").to_string().contains(":1: is not 32 bytes"));
    }
}
