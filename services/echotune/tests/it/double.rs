//! The rules of users in memory, for what imports and the demo send.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use echotune_api::{MAX_BATCH, Users};
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ErrorKind, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen,
    ListenReceipt, NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile,
    Rejection, Settings, Tagging, TokenId, Track, User, UserId, UserName, fold,
};

const NOW_MS: u64 = 1_760_000_000_000;

/// What the double holds.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) accounts: BTreeMap<String, UserId>,
    pub(crate) listens: BTreeSet<(String, i64, ItemId)>,
    pub(crate) counts: BTreeMap<(String, ItemId, String), u32>,
    pub(crate) taggings: BTreeMap<(String, String, String), i64>,
    pub(crate) friends: BTreeSet<(String, String)>,
    pub(crate) calls: usize,
    /// Calls that are answered before the platform is gone.
    pub(crate) alive: Option<usize>,
    /// Calls that are answered with "not now" first.
    pub(crate) shaky: usize,
}

#[derive(Default, Clone)]
pub(crate) struct Double(pub(crate) Arc<Mutex<Held>>);

impl Double {
    /// Checks a batch like the edge, and writes each row that `write` accepts.
    fn batch<T>(
        &self,
        user: &str,
        rows: Vec<T>,
        mut write: impl FnMut(&mut Held, T) -> Result<bool, String>,
    ) -> Result<ListenReceipt, Fault> {
        let mut held = self.0.lock().expect("lock");
        held.calls += 1;
        if held.alive.is_some_and(|alive| held.calls > alive) {
            return Err(Fault::new(ErrorKind::Internal, "gone"));
        }
        if held.shaky > 0 {
            held.shaky -= 1;
            return Err(Fault::new(ErrorKind::Unavailable, "not now"));
        }
        assert!((1..=MAX_BATCH).contains(&rows.len()), "{} rows", rows.len());
        if !held.accounts.contains_key(user) {
            return Err(Fault::unknown_user(user));
        }
        let mut receipt = ListenReceipt::default();
        for (index, row) in (0..).zip(rows) {
            match write(&mut held, row) {
                Ok(true) => receipt.recorded += 1,
                Ok(false) => receipt.duplicates += 1,
                Err(reason) => receipt.rejections.push(Rejection { index, reason }),
            }
        }
        Ok(receipt)
    }

    pub(crate) fn held<T>(&self, read: impl FnOnce(&Held) -> T) -> T {
        read(&self.0.lock().expect("lock"))
    }
}

fn account(name: &str, id: UserId) -> Result<User, Fault> {
    Ok(User { id, name: name.parse::<UserName>()?, created_at_ms: 0 })
}

/// An import that calls more than it needs fails its test.
fn unneeded(method: &str) -> Fault {
    Fault::new(ErrorKind::Internal, format!("an import does not need {method}"))
}

#[async_trait]
impl Users for Double {
    async fn create_user(&self, _call: &Call, name: &str) -> Result<User, Fault> {
        let id = UserId::new(NOW_MS);
        let user = account(name, id)?;
        match self.0.lock().expect("lock").accounts.insert(name.to_owned(), id) {
            None => Ok(user),
            Some(_) => Err(Fault::new(ErrorKind::AlreadyExists, "taken")),
        }
    }

    async fn get_user(&self, _call: &Call, name: &str) -> Result<User, Fault> {
        let id = self.held(|held| held.accounts.get(name).copied());
        account(name, id.ok_or_else(|| Fault::unknown_user(name))?)
    }

    async fn record_listens(&self, _call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        self.batch(user, listens, |held, listen| {
            listen.check(NOW_MS)?;
            Ok(held.listens.insert((user.to_owned(), listen.listened_at_ms, listen.track.id())))
        })
    }

    async fn set_play_counts(&self, _call: &Call, user: &str, rows: Vec<PlayCount>) -> Result<ListenReceipt, Fault> {
        self.batch(user, rows, |held, row| {
            if row.plays == 0 {
                return Err("plays is 0; expected at least 1".into());
            }
            let key = (user.to_owned(), row.artist_id(), row.source);
            Ok(held.counts.insert(key, row.plays) != Some(row.plays))
        })
    }

    async fn add_taggings(&self, _call: &Call, user: &str, rows: Vec<Tagging>) -> Result<ListenReceipt, Fault> {
        self.batch(user, rows, |held, row| {
            let key = (user.to_owned(), fold(&row.artist), row.tag);
            Ok(held.taggings.insert(key, row.tagged_at_ms).is_none())
        })
    }

    async fn add_friends(&self, _call: &Call, user: &str, rows: Vec<String>) -> Result<ListenReceipt, Fault> {
        self.batch(user, rows, |held, friend| {
            if !held.accounts.contains_key(&friend) {
                return Err(format!("user '{friend}' does not exist"));
            }
            let mut pair = [user.to_owned(), friend];
            pair.sort();
            let [one, other] = pair;
            Ok(held.friends.insert((one, other)))
        })
    }

    async fn list_users(&self, _call: &Call, _page: &PageRequest) -> Result<Page<User>, Fault> {
        Err(unneeded("list_users"))
    }

    async fn get_profile(&self, _call: &Call, _user: &str) -> Result<Profile, Fault> {
        Err(unneeded("get_profile"))
    }

    async fn update_profile(&self, _call: &Call, _user: &str, _profile: Profile) -> Result<Profile, Fault> {
        Err(unneeded("update_profile"))
    }

    async fn get_settings(&self, _call: &Call, _user: &str) -> Result<Settings, Fault> {
        Err(unneeded("get_settings"))
    }

    async fn update_settings(&self, _call: &Call, _user: &str, _settings: Settings) -> Result<Settings, Fault> {
        Err(unneeded("update_settings"))
    }

    async fn list_listens(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<HistoryEntry>, Fault> {
        Err(unneeded("list_listens"))
    }

    async fn list_friends(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<String>, Fault> {
        Err(unneeded("list_friends"))
    }

    async fn add_to_library(&self, _call: &Call, _user: &str, _tracks: Vec<Track>) -> Result<ListenReceipt, Fault> {
        Err(unneeded("add_to_library"))
    }

    async fn remove_from_library(&self, _call: &Call, _user: &str, _track: ItemId) -> Result<bool, Fault> {
        Err(unneeded("remove_from_library"))
    }

    async fn list_library(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<LibraryEntry>, Fault> {
        Err(unneeded("list_library"))
    }

    async fn create_playlist(&self, _call: &Call, _user: &str, _playlist: NewPlaylist) -> Result<Playlist, Fault> {
        Err(unneeded("create_playlist"))
    }

    async fn get_playlist(&self, _call: &Call, _id: PlaylistId) -> Result<Playlist, Fault> {
        Err(unneeded("get_playlist"))
    }

    async fn update_playlist(&self, _call: &Call, _id: PlaylistId, _playlist: NewPlaylist) -> Result<Playlist, Fault> {
        Err(unneeded("update_playlist"))
    }

    async fn delete_playlist(&self, _call: &Call, _id: PlaylistId) -> Result<bool, Fault> {
        Err(unneeded("delete_playlist"))
    }

    async fn list_playlists(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<Playlist>, Fault> {
        Err(unneeded("list_playlists"))
    }

    async fn create_token(&self, _call: &Call, _user: &str, _token: NewToken) -> Result<(ApiToken, String), Fault> {
        Err(unneeded("create_token"))
    }

    async fn list_tokens(&self, _call: &Call, _user: &str) -> Result<Vec<ApiToken>, Fault> {
        Err(unneeded("list_tokens"))
    }

    async fn revoke_token(&self, _call: &Call, _user: &str, _token: TokenId) -> Result<bool, Fault> {
        Err(unneeded("revoke_token"))
    }

    async fn authenticate(&self, _secret: &str) -> Result<Principal, Fault> {
        Err(unneeded("authenticate"))
    }

    async fn export_user(&self, _call: &Call, _user: &str, _page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        Err(unneeded("export_user"))
    }

    async fn erase_user(&self, _call: &Call, _user: &str) -> Result<ErasureReceipt, Fault> {
        Err(unneeded("erase_user"))
    }

    async fn counts(&self, _call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        Err(unneeded("counts"))
    }

    async fn find_user(&self, _call: &Call, _id: UserId) -> Result<User, Fault> {
        Err(unneeded("find_user"))
    }

    async fn restore_user(&self, _call: &Call, _user: User) -> Result<(User, bool), Fault> {
        Err(unneeded("restore_user"))
    }

    async fn restore_library(
        &self,
        _call: &Call,
        _user: &str,
        _entries: Vec<LibraryEntry>,
    ) -> Result<ListenReceipt, Fault> {
        Err(unneeded("restore_library"))
    }

    async fn restore_playlist(&self, _call: &Call, _user: &str, _playlist: Playlist) -> Result<bool, Fault> {
        Err(unneeded("restore_playlist"))
    }

    async fn restore_token(&self, _call: &Call, _user: &str, _token: ApiToken, _hash: &str) -> Result<bool, Fault> {
        Err(unneeded("restore_token"))
    }
}
