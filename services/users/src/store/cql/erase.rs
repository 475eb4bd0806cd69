//! Erasure. The account goes first, so that nobody adds to what is going; what there is is counted, and then deleted a
//! partition at a time. Every step may be made again and by several at once: the numbers are settled by a conditional
//! write before the first row goes, and a deletion reaches ahead, so that what is under way goes with it. Last goes the
//! key, and with it what copies of the rows say.

use std::{collections::BTreeMap, time::Duration};

use echotune_kit::cql::{CqlError, Seen, SerializeRow, Write, WriteTime, decode, encode};
use echotune_model::{EARLIEST_LISTEN_MS, ErasureReceipt, Hlc, User, UserId, UserName};
use futures::future::{try_join, try_join_all};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    CqlUserStore,
    accounts::Reservation,
    blobs::SETTINGS,
    keys::{Key, Known},
    schema::{ALL, BUCKETS, day, period},
};
use crate::store::{Answer, Idempotency, Stamp, UserStoreError};

/// For how long an erasure waits, before it answers, for all regions to confirm that the key is destroyed.
const CONFIRMING: Duration = Duration::from_secs(5);

/// What is known of an erasure. When it is finished, only the receipt is left, which names nobody.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Erased {
    under_way: Option<UnderWay>,
    receipt: Option<ErasureReceipt>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UnderWay {
    user: User,
    created: Hlc,
    idempotency: Option<Idempotency>,
    traceparent: String,
}

/// What an erasure takes, and when: settled before it takes anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Toll {
    erased_at: Hlc,
    erased: BTreeMap<String, u64>,
}

/// Kinds of rows, by the name of their sum.
const SUMS: [(&str, &str); 7] = [
    ("account", "users"),
    ("listen", "listens"),
    ("play_count", "play_counts"),
    ("tagging", "taggings"),
    ("friend", "friendships"),
    ("library", "library"),
    ("playlist", "playlists"),
];

impl CqlUserStore {
    /// Erases whoever has a name; nobody but `whose`, where the call is of one user. Where copies lag, the account of
    /// that user can still be read although it was erased elsewhere, and its name may be another's by now.
    pub(super) async fn erase_all(
        &self,
        name: UserName,
        whose: Option<UserId>,
        stamp: Stamp,
    ) -> Answer<ErasureReceipt> {
        if let Known::Answered(receipt) = self.known(None, &stamp).await? {
            return Ok(receipt);
        }
        let reserved = self.resident(&name).await?;
        let reserved = reserved.filter(|found| whose.is_none_or(|whose| found.user.id == whose));
        let Some(reserved) = reserved else { return Err(UserStoreError::UnknownUser(name)) };
        let id = reserved.user.id;
        if !self.is_erased(id).await? {
            let Stamp { traceparent, idempotency } = stamp.clone();
            if self.account(id).await?.is_none() {
                // A name whose account was never made has one now, so that there is something to announce.
                self.complete(&reserved, None, &traceparent).await?;
            }
            let Reservation { user, created, .. } = reserved;
            let under_way = UnderWay { user, created, idempotency, traceparent };
            let erased = Erased { under_way: Some(under_way), receipt: None };
            let mut draft = self.draft("begin an erasure", "");
            draft.batch.add(&self.of().put_erased, (id.0, encode(&erased)));
            draft.batch.add(&self.of().put_erasing, (ALL, id.0));
            draft.commit().await?;
        }
        let (receipt, _) = self.go_on(id).await?;
        // Whoever joins an erasure under way has a key of their own.
        if let Some(idempotency) = &stamp.idempotency {
            let mut draft = self.draft("remember an erasure", "");
            draft.give_clear(Some(Key::new(None, idempotency)), &receipt);
            draft.commit().await?;
        }
        Ok(receipt)
    }

    pub(super) async fn resume(&self) -> Answer<Vec<ErasureReceipt>> {
        let under_way: Vec<(Uuid,)> = self.rows(&self.of().erasing, (ALL,)).await?;
        let mut receipts = Vec::new();
        for (id,) in under_way {
            // Rows of a batch come to other regions one by one: what is not known here yet waits for another time.
            if !self.is_erased(UserId(id)).await? {
                continue;
            }
            let (receipt, ended) = self.go_on(UserId(id)).await?;
            receipts.extend(ended.then_some(receipt));
        }
        Ok(receipts)
    }

    /// What is known of an erasure, and when that was written, in microseconds.
    async fn erased_row(&self, id: UserId) -> Answer<(Erased, i64)> {
        let row: Option<(Vec<u8>, Option<i64>)> = self.one(&self.of().erased_known, (id.0,)).await?;
        let unknown = CqlError::Damaged { what: "an erasure", cause: "nothing is known of it".into() };
        let (value, written) = row.ok_or(unknown)?;
        Ok((decode("an erasure", &value)?, written.unwrap_or_default()))
    }

    /// The receipt, and whether nothing is left to be done.
    async fn go_on(&self, id: UserId) -> Answer<(ErasureReceipt, bool)> {
        let (Erased { under_way, receipt }, written) = self.erased_row(id).await?;
        let Some(under_way) = under_way else {
            let lost = CqlError::Damaged { what: "an erasure", cause: "it left no receipt".into() };
            // As of that end: a later note came with a later row, which says what is still to be done.
            self.inner.session.put_at(&self.of().drop_erasing, (ALL, id.0), written).await?;
            return receipt.map(|receipt| (receipt, true)).ok_or_else(|| lost.into());
        };
        let receipt = match receipt {
            Some(receipt) => receipt,
            None => self.take(&under_way).await?,
        };
        self.tell_erased(id).await?;
        self.free_home(id).await?;
        self.free_name(&under_way.user).await?;
        // All regions have to confirm that. One that is cut off does not hold up the answer: the erasure stays under way, and
        // whoever gives out its event destroys the key too.
        let destroyed = match timeout(CONFIRMING, self.destroy_key(id)).await {
            Ok(done) => done.map_err(|cause| cause.to_string()),
            Err(_) => Err(format!("not all regions have confirmed it within {} s", CONFIRMING.as_secs())),
        };
        if let Err(cause) = destroyed {
            tracing::warn!(user = %id, cause, "the key of an erased user is not destroyed yet; it is tried again");
            return Ok((receipt, false));
        }
        // Others that finish it may have clocks that are ahead. What they wrote names the user, and would stay.
        let (_, written) = self.erased_row(id).await?;
        self.inner.times.follow(written);
        let mut draft = self.draft("end an erasure", "");
        let left = Erased { under_way: None, receipt: Some(receipt.clone()) };
        draft.batch.add(&self.of().put_erased, (id.0, encode(&left)));
        draft.batch.add(&self.of().drop_erasing, (ALL, id.0));
        draft.commit().await?;
        Ok((receipt, true))
    }

    /// Takes everything but the name, and announces it.
    async fn take(&self, of: &UnderWay) -> Answer<ErasureReceipt> {
        let id = of.user.id;
        self.wipe(&self.of().drop_account, (id.0,)).await?;
        let Toll { erased_at, erased } = self.toll(&of.user).await?;
        self.wipe_all(of).await?;
        let receipt = ErasureReceipt { user: id, erased_at, erased };
        let mut draft = self.draft("announce an erasure", &of.traceparent);
        let UnderWay { user, created, idempotency, traceparent } = of;
        let under_way = UnderWay {
            user: user.clone(),
            created: *created,
            idempotency: idempotency.clone(),
            traceparent: traceparent.clone(),
        };
        let known = Erased { under_way: Some(under_way), receipt: Some(receipt.clone()) };
        draft.batch.add(&self.of().put_erased, (id.0, encode(&known)));
        // Noted again: should this come after another has ended it, and be later, it is found and ended too.
        draft.batch.add(&self.of().put_erasing, (ALL, id.0));
        draft.announce_erasure(id, erased_at);
        draft.give_clear(idempotency.as_ref().map(|key| Key::new(None, key)), &receipt);
        draft.commit().await?;
        Ok(receipt)
    }

    /// How much there is, counted by the first who comes here; all others take that.
    async fn toll(&self, user: &User) -> Answer<Toll> {
        let id = user.id.0;
        let look = || async {
            let row: Option<(Vec<u8>,)> = self.inner.session.one(&self.of().erasure_counts, (id,)).await?;
            row.map(|(value,)| decode::<Toll>("the numbers of an erasure", &value)).transpose()
        };
        if let Some(toll) = look().await? {
            return Ok(toll);
        }
        let own = Toll { erased: self.held(user.id).await?, erased_at: self.inner.times.now().hlc };
        let seen = || async {
            Ok(match look().await? {
                Some(toll) if toll == own => Seen::Applied,
                Some(_) => Seen::Refused,
                None => Seen::Open,
            })
        };
        if self.inner.session.settle(&self.of().count_erasure, (id, encode(&own)), seen).await? {
            let mut draft = self.draft("count an erasure", "");
            for (kind, sum) in SUMS {
                draft.count(sum, -own.erased.get(kind).map_or(0, |count| i64::try_from(*count).unwrap_or(i64::MAX)));
            }
            draft.commit().await?;
            return Ok(own);
        }
        let lost =
            CqlError::Unavailable { step: "count an erasure", cause: "another counts, and nothing is seen".into() };
        look().await?.ok_or_else(|| lost.into())
    }

    async fn held(&self, user: UserId) -> Answer<BTreeMap<String, u64>> {
        let of = self.of();
        let periods: Vec<(i64,)> = self.rows(&of.periods, (user.0,)).await?;
        let listens = periods.iter().map(|(period,)| self.counted(&of.listens_counted, (user.0, *period)));
        let tracks = |bucket| async move {
            let tracks: Vec<(Uuid,)> = self.rows(&of.tracks_counted, (user.0, bucket)).await?;
            Ok(tracks.len() as u64)
        };
        let profile: Option<(Vec<u8>,)> = self.one(&of.profile, (user.0,)).await?;
        let settings: Option<(Option<i64>, Option<i32>)> = self.one(&of.settings, (user.0,)).await?;
        let (listens, tallies) = try_join(try_join_all(listens), try_join_all((0..BUCKETS).map(tracks))).await?;
        let held = [
            ("account", 1),
            ("profile", u64::from(profile.is_some())),
            ("settings", u64::from(settings.is_some())),
            ("listen", listens.iter().sum()),
            ("tally", tallies.iter().sum()),
            ("play_count", self.counted(&of.play_counts_counted, (user.0,)).await?),
            ("tagging", self.counted(&of.taggings_counted, (user.0,)).await?),
            ("friend", self.counted(&of.friends_counted, (user.0,)).await?),
            ("library", self.counted(&of.library_counted, (user.0,)).await?),
            ("playlist", self.playlists_counted(user).await?),
            ("token", self.token_ids(user).await?.len() as u64),
        ];
        Ok(held.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| (kind.to_owned(), count)).collect())
    }

    /// Deletes what was written up to now, and what is under way.
    async fn wipe(&self, write: &Write, values: impl SerializeRow + Sync) -> Answer<()> {
        let at: WriteTime = self.inner.times.now();
        Ok(self.inner.session.put_at(write, values, at.ahead()).await?)
    }

    async fn wipe_all(&self, of: &UnderWay) -> Answer<()> {
        let (id, name) = (of.user.id, of.user.name.folded());
        // What points back or is found by an id of its own goes first, while it can still be found.
        let friends: Vec<(String, Uuid, Vec<u8>)> =
            self.rows(&self.of().friends, (id.0, "", Uuid::nil(), i32::MAX)).await?;
        let back = friends.iter().map(|(_, friend, _)| self.wipe(&self.of().drop_friend, (*friend, &name, id.0)));
        try_join_all(back).await?;
        let playlist = |playlist: Uuid| async move {
            self.wipe(&self.of().drop_blobs, (id.0, playlist)).await?;
            self.wipe(&self.of().drop_playlist_owner, (playlist,)).await
        };
        try_join_all(self.playlist_ids(id).await?.into_iter().map(playlist)).await?;
        let tokens = self.token_ids(id).await?;
        try_join_all(tokens.iter().map(|token| self.wipe(&self.of().drop_token, (*token,)))).await?;
        if let Some(apart) = &self.inner.world.apart {
            let regions = tokens.iter().map(|token| self.wipe(&apart.statements.drop_token_region, (*token,)));
            try_join_all(regions).await?;
        }
        let statements = self.of();
        // All periods there can be: a listen under way may be the first of its own.
        let end = i64::try_from(self.inner.times.wall_ms()).unwrap_or(i64::MAX);
        let periods = period(EARLIEST_LISTEN_MS)..=period(end) + 1;
        try_join_all(periods.map(|period| self.wipe(&statements.drop_listens, (id.0, period)))).await?;
        try_join_all((0..BUCKETS).map(|bucket| self.wipe(&statements.drop_listens_by_track, (id.0, bucket)))).await?;
        let whole = [
            &statements.drop_profile,
            &statements.drop_settings,
            &statements.drop_periods,
            &statements.drop_play_counts,
            &statements.drop_taggings,
            &statements.drop_friends,
            &statements.drop_library,
            &statements.drop_tracks_removed,
            &statements.drop_playlists,
            &statements.drop_tokens_of,
        ];
        try_join_all(whole.map(|write| self.wipe(write, (id.0,)))).await?;
        self.wipe(&statements.drop_blobs, (id.0, SETTINGS)).await?;
        self.wipe(&statements.drop_keys, (id.0.as_bytes().to_vec(),)).await?;
        let (day, created) = (day(of.created.ms()), of.created.0.cast_signed());
        self.wipe(&statements.drop_account_of_day, (day, created, id.0)).await
    }

    /// Gives the name to whoever takes it next.
    pub(super) async fn free_name(&self, user: &User) -> Answer<()> {
        let (who, id) = (self.inner.world.key_of(&user.name), user.id.0);
        let look = || async {
            let row: Option<(Uuid, i64, String, Option<Vec<u8>>)> =
                self.inner.session.one(&self.agreed().name_now, (&who,)).await?;
            Ok(if row.is_some_and(|(found, ..)| found == id) { Seen::Open } else { Seen::Applied })
        };
        // Refused when another freed it before.
        self.inner.session.settle(&self.agreed().free_name, (&who, id), look).await?;
        Ok(())
    }
}
