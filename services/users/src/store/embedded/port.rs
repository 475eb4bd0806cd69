use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_api::events::Payload;
use echotune_kit::embedded::{Batch, Key, Order, StoreError, decode, get};
use echotune_model::{
    ApiToken, ErasureReceipt, ExportRecord, HistoryEntry, ItemId, LibraryEntry, Listen, ListenReceipt, NewPlaylist,
    Page, PageRequest, PlayCount, Playlist, PlaylistId, Profile, Settings, Tagging, TokenId, Track, User, UserId,
    UserName,
};

use super::{
    EmbeddedUserStore,
    erase::NOBODY,
    lists, restore,
    rows::{self, Prepared},
    tables::{
        ACCOUNTS, COUNTS, GONE, KEYS, LIBRARY, NAMES, OUTBOX, PLAYLISTS, PLAYLISTS_OF, PROFILES, SETTINGS, TOKENS,
        TOKENS_OF, listen_key, name_key, of, track_key,
    },
};
use crate::store::{
    Answer, COUNTED, Checked, KEY_LIFE_MS, MAX_PLAYLISTS, MAX_TOKENS, Stamp, StoredToken, TokenDraft, UserStore,
    UserStoreError, Waiting,
};

fn id_key(id: uuid::Uuid) -> Key {
    Key::new().fixed(id.as_bytes())
}

#[async_trait]
impl UserStore for EmbeddedUserStore {
    fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    async fn create(&self, name: UserName, stamp: Stamp) -> Answer<User> {
        let (named, repeatable) = (name.clone(), stamp.idempotency.is_some());
        let user = self
            .write(NOBODY, stamp, move |draft| {
                if draft.view.get(NAMES, &name_key(&name))?.is_some() {
                    return Err(UserStoreError::NameTaken(name));
                }
                let now = draft.clock.now();
                let user = User { id: UserId::new(now.ms()), name: name.clone(), created_at_ms: now.ms() };
                draft.batch.put(NAMES, name_key(&name), &user.id);
                draft.batch.put(ACCOUNTS, of(user.id), &user);
                draft.count("users", 1);
                draft.publish(user.id, Payload::UserCreated { name });
                Ok((user.id, now.ms()))
            })
            .await?;
        if repeatable && self.by_id(user.0).await?.is_none() {
            return Err(UserStoreError::ErasedSince(named));
        }
        // Only the id is kept under the key, so that an erased name is kept nowhere.
        Ok(User { id: user.0, name: named, created_at_ms: user.1 })
    }

    async fn by_name(&self, name: &UserName) -> Answer<Option<User>> {
        self.db.read(|view| {
            let Some(id) = get::<UserId>(view, NAMES, &name_key(name))? else { return Ok(None) };
            Ok(get(view, ACCOUNTS, &of(id))?)
        })
    }

    async fn by_id(&self, id: UserId) -> Answer<Option<User>> {
        Ok(self.db.read(|view| get(view, ACCOUNTS, &of(id)))?)
    }

    async fn users(&self, page: PageRequest) -> Answer<Page<User>> {
        let read = move |view: &dyn echotune_kit::embedded::View| {
            lists::page(view, ACCOUNTS, &Key::new(), Order::Ascending, &page, |_, value| {
                Ok(Some(decode(ACCOUNTS, value)?))
            })
        };
        self.read_long(read).await
    }

    async fn profile(&self, user: UserId) -> Answer<Profile> {
        Ok(self.db.read(|view| get(view, PROFILES, &of(user)))?.unwrap_or_default())
    }

    async fn set_profile(&self, user: User, profile: Profile, stamp: Stamp) -> Answer<Profile> {
        self.write_of(user, stamp, |draft, user| {
            draft.batch.put(PROFILES, of(user.id), &profile);
            Ok(profile)
        })
        .await
    }

    async fn settings(&self, user: UserId) -> Answer<Settings> {
        Ok(self.db.read(|view| get(view, SETTINGS, &of(user)))?.unwrap_or_default())
    }

    async fn set_settings(&self, user: User, settings: Settings, stamp: Stamp) -> Answer<Settings> {
        self.write_of(user, stamp, |draft, user| {
            draft.batch.put(SETTINGS, of(user.id), &settings);
            draft.publish(user.id, Payload::SettingsChanged { settings: settings.clone() });
            Ok(settings)
        })
        .await
    }

    async fn record(&self, user: User, listens: Checked<Listen>, stamp: Stamp) -> Answer<ListenReceipt> {
        let prepare = |(_, listen): (u32, Listen)| Prepared {
            key: listen_key(user.id, &listen),
            tally: track_key(user.id, listen.track.id()),
            entry: HistoryEntry { id: listen.id(user.id), listen },
        };
        let prepared = listens.rows.into_iter().map(prepare).collect();
        let rejections = listens.rejections;
        self.write_of(user, stamp, |draft, user| rows::record(draft, user, prepared, rejections)).await
    }

    async fn listens(&self, user: UserId, page: PageRequest) -> Answer<Page<HistoryEntry>> {
        self.read_long(move |view| lists::listens(view, user, &page)).await
    }

    async fn set_counts(&self, user: User, counts: Checked<PlayCount>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.write_of(user, stamp, |draft, user| rows::set_counts(draft, user, counts)).await
    }

    async fn add_taggings(&self, user: User, taggings: Checked<Tagging>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.write_of(user, stamp, |draft, user| rows::add_taggings(draft, user, taggings)).await
    }

    async fn add_friends(&self, user: User, friends: Checked<UserName>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.write_of(user, stamp, |draft, user| rows::add_friends(draft, user, friends)).await
    }

    async fn friends(&self, user: UserId, page: PageRequest) -> Answer<Page<String>> {
        self.read_long(move |view| lists::friends(view, user, &page)).await
    }

    async fn add_tracks(&self, user: User, tracks: Checked<Track>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.write_of(user, stamp, |draft, user| rows::add_tracks(draft, user, tracks)).await
    }

    async fn remove_track(&self, user: User, track: ItemId, stamp: Stamp) -> Answer<bool> {
        self.write_of(user, stamp, move |draft, user| {
            let place = track_key(user.id, track);
            let there = draft.view.get(LIBRARY, &place)?.is_some();
            if there {
                draft.batch.delete(LIBRARY, place);
                draft.count("library", -1);
            }
            Ok(there)
        })
        .await
    }

    async fn library(&self, user: UserId, page: PageRequest) -> Answer<Page<LibraryEntry>> {
        self.read_long(move |view| lists::library(view, user, &page)).await
    }

    async fn create_playlist(&self, user: User, content: NewPlaylist, stamp: Stamp) -> Answer<Playlist> {
        self.write_of(user, stamp, |draft, user| {
            if lists::how_many(draft.view, PLAYLISTS_OF, user.id, MAX_PLAYLISTS)? == MAX_PLAYLISTS {
                let user = user.name.clone();
                return Err(UserStoreError::TooMany { user, what: "playlists", limit: MAX_PLAYLISTS });
            }
            let now = draft.clock.now();
            let id = PlaylistId::new(now.ms());
            let playlist = Playlist { id, owner: user.id, content, created_at_ms: now.ms(), changed_at: now };
            draft.batch.put(PLAYLISTS, id_key(id.0), &playlist);
            draft.batch.put_bytes(PLAYLISTS_OF, of(user.id).fixed(id.0.as_bytes()), Vec::new());
            draft.count("playlists", 1);
            Ok(playlist)
        })
        .await
    }

    async fn playlist(&self, id: PlaylistId) -> Answer<Option<Playlist>> {
        self.db.read(|view| lists::playlist(view, id))
    }

    async fn playlist_owner(&self, id: PlaylistId) -> Answer<Option<UserId>> {
        let now_ms = self.clock.wall_ms();
        self.db.read(|view| match lists::playlist(view, id)? {
            Some(playlist) => Ok(Some(playlist.owner)),
            None => Ok(GONE.get(view, &id_key(id.0), now_ms)?),
        })
    }

    async fn update_playlist(
        &self,
        user: User,
        id: PlaylistId,
        content: NewPlaylist,
        stamp: Stamp,
    ) -> Answer<Playlist> {
        self.write_of(user, stamp, move |draft, user| {
            let stored = lists::playlist(draft.view, id)?.filter(|stored| stored.owner == user.id);
            let stored = stored.ok_or(UserStoreError::UnknownPlaylist(id))?;
            let playlist = Playlist { content, changed_at: draft.clock.now(), ..stored };
            draft.batch.put(PLAYLISTS, id_key(id.0), &playlist);
            Ok(playlist)
        })
        .await
    }

    async fn delete_playlist(&self, user: User, id: PlaylistId, stamp: Stamp) -> Answer<bool> {
        self.write_of(user, stamp, move |draft, user| {
            let there = lists::playlist(draft.view, id)?.is_some_and(|stored| stored.owner == user.id);
            if there {
                draft.batch.delete(PLAYLISTS, id_key(id.0));
                draft.batch.delete(PLAYLISTS_OF, of(user.id).fixed(id.0.as_bytes()));
                let ends_at_ms = draft.clock.wall_ms() + KEY_LIFE_MS;
                GONE.put(&mut draft.batch, id_key(id.0), &user.id, ends_at_ms);
                draft.count("playlists", -1);
            }
            Ok(there)
        })
        .await
    }

    async fn playlists(&self, user: UserId, page: PageRequest) -> Answer<Page<Playlist>> {
        self.read_long(move |view| lists::playlists(view, user, &page)).await
    }

    async fn create_token(&self, user: User, draft: TokenDraft, stamp: Stamp) -> Answer<ApiToken> {
        let id = draft.id;
        let token = self
            .write_of(user, stamp, move |write, user| {
                if lists::how_many(write.view, TOKENS_OF, user.id, MAX_TOKENS)? == MAX_TOKENS {
                    let user = user.name.clone();
                    return Err(UserStoreError::TooMany { user, what: "tokens", limit: MAX_TOKENS });
                }
                let TokenDraft { id, wanted, hash } = draft;
                let token = ApiToken {
                    id,
                    label: wanted.label,
                    role: wanted.role,
                    created_at_ms: write.clock.wall_ms(),
                    expires_at_ms: wanted.expires_at_ms,
                };
                let stored = StoredToken { user: user.id, token, hash };
                write.batch.put(TOKENS, id_key(id.0), &stored);
                write.batch.put_bytes(TOKENS_OF, of(user.id).fixed(id.0.as_bytes()), Vec::new());
                Ok(stored.token)
            })
            .await?;
        // An answer under the key names the token of the first call, of which no secret is kept.
        if token.id == id { Ok(token) } else { Err(UserStoreError::SecretGone(token.id)) }
    }

    async fn token(&self, id: TokenId) -> Answer<Option<(StoredToken, User)>> {
        self.db.read(|view| {
            let Some(stored) = lists::token(view, id)? else { return Ok(None) };
            let user = get::<User>(view, ACCOUNTS, &of(stored.user))?;
            Ok(user.map(|user| (stored, user)))
        })
    }

    async fn tokens(&self, user: UserId) -> Answer<Vec<ApiToken>> {
        self.db.read(|view| Ok(lists::tokens(view, user)?.into_iter().map(|stored| stored.token).collect()))
    }

    async fn revoke_token(&self, user: User, id: TokenId, stamp: Stamp) -> Answer<bool> {
        self.write_of(user, stamp, move |draft, user| {
            let there = lists::token(draft.view, id)?.is_some_and(|stored| stored.user == user.id);
            if there {
                draft.batch.delete(TOKENS, id_key(id.0));
                draft.batch.delete(TOKENS_OF, of(user.id).fixed(id.0.as_bytes()));
            }
            Ok(there)
        })
        .await
    }

    async fn restore(&self, user: User, stamp: Stamp) -> Answer<(User, bool)> {
        // Repeated, it finds what it made: a key would keep a name that is erased one day.
        self.write(NOBODY, Stamp { idempotency: None, ..stamp }, |draft| restore::account(draft, user)).await
    }

    async fn restore_tracks(&self, user: User, entries: Checked<LibraryEntry>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.write_of(user, stamp, |draft, user| {
            let now = draft.clock.now();
            rows::add_entries(draft, user, entries, now)
        })
        .await
    }

    async fn restore_playlist(&self, user: User, playlist: Playlist, stamp: Stamp) -> Answer<bool> {
        self.write_of(user, stamp, |draft, user| restore::playlist(draft, user, playlist)).await
    }

    async fn restore_token(&self, user: User, token: StoredToken, stamp: Stamp) -> Answer<bool> {
        self.write_of(user, stamp, |draft, user| restore::token(draft, user, token)).await
    }

    async fn export(&self, user: User, page: PageRequest) -> Answer<Page<ExportRecord>> {
        self.read_long(move |view| lists::export(view, &user, &page)).await
    }

    async fn erase(&self, name: UserName, whose: Option<UserId>, stamp: Stamp) -> Answer<ErasureReceipt> {
        self.erase_all(name, whose, stamp).await
    }

    async fn resume_erasures(&self) -> Answer<Vec<ErasureReceipt>> {
        self.resume().await
    }

    async fn counts(&self) -> Answer<BTreeMap<String, u64>> {
        let counts = self.db.read(|view| {
            let one = |name: &str| Ok((name.to_owned(), get(view, COUNTS, &Key::new().text(name))?.unwrap_or(0)));
            COUNTED.into_iter().map(one).collect::<Result<_, StoreError>>()
        })?;
        Ok(counts)
    }

    async fn next_events(&self, limit: usize) -> Answer<Vec<Waiting>> {
        let mut commits = self.db.commits();
        loop {
            commits.borrow_and_update();
            let outbox = std::sync::Arc::clone(&self.outbox);
            let waiting = self.read_long(move |view| Ok(outbox.look(view, limit)?)).await?;
            if !waiting.is_empty() {
                return Ok(waiting);
            }
            commits.changed().await.map_err(|_| StoreError::Closed)?;
        }
    }

    async fn published(&self, places: Vec<Vec<u8>>) -> Answer<()> {
        self.db
            .write(move |_| {
                let mut batch = Batch::default();
                for place in places {
                    batch.delete(OUTBOX, Key(place));
                }
                Ok(((), batch))
            })
            .await
    }

    async fn sweep_keys(&self, now_ms: u64) -> Answer<usize> {
        GONE.sweep(&self.db, now_ms).await?;
        Ok(KEYS.sweep(&self.db, now_ms).await?)
    }
}
