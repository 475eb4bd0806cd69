//! What a move did and found.

use std::collections::BTreeMap;

use echotune_model::{UserId, UserName};

use super::{Account, Mode, Sum, Table, account::Written, sum::Sums};

/// Differences told at the most.
const SHOWN: usize = 100;

/// Rows of one table on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableReport {
    /// In the folder, of the accounts that move.
    pub source: Sum,
    /// At the destination, of the same accounts.
    pub destination: Sum,
    /// Written by this run.
    pub written: u64,
}

/// An account and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountReport {
    /// Its id, the same on both sides.
    pub id: UserId,
    /// Its name in the folder.
    pub name: UserName,
    /// Its name at the destination.
    pub name_there: UserName,
    /// Whether it was at the destination before.
    pub was_there: bool,
    /// Rows in the folder.
    pub rows: u64,
    /// Whether both sides are equal; never in a dry run.
    pub verified: bool,
}

/// A table in which an account differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Whose, by the name at the destination.
    pub user: UserName,
    /// Of which table.
    pub table: Table,
    /// In the folder.
    pub source: Sum,
    /// At the destination.
    pub destination: Sum,
    /// The first rows, as canonical JSON, that the destination does not hold.
    pub missing: Vec<String>,
    /// The first that it holds and the folder does not.
    pub unexpected: Vec<String>,
}

/// What a folder holds that does not move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftBehind {
    /// Lists that were shown.
    pub impressions: u64,
    /// Experiments.
    pub experiments: u64,
    /// Releases of models.
    pub releases: u64,
    /// Runs of workflows.
    pub runs: u64,
    /// Of these, runs that have not ended.
    pub unfinished_runs: u64,
}

/// What a move did and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was asked.
    pub mode: Mode,
    /// Accounts, by id.
    pub accounts: Vec<AccountReport>,
    /// Accounts that this run made.
    pub accounts_made: u64,
    /// Rows by table.
    pub tables: BTreeMap<Table, TableReport>,
    /// The first differences, by account and table.
    pub mismatches: Vec<Mismatch>,
    /// Differences that are not told.
    pub mismatches_not_shown: usize,
    /// Friendships, from each side, with accounts that are not at the destination.
    pub friends_waiting: u64,
    /// What does not move.
    pub left_behind: LeftBehind,
}

/// What became of one account.
pub(super) struct Outcome {
    account: AccountReport,
    source: Sums,
    /// What the destination holds in the end.
    pub(super) held: Sums,
    /// What was sent and was new.
    pub(super) written: Written,
    /// Where both sides differ.
    pub(super) mismatches: Vec<Mismatch>,
}

impl Outcome {
    pub(super) fn of(account: &Account) -> Self {
        Self {
            account: AccountReport {
                id: account.user.id,
                name: account.user.name.clone(),
                name_there: account.name.clone(),
                was_there: account.arrived,
                rows: account.sums.rows(),
                verified: false,
            },
            source: account.sums.clone(),
            held: Sums::default(),
            written: Written::default(),
            mismatches: Vec::new(),
        }
    }
}

impl Report {
    pub(super) fn new(mode: Mode, left_behind: LeftBehind) -> Self {
        Self {
            mode,
            accounts: Vec::new(),
            accounts_made: 0,
            tables: Table::ALL.into_iter().map(|table| (table, TableReport::default())).collect(),
            mismatches: Vec::new(),
            mismatches_not_shown: 0,
            friends_waiting: 0,
            left_behind,
        }
    }

    /// Adds rows that were written.
    pub(super) fn written(&mut self, table: Table, rows: u64) {
        self.tables.entry(table).or_default().written += rows;
    }

    /// Adds an account of a dry run.
    pub(super) fn planned(&mut self, account: &Account) {
        let outcome = Outcome::of(account);
        self.sources(&outcome.source);
        self.accounts.push(outcome.account);
    }

    /// Adds what became of an account.
    pub(super) fn done(&mut self, outcome: Outcome) {
        let Outcome { mut account, source, held, written, mismatches } = outcome;
        self.sources(&source);
        for table in Table::ALL {
            let told = self.tables.entry(table).or_default();
            told.destination.join(held.of(table));
            told.written += written.of(table);
        }
        account.verified = mismatches.is_empty();
        self.accounts.push(account);
        self.mismatches.extend(mismatches);
    }

    fn sources(&mut self, source: &Sums) {
        for table in Table::ALL {
            self.tables.entry(table).or_default().source.join(source.of(table));
        }
    }

    /// Puts in order what came as it was done.
    pub(super) fn finish(&mut self) {
        self.written(Table::Accounts, self.accounts_made);
        self.accounts.sort_unstable_by_key(|account| account.id);
        self.mismatches.sort_by(|a, b| (&a.user, a.table).cmp(&(&b.user, b.table)));
        self.mismatches_not_shown = self.mismatches.len().saturating_sub(SHOWN);
        self.mismatches.truncate(SHOWN);
    }

    /// Whether both sides were compared and are equal.
    pub fn is_verified(&self) -> bool {
        self.mode != Mode::DryRun && self.accounts.iter().all(|account| account.verified)
    }

    /// Rows that this run wrote.
    pub fn rows_written(&self) -> u64 {
        self.tables.values().map(|table| table.written).sum()
    }
}
