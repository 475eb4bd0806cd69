//! Rows that come in batches: listens, counts, taggings, friends and tracks.

use std::collections::{BTreeMap, HashSet};

use echotune_api::events::Payload;
use echotune_kit::embedded::{Key, decode, get};
use echotune_model::{
    HistoryEntry, Hlc, LibraryEntry, Listen, ListenReceipt, PlayCount, Rejection, Tagging, Tally, Track, User, UserId,
    UserName,
};

use super::{
    Draft,
    tables::{
        FRIENDS, LIBRARY, LISTENS, NAMES, PLAY_COUNTS, TAGGINGS, TALLIES, count_key, friend_key, name_key, tagging_key,
        track_key,
    },
};
use crate::store::{Answer, Checked, UserStoreError};

fn receipt(rejections: Vec<Rejection>) -> ListenReceipt {
    ListenReceipt { rejections, ..ListenReceipt::default() }
}

fn signed(count: u32) -> i64 {
    i64::from(count)
}

/// A listen with what is computed before the write begins, since the writer is one thread.
pub(super) struct Prepared {
    pub(super) key: Key,
    pub(super) tally: Key,
    pub(super) entry: HistoryEntry,
}

pub(super) fn record(
    draft: &mut Draft<'_>,
    user: &User,
    listens: Vec<Prepared>,
    rejections: Vec<Rejection>,
) -> Answer<ListenReceipt> {
    let mut receipt = receipt(rejections);
    let mut fresh = HashSet::new();
    let mut tallies = BTreeMap::<Vec<u8>, Tally>::new();
    for Prepared { key, tally, entry } in listens {
        if fresh.contains(&key.0) || draft.view.get(LISTENS, &key)?.is_some() {
            receipt.duplicates += 1;
            continue;
        }
        receipt.recorded += 1;
        fresh.insert(key.0.clone());
        draft.batch.put(LISTENS, key, &entry.listen);
        add_to_tally(draft, tally, entry.listen, &mut tallies)?;
    }
    if receipt.recorded == 0 {
        return Ok(receipt);
    }
    for (place, tally) in &tallies {
        draft.batch.put(TALLIES, Key(place.clone()), tally);
    }
    draft.count("listens", signed(receipt.recorded));
    let tallies = tallies.into_values().collect();
    receipt.written_at = draft.publish(user.id, Payload::HistoryChanged { tallies });
    Ok(receipt)
}

fn add_to_tally(draft: &Draft<'_>, place: Key, listen: Listen, tallies: &mut BTreeMap<Vec<u8>, Tally>) -> Answer<()> {
    if !tallies.contains_key(&place.0) {
        let tally = match draft.view.get(TALLIES, &place)? {
            Some(bytes) => decode(TALLIES, &bytes)?,
            None => Tally { track: listen.track, plays: 0, last_listened_at_ms: i64::MIN, explicit: None },
        };
        tallies.insert(place.0.clone(), tally);
    }
    if let Some(tally) = tallies.get_mut(&place.0) {
        tally.plays = tally.plays.saturating_add(1);
        tally.last_listened_at_ms = tally.last_listened_at_ms.max(listen.listened_at_ms);
        // A track that any source marks as explicit is explicit; a mark is more than none.
        tally.explicit = tally.explicit.max(listen.explicit);
    }
    Ok(())
}

pub(super) fn set_counts(draft: &mut Draft<'_>, user: &User, counts: Checked<PlayCount>) -> Answer<ListenReceipt> {
    let mut receipt = receipt(counts.rejections);
    let mut changed = BTreeMap::<Vec<u8>, PlayCount>::new();
    for (_, count) in counts.rows {
        let place = count_key(user.id, &count);
        let pending = changed.get(&place.0).map(|count| count.plays);
        let stored = match pending {
            Some(plays) => Some(plays),
            None => get::<PlayCount>(draft.view, PLAY_COUNTS, &place)?.map(|count| count.plays),
        };
        if stored == Some(count.plays) {
            receipt.duplicates += 1;
            continue;
        }
        receipt.recorded += 1;
        if stored.is_none() {
            draft.count("play_counts", 1);
        }
        changed.insert(place.0, count);
    }
    if changed.is_empty() {
        return Ok(receipt);
    }
    for (place, count) in &changed {
        draft.batch.put(PLAY_COUNTS, Key(place.clone()), count);
    }
    let counts = changed.into_values().collect();
    receipt.written_at = draft.publish(user.id, Payload::PlayCountsSet { counts });
    Ok(receipt)
}

pub(super) fn add_taggings(draft: &mut Draft<'_>, user: &User, taggings: Checked<Tagging>) -> Answer<ListenReceipt> {
    let mut receipt = receipt(taggings.rejections);
    let mut fresh = BTreeMap::<Vec<u8>, Tagging>::new();
    for (_, tagging) in taggings.rows {
        let place = tagging_key(user.id, &tagging);
        if fresh.contains_key(&place.0) || draft.view.get(TAGGINGS, &place)?.is_some() {
            receipt.duplicates += 1;
        } else {
            receipt.recorded += 1;
            fresh.insert(place.0, tagging);
        }
    }
    if fresh.is_empty() {
        return Ok(receipt);
    }
    for (place, tagging) in &fresh {
        draft.batch.put(TAGGINGS, Key(place.clone()), tagging);
    }
    draft.count("taggings", signed(receipt.recorded));
    let taggings = fresh.into_values().collect();
    receipt.written_at = draft.publish(user.id, Payload::TaggingsAdded { taggings });
    Ok(receipt)
}

pub(super) fn add_friends(draft: &mut Draft<'_>, user: &User, friends: Checked<UserName>) -> Answer<ListenReceipt> {
    let mut receipt = receipt(friends.rejections);
    let mut fresh = BTreeMap::new();
    for (index, name) in friends.rows {
        let Some(friend) = get::<UserId>(draft.view, NAMES, &name_key(&name))? else {
            let reason = UserStoreError::UnknownUser(name).to_string();
            receipt.rejections.push(Rejection { index, reason });
            continue;
        };
        if friend == user.id {
            receipt.rejections.push(Rejection { index, reason: format!("'{name}' is the user; name somebody else") });
            continue;
        }
        let known = get::<(UserId, UserName)>(draft.view, FRIENDS, &friend_key(user.id, &name))?;
        if fresh.contains_key(&friend) || known.is_some_and(|(id, _)| id == friend) {
            receipt.duplicates += 1;
        } else {
            receipt.recorded += 1;
            fresh.insert(friend, name);
        }
    }
    receipt.rejections.sort_by_key(|rejection| rejection.index);
    if fresh.is_empty() {
        return Ok(receipt);
    }
    for (friend, name) in &fresh {
        draft.batch.put(FRIENDS, friend_key(user.id, name), &(friend, name));
        draft.batch.put(FRIENDS, friend_key(*friend, &user.name), &(user.id, &user.name));
    }
    draft.count("friendships", signed(receipt.recorded));
    let friends = fresh.into_keys().collect();
    receipt.written_at = draft.publish(user.id, Payload::FriendsAdded { friends });
    Ok(receipt)
}

/// Adds tracks since now.
pub(super) fn add_tracks(draft: &mut Draft<'_>, user: &User, tracks: Checked<Track>) -> Answer<ListenReceipt> {
    let now = draft.clock.now();
    let added_at_ms = i64::try_from(now.ms()).unwrap_or(i64::MAX);
    let rows = tracks.rows.into_iter().map(|(at, track)| (at, LibraryEntry { track, added_at_ms })).collect();
    add_entries(draft, user, Checked { rows, rejections: tracks.rejections }, now)
}

pub(super) fn add_entries(
    draft: &mut Draft<'_>,
    user: &User,
    entries: Checked<LibraryEntry>,
    now: Hlc,
) -> Answer<ListenReceipt> {
    let mut receipt = receipt(entries.rejections);
    let mut fresh = HashSet::new();
    for (_, entry) in entries.rows {
        let place = track_key(user.id, entry.track.id());
        if fresh.contains(&place.0) || draft.view.get(LIBRARY, &place)?.is_some() {
            receipt.duplicates += 1;
            continue;
        }
        receipt.recorded += 1;
        receipt.written_at = now;
        fresh.insert(place.0.clone());
        draft.batch.put(LIBRARY, place, &entry);
    }
    draft.count("library", signed(receipt.recorded));
    Ok(receipt)
}
