//! What the shared tier has, and the three things that are done with it.
//!
//! A subject is one hash of the server, so that forgetting it is one step, whatever it holds. Scripts, which the server
//! runs one after the other, hold the rules:
//!
//! - A generation is drawn for the hash when somebody is going to fill it, and goes with it. What was begun under another
//!   is not kept: a value that was read before an invalidation never comes after it.
//! - Who is going to fill a field has a lease on it; others wait for them a short while.
//! - Ages are told by the server's clock alone, and count from when a value began to be made.
//! - While a hash is held after an invalidation, nothing is kept in it.

use std::time::Duration;

use redis::{Cmd, Value};

use super::server::{RedisOptions, ServerError, SharedTier};

/// How the keys of subjects begin. The rest is a subject; a server may hold other things beside.
const PREFIX: &str = "echotune:cache:";
/// For how long one who fills a field is waited for by others at the most, each for [`RedisOptions::wait`].
const LEASE: Duration = Duration::from_secs(2);
/// How long a value may be made for and still be kept here.
pub(super) const MAKING: Duration = Duration::from_secs(10);
/// Largest value that is kept here, in bytes.
pub(super) const MAX_VALUE_BYTES: usize = 256 << 10;

/// Arguments: the field, a token, the life of a lease in ms, a generation to be taken where there is none, the life of
/// values in ms.
const LOOK: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local value, ends, lease = 'v:' .. ARGV[1], 'e:' .. ARGV[1], 'l:' .. ARGV[1]
local found = redis.call('HMGET', KEYS[1], 'held', 'generation', value, ends, lease)
if found[1] then return {'held'} end
if found[2] and found[3] and found[4] and tonumber(found[4]) > now then
  return {'found', found[2], now, found[3], tonumber(found[4]) - now}
end
local generation = found[2]
if not generation then
  generation = ARGV[4]
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'generation', generation)
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
elseif found[5] and tonumber(string.match(found[5], '^%d+')) > now then
  return {'busy'}
end
redis.call('HSET', KEYS[1], lease, string.format('%d:%s', now + ARGV[3], ARGV[2]))
return {'fill', generation, now}";

/// Arguments: the field, the generation it was begun under and when, how long it may have taken in ms, the life of values
/// in ms, the value.
const STORE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then return 'overtaken' end
if now - ARGV[3] > tonumber(ARGV[4]) then return 'late' end
redis.call('HSET', KEYS[1], 'v:' .. ARGV[1], ARGV[6], 'e:' .. ARGV[1], string.format('%d', ARGV[3] + ARGV[5]))
redis.call('HDEL', KEYS[1], 'l:' .. ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 'kept'";

/// Argument: for how long nothing is to be kept, in ms.
const FORGET: &str = r"
local hold = tonumber(ARGV[1])
local left = redis.call('HEXISTS', KEYS[1], 'held') == 1 and redis.call('PTTL', KEYS[1]) or 0
redis.call('DEL', KEYS[1])
if math.max(hold, left) > 0 then
  redis.call('HSET', KEYS[1], 'held', 1)
  redis.call('PEXPIRE', KEYS[1], math.max(hold, left))
end
return 'forgotten'";

/// What a value is kept under: what the server gave when it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    generation: Vec<u8>,
    at: i64,
}

/// What the server has of a field.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A value, which lasts for so long yet.
    Found { bytes: Vec<u8>, left: Duration, begun: Begun },
    /// Nothing: who looked is to make it.
    Fill(Begun),
    /// Nothing yet: somebody else makes it.
    Busy,
    /// Nothing, and nothing is to be kept now.
    Held,
}

/// For how long the server may have what was made before an invalidation that it was not told of.
pub(super) fn doubt(options: &RedisOptions) -> Duration {
    options.time_to_live + MAKING + options.timeout
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn script(text: &str, subject: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(1).arg(format!("{PREFIX}{subject}"));
    command
}

/// The command that has the server forget a subject.
pub(super) fn forget(subject: &str, hold: Duration) -> Cmd {
    let hold = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
    let mut command = script(FORGET, subject);
    command.arg(hold);
    command
}

fn read(answer: Value) -> Option<Look> {
    let Value::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    let word = text(parts.next()?)?;
    match word.as_slice() {
        b"held" => return Some(Look::Held),
        b"busy" => return Some(Look::Busy),
        _ => {}
    }
    let begun = Begun { generation: text(parts.next()?)?, at: number(&parts.next()?)? };
    match word.as_slice() {
        b"fill" => Some(Look::Fill(begun)),
        b"found" => {
            let bytes = text(parts.next()?)?;
            let left = Duration::from_millis(u64::try_from(number(&parts.next()?)?).ok()?);
            Some(Look::Found { bytes, left, begun })
        }
        _ => None,
    }
}

fn text(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

const fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}

/// A number that no other has.
fn token() -> Vec<u8> {
    uuid::Uuid::new_v4().as_bytes().to_vec()
}

impl SharedTier {
    /// What there is of a field of a subject.
    pub(super) async fn look(&self, subject: &str, field: &str) -> Result<Look, ServerError> {
        let mut command = script(LOOK, subject);
        command.arg(field).arg(token()).arg(ms(LEASE)).arg(token()).arg(ms(self.inner.options.time_to_live));
        let answer = self.ask(&command).await?;
        let unread =
            || redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "not what the script answers"));
        read(answer).ok_or_else(|| ServerError::Failed(unread()))
    }

    /// Keeps a value, unless its subject was invalidated since it was begun, or it took too long.
    pub(super) async fn store(
        &self,
        subject: &str,
        field: &str,
        begun: &Begun,
        bytes: &[u8],
    ) -> Result<(), ServerError> {
        let mut command = script(STORE, subject);
        command.arg(field).arg(begun.generation.as_slice()).arg(begun.at).arg(ms(MAKING));
        command.arg(ms(self.inner.options.time_to_live)).arg(bytes);
        self.ask(&command).await.map(drop)
    }

    /// Has the server forget a subject now, or once it is back. Whether it was told.
    pub async fn forget(&self, subject: &str, hold: Duration) -> bool {
        let told = self.ask(&forget(subject, hold)).await.is_ok();
        if !told {
            self.tell_later(subject, hold);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn answers_of_the_script_are_read_and_others_refused() {
        let begun = Begun { generation: b"g".to_vec(), at: 5 };
        let found = || vec![bulk("found"), bulk("g"), Value::Int(5), bulk("value"), Value::Int(40)];
        let left = Duration::from_millis(40);
        let expected = Look::Found { bytes: b"value".to_vec(), left, begun: begun.clone() };
        assert_eq!(read(Value::Array(found())), Some(expected));
        assert_eq!(read(Value::Array(vec![bulk("fill"), bulk("g"), Value::Int(5)])), Some(Look::Fill(begun)));
        assert_eq!(read(Value::Array(vec![bulk("busy")])), Some(Look::Busy));
        assert_eq!(read(Value::Array(vec![bulk("held")])), Some(Look::Held));
        for cut in 0..found().len() {
            assert_eq!(read(Value::Array(found().into_iter().take(cut).collect())), None, "{cut} parts");
        }
        let mut negative = found();
        negative[4] = Value::Int(-1);
        for odd in [Value::Nil, Value::Array(vec![bulk("what")]), Value::Array(negative), bulk("held")] {
            assert_eq!(read(odd.clone()), None, "{odd:?}");
        }
    }
}
