//! A call as the gateway saw it, before it is known what it costs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    entry::{CallEntry, CallOutcome, Tariff},
    key::hex,
};
use crate::{
    caller::{Digest, digest},
    message::{Json, Outcome},
    token::random,
    upstream::OnBehalf,
};

/// Longest text of a client or a server in an entry, in characters.
const MAX_CHARS: usize = 128;
/// A client's own key of a call, in `_meta`: the same for every attempt.
const IDEMPOTENCY_KEY: &str = "echotune/idempotency-key";
/// Longest such key that is looked at, in bytes.
const MAX_KEY_BYTES: usize = 1_024;

/// A call that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The same for every repetition of one call.
    pub idempotency_key: String,
    /// Whose bill it is on.
    pub tenant: String,
    /// Who called.
    pub caller: String,
    /// The server's name.
    pub server: String,
    /// The tool, as the server names it.
    pub tool: String,
    /// The revision that the caller speaks.
    pub era: String,
    /// What became of it.
    pub outcome: CallOutcome,
    /// From the request to its end.
    pub duration: Duration,
    /// Bytes of the arguments.
    pub bytes_in: u64,
    /// Bytes of the result.
    pub bytes_out: u64,
    /// The trace that it is part of; empty when not traced.
    pub trace_id: String,
}

impl Usage {
    pub(super) fn entry(self, tariff: &Tariff, region: &str) -> CallEntry {
        let server = match tariff.version.as_str() {
            "" => shown(&self.server),
            version => format!("{}@{version}", shown(&self.server)),
        };
        CallEntry {
            sequence: 0,
            at_ms: now_ms(),
            idempotency_key: shown(&self.idempotency_key),
            tenant: shown(&self.tenant),
            caller: shown(&self.caller),
            publisher: tariff.publisher.clone(),
            server,
            tool: shown(&self.tool),
            region: region.to_owned(),
            era: self.era,
            outcome: self.outcome,
            units: 0,
            unit_price_micros: tariff.unit_price_micros,
            currency: tariff.currency.clone(),
            publisher_share_bp: tariff.publisher_share_bp,
            duration_us: u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            trace_id: shown(&self.trace_id),
            plan: tariff.plan.clone(),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_CHARS).collect()
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A call of a tool as a conversation knows it.
pub(crate) struct Call<'a> {
    pub(crate) on: &'a OnBehalf,
    pub(crate) server: &'a str,
    pub(crate) tool: &'a str,
    /// The client's own key of it.
    pub(crate) key: Option<&'a Json>,
    pub(crate) arguments: Option<&'a Json>,
    pub(crate) era: &'static str,
    pub(crate) traceparent: &'a str,
    pub(crate) duration: Duration,
}

impl Call<'_> {
    /// What is entered of it.
    pub(crate) fn ended(&self, outcome: CallOutcome, result: Option<&Outcome>) -> Usage {
        let length = |json: &Json| json.bytes().len() as u64;
        let (tenant, caller) = billed_to(&self.on.principal);
        Usage {
            idempotency_key: hex(&self.key()),
            tenant,
            caller,
            server: self.server.to_owned(),
            tool: self.tool.to_owned(),
            era: self.era.to_owned(),
            outcome,
            duration: self.duration,
            bytes_in: self.arguments.map_or(0, length),
            bytes_out: result.map_or(0, |(Outcome::Result(json) | Outcome::Error(json))| length(json)),
            trace_id: self.traceparent.split('-').nth(1).unwrap_or_default().to_owned(),
        }
    }

    /// A client's key is its own alone, and says nothing of itself in the ledger. Without one every call is another.
    fn key(&self) -> Digest {
        let key = self.key.map(Json::bytes).filter(|key| key.first() == Some(&b'"') && key.len() <= MAX_KEY_BYTES);
        key.map_or_else(random, |key| {
            digest(&[b"call", &self.on.owner, self.server.as_bytes(), self.tool.as_bytes(), key])
        })
    }

    /// Where a client's `_meta` has its key.
    pub(crate) const KEY: &'static str = IDEMPOTENCY_KEY;
}

/// The account of a principal as `Principal::encode` writes it, and the same with its role: its name is nobody's
/// business who reads a bill.
fn billed_to(principal: &str) -> (String, String) {
    let mut parts = principal.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("user"), Some(id), Some(role)) => (id.to_owned(), format!("user/{id}/{role}")),
        _ => ("operator".to_owned(), "operator".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'a>(on: &'a OnBehalf, key: Option<&'a Json>, tool: &'a str) -> Call<'a> {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        Call {
            on,
            server: "notes",
            tool,
            key,
            arguments: None,
            era: "2026-07-28",
            traceparent,
            duration: Duration::from_millis(3),
        }
    }

    #[test]
    fn a_key_is_of_one_account_server_and_tool_and_none_is_never_the_same() {
        let on = |owner: u8| OnBehalf { principal: "user/7/writer/616e6e".into(), owner: [owner; 16], session: None };
        let (ann, ben, key) = (on(1), on(2), Json::of("pay 7"));
        let of = |call: Call<'_>| call.ended(CallOutcome::Ok, None).idempotency_key;
        assert_eq!(of(call(&ann, Some(&key), "add")), of(call(&ann, Some(&key), "add")));
        assert_ne!(of(call(&ann, Some(&key), "add")), of(call(&ben, Some(&key), "add")));
        assert_ne!(of(call(&ann, Some(&key), "add")), of(call(&ann, Some(&key), "drop")));
        assert_ne!(of(call(&ann, None, "add")), of(call(&ann, None, "add")));
        let usage = call(&ann, None, "add").ended(CallOutcome::Ok, Some(&Outcome::result(&"four")));
        assert_eq!((usage.tenant.as_str(), usage.caller.as_str()), ("7", "user/7/writer"));
        assert_eq!((usage.bytes_out, usage.trace_id.as_str()), (6, "0af7651916cd43dd8448eb211c80319c"));
    }
}
