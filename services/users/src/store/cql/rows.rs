//! Rows that come in batches: counts, taggings, friends and tracks. Each method makes several writes when they do not fit
//! into one, and a repeat counts those that were made as known.

use std::collections::{BTreeMap, HashMap, HashSet};

use echotune_api::events::Payload;
use echotune_model::{
    ItemId, LibraryEntry, ListenReceipt, Page, PageRequest, PlayCount, Rejection, Tagging, Track, User, UserId,
    UserName, fold,
};
use futures::future::{try_join, try_join_all};
use uuid::Uuid;

use super::{
    CqlUserStore,
    draft::{BATCH_BYTES, BATCH_ROWS, Draft},
    fill::{KEYS, Needs},
    keys::{Key, unless_answered},
    pages,
    sealed::{Place, Seal, is_sealed},
};
use crate::store::{Answer, Checked, Stamp, UserStoreError};

/// Rows in parts that each fit into one batch.
pub(super) fn parts<T>(rows: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut parts, mut room) = (Vec::<Vec<T>>::new(), 0_usize);
    for row in rows {
        let size = bytes(&row);
        match parts.last_mut() {
            Some(part) if part.len() < BATCH_ROWS && size <= room => part.push(row),
            _ => {
                room = BATCH_BYTES;
                parts.push(vec![row]);
            }
        }
        room = room.saturating_sub(size);
    }
    parts
}

fn sized(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn tagging_key(tagging: &Tagging) -> (Uuid, String) {
    (ItemId::artist(&tagging.artist).0, fold(&tagging.tag))
}

impl CqlUserStore {
    /// Writes rows in parts, the answer with the last.
    async fn add_parts<T>(
        &self,
        name: &'static str,
        fresh: Vec<Vec<T>>,
        (seal, stamp, key): (&Seal, &Stamp, Option<Key>),
        mut receipt: ListenReceipt,
        add: impl Fn(&mut Draft<'_>, Vec<T>) -> Answer<()>,
    ) -> Answer<ListenReceipt> {
        let count = fresh.len().max(1);
        let mut left = fresh.into_iter();
        for part in 1..=count {
            let mut draft = self.draft(name, &stamp.traceparent);
            if let Some(rows) = left.next() {
                receipt.written_at = draft.at.hlc;
                add(&mut draft, rows)?;
            }
            if part == count {
                draft.give(seal, key.clone(), &receipt)?;
            }
            draft.commit().await?;
        }
        Ok(receipt)
    }

    pub(super) async fn replace_counts(
        &self,
        user: &User,
        counts: Checked<PlayCount>,
        stamp: Stamp,
    ) -> Answer<ListenReceipt> {
        /// Source, artist, value and when it was written.
        type Row = (String, Uuid, Vec<u8>, Option<i64>);
        let key = unless_answered!(self.known::<ListenReceipt>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let of = |count: &PlayCount| (count.source.clone(), count.artist_id().0);
        let keys: Vec<_> = counts.rows.iter().map(|(_, count)| of(count)).collect::<HashSet<_>>().into_iter().collect();
        let ask = |keys| self.rows::<Row>(&self.of().play_counts_known, (user.id.0, keys));
        let rows = try_join_all(keys.chunks(KEYS).map(ask)).await?;
        let (mut known, opener) = (HashMap::new(), seal.opener());
        for (source, artist, value, written) in rows.into_iter().flatten() {
            self.inner.times.follow(written.unwrap_or_default());
            let count: Option<PlayCount> = opener.record(Place::PlayCount { source: &source, artist }, &value)?;
            known.insert((source, artist), count.map(|count| count.plays));
        }
        let new: HashSet<_> = keys.into_iter().filter(|key| !known.contains_key(key)).collect();
        let mut receipt = ListenReceipt { rejections: counts.rejections, ..ListenReceipt::default() };
        let mut changed = BTreeMap::new();
        for (_, count) in counts.rows {
            if known.insert(of(&count), Some(count.plays)) == Some(Some(count.plays)) {
                receipt.duplicates += 1;
            } else {
                receipt.recorded += 1;
                changed.insert(of(&count), count);
            }
        }
        let changed =
            parts(changed.into_values().collect(), |count| 3 * (count.artist.len() + count.source.len()) + 280);
        self.add_parts("set play counts", changed, (&seal, &stamp, key), receipt, |draft, counts| {
            draft.count("play_counts", signed(counts.iter().filter(|count| new.contains(&of(count))).count()));
            for count in &counts {
                let (source, artist) = of(count);
                let value = seal.record(Place::PlayCount { source: &source, artist }, count)?;
                draft.batch.add(&self.of().put_play_count, (user.id.0, source, artist, value));
            }
            draft.publish(&seal, Payload::PlayCountsSet { counts }, &Needs::Nothing).map(drop)
        })
        .await
    }

    pub(super) async fn insert_taggings(
        &self,
        user: &User,
        taggings: Checked<Tagging>,
        stamp: Stamp,
    ) -> Answer<ListenReceipt> {
        let key = unless_answered!(self.known::<ListenReceipt>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let asked = taggings.rows.len();
        let mut fresh = BTreeMap::new();
        for (_, tagging) in taggings.rows {
            fresh.entry(tagging_key(&tagging)).or_insert(tagging);
        }
        let keys: Vec<_> = fresh.keys().cloned().collect();
        let ask = |keys| self.rows::<(Uuid, String)>(&self.of().taggings_known, (user.id.0, keys));
        for known in try_join_all(keys.chunks(KEYS).map(ask)).await?.into_iter().flatten() {
            fresh.remove(&known);
        }
        let receipt = ListenReceipt {
            recorded: sized(fresh.len()),
            duplicates: sized(asked - fresh.len()),
            rejections: taggings.rejections,
            ..ListenReceipt::default()
        };
        let fresh = parts(fresh.into_values().collect(), |one| 3 * (one.artist.len() + one.tag.len()) + 280);
        self.add_parts("add taggings", fresh, (&seal, &stamp, key), receipt, |draft, taggings| {
            draft.count("taggings", signed(taggings.len()));
            for tagging in &taggings {
                let (artist, tag) = tagging_key(tagging);
                let value = seal.record(Place::Tagging { artist, tag: &tag }, tagging)?;
                draft.batch.add(&self.of().put_tagging, (user.id.0, artist, tag, value));
            }
            draft.publish(&seal, Payload::TaggingsAdded { taggings }, &Needs::Nothing).map(drop)
        })
        .await
    }

    /// Adds tracks, each since a time or since now.
    pub(super) async fn insert_tracks(
        &self,
        user: &User,
        tracks: Checked<(Track, Option<i64>)>,
        stamp: Stamp,
    ) -> Answer<ListenReceipt> {
        let key = unless_answered!(self.known::<ListenReceipt>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let asked = tracks.rows.len();
        let mut fresh: BTreeMap<Uuid, (Track, Option<i64>)> = BTreeMap::new();
        for (_, kept) in tracks.rows {
            fresh.entry(kept.0.id().0).or_insert(kept);
        }
        let keys: Vec<_> = fresh.keys().copied().collect();
        let ask = |keys| self.rows::<(Uuid,)>(&self.of().library_known, (user.id.0, keys));
        let ask_removed = |keys| self.rows::<(Option<i64>,)>(&self.of().tracks_removed, (user.id.0, keys));
        let known = try_join_all(keys.chunks(KEYS).map(ask));
        let removed = try_join_all(keys.chunks(KEYS).map(ask_removed));
        let (known, removed) = try_join(known, removed).await?;
        for (known,) in known.into_iter().flatten() {
            fresh.remove(&known);
        }
        // What another process with a faster clock took away is there again all the same.
        for (at,) in removed.into_iter().flatten() {
            self.inner.times.follow(at.unwrap_or_default());
        }
        let receipt = ListenReceipt {
            recorded: sized(fresh.len()),
            duplicates: sized(asked - fresh.len()),
            rejections: tracks.rejections,
            ..ListenReceipt::default()
        };
        let bytes = |(_, (track, _)): &(Uuid, (Track, Option<i64>))| {
            track.title.len() + track.artist.len() + track.album.len() + 320
        };
        let fresh = parts(fresh.into_iter().collect(), bytes);
        self.add_parts("add tracks", fresh, (&seal, &stamp, key), receipt, |draft, tracks| {
            draft.count("library", signed(tracks.len()));
            let now_ms = i64::try_from(draft.at.hlc.ms()).unwrap_or(i64::MAX);
            for (id, (track, since_ms)) in tracks {
                let entry = LibraryEntry { track, added_at_ms: since_ms.unwrap_or(now_ms) };
                draft.batch.add(&self.of().put_track, (user.id.0, id, seal.record(Place::Track(id), &entry)?));
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn delete_track(&self, user: &User, track: ItemId, stamp: Stamp) -> Answer<bool> {
        let key = unless_answered!(self.known::<bool>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let found: Vec<(Uuid,)> = self.rows(&self.of().library_known, (user.id.0, &[track.0][..])).await?;
        self.follow_written(&self.of().track_written, (user.id.0, track.0)).await?;
        let mut draft = self.draft("remove a track", &stamp.traceparent);
        if !found.is_empty() {
            draft.batch.add(&self.of().drop_track, (user.id.0, track.0));
            let at = draft.at.micros;
            draft.batch.add(&self.of().put_track_removed, (user.id.0, track.0, at));
            draft.count("library", -1);
        }
        draft.give(&seal, key, &!found.is_empty())?;
        draft.commit().await?;
        Ok(!found.is_empty())
    }

    pub(super) async fn insert_friends(
        &self,
        user: &User,
        friends: Checked<UserName>,
        stamp: Stamp,
    ) -> Answer<ListenReceipt> {
        let key = unless_answered!(self.known::<ListenReceipt>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let mut receipt = ListenReceipt { rejections: friends.rejections, ..ListenReceipt::default() };
        let found = try_join_all(friends.rows.iter().map(|(_, name)| self.account_of_name(name))).await?;
        let mut fresh: BTreeMap<(String, Uuid), UserName> = BTreeMap::new();
        let mut known = 0;
        for ((index, name), found) in friends.rows.into_iter().zip(found) {
            let reason = match found {
                Some(friend) if friend.id != user.id => {
                    let key = (name.folded(), friend.id.0);
                    known += u32::from(fresh.contains_key(&key));
                    fresh.entry(key).or_insert(name);
                    continue;
                }
                Some(_) => format!("'{name}' is the user; name somebody else"),
                None => self.no_friend(name).await?,
            };
            receipt.rejections.push(Rejection { index, reason });
        }
        receipt.rejections.sort_by_key(|rejection| rejection.index);
        let keys: Vec<_> = fresh.keys().cloned().collect();
        let ask = |keys| self.rows::<(Uuid,)>(&self.of().friends_known, (user.id.0, keys));
        let there: HashSet<_> = try_join_all(keys.chunks(KEYS).map(ask)).await?.into_iter().flatten().collect();
        fresh.retain(|(_, id), _| !there.contains(&(*id,)));
        (receipt.recorded, receipt.duplicates) = (sized(fresh.len()), known + sized(there.len()));
        let ids: Vec<_> = fresh.keys().cloned().collect();
        // What stands with a friend is that friend's.
        let theirs = try_join_all(ids.iter().map(|(_, id)| self.seal(UserId(*id)))).await?;
        let theirs: HashMap<_, _> = theirs.into_iter().map(|seal| (seal.user.0, seal)).collect();
        let fresh = parts(fresh.into_iter().collect(), |((folded, _), _)| 4 * folded.len() + 580);
        let receipt = self
            .add_parts("add friends", fresh, (&seal, &stamp, key), receipt, |draft, friends| {
                draft.count("friendships", signed(friends.len()));
                let ids = friends.iter().map(|((_, id), _)| UserId(*id)).collect();
                for ((folded, id), name) in friends {
                    let own = user.name.folded();
                    let there = seal.record(Place::Friend { folded: &folded, id }, &name)?;
                    let back = theirs[&id].record(Place::Friend { folded: &own, id: user.id.0 }, &user.name)?;
                    draft.batch.add(&self.of().put_friend, (user.id.0, folded, id, there));
                    draft.batch.add(&self.of().put_friend, (id, own, user.id.0, back));
                }
                draft.publish(&seal, Payload::FriendsAdded { friends: ids }, &Needs::Nothing).map(drop)
            })
            .await?;
        self.drop_ghosts(user, ids).await?;
        Ok(receipt)
    }

    /// Why nobody of this name can be a friend. Friends stand in each other's rows, which stay in a jurisdiction.
    async fn no_friend(&self, name: UserName) -> Answer<String> {
        let found = self.reservation(&name).await?;
        Ok(match found.filter(|found| !self.is_resident(found)) {
            Some(_) => format!("'{name}' is of another jurisdiction, and friends are of one; name somebody else"),
            None => UserStoreError::UnknownUser(name).to_string(),
        })
    }

    /// Takes back what names somebody who was erased while it was written.
    async fn drop_ghosts(&self, user: &User, friends: Vec<(String, Uuid)>) -> Answer<()> {
        let gone = self.is_erased(user.id).await?;
        let drop = |(folded, friend): (String, Uuid)| async move {
            if self.is_erased(UserId(friend)).await? {
                self.put(&self.of().drop_friend, (user.id.0, folded, friend)).await?;
            }
            if gone {
                self.put(&self.of().drop_friend, (friend, user.name.folded(), user.id.0)).await?;
            }
            Ok::<_, UserStoreError>(())
        };
        try_join_all(friends.into_iter().map(drop)).await?;
        if gone { Err(UserStoreError::UnknownUser(user.name.clone())) } else { Ok(()) }
    }

    pub(super) async fn friends_page(&self, user: UserId, page: &PageRequest) -> Answer<Page<UserName>> {
        let after: (String, Uuid) = pages::after(&page.token)?.unwrap_or_default();
        let values = (user.0, after.0, after.1, pages::wanted(page.size));
        let rows: Vec<(String, Uuid, Vec<u8>)> = self.rows(&self.of().friends, values).await?;
        let key = |(folded, friend, _): &(String, Uuid, Vec<u8>)| (folded.clone(), *friend);
        let opener = self.opener(user, rows.iter().any(|(.., value)| is_sealed(value))).await?;
        pages::page(rows, page.size, key, |(folded, id, value)| {
            opener.record(Place::Friend { folded: &folded, id }, &value)
        })
    }

    pub(super) async fn library_page(&self, user: UserId, page: &PageRequest) -> Answer<Page<LibraryEntry>> {
        let after: Uuid = pages::after(&page.token)?.unwrap_or_default();
        let rows: Vec<(Uuid, Vec<u8>)> =
            self.rows(&self.of().library, (user.0, after, pages::wanted(page.size))).await?;
        let opener = self.opener(user, rows.iter().any(|(_, value)| is_sealed(value))).await?;
        pages::page(rows, page.size, |(track, _)| *track, |(track, value)| opener.record(Place::Track(track), &value))
    }

    pub(super) async fn counts_page(&self, user: UserId, page: &PageRequest) -> Answer<Page<PlayCount>> {
        let after: (String, Uuid) = pages::after(&page.token)?.unwrap_or_default();
        let values = (user.0, after.0, after.1, pages::wanted(page.size));
        let rows: Vec<(String, Uuid, Vec<u8>)> = self.rows(&self.of().play_counts, values).await?;
        let key = |(source, artist, _): &(String, Uuid, Vec<u8>)| (source.clone(), *artist);
        let opener = self.opener(user, rows.iter().any(|(.., value)| is_sealed(value))).await?;
        pages::page(rows, page.size, key, |(source, artist, value)| {
            opener.record(Place::PlayCount { source: &source, artist }, &value)
        })
    }

    pub(super) async fn taggings_page(&self, user: UserId, page: &PageRequest) -> Answer<Page<Tagging>> {
        let after: (Uuid, String) = pages::after(&page.token)?.unwrap_or_default();
        let values = (user.0, after.0, after.1, pages::wanted(page.size));
        let rows: Vec<(Uuid, String, Vec<u8>)> = self.rows(&self.of().taggings, values).await?;
        let key = |(artist, tag, _): &(Uuid, String, Vec<u8>)| (*artist, tag.clone());
        let opener = self.opener(user, rows.iter().any(|(.., value)| is_sealed(value))).await?;
        pages::page(rows, page.size, key, |(artist, tag, value)| {
            opener.record(Place::Tagging { artist, tag: &tag }, &value)
        })
    }
}
