//! Sealing and opening: pure but for random bytes.

use std::{fmt, fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};

use super::{KeyError, NamesKey};

const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
/// First byte of what is sealed this way.
const VERSION: u8 = 1;
const HEAD: usize = 1 + ID_BYTES + NONCE_BYTES;

/// What became of sealed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The bytes as they were.
    Plain(Vec<u8>),
    /// They were sealed by another key, which is gone.
    OtherKey,
    /// They are not what was sealed, or about something else.
    Damaged,
}

/// Whether bytes may have been sealed by some key, and are not of another format.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.len() > HEAD && bytes[0] == VERSION
}

/// A key of one subject. It is never printed.
#[derive(Clone)]
pub struct DataKey {
    id: [u8; ID_BYTES],
    secret: [u8; KEY_BYTES],
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", hex(&self.id))
    }
}

impl DataKey {
    /// A new key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Self, KeyError> {
        Ok(Self::of(random()?, random()?))
    }

    fn of(id: [u8; ID_BYTES], secret: [u8; KEY_BYTES]) -> Self {
        Self { id, secret, cipher: XChaCha20Poly1305::new(&secret.into()) }
    }

    /// Seals bytes that are about something, which must be told to open them: 49 bytes more than there were.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn seal(&self, about: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let payload = Payload { msg: plain, aad: about };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).expect("shorter than 2^38 bytes");
        Ok([&[VERSION][..], &self.id, &nonce, &sealed].concat())
    }

    /// Opens what was sealed.
    pub fn open(&self, about: &[u8], sealed: &[u8]) -> Opened {
        let Some((head, sealed)) = sealed.split_at_checked(HEAD) else { return Opened::Damaged };
        let (id, nonce) = head[1..].split_at(ID_BYTES);
        if head[0] != VERSION {
            return Opened::Damaged;
        }
        if id != self.id {
            return Opened::OtherKey;
        }
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().expect("the rest of the head");
        let payload = Payload { msg: sealed, aad: about };
        self.cipher.decrypt(&XNonce::from(nonce), payload).map_or(Opened::Damaged, Opened::Plain)
    }

    /// The key of names that belongs to it: always the same, had by nobody who has not this one, and gone with it.
    pub fn names(&self) -> NamesKey {
        NamesKey::derived(&self.secret)
    }
}

/// Secrets of a file, in base64, a line each: one at the least.
pub(super) fn read_secrets(path: &Path) -> io::Result<Vec<[u8; KEY_BYTES]>> {
    let failed = |kind, why: String| io::Error::new(kind, format!("{}{why}", path.display()));
    let text = fs::read_to_string(path).map_err(|cause| failed(cause.kind(), format!(": {cause}")))?;
    let mut secrets = Vec::new();
    for (line, secret) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bytes = STANDARD.decode(secret.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let why = || failed(io::ErrorKind::InvalidData, format!(":{}: is not 32 bytes in base64", line + 1));
        secrets.push(bytes.ok_or_else(why)?);
    }
    if secrets.is_empty() {
        let why = ": holds no key; `openssl rand -base64 32` makes one".to_owned();
        return Err(failed(io::ErrorKind::InvalidData, why));
    }
    Ok(secrets)
}

/// The keys that seal data keys: the first seals, all open, so that a new one is put before the old.
#[derive(Debug, Clone)]
pub struct MasterKeys(Vec<DataKey>);

impl MasterKeys {
    /// From secrets, the newest first. The identity of each is derived from it.
    ///
    /// # Panics
    /// There is none.
    pub fn new(secrets: &[[u8; KEY_BYTES]]) -> Self {
        assert!(!secrets.is_empty(), "there is a master key");
        Self(secrets.iter().map(|secret| DataKey::of(identity(secret), *secret)).collect())
    }

    /// From a file with a secret in base64 in each line, the newest first.
    ///
    /// # Errors
    /// The file cannot be read, is empty or holds something else; the text names file and line, and nothing of it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let secrets = read_secrets(path)?;
        Ok(Self::new(&secrets))
    }

    /// A data key as it is kept: its identity and its sealed secret.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn wrap(&self, subject: &str, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        let about = [&key.id[..], subject.as_bytes()].concat();
        Ok([&key.id[..], &self.0[0].seal(&about, &key.secret)?].concat())
    }

    /// A data key from what is kept.
    ///
    /// # Errors
    /// Its master key is not there, or it is damaged.
    pub fn unwrap(&self, subject: &str, kept: &[u8]) -> Result<DataKey, KeyError> {
        let damaged = || KeyError::Damaged { subject: subject.to_owned() };
        let (id, sealed) = kept.split_at_checked(ID_BYTES).ok_or_else(damaged)?;
        let about = [id, subject.as_bytes()].concat();
        for master in &self.0 {
            match master.open(&about, sealed) {
                Opened::Plain(secret) => {
                    let secret = secret.try_into().map_err(|_| damaged())?;
                    return Ok(DataKey::of(id.try_into().map_err(|_| damaged())?, secret));
                }
                Opened::OtherKey => {}
                Opened::Damaged => return Err(damaged()),
            }
        }
        Err(KeyError::UnknownMaster(hex(sealed.get(1..=ID_BYTES).unwrap_or_default())))
    }
}

/// A name of a secret that tells nothing of it: what it makes of nothing, by a nonce that is never used otherwise.
fn identity(secret: &[u8; KEY_BYTES]) -> [u8; ID_BYTES] {
    let payload = Payload { msg: &[], aad: b"identity of a master key" };
    let tag = XChaCha20Poly1305::new(secret.into()).encrypt(&XNonce::from([0xff; NONCE_BYTES]), payload);
    *tag.expect("of nothing").first_chunk().expect("16 bytes")
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|cause| KeyError::Failed {
        kind: echotune_model::ErrorKind::Internal,
        message: format!("the system gives no random bytes: {cause}"),
    })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_by_its_key_about_its_thing_alone() {
        let (key, other) = (DataKey::random().expect("random"), DataKey::random().expect("random"));
        let sealed = key.seal(b"a title of ann", b"Army of Me").expect("sealed");
        assert_eq!(sealed.len(), 10 + 49);
        assert!(!sealed.windows(4).any(|some| some == b"Army"));
        assert_ne!(sealed, key.seal(b"a title of ann", b"Army of Me").expect("sealed"), "each time otherwise");
        assert_eq!(key.open(b"a title of ann", &sealed), Opened::Plain(b"Army of Me".to_vec()));
        assert_eq!(other.open(b"a title of ann", &sealed), Opened::OtherKey);
        assert_eq!(key.open(b"a title of ben", &sealed), Opened::Damaged);
        for at in (0..sealed.len()).filter(|at| !(1..=ID_BYTES).contains(at)) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(b"a title of ann", &changed), Opened::Damaged, "byte {at}");
            assert_eq!(key.open(b"a title of ann", &sealed[..at.min(HEAD + 15)]), Opened::Damaged, "{at} bytes");
        }
        assert!(!format!("{key:?}").contains(&hex(&key.secret[..4])));
    }

    #[test]
    fn names_by_a_data_key_are_its_own_and_outlive_a_restart() {
        let master = MasterKeys::new(&[[1; KEY_BYTES]]);
        let (key, other) = (DataKey::random().expect("random"), DataKey::random().expect("random"));
        let again = master.unwrap("ann", &master.wrap("ann", &key).expect("wrapped")).expect("opened");
        let name = key.names().mac("a kind", b"bytes");
        assert_eq!(name, again.names().mac("a kind", b"bytes"));
        assert_ne!(name, other.names().mac("a kind", b"bytes"));
        assert_ne!(
            name,
            NamesKey::new(key.secret).mac("a kind", b"bytes"),
            "the secret itself seals, and names nothing"
        );
    }

    #[test]
    fn a_new_master_key_opens_what_the_old_one_sealed_while_that_is_there() {
        let (old, new) = ([1; KEY_BYTES], [2; KEY_BYTES]);
        let key = DataKey::random().expect("random");
        let kept = MasterKeys::new(&[old]).wrap("ann", &key).expect("wrapped");
        let opened = MasterKeys::new(&[new, old]).unwrap("ann", &kept).expect("opened");
        let sealed = key.seal(b"", b"a").expect("sealed");
        assert_eq!(opened.open(b"", &sealed), Opened::Plain(b"a".to_vec()));
        let gone = MasterKeys::new(&[new]).unwrap("ann", &kept).expect_err("not there");
        assert!(gone.to_string().contains(&hex(&identity(&old))), "{gone}");
        let other = MasterKeys::new(&[old]).unwrap("ben", &kept).expect_err("somebody else's");
        assert!(matches!(other, KeyError::Damaged { .. }), "{other}");
    }

    #[test]
    fn a_file_of_master_keys_is_read_and_a_wrong_line_is_told_without_what_it_says() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("master");
        let (old, new) = ([1; KEY_BYTES], [2; KEY_BYTES]);
        let kept = MasterKeys::new(&[old]).wrap("ann", &DataKey::random().expect("random")).expect("wrapped");
        fs::write(&path, format!("{}\n\n{}\n", STANDARD.encode(new), STANDARD.encode(old))).expect("written");
        MasterKeys::read(&path).expect("read").unwrap("ann", &kept).expect("opened by the second");
        for (text, told) in [("", "openssl rand"), ("AAAA", "master:1:"), ("\nsecret!", "master:2:")] {
            fs::write(&path, text).expect("written");
            let error = MasterKeys::read(&path).expect_err("no keys").to_string();
            assert!(error.contains(told) && !error.contains("secret!"), "{error}");
        }
    }
}
