//! What a session's token carries: all that a replica which has never seen it needs to go on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    abilities::Abilities,
    caller::Digest,
    message::Revision,
    token::{Keys, Purpose, Reader, Writer},
};

/// Longest token in characters. Sessions with servers for which there is no room are opened when they are needed.
const MAX_CHARS: usize = 4 << 10;
/// Bytes that a token is longer than what it carries: head, tag and base64 taken off.
const ROOM: usize = MAX_CHARS / 4 * 3 - 45;

/// A session of the gateway with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// Of the server's name.
    pub(crate) server: u32,
    /// Of the endpoint's address.
    pub(crate) endpoint: u32,
    pub(crate) revision: Revision,
    /// As the server gave it; empty when it gave none.
    pub(crate) id: String,
}

/// A session of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) key: Digest,
    pub(crate) owner: Digest,
    pub(crate) revision: Revision,
    pub(crate) abilities: Abilities,
    /// In seconds since the Unix epoch.
    pub(crate) opened: u32,
    /// The same.
    pub(crate) ends: u32,
    pub(crate) held: Vec<Held>,
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// A number for a name, the same in every replica: FNV-1a.
pub(crate) fn number_of(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Ticket {
    pub(crate) fn open_for(owner: Digest, revision: Revision, abilities: Abilities, lasts: Duration) -> Self {
        let opened = now();
        let ends = opened.saturating_add(u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX));
        Self { key: crate::token::random(), owner, revision, abilities, opened, ends, held: Vec::new() }
    }

    /// The token, for one endpoint of the gateway.
    pub(crate) fn seal(&self, keys: &Keys, scope: &str) -> String {
        let mut plain = Writer::default()
            .fixed(&self.key)
            .fixed(&self.owner)
            .fixed(&[self.revision.number(), self.abilities.0])
            .fixed(&self.opened.to_be_bytes())
            .fixed(&self.ends.to_be_bytes())
            .done();
        // A server may give an id of any length.
        for held in self.held.iter().filter(|held| held.id.len() <= ROOM) {
            let (form, id) = packed(&held.id);
            let more = Writer::default()
                .fixed(&held.server.to_be_bytes())
                .fixed(&held.endpoint.to_be_bytes())
                .fixed(&[held.revision.number(), form])
                .bytes(&id)
                .done();
            if plain.len() + more.len() <= ROOM {
                plain.extend_from_slice(&more);
            }
        }
        keys.seal(Purpose::Session, scope, &plain)
    }

    /// Opens a token; `None` when it was not made here, for this endpoint, or has ended.
    pub(crate) fn open(keys: &Keys, scope: &str, token: &str) -> Option<Self> {
        let plain = keys.open(Purpose::Session, scope, token)?;
        let mut read = Reader(&plain);
        let (key, owner, [revision, abilities]) = (read.fixed()?, read.fixed()?, read.fixed()?);
        let (opened, ends) = (u32::from_be_bytes(read.fixed()?), u32::from_be_bytes(read.fixed()?));
        let mut held = Vec::new();
        while !read.is_done() {
            let (server, endpoint) = (u32::from_be_bytes(read.fixed()?), u32::from_be_bytes(read.fixed()?));
            let [revision, form] = read.fixed()?;
            let id = unpacked(form, read.bytes()?)?;
            held.push(Held { server, endpoint, revision: Revision::of_number(revision)?, id });
        }
        let revision = Revision::of_number(revision)?;
        let ticket = Self { key, owner, revision, abilities: Abilities(abilities), opened, ends, held };
        (now() < ticket.ends).then_some(ticket)
    }
}

/// Ids are most often UUIDs, which take less than half as bytes.
fn packed(id: &str) -> (u8, Vec<u8>) {
    match uuid_bytes(id).filter(|bytes| uuid_text(bytes) == id) {
        Some(bytes) => (1, bytes.to_vec()),
        None => (0, id.as_bytes().to_vec()),
    }
}

fn unpacked(form: u8, bytes: &[u8]) -> Option<String> {
    match form {
        0 => String::from_utf8(bytes.to_vec()).ok(),
        1 => Some(uuid_text(bytes.try_into().ok()?)),
        _ => None,
    }
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 36 || !text.is_ascii() {
        return None;
    }
    let digits: String = text.chars().filter(|digit| *digit != '-').collect();
    for (byte, pair) in bytes.iter_mut().zip(0..16) {
        *byte = u8::from_str_radix(digits.get(pair * 2..pair * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::LATEST_LEGACY;

    fn ticket(held: Vec<Held>) -> Ticket {
        let ticket = Ticket::open_for([7; 16], LATEST_LEGACY, Abilities(9), Duration::from_secs(60));
        Ticket { held, ..ticket }
    }

    #[test]
    fn a_session_goes_on_wherever_the_keys_are() {
        let (here, there) = (Keys::new(&[[1; 32]]), Keys::new(&[[2; 32], [1; 32]]));
        let id = "0d3c8e5a-1111-4222-8333-944445555666".to_owned();
        let held = Held { server: number_of("a"), endpoint: 5, revision: LATEST_LEGACY, id };
        let ticket = ticket(vec![held]);
        let token = ticket.seal(&here, "mcp");
        assert!(token.len() < 180, "{} characters", token.len());
        assert_eq!(Ticket::open(&there, "mcp", &token).as_ref(), Some(&ticket));
        assert_eq!(Ticket::open(&there, "servers/a", &token), None, "another endpoint");
        let ended = Ticket { ends: now(), ..ticket };
        assert_eq!(Ticket::open(&there, "mcp", &ended.seal(&here, "mcp")), None);
    }

    #[test]
    fn servers_for_which_there_is_no_room_are_left_out() {
        let keys = Keys::new(&[[1; 32]]);
        let held = |server| Held { server, endpoint: 1, revision: LATEST_LEGACY, id: "x".repeat(200) };
        let token = ticket((0..100).map(held).collect()).seal(&keys, "mcp");
        assert!(token.len() <= MAX_CHARS, "{}", token.len());
        let kept = Ticket::open(&keys, "mcp", &token).expect("opened").held;
        assert!((10..30).contains(&kept.len()), "{}", kept.len());
        let long = Held { id: "x".repeat(100_000), ..held(1) };
        let token = ticket(vec![long, held(2)]).seal(&keys, "mcp");
        let kept = Ticket::open(&keys, "mcp", &token).expect("opened").held;
        assert_eq!(kept.iter().map(|held| held.server).collect::<Vec<_>>(), [2]);
    }

    proptest! {
        #[test]
        fn ids_of_any_form_come_back(id in "[!-~]{0,80}|[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}") {
            let (form, bytes) = packed(&id);
            prop_assert_eq!(unpacked(form, &bytes), Some(id));
        }
    }
}
