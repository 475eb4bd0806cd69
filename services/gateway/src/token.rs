//! Sealed texts that clients keep for the gateway: sessions, cursors, states of multi-round requests, places in
//! streams. Whoever holds one can neither read nor change it, nor use it for anything else than it was made for.

use std::{fmt, fs, io, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};

const SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const ID_BYTES: usize = 4;
/// First byte of what is sealed this way.
const VERSION: u8 = 1;
const HEAD: usize = 1 + ID_BYTES + NONCE_BYTES;
/// Longest token that is looked at, in characters: half of what the headers of a request may have.
const MAX_CHARS: usize = 8 << 10;

/// What a token is for. One that was made for something else is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Session = 1,
    Cursor = 2,
    /// `requestState` of a request that waits for its client's input.
    State = 3,
    /// The stream of an event.
    Stream = 4,
    /// The id of a request to a client.
    Ask = 5,
}

struct Key {
    id: [u8; ID_BYTES],
    cipher: XChaCha20Poly1305,
}

impl Key {
    /// The secret is the key itself: it is random, so that nothing has to be derived from it, which would cost more
    /// than all else that opening a session does.
    fn of(secret: &[u8; SECRET_BYTES]) -> Self {
        let cipher = XChaCha20Poly1305::new(secret.into());
        // A name that tells nothing of the secret: what it makes of nothing, by a nonce that is never used otherwise.
        let payload = Payload { msg: &[], aad: b"identity of a key of tokens" };
        let tag = cipher.encrypt(&XNonce::from([0xff; NONCE_BYTES]), payload).expect("of nothing");
        Self { id: *tag.first_chunk().expect("16 bytes"), cipher }
    }
}

/// The keys of tokens: the first seals, all open. Every replica and region has the same; a new one is put last
/// everywhere, then first everywhere, and an old one is taken out when what it sealed has ended.
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} of them)", self.0.len())
    }
}

impl Keys {
    /// From secrets, the one that seals first.
    ///
    /// # Panics
    /// There is none.
    pub fn new(secrets: &[[u8; SECRET_BYTES]]) -> Self {
        assert!(!secrets.is_empty(), "there is a key of tokens");
        Self(secrets.iter().map(Key::of).collect())
    }

    /// One key that nobody else has: for a gateway that is alone, whose sessions end with it.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(Self::new(&[secret]))
    }

    /// From a file with a secret of 32 bytes in base64 in each line, the one that seals first.
    ///
    /// # Errors
    /// The file cannot be read, is empty or holds something else; the text names file and line, and nothing of it.
    pub fn read(path: &Path) -> io::Result<Self> {
        let shown = path.display();
        let text =
            fs::read_to_string(path).map_err(|cause| io::Error::new(cause.kind(), format!("{shown}: {cause}")))?;
        let mut secrets = Vec::new();
        for (line, secret) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bytes = STANDARD.decode(secret.trim()).ok().and_then(|bytes| bytes.try_into().ok());
            let why = || format!("{shown}:{}: is not 32 bytes in base64", line + 1);
            secrets.push(bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, why()))?);
        }
        if secrets.is_empty() {
            let why = format!("{shown}: holds no key; `openssl rand -base64 32` makes one");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Self::new(&secrets))
    }

    /// Seals bytes for a purpose, about something that must be told to open them.
    pub(crate) fn seal(&self, purpose: Purpose, about: &str, plain: &[u8]) -> String {
        let key = &self.0[0];
        let nonce: [u8; NONCE_BYTES] = random();
        let about = associated(purpose, about);
        let payload = Payload { msg: plain, aad: &about };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload).expect("shorter than 2^38 bytes");
        URL_SAFE_NO_PAD.encode([&[VERSION][..], &key.id, &nonce, &sealed].concat())
    }

    /// Opens what was sealed for the purpose about the same thing; `None` for anything else.
    pub(crate) fn open(&self, purpose: Purpose, about: &str, token: &str) -> Option<Vec<u8>> {
        if token.len() > MAX_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (head, sealed) = bytes.split_at_checked(HEAD)?;
        let (id, nonce) = head[1..].split_at(ID_BYTES);
        if head[0] != VERSION {
            return None;
        }
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let about = associated(purpose, about);
        let payload = || Payload { msg: sealed, aad: &about };
        let keys = self.0.iter().filter(|key| key.id == id);
        keys.into_iter().find_map(|key| key.cipher.decrypt(&XNonce::from(nonce), payload()).ok())
    }
}

fn associated(purpose: Purpose, about: &str) -> Vec<u8> {
    [&[purpose as u8][..], about.as_bytes()].concat()
}

/// Random bytes.
///
/// # Panics
/// The system gives none, without which nothing here is safe.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Writes what is sealed: fixed numbers, and bytes with their length before them.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// At most 65,535 bytes.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).expect("what is sealed is short");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Writer`] wrote.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes(self.fixed()?));
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(secrets: &[u8]) -> Keys {
        let secrets: Vec<_> = secrets.iter().map(|byte| [*byte; SECRET_BYTES]).collect();
        Keys::new(&secrets)
    }

    #[test]
    fn a_token_is_opened_for_its_purpose_about_its_thing_alone() {
        let ring = keys(&[1]);
        let token = ring.seal(Purpose::Session, "mcp", b"ann");
        assert_eq!(ring.open(Purpose::Session, "mcp", &token).as_deref(), Some(&b"ann"[..]));
        assert_eq!(ring.open(Purpose::Cursor, "mcp", &token), None);
        assert_eq!(ring.open(Purpose::Session, "servers/a", &token), None);
        assert_eq!(keys(&[2]).open(Purpose::Session, "mcp", &token), None);
        assert_ne!(token, ring.seal(Purpose::Session, "mcp", b"ann"), "each time otherwise");
    }

    #[test]
    fn keys_are_replaced_while_what_the_old_one_sealed_goes_on() {
        let old = keys(&[1]).seal(Purpose::Session, "", b"x");
        let both = keys(&[2, 1]);
        assert!(both.open(Purpose::Session, "", &old).is_some());
        let new = both.seal(Purpose::Session, "", b"x");
        assert!(keys(&[1]).open(Purpose::Session, "", &new).is_none());
        assert!(keys(&[1, 2]).open(Purpose::Session, "", &new).is_some(), "where it is not the first yet");
        assert!(keys(&[2]).open(Purpose::Session, "", &old).is_none());
    }

    #[test]
    fn a_file_of_keys_is_read_and_a_wrong_line_is_told_without_what_it_says() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("keys");
        fs::write(&path, format!("{}\n\n{}\n", STANDARD.encode([2; 32]), STANDARD.encode([1; 32]))).expect("written");
        let token = keys(&[1]).seal(Purpose::State, "", b"x");
        assert!(Keys::read(&path).expect("read").open(Purpose::State, "", &token).is_some());
        for (text, told) in [("", "openssl rand"), ("AAAA", "keys:1:"), ("\nsecret!", "keys:2:")] {
            fs::write(&path, text).expect("written");
            let error = Keys::read(&path).expect_err("no keys").to_string();
            assert!(error.contains(told) && !error.contains("secret!"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_was_changed_anywhere_is_not_opened(plain in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let ring = keys(&[1]);
            let token = ring.seal(Purpose::Session, "mcp", &plain);
            prop_assert_eq!(ring.open(Purpose::Session, "mcp", &token), Some(plain));
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(ring.open(Purpose::Session, "mcp", &URL_SAFE_NO_PAD.encode(&bytes)), None);
            let cut = &token[..at * 4 / 3];
            prop_assert_eq!(ring.open(Purpose::Session, "mcp", cut), None);
        }

        #[test]
        fn any_text_is_refused_quietly(text in any::<String>()) {
            prop_assert_eq!(keys(&[1]).open(Purpose::Session, "mcp", &text), None);
        }
    }
}
