use std::collections::BTreeMap;

use async_trait::async_trait;
use echotune_model::{
    ApiToken, ErasureReceipt, ExportRecord, HistoryEntry, ItemId, LibraryEntry, Listen, ListenReceipt, NewPlaylist,
    Page, PageRequest, PlayCount, Playlist, PlaylistId, Profile, Settings, Tagging, TokenId, Track, User, UserId,
    UserName,
};

use super::CqlUserStore;
use crate::store::{Answer, Checked, Stamp, StoredToken, TokenDraft, UserStore, Waiting};

#[async_trait]
impl UserStore for CqlUserStore {
    fn now_ms(&self) -> u64 {
        self.inner.times.wall_ms()
    }

    async fn create(&self, name: UserName, stamp: Stamp) -> Answer<User> {
        self.create_account(name, stamp).await
    }

    async fn by_name(&self, name: &UserName) -> Answer<Option<User>> {
        match self.own_account().await? {
            Some(own) if own.name.folded() == name.folded() => Ok(Some(own)),
            _ => self.account_of_name(name).await,
        }
    }

    async fn by_id(&self, id: UserId) -> Answer<Option<User>> {
        self.account(id).await
    }

    async fn users(&self, page: PageRequest) -> Answer<Page<User>> {
        self.accounts(&page).await
    }

    async fn profile(&self, user: UserId) -> Answer<Profile> {
        Ok(self.stored_profile(user).await?.unwrap_or_default())
    }

    async fn set_profile(&self, user: User, profile: Profile, stamp: Stamp) -> Answer<Profile> {
        self.replace_profile(&user, profile, stamp).await
    }

    async fn settings(&self, user: UserId) -> Answer<Settings> {
        Ok(self.stored_settings(user).await?.map(|(_, settings)| settings).unwrap_or_default())
    }

    async fn set_settings(&self, user: User, settings: Settings, stamp: Stamp) -> Answer<Settings> {
        self.replace_settings(&user, settings, stamp).await
    }

    async fn record(&self, user: User, listens: Checked<Listen>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.record_listens(&user, listens, stamp).await
    }

    async fn listens(&self, user: UserId, page: PageRequest) -> Answer<Page<HistoryEntry>> {
        self.history(user, &page).await
    }

    async fn set_counts(&self, user: User, counts: Checked<PlayCount>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.replace_counts(&user, counts, stamp).await
    }

    async fn add_taggings(&self, user: User, taggings: Checked<Tagging>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.insert_taggings(&user, taggings, stamp).await
    }

    async fn add_friends(&self, user: User, friends: Checked<UserName>, stamp: Stamp) -> Answer<ListenReceipt> {
        self.insert_friends(&user, friends, stamp).await
    }

    async fn friends(&self, user: UserId, page: PageRequest) -> Answer<Page<String>> {
        let Page { rows, next } = self.friends_page(user, &page).await?;
        Ok(Page { rows: rows.iter().map(ToString::to_string).collect(), next })
    }

    async fn add_tracks(&self, user: User, tracks: Checked<Track>, stamp: Stamp) -> Answer<ListenReceipt> {
        let Checked { rows, rejections } = tracks;
        let rows = rows.into_iter().map(|(at, track)| (at, (track, None))).collect();
        self.insert_tracks(&user, Checked { rows, rejections }, stamp).await
    }

    async fn remove_track(&self, user: User, track: ItemId, stamp: Stamp) -> Answer<bool> {
        self.delete_track(&user, track, stamp).await
    }

    async fn library(&self, user: UserId, page: PageRequest) -> Answer<Page<LibraryEntry>> {
        self.library_page(user, &page).await
    }

    async fn create_playlist(&self, user: User, content: NewPlaylist, stamp: Stamp) -> Answer<Playlist> {
        self.insert_playlist(&user, content, stamp).await
    }

    async fn playlist(&self, id: PlaylistId) -> Answer<Option<Playlist>> {
        let Some(owner) = self.owner_of_playlist(id).await? else { return Ok(None) };
        self.playlist_of(owner, id).await
    }

    async fn playlist_owner(&self, id: PlaylistId) -> Answer<Option<UserId>> {
        self.owner_of_playlist(id).await
    }

    async fn update_playlist(
        &self,
        user: User,
        id: PlaylistId,
        content: NewPlaylist,
        stamp: Stamp,
    ) -> Answer<Playlist> {
        self.replace_playlist(&user, id, content, stamp).await
    }

    async fn delete_playlist(&self, user: User, id: PlaylistId, stamp: Stamp) -> Answer<bool> {
        self.remove_playlist(&user, id, stamp).await
    }

    async fn playlists(&self, user: UserId, page: PageRequest) -> Answer<Page<Playlist>> {
        self.playlists_page(user, &page).await
    }

    async fn token_id(&self, user: UserId, stamp: &Stamp) -> Answer<TokenId> {
        self.next_token_id(user, stamp).await
    }

    async fn create_token(&self, user: User, draft: TokenDraft, stamp: Stamp) -> Answer<ApiToken> {
        self.insert_token(&user, draft, stamp).await
    }

    async fn token(&self, id: TokenId) -> Answer<Option<(StoredToken, User)>> {
        let Some(stored) = self.stored_token(id.0).await? else { return Ok(None) };
        let user = self.account(stored.user).await?;
        Ok(user.map(|user| (stored, user)))
    }

    async fn tokens(&self, user: UserId) -> Answer<Vec<ApiToken>> {
        self.tokens_of_user(user).await
    }

    async fn revoke_token(&self, user: User, id: TokenId, stamp: Stamp) -> Answer<bool> {
        self.remove_token(&user, id, stamp).await
    }

    async fn restore(&self, user: User, stamp: Stamp) -> Answer<(User, bool)> {
        self.restore_account(user, &stamp.traceparent).await
    }

    async fn restore_tracks(&self, user: User, entries: Checked<LibraryEntry>, stamp: Stamp) -> Answer<ListenReceipt> {
        let Checked { rows, rejections } = entries;
        let rows = rows.into_iter().map(|(at, entry)| (at, (entry.track, Some(entry.added_at_ms)))).collect();
        self.insert_tracks(&user, Checked { rows, rejections }, stamp).await
    }

    async fn restore_playlist(&self, user: User, playlist: Playlist, stamp: Stamp) -> Answer<bool> {
        self.put_back_playlist(&user, playlist, stamp).await
    }

    async fn restore_token(&self, user: User, token: StoredToken, stamp: Stamp) -> Answer<bool> {
        self.put_back_token(&user, token, stamp).await
    }

    async fn export(&self, user: User, page: PageRequest) -> Answer<Page<ExportRecord>> {
        self.export_page(&user, &page).await
    }

    async fn erase(&self, name: UserName, whose: Option<UserId>, stamp: Stamp) -> Answer<ErasureReceipt> {
        // Nothing is added to what goes, and it is finished wherever it was begun.
        let whose = whose.or_else(|| self.permit.as_ref().map(|permit| permit.user()));
        self.unbound().erase_all(name, whose, stamp).await
    }

    async fn resume_erasures(&self) -> Answer<Vec<ErasureReceipt>> {
        self.resume().await
    }

    async fn counts(&self) -> Answer<BTreeMap<String, u64>> {
        self.all_counts().await
    }

    async fn next_events(&self, limit: usize) -> Answer<Vec<Waiting>> {
        self.waiting(limit).await
    }

    async fn published(&self, places: Vec<Vec<u8>>) -> Answer<()> {
        self.forget_events(&places).await
    }

    /// Keys and the owners of deleted playlists end by themselves.
    async fn sweep_keys(&self, _now_ms: u64) -> Answer<usize> {
        Ok(0)
    }
}
