//! Listens: a row by time for reading, a row by track for totals.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use echotune_api::events::Payload;
use echotune_model::{HistoryEntry, Listen, ListenId, ListenReceipt, Page, PageRequest, Tally, User, UserId};
use futures::future::try_join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    CqlUserStore,
    draft::Draft,
    fill::{KEYS, Needs, mark},
    keys::unless_answered,
    pages,
    rows::parts,
    schema::{bucket, period},
    sealed::{Place, Seal, is_sealed},
};
use crate::store::{Answer, Checked, Stamp};

/// A listen with its ids.
struct Entry {
    id: Uuid,
    track: Uuid,
    listen: Listen,
}

impl Entry {
    /// What it adds to a batch: its value and its track in the event.
    fn bytes(&self) -> usize {
        let Listen { track, source, .. } = &self.listen;
        2 * (track.title.len() + track.artist.len() + track.album.len()) + source.len() + 400
    }
}

impl CqlUserStore {
    /// Records listens in batches of at most 100, one after the other, each with its event. When one fails, those before
    /// it stay: a repeat, also under the same key, counts them as duplicates. The key goes with the last.
    pub(super) async fn record_listens(
        &self,
        user: &User,
        listens: Checked<Listen>,
        stamp: Stamp,
    ) -> Answer<ListenReceipt> {
        let key = unless_answered!(self.known::<ListenReceipt>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let asked = listens.rows.len();
        let fresh = self.fresh(user.id, listens.rows.into_iter().map(|(_, listen)| listen)).await?;
        let recorded = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        let duplicates = u32::try_from(asked - fresh.len()).unwrap_or(u32::MAX);
        let mut receipt =
            ListenReceipt { recorded, duplicates, rejections: listens.rejections, ..ListenReceipt::default() };
        let mut left = parts(fresh, Entry::bytes).into_iter().peekable();
        while let Some(part) = left.next() {
            let (mut draft, began) = (self.draft("record listens", &stamp.traceparent), Instant::now());
            let periods: BTreeSet<_> = part.iter().map(|entry| period(entry.listen.listened_at_ms)).collect();
            let periods = periods.into_iter().filter(|period| !self.inner.periods.holds(user.id.0, *period));
            let periods: Vec<_> = periods.collect();
            periods.iter().for_each(|period| draft.batch.add(&self.of().put_period, (user.id.0, *period)));
            receipt.written_at = self.add_listens(&mut draft, &seal, part)?;
            if left.peek().is_none() {
                draft.give(&seal, key.clone(), &receipt)?;
            }
            // What servers have lost of what they had acknowledged, they have lost when something failed.
            draft.commit().await.inspect_err(|_| self.inner.periods.forget())?;
            self.inner.periods.note(user.id.0, &periods, began);
        }
        if recorded == 0 {
            let mut draft = self.draft("record listens", &stamp.traceparent);
            draft.give(&seal, key, &receipt)?;
            draft.commit().await?;
        }
        Ok(receipt)
    }

    /// Those that are not there yet, each once.
    async fn fresh(&self, user: UserId, listens: impl Iterator<Item = Listen>) -> Answer<Vec<Entry>> {
        let mut by_period = BTreeMap::<i64, Vec<(i64, Uuid)>>::new();
        let (mut entries, mut ids) = (Vec::new(), HashSet::new());
        for listen in listens {
            let (track, at) = (listen.track.id(), listen.listened_at_ms);
            let id = ListenId::of(user, track, at).0;
            if ids.insert(id) {
                by_period.entry(period(at)).or_default().push((at, id));
                entries.push(Entry { id, track: track.0, listen });
            }
        }
        let asked = by_period.iter().flat_map(|(period, keys)| keys.chunks(KEYS).map(move |keys| (*period, keys)));
        let ask = |(period, keys)| self.rows::<(Uuid,)>(&self.of().listens_known, (user.0, period, keys));
        let known: HashSet<_> = try_join_all(asked.map(ask)).await?.into_iter().flatten().map(|(id,)| id).collect();
        entries.retain(|entry| !known.contains(&entry.id));
        Ok(entries)
    }

    fn add_listens(&self, draft: &mut Draft<'_>, seal: &Seal, entries: Vec<Entry>) -> Answer<echotune_model::Hlc> {
        let user = seal.user;
        let (mut needs, mut tallies) = (Vec::new(), HashMap::new());
        draft.count("listens", i64::try_from(entries.len()).unwrap_or(i64::MAX));
        for Entry { id, track, listen } in entries {
            let at = listen.listened_at_ms;
            let value = seal.record(Place::Listen { at, id }, &listen)?;
            draft.batch.add(&self.of().put_listen, (user.0, period(at), at, id, value));
            let by_track = (user.0, bucket(track), track, at, id, mark(listen.explicit));
            draft.batch.add(&self.of().put_listen_by_track, by_track);
            needs.push((track, at, id));
            // Totals are filled in when the event is given out.
            let tally = Tally { track: listen.track, plays: 0, last_listened_at_ms: at, explicit: listen.explicit };
            tallies.entry(track).or_insert(tally);
        }
        let payload = Payload::HistoryChanged { tallies: tallies.into_values().collect() };
        draft.publish(seal, payload, &Needs::Listens(needs))
    }

    pub(super) async fn history(&self, user: UserId, page: &PageRequest) -> Answer<Page<HistoryEntry>> {
        type Row = (i64, Uuid, Vec<u8>);
        let after: Option<(i64, Uuid)> = pages::after(&page.token)?;
        let periods: Vec<(i64,)> = self.rows(&self.of().periods, (user.0,)).await?;
        let mut found: Vec<Row> = Vec::new();
        for (of,) in periods {
            let room = pages::wanted(page.size) - i32::try_from(found.len()).unwrap_or(i32::MAX);
            if room <= 0 {
                break;
            }
            let rows: Vec<Row> = match after {
                Some((at, _)) if of > period(at) => continue,
                Some((at, id)) if of == period(at) => {
                    self.rows(&self.of().listens_before, (user.0, of, at, id, room)).await?
                }
                _ => self.rows(&self.of().listens, (user.0, of, room)).await?,
            };
            found.extend(rows);
        }
        let opener = self.opener(user, found.iter().any(|(.., value)| is_sealed(value))).await?;
        pages::page(
            found,
            page.size,
            |(at, id, _)| (*at, *id),
            |(at, id, value)| {
                let listen: Option<Listen> = opener.record(Place::Listen { at, id }, &value)?;
                Ok(listen.map(|listen| HistoryEntry { id: ListenId(id), listen }))
            },
        )
    }
}
