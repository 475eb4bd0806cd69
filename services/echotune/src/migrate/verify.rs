//! Both sides are counted and summed; where they differ, the first rows that do are looked for.

use std::{collections::HashMap, time::Duration};

use futures::TryStreamExt as _;
use tokio::time::sleep;

use super::{
    Account, MigrateError, Migration, Names, Table,
    report::{Mismatch, Outcome},
    row::Row,
    sum::Sums,
    target::At,
};

/// Looks at what was just written, which may take a moment to come to where it is read.
const LOOKS: usize = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// Rows told of one table at the most.
const SHOWN: usize = 5;
/// Longest row that is told whole, in characters.
const SHOWN_CHARS: usize = 300;

/// How often each row is on one side and not on the other, by digest.
#[derive(Default)]
struct Difference {
    /// Rows of the destination less those of the source.
    excess: HashMap<u128, i64>,
}

fn shown(row: &Row) -> String {
    let row = row.canonical();
    match row.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &row[..end]),
        None => row,
    }
}

impl Migration {
    /// Compares an account with what is held of it; `wrote` says that it was just written.
    pub(super) async fn verify(
        &self,
        account: &Account,
        names: &Names,
        wrote: bool,
        outcome: &mut Outcome,
    ) -> Result<(), MigrateError> {
        let looks = if wrote { LOOKS } else { 1 };
        for look in 1..=looks {
            outcome.held = self.sums_there(account).await?;
            if outcome.held.differing(&account.sums).is_empty() {
                return Ok(());
            }
            if look < looks {
                sleep(PAUSE).await;
            }
        }
        outcome.mismatches = self.differences(account, names, &outcome.held).await?;
        Ok(())
    }

    /// An account that is not at the destination: all of it is missing.
    pub(super) fn absent(&self, account: &Account) -> Outcome {
        let mut outcome = Outcome::of(account);
        let account_row = Row::Account(account.user.clone()).named(&account.name);
        outcome.mismatches = vec![Mismatch {
            user: account.name.clone(),
            table: Table::Accounts,
            source: account.sums.of(Table::Accounts),
            destination: super::Sum::default(),
            missing: vec![shown(&account_row)],
            unexpected: Vec::new(),
        }];
        self.progress.advance(account.sums.rows());
        outcome
    }

    async fn sums_there(&self, account: &Account) -> Result<Sums, MigrateError> {
        let (mut sums, mut at) = (Sums::default(), Some(At::Users(String::new())));
        while let Some(here) = at {
            let (rows, next) = self.target.page(&account.name, here).await?;
            rows.iter().for_each(|row| sums.add(row));
            at = next;
        }
        Ok(sums)
    }

    /// The tables in which the two sides differ, with the first rows that do.
    async fn differences(&self, account: &Account, names: &Names, held: &Sums) -> Result<Vec<Mismatch>, MigrateError> {
        let differing = held.differing(&account.sums);
        let mut found = Difference::default();
        self.each_there(account, |row| {
            if differing.contains(&row.table()) {
                *found.excess.entry(row.digest()).or_default() += 1;
            }
        })
        .await?;
        let mut mismatches: Vec<_> = differing
            .iter()
            .map(|table| Mismatch {
                user: account.name.clone(),
                table: *table,
                source: account.sums.of(*table),
                destination: held.of(*table),
                missing: Vec::new(),
                unexpected: Vec::new(),
            })
            .collect();
        self.each_here(account, names, |row| {
            if !differing.contains(&row.table()) {
                return;
            }
            let excess = found.excess.entry(row.digest()).or_default();
            *excess -= 1;
            if *excess < 0 {
                let of_table = mismatches.iter_mut().find(|one| one.table == row.table());
                if let Some(one) = of_table.filter(|one| one.missing.len() < SHOWN) {
                    one.missing.push(shown(row));
                }
            }
        })
        .await?;
        self.each_there(account, |row| {
            if let Some(excess) = found.excess.get_mut(&row.digest()).filter(|excess| **excess > 0) {
                *excess -= 1;
                let of_table = mismatches.iter_mut().find(|one| one.table == row.table());
                if let Some(one) = of_table.filter(|one| one.unexpected.len() < SHOWN) {
                    one.unexpected.push(shown(row));
                }
            }
        })
        .await?;
        Ok(mismatches)
    }

    /// Hands over every row of an account that the destination holds.
    async fn each_there(&self, account: &Account, mut take: impl FnMut(&Row)) -> Result<(), MigrateError> {
        let mut at = Some(At::Users(String::new()));
        while let Some(here) = at {
            let (rows, next) = self.target.page(&account.name, here).await?;
            rows.iter().for_each(&mut take);
            at = next;
        }
        Ok(())
    }

    /// Hands over every row of an account in the folder, as it should be at the destination.
    async fn each_here(
        &self,
        account: &Account,
        names: &Names,
        mut take: impl FnMut(&Row),
    ) -> Result<(), MigrateError> {
        let friends = account.friends.iter().filter_map(|friend| names.get(friend).cloned());
        friends.for_each(|name| take(&Row::Friend(name)));
        let mut pages = std::pin::pin!(self.source.pages(&account.user));
        while let Some(page) = pages.try_next().await? {
            let page = page.into_iter().filter(|row| row.table() != Table::Friends);
            page.for_each(|row| take(&row.named(&account.name)));
        }
        Ok(())
    }
}
