//! What stands in a ledger.

use serde::{Deserialize, Serialize};

/// Parts of a share: a hundredth of a percent each.
const WHOLE_SHARE: u16 = 10_000;
/// Longest text of a tariff in bytes.
const MAX_TEXT_BYTES: usize = 200;

/// What became of a call, as far as a bill asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The tool did what it was asked to.
    Ok,
    /// The tool says that it failed.
    ToolError,
    /// The server answered with an error.
    RpcError,
    /// The gateway answered in the server's place.
    Refused,
    /// Nobody knows whether it was done.
    Unknown,
    /// The caller gave it up.
    Cancelled,
}

impl CallOutcome {
    /// Whether such a call costs something: only what was surely done does.
    pub const fn is_billed(self) -> bool {
        matches!(self, Self::Ok)
    }

    /// Its name in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::RpcError => "rpc_error",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What calls of a server cost, and who gets how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tariff {
    /// Who offers the server; empty for the platform itself.
    pub publisher: String,
    /// Version of the server that is charged for.
    pub version: String,
    /// Name of the plan that the price is of.
    pub plan: String,
    /// Price of a unit in millionths of the currency.
    pub unit_price_micros: u64,
    /// ISO 4217 code; empty where nothing is charged.
    pub currency: String,
    /// What the publisher gets of it, in hundredths of a percent: 8,500 are 85%.
    pub publisher_share_bp: u16,
}

impl Tariff {
    /// What makes it unusable.
    ///
    /// # Errors
    /// The field, and what it has to be.
    pub fn check(&self) -> Result<(), String> {
        let long = |text: &str| text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control);
        for (name, text) in [("publisher", &self.publisher), ("version", &self.version), ("plan", &self.plan)] {
            if long(text) {
                return Err(format!("{name} has more than {MAX_TEXT_BYTES} bytes, or control characters"));
            }
        }
        let is_code = self.currency.len() == 3 && self.currency.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_free = self.currency.is_empty() && self.unit_price_micros == 0;
        if !is_code && !is_free {
            return Err(format!("currency '{}' is no ISO 4217 code such as EUR", self.currency.escape_debug()));
        }
        if self.publisher_share_bp > WHOLE_SHARE {
            let share = self.publisher_share_bp;
            return Err(format!("publisher_share_bp is {share}; {WHOLE_SHARE} are the whole price"));
        }
        Ok(())
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEntry {
    /// Place in the ledger.
    pub sequence: u64,
    /// When it ended: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The same for every repetition of one call. Never the id of its JSON-RPC message, which changes.
    pub idempotency_key: String,
    /// Whose bill it is on: the account's id, or `operator`.
    pub tenant: String,
    /// Who called: the account and its role, without its name.
    pub caller: String,
    /// Who offers the server.
    pub publisher: String,
    /// The server, with its version behind an `@` where one is known.
    pub server: String,
    /// The tool, as the server names it.
    pub tool: String,
    /// Where it was called.
    pub region: String,
    /// The revision that the caller speaks.
    pub era: String,
    /// What became of it.
    pub outcome: CallOutcome,
    /// Units that are billed: 0 for what was not done, and for what was billed under this key before.
    pub units: u32,
    /// Price of one in millionths of the currency.
    pub unit_price_micros: u64,
    /// ISO 4217 code; empty where nothing is charged.
    pub currency: String,
    /// What the publisher gets, in hundredths of a percent.
    pub publisher_share_bp: u16,
    /// From the request to its end, in microseconds.
    pub duration_us: u64,
    /// Bytes of the arguments.
    pub bytes_in: u64,
    /// Bytes of the result.
    pub bytes_out: u64,
    /// The trace that it is part of; empty when not traced.
    pub trace_id: String,
    /// Name of the plan.
    pub plan: String,
}

/// The head of a file: which ledger it goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Place in the ledger.
    pub sequence: u64,
    /// When: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Form of the file.
    pub format: u32,
    /// Which ledger it is: a random number, the same in all its files.
    pub ledger: String,
    /// Where it is written.
    pub region: String,
    /// By what its lines are verified, as hexadecimal digits.
    pub public_key: String,
    /// Digest of the last line of the file before; zeros in the first.
    pub previous: String,
}

/// Calls that were made and could not be entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Place in the ledger.
    pub sequence: u64,
    /// When it was told: milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Where.
    pub region: String,
    /// How many since it was told last.
    pub calls: u64,
}

/// A line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The head of a file.
    Open(Opened),
    /// A call.
    Call(Box<CallEntry>),
    /// Calls that are missing.
    Lost(Lost),
}

impl Record {
    /// Its place in the ledger.
    pub const fn sequence(&self) -> u64 {
        match self {
            Self::Open(opened) => opened.sequence,
            Self::Call(entry) => entry.sequence,
            Self::Lost(lost) => lost.sequence,
        }
    }

    pub(super) const fn set_sequence(&mut self, sequence: u64) {
        match self {
            Self::Open(opened) => opened.sequence = sequence,
            Self::Call(entry) => entry.sequence = sequence,
            Self::Lost(lost) => lost.sequence = sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tariff_that_cannot_be_followed_says_which_field() {
        assert_eq!(Tariff::default().check(), Ok(()));
        let priced = Tariff { unit_price_micros: 5, currency: "EUR".into(), ..Tariff::default() };
        assert_eq!(priced.check(), Ok(()));
        let wrong = |tariff: Tariff| tariff.check().expect_err("wrong");
        assert!(wrong(Tariff { currency: "euro".into(), ..priced.clone() }).contains("'euro'"));
        assert!(wrong(Tariff { currency: String::new(), ..priced.clone() }).contains("ISO 4217"));
        assert!(wrong(Tariff { publisher_share_bp: 10_001, ..priced.clone() }).contains("10001"));
        assert!(wrong(Tariff { plan: "x\n".into(), ..priced }).contains("plan"));
    }
}
