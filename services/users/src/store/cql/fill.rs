//! What a waiting event leaves to be looked up when it is given out: totals of tracks, and settings.
//!
//! Totals are kept nowhere. A track's total is the number of its listens when its event is given out, and the event
//! is given out only once the listens that it tells of can be seen. So the last event of a track has counted all of
//! them, whoever wrote them, and none is lost or counted twice. Totals only ever grow.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use echotune_api::events::{Event, Payload};
use echotune_kit::cql::CqlError;
use echotune_model::{Settings, Tally, UserId};
use futures::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    CqlUserStore,
    held::is_answer,
    schema::{bucket, minute},
    sealed::{Opener, Place, is_sealed},
};
use crate::store::{Answer, UserStoreError};

/// Keys in one query at the most.
pub(super) const KEYS: usize = 100;
/// After how many minutes an event no longer waits for what it tells of: a batch that was not made by then never is.
const PATIENCE: i64 = 60;

/// What must be seen before an event is given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Needs {
    /// Nothing: it tells all itself.
    Nothing,
    /// These listens: track, time, id.
    Listens(Vec<(Uuid, i64, Uuid)>),
    /// Settings of this version or a later one.
    Settings(i64),
}

/// A waiting event as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Where it waits: shard, minute, hybrid time, id.
    pub(super) place: (i32, i64, i64, Uuid),
    pub(super) user: Uuid,
    pub(super) event: Vec<u8>,
    pub(super) needs: Vec<u8>,
}

impl Kept {
    /// What it says, if its key is there, of those that wait in this region's outbox.
    pub(super) fn opened(self, region: &str, opener: &Opener) -> Answer<Option<Pending>> {
        let Self { place, user, event, needs } = self;
        let (at, id) = (place.2, place.3);
        let needs = opener.record(Place::Needs { region, at, id }, &needs)?;
        let event = opener.bytes(Place::Event { region, at, id }, &event)?;
        let (Some(needs), Some(event)) = (needs, event) else { return Ok(None) };
        let damaged = |cause: String| CqlError::Damaged { what: "a waiting event", cause };
        let event = Event::decode(&event).map_err(|cause| damaged(cause.to_string()))?;
        let event = event.ok_or_else(|| damaged("it says nothing".into()))?;
        Ok(Some(Pending { place, user, event, needs }))
    }
}

/// A waiting event.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// Where it waits: shard, minute, hybrid time, id.
    pub(super) place: (i32, i64, i64, Uuid),
    pub(super) user: Uuid,
    pub(super) event: Event,
    pub(super) needs: Needs,
}

/// Plays, the latest of them and the strongest mark, by track.
type Totals = HashMap<Uuid, (u32, i64, Option<bool>)>;

/// What a look found of the events of one user.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) user: Uuid,
    /// Those that can be given out, in their order.
    pub(super) ready: Vec<Pending>,
    /// Why the rest waits, when there is one.
    pub(super) rest: Option<Rest>,
}

/// Events that wait.
#[derive(Debug)]
pub(super) struct Rest {
    /// The minute of the first of them.
    pub(super) from: i64,
    /// What cannot be read; nothing when what they tell of is not seen yet.
    pub(super) cause: Option<UserStoreError>,
}

impl Turn {
    /// Whether servers told what there is, although it may be damaged.
    pub(super) fn is_answered(&self) -> bool {
        let cause = self.rest.as_ref().and_then(|rest| rest.cause.as_ref());
        !self.ready.is_empty() || cause.is_none_or(|cause| is_answer(cause.kind()))
    }
}

/// What the events of a user say, up to the first that cannot be read.
struct Opened {
    erased: bool,
    events: Vec<Pending>,
    rest: Option<Rest>,
}

impl CqlUserStore {
    /// Fills in the events of a list that can be given out, by user. Those of a user that come after one that cannot
    /// wait with it, and nobody else's do. Events of the erased are forgotten, but for the erasure itself.
    pub(super) async fn fill(&self, events: Vec<Kept>) -> Vec<Turn> {
        let mut by_user = BTreeMap::<Uuid, Vec<Kept>>::new();
        for event in events {
            by_user.entry(event.user).or_default().push(event);
        }
        let turn = |(user, events): (Uuid, Vec<Kept>)| async move {
            let from = events.iter().map(|event| event.place.1).min().unwrap_or_default();
            match self.fill_of_user(UserId(user), events).await {
                Ok((ready, rest)) => Turn { user, ready, rest },
                Err(cause) => Turn { user, ready: Vec::new(), rest: Some(Rest { from, cause: Some(cause) }) },
            }
        };
        join_all(by_user.into_iter().map(turn)).await
    }

    /// What the events of a user say. Forgets those that nobody can read any more, and those of the erased but for the
    /// erasure itself.
    async fn open(&self, user: UserId, events: Vec<Kept>) -> Answer<Opened> {
        let erased = self.is_erased(user).await?;
        // An erasure is in clear. For the rest no key is looked for: it is being destroyed.
        let sealed = !erased && events.iter().any(|event| is_sealed(&event.event));
        let opener = self.opener(user, sealed).await?;
        let (mut opened, mut dropped, mut rest) = (Vec::new(), Vec::new(), None);
        for event in events {
            let place = event.place;
            match event.opened(&self.inner.region, &opener) {
                Ok(Some(event)) if !erased || event.event.payload == Payload::UserErased => opened.push(event),
                Ok(_) => dropped.push(place),
                Err(cause) => {
                    rest.get_or_insert(Rest { from: place.1, cause: Some(cause) });
                    // Of the erased nothing is told that an erasure would have to wait for.
                    if !erased {
                        break;
                    }
                }
            }
        }
        if !dropped.is_empty() {
            if !erased {
                tracing::warn!(%user, events = dropped.len(), "events whose key was destroyed are dropped");
            }
            self.drop_events(&dropped).await?;
        }
        Ok(Opened { erased, events: opened, rest })
    }

    /// Those that can be given out, and why the rest cannot.
    async fn fill_of_user(&self, user: UserId, events: Vec<Kept>) -> Answer<(Vec<Pending>, Option<Rest>)> {
        let Opened { erased, events, rest } = self.open(user, events).await?;
        if erased {
            return Ok((events, rest));
        }
        let listens: BTreeSet<_> = events
            .iter()
            .flat_map(|event| match &event.needs {
                Needs::Listens(listens) => listens.as_slice(),
                Needs::Nothing | Needs::Settings(_) => &[],
            })
            .copied()
            .collect();
        let seen = self.seen(user, &listens).await?;
        let wants_settings = events.iter().any(|event| matches!(event.needs, Needs::Settings(_)));
        let settings = if wants_settings { self.stored_settings(user).await } else { Ok(None) };
        let now = minute(self.inner.times.wall_ms());
        let (mut ready, waits) = until_one_waits(events, &seen, &settings, now);
        // Counted after they were seen: a total that lacks one of them cannot be read.
        let totals = self.totals(user, &ready).await?;
        for event in &mut ready {
            match &mut event.event.payload {
                Payload::HistoryChanged { tallies } => tallies.iter_mut().for_each(|tally| complete(tally, &totals)),
                Payload::SettingsChanged { settings: told } => {
                    if let Ok(Some((_, stored))) = &settings {
                        told.clone_from(stored);
                    }
                }
                _ => {}
            }
        }
        Ok((ready, waits.or(rest)))
    }

    /// Which of these listens can be seen, by id.
    async fn seen(&self, user: UserId, listens: &BTreeSet<(Uuid, i64, Uuid)>) -> Answer<HashSet<Uuid>> {
        let mut by_bucket = BTreeMap::<i32, Vec<(Uuid, i64, Uuid)>>::new();
        for listen in listens {
            by_bucket.entry(bucket(listen.0)).or_default().push(*listen);
        }
        let asked =
            by_bucket.iter().flat_map(|(bucket, listens)| listens.chunks(KEYS).map(move |keys| (*bucket, keys)));
        let ask = |(bucket, keys)| self.rows::<(Uuid,)>(&self.of().tracks_present, (user.0, bucket, keys));
        Ok(try_join_all(asked.map(ask)).await?.into_iter().flatten().map(|(id,)| id).collect())
    }

    async fn totals(&self, user: UserId, events: &[Pending]) -> Answer<Totals> {
        let mut by_bucket = BTreeMap::<i32, BTreeSet<Uuid>>::new();
        for event in events {
            if let Needs::Listens(listens) = &event.needs {
                for (track, ..) in listens {
                    by_bucket.entry(bucket(*track)).or_default().insert(*track);
                }
            }
        }
        let by_bucket: Vec<(i32, Vec<Uuid>)> =
            by_bucket.into_iter().map(|(bucket, tracks)| (bucket, tracks.into_iter().collect())).collect();
        let asked = by_bucket.iter().flat_map(|(bucket, tracks)| tracks.chunks(KEYS).map(move |keys| (*bucket, keys)));
        let ask =
            |(bucket, keys)| self.rows::<(Uuid, i64, i64, Option<i8>)>(&self.of().tallies, (user.0, bucket, keys));
        let rows = try_join_all(asked.map(ask)).await?.into_iter().flatten();
        let total = |(track, plays, last, mark): (Uuid, i64, i64, Option<i8>)| {
            (track, (u32::try_from(plays).unwrap_or(u32::MAX), last, marked(mark.unwrap_or(0))))
        };
        Ok(rows.map(total).collect())
    }
}

/// Events up to the first that has to wait, and why that one has to. One that tells of settings which cannot be read is
/// never given up: without them it would tell what nobody set.
fn until_one_waits(
    events: Vec<Pending>,
    seen: &HashSet<Uuid>,
    settings: &Answer<Option<(i64, Settings)>>,
    now: i64,
) -> (Vec<Pending>, Option<Rest>) {
    let mut ready = Vec::new();
    for event in events {
        let from = event.place.1;
        let there = match (&event.needs, settings) {
            (Needs::Nothing, _) => true,
            (Needs::Listens(listens), _) => listens.iter().all(|(_, _, id)| seen.contains(id)),
            (Needs::Settings(version), Ok(found)) => found.as_ref().is_some_and(|(latest, _)| latest >= version),
            (Needs::Settings(_), Err(cause)) => return (ready, Some(Rest { from, cause: Some(cause.clone()) })),
        };
        if !(there || given_up(&event, now)) {
            return (ready, Some(Rest { from, cause: None }));
        }
        ready.push(event);
    }
    (ready, None)
}

/// Whether an event has waited for too long.
fn given_up(event: &Pending, now: i64) -> bool {
    let late = now - event.place.1 >= PATIENCE;
    if late {
        tracing::warn!(user = %event.user, "an event tells of what was never written; it is published as far as is known");
    }
    late
}

fn complete(tally: &mut Tally, totals: &Totals) {
    if let Some((plays, last, mark)) = totals.get(&tally.track.id().0) {
        (tally.plays, tally.last_listened_at_ms, tally.explicit) = (*plays, *last, *mark);
    }
}

/// Marks as numbers, so that the strongest is the largest: none, clean, explicit.
pub(super) const fn mark(explicit: Option<bool>) -> i8 {
    match explicit {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    }
}

const fn marked(mark: i8) -> Option<bool> {
    match mark {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    }
}
