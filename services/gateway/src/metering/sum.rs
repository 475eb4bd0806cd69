//! What a ledger adds up to, by tenant, publisher or whatever else its entries say.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    str::FromStr,
};

use serde::Serialize;

use super::{
    LedgerError, PublicKey, Report,
    entry::{CallEntry, Record},
    read::walk,
};

/// Hundredths of a percent in a whole.
const WHOLE: u128 = 10_000;
/// Sums at the most; a column with more values than these is no column to add up by.
const MAX_ROWS: usize = 100_000;

/// What entries are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// Whose bill it is on.
    Tenant,
    /// Who offers the server.
    Publisher,
    /// The server with its version.
    Server,
    /// The tool.
    Tool,
    /// Who called.
    Caller,
    /// The plan.
    Plan,
    /// The region.
    Region,
    /// What became of the call.
    Outcome,
}

impl Column {
    const ALL: [Self; 8] = [
        Self::Tenant,
        Self::Publisher,
        Self::Server,
        Self::Tool,
        Self::Caller,
        Self::Plan,
        Self::Region,
        Self::Outcome,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Publisher => "publisher",
            Self::Server => "server",
            Self::Tool => "tool",
            Self::Caller => "caller",
            Self::Plan => "plan",
            Self::Region => "region",
            Self::Outcome => "outcome",
        }
    }

    fn of(self, entry: &CallEntry) -> String {
        let text = match self {
            Self::Tenant => &entry.tenant,
            Self::Publisher => &entry.publisher,
            Self::Server => &entry.server,
            Self::Tool => &entry.tool,
            Self::Caller => &entry.caller,
            Self::Plan => &entry.plan,
            Self::Region => &entry.region,
            Self::Outcome => entry.outcome.name(),
        };
        text.to_owned()
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|column| column.name() == text);
        found.ok_or_else(|| format!("'{}' is none of {}", text.escape_debug(), names()))
    }
}

/// One sum. Amounts are millionths of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The values of the columns, by their names.
    pub by: BTreeMap<&'static str, String>,
    /// ISO 4217 code; empty for what costs nothing.
    pub currency: String,
    /// Calls.
    pub calls: u64,
    /// Those that did what they were asked to.
    pub done: u64,
    /// Units that are billed.
    pub units: u64,
    /// What they cost.
    pub amount_micros: u64,
    /// What the publisher gets of it.
    pub publisher_micros: u64,
    /// What the platform keeps.
    pub platform_micros: u64,
    /// How long all of them took together, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of arguments and results.
    pub bytes: u64,
}

/// Sums, and what was found of the ledgers they are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// The sums, in the order of their columns.
    pub rows: Vec<Row>,
    /// Each ledger, as it was proven.
    pub ledgers: Vec<Report>,
}

#[derive(Default)]
struct Sum {
    calls: u64,
    done: u64,
    units: u64,
    amount: u128,
    /// In hundredths of a percent of a millionth, so that nothing is rounded before the end.
    share: u128,
    duration_us: u128,
    bytes: u128,
}

type Key = (Vec<String>, String);

/// Adds up the entries of ledgers, such as those of all replicas, that ended from `from_ms` on and before `until_ms`.
/// A key that was billed in one of them is not billed again in another. Every line is proven. Blocks.
///
/// # Errors
/// A ledger cannot be read. One that is not whole is told of in its report, and its right lines are added up.
pub fn sum(
    ledgers: &[(PathBuf, PublicKey)],
    by: &[Column],
    (from_ms, until_ms): (u64, u64),
) -> Result<Sums, LedgerError> {
    let (mut sums, mut billed): (BTreeMap<Key, Sum>, HashSet<String>) = Default::default();
    let mut reports = Vec::with_capacity(ledgers.len());
    for (folder, key) in ledgers {
        let report = walk(folder, key, &mut |record, _| {
            let Record::Call(entry) = record else { return Ok(()) };
            if !(from_ms..until_ms).contains(&entry.at_ms) {
                return Ok(());
            }
            let of = (by.iter().map(|column| column.of(entry)).collect(), entry.currency.clone());
            if sums.len() == MAX_ROWS && !sums.contains_key(&of) {
                let why = format!("it adds up to more than {MAX_ROWS} rows; name fewer columns or a shorter time");
                return Err(LedgerError::Damaged { path: folder.clone(), why });
            }
            let is_first = entry.units > 0 && billed.insert(entry.idempotency_key.clone());
            sums.entry(of).or_default().add(entry, is_first);
            Ok(())
        })?;
        reports.push(report);
    }
    let rows = sums.into_iter().map(|(key, sum)| sum.row(by, key)).collect();
    Ok(Sums { rows, ledgers: reports })
}

impl Sum {
    fn add(&mut self, entry: &CallEntry, is_billed: bool) {
        self.calls += 1;
        self.done += u64::from(entry.outcome.is_billed());
        self.duration_us += u128::from(entry.duration_us);
        self.bytes += u128::from(entry.bytes_in) + u128::from(entry.bytes_out);
        if is_billed {
            let amount = u128::from(entry.units) * u128::from(entry.unit_price_micros);
            self.units += u64::from(entry.units);
            self.amount += amount;
            self.share += amount * u128::from(entry.publisher_share_bp);
        }
    }

    /// What does not divide stays with the platform.
    fn row(&self, by: &[Column], (values, currency): Key) -> Row {
        let short = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        let publisher = self.share / WHOLE;
        Row {
            by: by.iter().map(|column| column.name()).zip(values).collect(),
            currency,
            calls: self.calls,
            done: self.done,
            units: self.units,
            amount_micros: short(self.amount),
            publisher_micros: short(publisher),
            platform_micros: short(self.amount - publisher),
            duration_ms: short(self.duration_us / 1_000),
            bytes: short(self.bytes),
        }
    }
}
