//! Playlists: bytes first, then the row that tells of them.

use std::collections::HashSet;

use echotune_model::{Hlc, NewPlaylist, Page, PageRequest, Playlist, PlaylistId, User, UserId};
use uuid::{Builder, Uuid};

use super::{
    CqlUserStore,
    blobs::Steady,
    keys::{Key, Known, unless_answered},
    pages,
};
use crate::store::{Answer, KEY_LIFE_MS, MAX_PLAYLISTS, Stamp, UserStoreError};

/// A playlist without its content. Its version is the time of its last change, and names its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    id: Uuid,
    created_at_ms: u64,
    version: i64,
    parts: i32,
}

type Columns = (Uuid, Option<i64>, Option<i64>, Option<i32>);

/// Nothing for one that is being made.
fn row((id, created, version, parts): Columns) -> Option<Row> {
    Some(Row { id, created_at_ms: created?.unsigned_abs(), version: version?, parts: parts? })
}

impl CqlUserStore {
    async fn playlist_rows(&self, user: UserId) -> Answer<Vec<Row>> {
        let rows: Vec<Columns> = self.rows(&self.of().playlists, (user.0,)).await?;
        let mut rows: Vec<_> = rows.into_iter().filter_map(row).collect();
        rows.sort_by_key(|row| (row.created_at_ms, row.id));
        Ok(rows)
    }

    async fn playlist_row(&self, user: UserId, id: PlaylistId) -> Answer<Option<Row>> {
        Ok(self.one::<Columns>(&self.of().playlist, (user.0, id.0)).await?.and_then(row))
    }

    /// Creates a playlist: its place, its bytes, and then the batch that shows it.
    pub(super) async fn insert_playlist(&self, user: &User, content: NewPlaylist, stamp: Stamp) -> Answer<Playlist> {
        let playlist = |(id, created_at_ms, changed_at): (PlaylistId, u64, Hlc), content| Playlist {
            id,
            owner: user.id,
            content,
            created_at_ms,
            changed_at,
        };
        // The content is what was asked, so that it need not be kept under the key.
        let key = match self.known(Some(user.id), &stamp).await? {
            Known::Answered(made) => return Ok(playlist(made, content)),
            Known::New(key) => key,
        };
        let seal = self.alive(user).await?;
        let rows = self.playlist_rows(user.id).await?;
        let now_ms = self.inner.times.wall_ms();
        let id = match &key {
            None => PlaylistId::new(now_ms),
            Some(key) => match derived(key, &rows, now_ms) {
                Derived::New(id) => id,
                // The same call, made at the same time.
                Derived::Made(row) => {
                    let made = (PlaylistId(row.id), row.created_at_ms, Hlc(row.version.cast_unsigned()));
                    return Ok(playlist(made, content));
                }
            },
        };
        if rows.len() >= MAX_PLAYLISTS {
            return Err(UserStoreError::TooMany { user: user.name.clone(), what: "playlists", limit: MAX_PLAYLISTS });
        }
        // An erasure finds by this row what bytes there are.
        self.put(&self.of().begin_playlist, (user.id.0, id.0)).await?;
        let (version, parts) = self.put_blob(&seal, id.0, &content).await?;
        let changed_at = Hlc(version.cast_unsigned());
        let mut draft = self.draft("create a playlist", &stamp.traceparent);
        let created = i64::try_from(changed_at.ms()).unwrap_or(i64::MAX);
        draft.batch.add(&self.of().put_playlist, (user.id.0, id.0, created, version, parts));
        draft.batch.add(&self.of().put_playlist_owner, (id.0, user.id.0));
        draft.count("playlists", 1);
        let made = (id, changed_at.ms(), changed_at);
        draft.give(&seal, key, &made)?;
        draft.commit().await?;
        if self.is_erased(user.id).await? {
            self.put(&self.of().drop_blobs, (user.id.0, id.0)).await?;
            self.put(&self.of().drop_playlist_owner, (id.0,)).await?;
            return Err(UserStoreError::UnknownUser(user.name.clone()));
        }
        Ok(playlist(made, content))
    }

    /// Makes a playlist that has its id and its times already, in the steps of [`Self::insert_playlist`].
    pub(super) async fn put_back_playlist(&self, user: &User, playlist: Playlist, stamp: Stamp) -> Answer<bool> {
        let key = unless_answered!(self.known::<bool>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let Playlist { id, content, created_at_ms, changed_at, .. } = playlist;
        if self.owner_of_playlist(id).await?.is_some_and(|owner| owner != user.id) {
            return Err(UserStoreError::Other { what: "playlist", id: id.to_string() });
        }
        let rows = self.playlist_rows(user.id).await?;
        if rows.iter().any(|row| row.id == id.0) {
            return Ok(false);
        }
        if rows.len() >= MAX_PLAYLISTS {
            return Err(UserStoreError::TooMany { user: user.name.clone(), what: "playlists", limit: MAX_PLAYLISTS });
        }
        self.put(&self.of().begin_playlist, (user.id.0, id.0)).await?;
        let version = changed_at.0.cast_signed();
        // A later change takes a later version.
        self.follow(Some(version));
        let parts = self.put_blob_as(&seal, id.0, version, &content).await?;
        let mut draft = self.draft("restore a playlist", &stamp.traceparent);
        let created = i64::try_from(created_at_ms).unwrap_or(i64::MAX);
        draft.batch.add(&self.of().put_playlist, (user.id.0, id.0, created, version, parts));
        draft.batch.add(&self.of().put_playlist_owner, (id.0, user.id.0));
        draft.count("playlists", 1);
        draft.give(&seal, key, &true)?;
        draft.commit().await?;
        if self.is_erased(user.id).await? {
            self.put(&self.of().drop_blobs, (user.id.0, id.0)).await?;
            self.put(&self.of().drop_playlist_owner, (id.0,)).await?;
            return Err(UserStoreError::UnknownUser(user.name.clone()));
        }
        Ok(true)
    }

    pub(super) async fn owner_of_playlist(&self, id: PlaylistId) -> Answer<Option<UserId>> {
        let owner: Option<(Option<Uuid>,)> = self.one(&self.of().playlist_owner, (id.0,)).await?;
        Ok(owner.and_then(|(owner,)| owner).map(UserId))
    }

    pub(super) async fn playlist_of(&self, owner: UserId, id: PlaylistId) -> Answer<Option<Playlist>> {
        self.steady("tracks of a playlist", || async {
            let Some(row) = self.playlist_row(owner, id).await? else { return Ok(Steady::Missing) };
            let changed_at = Hlc(row.version.cast_unsigned());
            let playlist = |content| Playlist { id, owner, content, created_at_ms: row.created_at_ms, changed_at };
            Ok(self.blob(owner, id.0, (row.version, row.parts)).await?.map(playlist))
        })
        .await
    }

    pub(super) async fn replace_playlist(
        &self,
        user: &User,
        id: PlaylistId,
        content: NewPlaylist,
        stamp: Stamp,
    ) -> Answer<Playlist> {
        let playlist = |(created_at_ms, changed_at): (u64, Hlc), content| Playlist {
            id,
            owner: user.id,
            content,
            created_at_ms,
            changed_at,
        };
        let key = match self.known(Some(user.id), &stamp).await? {
            Known::Answered(changed) => return Ok(playlist(changed, content)),
            Known::New(key) => key,
        };
        let seal = self.alive(user).await?;
        let before = self.playlist_row(user.id, id).await?.ok_or(UserStoreError::UnknownPlaylist(id))?;
        self.follow(Some(before.version));
        self.follow_written(&self.of().playlist_written, (user.id.0, id.0)).await?;
        let (version, parts) = self.put_blob(&seal, id.0, &content).await?;
        let mut draft = self.draft("change a playlist", &stamp.traceparent);
        let created = i64::try_from(before.created_at_ms).unwrap_or(i64::MAX);
        draft.batch.add(&self.of().put_playlist, (user.id.0, id.0, created, version, parts));
        draft.batch.add(&self.of().put_playlist_owner, (id.0, user.id.0));
        let changed = (before.created_at_ms, Hlc(version.cast_unsigned()));
        draft.give(&seal, key, &changed)?;
        draft.commit().await?;
        self.put(&self.of().drop_blob, (user.id.0, id.0, before.version)).await?;
        Ok(playlist(changed, content))
    }

    pub(super) async fn remove_playlist(&self, user: &User, id: PlaylistId, stamp: Stamp) -> Answer<bool> {
        let key = unless_answered!(self.known::<bool>(Some(user.id), &stamp).await?);
        let seal = self.alive(user).await?;
        let there = self.playlist_row(user.id, id).await?.is_some();
        self.follow_written(&self.of().playlist_written, (user.id.0, id.0)).await?;
        let mut draft = self.draft("delete a playlist", &stamp.traceparent);
        if there {
            draft.batch.add(&self.of().drop_playlist, (user.id.0, id.0));
            draft.batch.add(&self.of().end_playlist_owner, (id.0, user.id.0));
            draft.count("playlists", -1);
        }
        draft.give(&seal, key, &there)?;
        draft.commit().await?;
        if there {
            self.put(&self.of().drop_blobs, (user.id.0, id.0)).await?;
        }
        Ok(there)
    }

    /// A page ends early when its playlists are long.
    pub(super) async fn playlists_page(&self, user: UserId, page: &PageRequest) -> Answer<Page<Playlist>> {
        let after: Option<(u64, Uuid)> = pages::after(&page.token)?;
        let rows = self.playlist_rows(user).await?;
        let mut left = rows.iter().filter(|row| after.is_none_or(|after| (row.created_at_ms, row.id) > after));
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut last = None;
        while found.len() < page.size as usize && bytes < pages::PAGE_BYTES {
            let Some(row) = left.next() else { break };
            last = Some((row.created_at_ms, row.id));
            // One that was deleted meanwhile is left out.
            if let Some(playlist) = self.playlist_of(user, PlaylistId(row.id)).await? {
                let tracks = &playlist.content.tracks;
                bytes += tracks.iter().map(|one| one.title.len() + one.artist.len() + one.album.len()).sum::<usize>();
                found.push(playlist);
            }
        }
        let next = last.filter(|_| left.next().is_some()).map(|last| pages::token(&last)).unwrap_or_default();
        Ok(Page { rows: found, next })
    }

    /// Every playlist of a user, also those that were never finished.
    pub(super) async fn playlist_ids(&self, user: UserId) -> Answer<HashSet<Uuid>> {
        let rows: Vec<Columns> = self.rows(&self.of().playlists, (user.0,)).await?;
        Ok(rows.into_iter().map(|(id, ..)| id).collect())
    }

    /// How many playlists of a user are finished.
    pub(super) async fn playlists_counted(&self, user: UserId) -> Answer<u64> {
        Ok(self.playlist_rows(user).await?.len() as u64)
    }
}

enum Derived {
    /// None has this id.
    New(PlaylistId),
    /// This one was made under the same key, a moment ago.
    Made(Row),
}

/// The id that follows from a key, so that two repeats at once write one row. A playlist that was made under
/// the key before it ended leaves its id, and the next one follows.
fn derived(key: &Key, rows: &[Row], now_ms: u64) -> Derived {
    let mut seed = key.seed();
    loop {
        let id = Builder::from_random_bytes(seed).into_uuid();
        match rows.iter().find(|row| row.id == id) {
            None => return Derived::New(PlaylistId(id)),
            Some(row) if now_ms < row.created_at_ms + KEY_LIFE_MS => return Derived::Made(*row),
            Some(_) => seed = Key { scope: seed.to_vec(), ..key.clone() }.seed(),
        }
    }
}
