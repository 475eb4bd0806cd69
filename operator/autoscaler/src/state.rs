//! What is remembered of a server between decisions: below 2 KiB, in memory and as bytes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    clock::Clock,
    forecast::Record,
    idle::Idle,
    lead::Lead,
    number::Short,
    policy::CLASSES,
    profile::Profile,
    window::{SECONDS, Window},
};

/// The first byte of a state.
const VERSION: u8 = 3;
/// Times are below that, so that sums of them stay whole: 285,000 years.
pub(crate) const LATEST_MS: u64 = 1 << 53;
/// Buckets of the time that is held before shrinking.
pub(crate) const HELD: usize = 16;
/// Forecasts that wait to be judged.
pub(crate) const PENDING: usize = 8;
/// Those who forecast: the window itself, the clock, and the profile of the period.
pub(crate) const FORECASTERS: usize = 3;

/// What is remembered of a server. A new one knows nothing; it is meant for one server and one policy, but outlives
/// changes of the policy. Two states that have the same bytes decide alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub(crate) last: Last,
    pub(crate) window: Window,
    pub(crate) service: Service,
    pub(crate) lead: Lead,
    pub(crate) idle: Idle,
    pub(crate) clock: Clock,
    pub(crate) day: Profile<144>,
    pub(crate) records: [Record; FORECASTERS],
    pub(crate) pending: [Pending; PENDING],
    /// When the last forecast was made, and where the next one goes.
    pub(crate) foretold_ms: u64,
    pub(crate) next: u8,
    /// The most pods that were wanted, by sixteenths of the hold: the newest at `held_last % 16`.
    pub(crate) held: [u16; HELD],
    pub(crate) held_last: u64,
    pub(crate) wakes: Budget,
    pub(crate) flaps: Budget,
}

/// What was seen and decided last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Last {
    pub(crate) seen_ms: u64,
    pub(crate) is_known: bool,
    /// Calls in flight or waiting, and the places that those in flight take.
    pub(crate) calls: u32,
    pub(crate) busy: f64,
    pub(crate) sessions: u32,
    /// Sessions more a second.
    pub(crate) session_rate: f64,
    /// When there were calls, and when some waited.
    pub(crate) active_ms: u64,
    pub(crate) queued_ms: u64,
    /// Calls that found no pod, by wake: those of the last, and a mean.
    pub(crate) wake_ms: u64,
    pub(crate) wake_calls: u32,
    pub(crate) calls_by_wake: f64,
    /// Pods that were wanted, and when there came to be more and fewer.
    pub(crate) wanted: u32,
    pub(crate) grown_ms: u64,
    pub(crate) shrunk_ms: u64,
    /// What each class has of all arrivals.
    pub(crate) shares: [f32; CLASSES],
}

/// What calls take of a place: sums, the newest weighing the most.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Service {
    pub(crate) busy_s: f64,
    pub(crate) calls: f64,
}

/// A forecast of the window and the profiles that waits for its time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pending {
    /// 0 for none.
    pub(crate) due_ms: u64,
    pub(crate) bounds: [(f32, f32); FORECASTERS],
}

/// What may happen some times an hour: it leaks at that pace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Budget {
    pub(crate) level: f64,
    pub(crate) at_ms: u64,
    /// Until then it counts as exceeded, whatever the level.
    pub(crate) until_ms: u64,
}

/// Why bytes are not a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by a later version, or something else.
    #[error("the state begins with version {0}, and this program reads version {VERSION}; begin with a new state")]
    Version(u8),
    /// Cut off, or longer than it may be.
    #[error("the state has {found} bytes instead of {wanted}; begin with a new state")]
    Length {
        /// Bytes that it should have.
        wanted: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A number that no state has.
    #[error("the state has a number in '{0}' that cannot be; begin with a new state")]
    Value(&'static str),
    /// Text with something else than pairs of hexadecimal digits.
    #[error("the state is not written in hexadecimal digits; begin with a new state")]
    Text,
}

impl State {
    /// The state as bytes, always as many.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        self.clone().walk(&mut out);
        out.0
    }

    /// The state that was written so.
    ///
    /// # Errors
    /// Of another version, of another length, or with numbers that no state has.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let (&version, rest) = bytes.split_first().ok_or(StateError::Version(0))?;
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let mut state = Self::default();
        let wanted = state.to_bytes().len();
        if bytes.len() != wanted {
            return Err(StateError::Length { wanted, found: bytes.len() });
        }
        let mut from = In { rest, fault: None };
        state.walk(&mut from);
        match from.fault {
            Some(field) => Err(StateError::Value(field)),
            None => Ok(state),
        }
    }

    /// When the server was last looked at, as observations tell it: for this state it is never earlier.
    pub const fn seen_ms(&self) -> u64 {
        self.last.seen_ms
    }

    /// 64 bits that tell two states apart: FNV-1a (Fowler, Noll and Vo; draft-eastlake-fnv) over the bytes. It finds
    /// differences, and is no seal.
    pub fn digest(&self) -> u64 {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        self.to_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix)
    }

    fn walk(&mut self, at: &mut impl Walk) {
        self.last.walk(at);
        self.window.walk(at);
        at.real("service", &mut self.service.busy_s);
        at.real("service", &mut self.service.calls);
        self.lead.bins.iter_mut().for_each(|bin| at.short("lead", bin));
        at.time("lead", &mut self.lead.until_ms);
        self.idle.bins.iter_mut().for_each(|bin| at.small("idle", bin, 2 * 3_200));
        self.clock.walk(at);
        self.day.walk(at);
        self.records.iter_mut().for_each(|record| record.walk(at));
        for pending in &mut self.pending {
            at.time("pending", &mut pending.due_ms);
            for (low, high) in &mut pending.bounds {
                at.single("pending", low);
                at.single("pending", high);
            }
        }
        at.time("foretold", &mut self.foretold_ms);
        at.byte("next", &mut self.next, PENDING - 1);
        self.held.iter_mut().for_each(|held| at.small("held", held, u16::MAX));
        at.time("held", &mut self.held_last);
        for budget in [&mut self.wakes, &mut self.flaps] {
            at.real("budget", &mut budget.level);
            at.time("budget", &mut budget.at_ms);
            at.time("budget", &mut budget.until_ms);
        }
    }
}

impl Last {
    fn walk(&mut self, at: &mut impl Walk) {
        let times =
            [&mut self.seen_ms, &mut self.active_ms, &mut self.queued_ms, &mut self.wake_ms, &mut self.grown_ms];
        times.into_iter().for_each(|time| at.time("last", time));
        at.time("last", &mut self.shrunk_ms);
        at.flag("last", &mut self.is_known);
        for count in [&mut self.calls, &mut self.sessions, &mut self.wake_calls, &mut self.wanted] {
            at.whole("last", count);
        }
        at.real("last", &mut self.busy);
        at.signed("last", &mut self.session_rate);
        at.real("last", &mut self.calls_by_wake);
        self.shares.iter_mut().for_each(|share| at.single("last", share));
        // What is reckoned from the present must not be after it.
        let past = [self.active_ms, self.queued_ms, self.wake_ms, self.grown_ms, self.shrunk_ms];
        at.check("last", past.iter().all(|time| *time <= self.seen_ms));
    }
}

impl Window {
    fn walk(&mut self, at: &mut impl Walk) {
        self.load.iter_mut().chain(&mut self.rate).for_each(|value| at.short("window", value));
        at.time("window", &mut self.last);
        at.byte("window", &mut self.filled, SECONDS);
        at.real("window", &mut self.part_load);
        at.real("window", &mut self.part_rate);
        at.time("window", &mut self.part_ms);
    }
}

impl Clock {
    fn walk(&mut self, at: &mut impl Walk) {
        self.slots.iter_mut().for_each(|slot| at.slot("clock", slot));
        at.whole("clock", &mut self.learned);
        at.time("clock", &mut self.minute);
        at.real("clock", &mut self.calls);
        at.real("clock", &mut self.before);
        self.errors.iter_mut().for_each(|error| at.single("clock", error));
        at.signed_single("clock", &mut self.jumps);
        at.single("clock", &mut self.strays);
    }
}

impl<const N: usize> Profile<N> {
    fn walk(&mut self, at: &mut impl Walk) {
        self.slots.iter_mut().for_each(|slot| at.slot("profile", slot));
        at.whole("profile", &mut self.learned);
        at.time("profile", &mut self.current);
        for value in [&mut self.area, &mut self.length, &mut self.real, &mut self.told] {
            at.real("profile", value);
        }
    }
}

impl Record {
    fn walk(&mut self, at: &mut impl Walk) {
        for value in [&mut self.up, &mut self.down, &mut self.coverage, &mut self.loss] {
            at.single("record", value);
        }
        at.small("record", &mut self.judged, u16::MAX);
        at.flag("record", &mut self.counts);
    }
}

/// Goes through all numbers of a state in one order, either way; so no field can be written and not read. Numbers are
/// little-endian.
trait Walk {
    /// Takes the bytes, or puts others in their place.
    fn bytes(&mut self, bytes: &mut [u8]);

    fn fault(&mut self, field: &'static str);

    fn check(&mut self, field: &'static str, holds: bool) {
        if !holds {
            self.fault(field);
        }
    }

    fn time(&mut self, field: &'static str, value: &mut u64) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = u64::from_le_bytes(bytes);
        self.check(field, *value <= LATEST_MS);
    }

    fn whole(&mut self, _: &'static str, value: &mut u32) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = u32::from_le_bytes(bytes);
    }

    fn small(&mut self, field: &'static str, value: &mut u16, most: u16) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = u16::from_le_bytes(bytes);
        self.check(field, *value <= most);
    }

    fn byte(&mut self, field: &'static str, value: &mut u8, most: usize) {
        self.bytes(std::slice::from_mut(value));
        self.check(field, usize::from(*value) <= most);
    }

    fn flag(&mut self, field: &'static str, value: &mut bool) {
        let mut byte = u8::from(*value);
        self.byte(field, &mut byte, 1);
        *value = byte == 1;
    }

    fn signed(&mut self, field: &'static str, value: &mut f64) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = f64::from_le_bytes(bytes);
        self.check(field, value.abs() <= 1e30);
    }

    fn real(&mut self, field: &'static str, value: &mut f64) {
        self.signed(field, value);
        self.check(field, value.is_sign_positive());
    }

    fn single(&mut self, field: &'static str, value: &mut f32) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = f32::from_le_bytes(bytes);
        self.check(field, value.is_sign_positive() && *value <= 1.1e30);
    }

    fn signed_single(&mut self, field: &'static str, value: &mut f32) {
        let mut bytes = value.to_le_bytes();
        self.bytes(&mut bytes);
        *value = f32::from_le_bytes(bytes);
        self.check(field, value.abs() <= 1.1e30);
    }

    fn slot(&mut self, field: &'static str, value: &mut Short) {
        self.small(field, &mut value.0, u16::MAX);
        self.check(field, value.0 == u16::MAX || value.get() <= 1.1e30 && value.0 < 0x8000);
    }

    fn short(&mut self, field: &'static str, value: &mut Short) {
        self.slot(field, value);
        self.check(field, value.0 != u16::MAX);
    }
}

struct Out(Vec<u8>);

impl Walk for Out {
    fn bytes(&mut self, bytes: &mut [u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn fault(&mut self, _: &'static str) {}
}

struct In<'b> {
    rest: &'b [u8],
    fault: Option<&'static str>,
}

impl Walk for In<'_> {
    fn bytes(&mut self, bytes: &mut [u8]) {
        let (first, rest) = self.rest.split_at(bytes.len());
        bytes.copy_from_slice(first);
        self.rest = rest;
    }

    fn fault(&mut self, field: &'static str) {
        self.fault.get_or_insert(field);
    }
}

/// Two hexadecimal digits for each byte.
impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl std::str::FromStr for State {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes = text.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>().ok_or(StateError::Text)?;
        Self::from_bytes(&bytes)
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_below_two_kibibytes() {
        let state = State::default();
        println!("{} bytes in memory, {} written", size_of::<State>(), state.to_bytes().len());
        assert!(size_of::<State>() <= 2_048 && state.to_bytes().len() <= 2_048);
    }

    #[test]
    fn what_is_no_state_is_told() {
        let mut bytes = State::default().to_bytes();
        assert_eq!(State::from_bytes(&bytes), Ok(State::default()));
        assert_eq!(State::from_bytes(&[]), Err(StateError::Version(0)));
        assert_eq!(State::from_bytes(&[9, 1]), Err(StateError::Version(9)));
        let wanted = bytes.len();
        assert_eq!(State::from_bytes(&bytes[1..]), Err(StateError::Version(0)));
        assert_eq!(State::from_bytes(&bytes[..9]), Err(StateError::Length { wanted, found: 9 }));
        let mut early = bytes.clone();
        early[9] = 1;
        assert_eq!(State::from_bytes(&early), Err(StateError::Value("last")), "there were calls after it was seen");
        bytes[1..9].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(State::from_bytes(&bytes), Err(StateError::Value("last")));
        assert_eq!("0g".parse::<State>(), Err(StateError::Text));
        assert_eq!(State::default().to_string().parse(), Ok(State::default()));
    }
}
