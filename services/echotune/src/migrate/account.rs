//! One account: what is missing at the destination is sent, then both sides are compared.

use std::{
    collections::HashSet,
    mem,
    sync::atomic::{AtomicU64, Ordering},
};

use echotune_api::MAX_BATCH;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Account, MigrateError, Migration, Mode, Names, Table,
    report::Outcome,
    row::Row,
    sum::Sums,
    target::{At, Batch},
};

/// Requests of one account under way at the most.
const IN_FLIGHT: usize = 4;

/// What the destination holds of an account.
#[derive(Default)]
pub(super) struct Held {
    pub(super) sums: Sums,
    /// Identities of the rows.
    pub(super) identities: HashSet<u128>,
}

impl Migration {
    /// Moves an account, or only compares it.
    pub(super) async fn account(&self, account: &Account, names: &Names, mode: Mode) -> Result<Outcome, MigrateError> {
        if !names.contains_key(&account.user.id) {
            return Ok(self.absent(account));
        }
        let mut outcome = Outcome::of(account);
        if mode == Mode::Move {
            // A new account holds friends at the most, which were sent before.
            let held = if account.arrived { self.held(account).await? } else { Held::default() };
            if held.sums == account.sums {
                outcome.held = held.sums;
                self.progress.advance(account.sums.rows());
                return Ok(outcome);
            }
            outcome.written = self.send_missing(account, &held.identities).await?;
        }
        let wrote = !account.arrived || outcome.written.rows() > 0;
        self.verify(account, names, wrote, &mut outcome).await?;
        self.progress.advance(account.sums.rows());
        Ok(outcome)
    }

    /// What the destination holds of an account.
    pub(super) async fn held(&self, account: &Account) -> Result<Held, MigrateError> {
        let (mut held, mut at) = (Held::default(), Some(At::Users(String::new())));
        while let Some(here) = at {
            let (rows, next) = self.target.page(&account.name, here).await?;
            for row in rows {
                held.sums.add(&row);
                held.identities.insert(row.identity());
            }
            at = next;
        }
        Ok(held)
    }

    /// Sends the rows of an account whose identities are not there; what was new.
    async fn send_missing(&self, account: &Account, there: &HashSet<u128>) -> Result<Written, MigrateError> {
        let written = Written::default();
        let batches = self.source.pages(&account.user).map(|page| {
            let missing = page?.into_iter().filter(|row| !there.contains(&row.identity()));
            Ok::<_, MigrateError>(batches(missing))
        });
        let batches = batches.map_ok(|batches| stream::iter(batches).map(Ok::<_, MigrateError>)).try_flatten();
        let written_to = &written;
        let sent = batches.map_ok(|rows| async move {
            let table = rows.table();
            let batch = match rows {
                Rows::Ready(batch) => batch,
                Rows::Token(token) => match self.source.hash(token.id).await? {
                    Some(hash) => Batch::Token(token, hash),
                    // It was exported a moment ago, and nobody writes the folder.
                    None => return Ok(()),
                },
            };
            let receipt = self.target.send(&account.name, &batch).await?;
            written_to.add(table, receipt.recorded);
            Ok(())
        });
        sent.try_buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
        Ok(written)
    }
}

/// New rows by table.
#[derive(Debug, Default)]
pub(super) struct Written([AtomicU64; Table::ALL.len()]);

impl Written {
    fn add(&self, table: Table, rows: u32) {
        self.0[table as usize].fetch_add(u64::from(rows), Ordering::Relaxed);
    }

    pub(super) fn of(&self, table: Table) -> u64 {
        self.0[table as usize].load(Ordering::Relaxed)
    }

    pub(super) fn rows(&self) -> u64 {
        Table::ALL.into_iter().map(|table| self.of(table)).sum()
    }
}

/// Rows to be sent together.
enum Rows {
    Ready(Batch),
    /// The hash of its secret is to be looked up.
    Token(echotune_model::ApiToken),
}

impl Rows {
    const fn table(&self) -> Table {
        match self {
            Self::Token(_) => Table::Tokens,
            Self::Ready(batch) => match batch {
                Batch::Profile(_) => Table::Profiles,
                Batch::Settings(_) => Table::Settings,
                Batch::Listens(_) => Table::Listens,
                Batch::PlayCounts(_) => Table::PlayCounts,
                Batch::Taggings(_) => Table::Taggings,
                Batch::Library(_) => Table::Library,
                Batch::Playlist(_) => Table::Playlists,
                Batch::Token(..) => Table::Tokens,
                Batch::Feedback(_) => Table::Feedback,
            },
        }
    }
}

/// The rows of a page, those of a kind together. A page has at most as many rows as a batch.
fn batches(rows: impl Iterator<Item = Row>) -> Vec<Rows> {
    let (mut listens, mut counts, mut taggings, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut batches = Vec::new();
    for row in rows {
        match row {
            // These went before.
            Row::Account(_) | Row::Friend(_) => {}
            Row::Listen(row) => listens.push(row),
            Row::PlayCount(row) => counts.push(row),
            Row::Tagging(row) => taggings.push(row),
            Row::Kept(row) => kept.push(row),
            Row::Profile(row) => batches.push(Batch::Profile(row)),
            Row::Settings(row) => batches.push(Batch::Settings(row)),
            Row::Playlist(row) => batches.push(Batch::Playlist(row)),
            Row::Feedback(row) => batches.push(Batch::Feedback(row)),
            Row::Token(row) => batches.push(Batch::Token(row, String::new())),
        }
    }
    batches.extend(parts(listens).map(Batch::Listens));
    batches.extend(parts(counts).map(Batch::PlayCounts));
    batches.extend(parts(taggings).map(Batch::Taggings));
    batches.extend(parts(kept).map(Batch::Library));
    let rows = |batch| match batch {
        Batch::Token(token, _) => Rows::Token(token),
        batch => Rows::Ready(batch),
    };
    batches.into_iter().map(rows).collect()
}

/// At most [`MAX_BATCH`] at a time.
fn parts<T>(mut rows: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let rest = if rows.len() > MAX_BATCH { rows.split_off(MAX_BATCH) } else { Vec::new() };
        let part = mem::replace(&mut rows, rest);
        (!part.is_empty()).then_some(part)
    })
}
