//! What the store keeps of accounts, and how nothing of one stays.

use echotune_kit::embedded::{Batch, Expiring, Key, Order, Table, View, get};
use echotune_model::{RunId, UserId, UserName};

use super::{BY_USER, EmbeddedRunStore, KEYS, SWEEP, damaged, run_of, user_key};
use crate::store::{Answer, Followed, RunStoreError, UNNAMED_LIFE_MS};

/// Account → name.
const ACCOUNTS: Table = Table("agents.accounts");
/// Account that is gone and whose name is not known → when it went.
pub(super) const UNNAMED: Expiring = Expiring { records: Table("agents.unnamed"), ends: Table("agents.unnamed.ends") };

/// What is next to be removed of a user.
enum Next {
    Run(RunId),
    Keys,
    /// What is left is of a later account of the name.
    Nothing,
}

impl EmbeddedRunStore {
    pub(super) async fn erase_runs(&self, folded: &str, started_ms: u64) -> Answer<u64> {
        let mut removed = 0;
        loop {
            let prefix = user_key(folded);
            let piece = self.db.write(move |view| match next(view, &prefix, started_ms)? {
                Next::Run(id) => {
                    let (whole, batch) = Self::remove_some(view, id)?;
                    Ok((Some(u64::from(whole)), batch))
                }
                Next::Keys => {
                    let mut batch = Batch::default();
                    let keys = KEYS.remove(view, &mut batch, &prefix, SWEEP)?;
                    Ok((((keys == SWEEP).then_some(0)), batch))
                }
                Next::Nothing => Ok::<_, RunStoreError>((None, Batch::default())),
            });
            match piece.await? {
                None => return Ok(removed),
                Some(whole) => removed += whole,
            }
        }
    }
}

/// The oldest run of a user, if it started at or before `started_ms`.
fn next(view: &dyn View, prefix: &Key, started_ms: u64) -> Answer<Next> {
    let mut oldest = None;
    view.scan(BY_USER, prefix, prefix.prefix_end().as_ref(), Order::Ascending, &mut |key, _| {
        oldest = Some(run_of(key).ok_or_else(|| damaged(BY_USER))?);
        Ok(false)
    })?;
    Ok(match oldest {
        None => Next::Keys,
        Some(id) if id.made_ms() <= started_ms => Next::Run(id),
        Some(_) => Next::Nothing,
    })
}

fn place(id: UserId) -> Key {
    Key::new().fixed(id.0.as_bytes())
}

pub(super) fn account(view: &dyn View, id: UserId) -> Answer<Option<UserName>> {
    let name: Option<String> = get(view, ACCOUNTS, &place(id))?;
    Ok(name.and_then(|name| name.parse().ok()))
}

pub(super) fn unnamed(view: &dyn View, ids: &[UserId], now_ms: u64) -> Answer<Vec<(UserId, u64)>> {
    let mut found = Vec::new();
    for id in ids {
        if let Some(went_ms) = UNNAMED.get::<u64>(view, &place(*id), now_ms)? {
            found.push((*id, went_ms));
        }
    }
    Ok(found)
}

pub(super) fn follow(followed: Followed, now_ms: u64) -> Batch {
    let Followed { created, erased, unnamed } = followed;
    let mut batch = Batch::default();
    for (id, name) in created {
        batch.put(ACCOUNTS, place(id), &name.to_string());
    }
    for (id, went_ms) in unnamed {
        UNNAMED.put(&mut batch, place(id), &went_ms, now_ms + UNNAMED_LIFE_MS);
    }
    for id in erased {
        batch.delete(ACCOUNTS, place(id));
    }
    batch
}
