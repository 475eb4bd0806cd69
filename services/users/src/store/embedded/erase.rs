//! Erasure in bounded writes: the account goes first, so that nobody can add to what is going; then
//! its events that still wait for the log, its rows, and at last the event that announces it.

use std::collections::BTreeMap;

use echotune_api::events::{Event, Payload};
use echotune_kit::embedded::{Key, Order, StoreError, Table, get};
use echotune_model::{ErasureReceipt, Hlc, User, UserId, UserName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Draft, EmbeddedUserStore, give, given,
    outbox::user_at,
    tables::{
        ACCOUNTS, ERASED, ERASING, FRIENDS, KEYS, LIBRARY, LISTENS, NAMES, OUTBOX, PLAY_COUNTS, PLAYLISTS,
        PLAYLISTS_OF, PROFILES, SETTINGS, TAGGINGS, TALLIES, TOKENS, TOKENS_OF, friend_key, name_key, of,
    },
};
use crate::store::{Answer, Idempotency, Stamp, UserStore as _, UserStoreError};

/// Rows erased in one write at the most, so that no write keeps others waiting for long.
const STEP: usize = 1_000;
/// Scope of idempotency keys that outlive the account.
pub(super) const NOBODY: UserId = UserId(Uuid::nil());

/// Kind, table and count of the rows that begin with the user's id.
const PLAIN: [(&str, Table, Option<&str>); 10] = [
    ("profile", PROFILES, None),
    ("settings", SETTINGS, None),
    ("listen", LISTENS, Some("listens")),
    ("tally", TALLIES, None),
    ("play_count", PLAY_COUNTS, Some("play_counts")),
    ("tagging", TAGGINGS, Some("taggings")),
    ("friend", FRIENDS, Some("friendships")),
    ("library", LIBRARY, Some("library")),
    ("playlist", PLAYLISTS_OF, Some("playlists")),
    ("token", TOKENS_OF, None),
];

/// An erasure under way.
#[derive(Serialize, Deserialize)]
struct Erasing {
    user: User,
    erased: BTreeMap<String, u64>,
    idempotency: Option<Idempotency>,
    traceparent: String,
}

/// Where an erasure is after a step.
enum Step {
    More(UserId),
    Done(ErasureReceipt),
}

impl EmbeddedUserStore {
    pub(super) async fn erase_all(
        &self,
        name: UserName,
        whose: Option<UserId>,
        stamp: Stamp,
    ) -> Answer<ErasureReceipt> {
        match self.begin(name, whose, stamp).await? {
            Step::Done(receipt) => Ok(receipt),
            Step::More(user) => self.go_on(user).await,
        }
    }

    pub(super) async fn resume(&self) -> Answer<Vec<ErasureReceipt>> {
        let mut under_way = Vec::new();
        self.db.read(|view| {
            view.scan(ERASING, &Key::new(), None, Order::Ascending, &mut |_, value| {
                under_way.push(echotune_kit::embedded::decode::<Erasing>(ERASING, value)?.user.id);
                Ok(true)
            })
        })?;
        let mut receipts = Vec::new();
        for user in under_way {
            receipts.push(self.go_on(user).await?);
        }
        Ok(receipts)
    }

    async fn begin(&self, name: UserName, whose: Option<UserId>, stamp: Stamp) -> Answer<Step> {
        let clock = std::sync::Arc::clone(&self.clock);
        self.db
            .write(move |view| {
                let mut draft = Draft {
                    view,
                    batch: Default::default(),
                    clock: &clock,
                    counts: BTreeMap::new(),
                    traceparent: String::new(),
                };
                if let Some(idempotency) = &stamp.idempotency
                    && let Some(receipt) = given(view, NOBODY, idempotency, clock.wall_ms())?
                {
                    return Ok((Step::Done(receipt), draft.batch));
                }
                let is_meant = |id: &UserId| whose.is_none_or(|whose| whose == *id);
                let Some(id) = get::<UserId>(view, NAMES, &name_key(&name))?.filter(is_meant) else {
                    let begun = under_way(&draft, &name)?.filter(is_meant);
                    return Ok((Step::More(begun.ok_or(UserStoreError::UnknownUser(name))?), draft.batch));
                };
                let user = get::<User>(view, ACCOUNTS, &of(id))?
                    .ok_or(StoreError::Damaged { table: ACCOUNTS.0, cause: "an account has a name only".into() })?;
                draft.batch.delete(NAMES, name_key(&name));
                draft.batch.delete(ACCOUNTS, of(id));
                draft.count("users", -1);
                let erasing = Erasing {
                    user,
                    erased: BTreeMap::from([("account".to_owned(), 1)]),
                    idempotency: stamp.idempotency,
                    traceparent: stamp.traceparent,
                };
                draft.batch.put(ERASING, of(id), &erasing);
                Ok((Step::More(id), draft.finish()?))
            })
            .await
    }

    /// Drops the events of an account that is gone: there will be no more of them. The outbox is read
    /// outside of the writer, for it is long when the log is behind.
    async fn drop_events(&self, user: UserId) -> Answer<()> {
        let places = self.read_long(move |view| {
            let mut places = Vec::new();
            view.scan(OUTBOX, &Key::new(), None, Order::Ascending, &mut |place, value| {
                // What cannot be read goes too.
                let (whose, is_erasure) = match Event::decode(value) {
                    Ok(Some(event)) => (Some(event.user), event.payload == Payload::UserErased),
                    _ => (user_at(place), false),
                };
                if whose == Some(user) && !is_erasure {
                    places.push(place.to_vec());
                }
                Ok(true)
            })?;
            Ok(places)
        });
        for piece in places.await?.chunks(STEP) {
            self.published(piece.to_vec()).await?;
        }
        Ok(())
    }

    async fn go_on(&self, user: UserId) -> Answer<ErasureReceipt> {
        self.drop_events(user).await?;
        loop {
            let clock = std::sync::Arc::clone(&self.clock);
            let step = self
                .db
                .write(move |view| {
                    let mut draft = Draft {
                        view,
                        batch: Default::default(),
                        clock: &clock,
                        counts: BTreeMap::new(),
                        traceparent: String::new(),
                    };
                    let step = step(&mut draft, user)?;
                    Ok::<_, UserStoreError>((step, draft.finish()?))
                })
                .await?;
            if let Step::Done(receipt) = step {
                return Ok(receipt);
            }
        }
    }
}

/// The erasure of an account of this name that has begun.
fn under_way(draft: &Draft<'_>, name: &UserName) -> Answer<Option<UserId>> {
    let (wanted, mut found) = (name.folded(), None);
    draft.view.scan(ERASING, &Key::new(), None, Order::Ascending, &mut |_, value| {
        let erasing: Erasing = echotune_kit::embedded::decode(ERASING, value)?;
        if erasing.user.name.folded() == wanted {
            found = Some(erasing.user.id);
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

fn step(draft: &mut Draft<'_>, user: UserId) -> Answer<Step> {
    let Some(mut erasing) = get::<Erasing>(draft.view, ERASING, &of(user))? else {
        // Another caller finished it.
        let receipt = get::<ErasureReceipt>(draft.view, ERASED, &of(user))?;
        let lost = StoreError::Damaged { table: ERASED.0, cause: "an erasure left no receipt".into() };
        return Ok(Step::Done(receipt.ok_or(lost)?));
    };
    let mut room = STEP;
    for (kind, table, counted) in PLAIN {
        let erased = erase_rows(draft, &erasing.user, table, room)?;
        room -= erased;
        if erased > 0 {
            *erasing.erased.entry(kind.to_owned()).or_default() += erased as u64;
            if let Some(name) = counted {
                draft.count(name, -i64::try_from(erased).unwrap_or(i64::MAX));
            }
        }
    }
    room -= KEYS.remove(draft.view, &mut draft.batch, &of(user), room)?;
    if room == 0 {
        draft.batch.put(ERASING, of(user), &erasing);
        return Ok(Step::More(user));
    }
    draft.batch.delete(ERASING, of(user));
    draft.traceparent = erasing.traceparent;
    let erased_at: Hlc = draft.publish(user, Payload::UserErased);
    let receipt = ErasureReceipt { user, erased_at, erased: erasing.erased };
    draft.batch.put(ERASED, of(user), &receipt);
    if let Some(idempotency) = erasing.idempotency {
        give(&mut draft.batch, NOBODY, idempotency, &receipt, draft.clock.wall_ms());
    }
    Ok(Step::Done(receipt))
}

/// Erases at most `room` rows of one table, with what they point to.
fn erase_rows(draft: &mut Draft<'_>, user: &User, table: Table, room: usize) -> Answer<usize> {
    if room == 0 {
        return Ok(0);
    }
    let mut rows = Vec::new();
    let from = of(user.id);
    draft.view.scan(table, &from, from.prefix_end().as_ref(), Order::Ascending, &mut |key, value| {
        rows.push((Key(key.to_vec()), if table == FRIENDS { value.to_vec() } else { Vec::new() }));
        Ok(rows.len() < room)
    })?;
    let erased = rows.len();
    for (key, value) in rows {
        let id = Key::new().fixed(key.0.get(16..).unwrap_or_default());
        match table {
            PLAYLISTS_OF => draft.batch.delete(PLAYLISTS, id),
            TOKENS_OF => draft.batch.delete(TOKENS, id),
            FRIENDS => {
                let (friend, _): (UserId, UserName) = echotune_kit::embedded::decode(FRIENDS, &value)?;
                let back = friend_key(friend, &user.name);
                // The name may belong to a new account by now, which may have the same friend.
                if get::<(UserId, UserName)>(draft.view, FRIENDS, &back)?.is_some_and(|(id, _)| id == user.id) {
                    draft.batch.delete(FRIENDS, back);
                }
            }
            _ => {}
        }
        draft.batch.delete(table, key);
    }
    Ok(erased)
}
