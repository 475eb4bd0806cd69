use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use echotune_api::Users;
use echotune_model::{
    ApiToken, Call, ErasureReceipt, ErrorKind, ExportRecord, Fault, HistoryEntry, ItemId, LibraryEntry, Listen,
    ListenReceipt, NewPlaylist, NewToken, Page, PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile,
    Settings, Tagging, TokenId, Track, User, UserId, UserName,
};

use super::{At, Bounds, Homes, Peer, Permit, Ways, homes::Standing, residents::near_or_far, rules::Way};
use crate::{UsersService, store::UserStore as _};

/// users of one region among several: reads are answered here unless the user is of another jurisdiction, and writes
/// are made where the user is at home.
#[derive(Clone)]
pub struct RegionalUsers {
    pub(super) local: UsersService,
    pub(super) homes: Arc<Homes>,
    pub(super) ways: Ways,
    pub(super) bounds: Arc<Bounds>,
}

impl fmt::Debug for RegionalUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionalUsers").field("homes", &self.homes).field("peers", &self.names()).finish()
    }
}

/// Answers a write where its user is at home.
macro_rules! at_home {
    ($self:ident, $call:ident, $at:ident($whose:expr), $method:ident($($value:expr),*)) => {{
        let at = $self.$at($call, $whose).await?;
        at.told(at.users.$method(&at.call, $($value),*).await)
    }};
}

/// The same for a write of what is kept near here, wherever it is made.
macro_rules! at_home_and_seen {
    ($self:ident, $call:ident, $whose:ident, $method:ident($($value:expr),*)) => {{
        let at = $self.at($call, $whose).await?;
        let done = at.told(at.users.$method(&at.call, $($value),*).await);
        if at.is_elsewhere() {
            $self.local.made_elsewhere($whose, at.user()).await;
        }
        done
    }};
}

impl RegionalUsers {
    /// The users of the region of `homes`, over the service of the same store, and the ways to the other regions.
    pub fn new(local: UsersService, homes: Arc<Homes>, peers: BTreeMap<String, Peer>) -> Self {
        let ways = Ways::new(homes.region(), peers);
        Self { local, homes, ways, bounds: Arc::default() }
    }

    /// The same with regions that homes do not leave.
    #[must_use]
    pub fn within(mut self, bounds: Bounds) -> Self {
        self.bounds = Arc::new(bounds);
        self
    }

    /// The homes that it asks.
    pub fn homes(&self) -> &Arc<Homes> {
        &self.homes
    }

    /// All regions there are as far as is known: this one and those there is a way to.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.ways.names().chain([self.homes.region()]).collect()
    }

    fn here<'r>(&'r self, call: &'r Call) -> At<'r> {
        At::here(Arc::new(self.local.clone()), call)
    }

    /// Where a write of the user of this name is made. What will be refused anyway is refused here.
    async fn at<'r>(&'r self, call: &'r Call, user: &str) -> Result<At<'r>, Fault> {
        call.check_deadline()?;
        let name: UserName = user.parse()?;
        if call.may_write(&name).is_err() {
            return Ok(self.here(call));
        }
        let id = match &call.principal {
            Principal::User { id, .. } => Some(*id),
            Principal::Operator => self.homes.store.id_of_name(&name).await?,
        };
        let Some(id) = id else { return Ok(self.here(call)) };
        if let Some(standing) = self.homes.standing(id).await? {
            return self.at_standing(call, id, standing).await;
        }
        match self.homes.store.by_name(&name).await? {
            Some(user) if user.id == id => self.at_new(call, &user).await,
            _ => Ok(self.far(call, name.as_str()).await?.unwrap_or_else(|| self.here(call))),
        }
    }

    /// Where a write of an account without a home is made: of who takes it.
    async fn at_new<'r>(&'r self, call: &'r Call, user: &User) -> Result<At<'r>, Fault> {
        self.homes.take(user).await?;
        match self.homes.standing(user.id).await? {
            Some(standing) => self.at_standing(call, user.id, standing).await,
            None => Ok(self.here(call)),
        }
    }

    /// Where a write of a playlist is made. A user writes none but their own, which may have been made elsewhere a
    /// moment ago.
    async fn at_playlist<'r>(&'r self, call: &'r Call, id: PlaylistId) -> Result<At<'r>, Fault> {
        call.check_deadline()?;
        let owner = match &call.principal {
            Principal::User { id, .. } => Some(*id),
            Principal::Operator => self.homes.store.playlist_owner(id).await?,
        };
        let Some(owner) = owner else {
            return Ok(self.far_playlist(call, id).await?.unwrap_or_else(|| self.here(call)));
        };
        if let Some(standing) = self.homes.standing(owner).await? {
            return self.at_standing(call, owner, standing).await;
        }
        match self.homes.store.by_id(owner).await? {
            Some(user) => self.at_new(call, &user).await,
            None => Ok(self.far_playlist(call, id).await?.unwrap_or_else(|| self.here(call))),
        }
    }

    async fn at_standing<'r>(&'r self, call: &'r Call, user: UserId, standing: Standing) -> Result<At<'r>, Fault> {
        let Standing { known, way } = standing;
        let home = &known.state.region;
        if let Some(moving) = known.state.moving.as_ref().filter(|_| self.homes.store.is_ours(home)) {
            return Err(on_the_way(home, &moving.to));
        }
        let here = self.homes.region();
        match way {
            Way::Here => {
                // Whatever was decided before, nothing is written where it may not be.
                self.homes.store.jurisdictions().check(home, here)?;
                let permit = Arc::new(Permit::new(&self.homes, user, &known));
                let users = self.local.over(self.homes.store.permitted(permit));
                Ok(At::here(Arc::new(users), call))
            }
            Way::Soon(left) => Err(soon(here, home, left.as_secs() + 1)),
            Way::To(region) => Ok(self.pass_on(call, region)?.of(user)),
        }
    }

    /// A call that another region answers.
    pub(super) fn pass_on<'r>(&self, call: &'r Call, region: String) -> Result<At<'r>, Fault> {
        self.ways.to(call, region, self.homes.lapse().as_secs() + 1)
    }
}

fn soon(here: &str, home: &str, seconds: u64) -> Fault {
    let why = format!("region '{here}' takes over the users of '{home}' once all regions know of it");
    Fault::new(ErrorKind::Unavailable, format!("{why}; nothing was written: repeat it in {seconds} s"))
}

fn on_the_way(from: &str, to: &str) -> Fault {
    let why = format!("the user moves from region '{from}' to '{to}', and nobody writes for the user meanwhile");
    Fault::new(ErrorKind::Unavailable, format!("{why}; nothing was written: repeat it in a minute"))
}

#[async_trait]
impl Users for RegionalUsers {
    async fn create_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        let user = self.local.create_user(call, name).await?;
        // The same call was made in another jurisdiction before, and that is where the account is.
        if self.foreigner(&user.name).await?.is_some() {
            return Ok(user);
        }
        // The account is there in any case; the first write takes a home for it that has none.
        if let Err(cause) = self.homes.take(&user).await {
            tracing::warn!(user = %user.id, %cause, "an account was made that has no home yet");
        }
        Ok(user)
    }

    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        near_or_far!(self, call, far(name), get_user(name))
    }

    async fn list_users(&self, call: &Call, page: &PageRequest) -> Result<Page<User>, Fault> {
        self.local.list_users(call, page).await
    }

    async fn get_profile(&self, call: &Call, user: &str) -> Result<Profile, Fault> {
        near_or_far!(self, call, far(user), get_profile(user))
    }

    async fn update_profile(&self, call: &Call, user: &str, profile: Profile) -> Result<Profile, Fault> {
        at_home_and_seen!(self, call, user, update_profile(user, profile))
    }

    async fn get_settings(&self, call: &Call, user: &str) -> Result<Settings, Fault> {
        near_or_far!(self, call, far(user), get_settings(user))
    }

    async fn update_settings(&self, call: &Call, user: &str, settings: Settings) -> Result<Settings, Fault> {
        at_home_and_seen!(self, call, user, update_settings(user, settings))
    }

    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, at(user), record_listens(user, listens))
    }

    async fn list_listens(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<HistoryEntry>, Fault> {
        near_or_far!(self, call, far(user), list_listens(user, page))
    }

    async fn set_play_counts(&self, call: &Call, user: &str, counts: Vec<PlayCount>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, at(user), set_play_counts(user, counts))
    }

    async fn add_taggings(&self, call: &Call, user: &str, taggings: Vec<Tagging>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, at(user), add_taggings(user, taggings))
    }

    async fn add_friends(&self, call: &Call, user: &str, friends: Vec<String>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, at(user), add_friends(user, friends))
    }

    async fn list_friends(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<String>, Fault> {
        near_or_far!(self, call, far(user), list_friends(user, page))
    }

    async fn add_to_library(&self, call: &Call, user: &str, tracks: Vec<Track>) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, at(user), add_to_library(user, tracks))
    }

    async fn remove_from_library(&self, call: &Call, user: &str, track: ItemId) -> Result<bool, Fault> {
        at_home!(self, call, at(user), remove_from_library(user, track))
    }

    async fn list_library(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<LibraryEntry>, Fault> {
        near_or_far!(self, call, far(user), list_library(user, page))
    }

    async fn create_playlist(&self, call: &Call, user: &str, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        at_home!(self, call, at(user), create_playlist(user, playlist))
    }

    async fn get_playlist(&self, call: &Call, id: PlaylistId) -> Result<Playlist, Fault> {
        near_or_far!(self, call, far_playlist(id), get_playlist(id))
    }

    async fn update_playlist(&self, call: &Call, id: PlaylistId, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        at_home!(self, call, at_playlist(id), update_playlist(id, playlist))
    }

    async fn delete_playlist(&self, call: &Call, id: PlaylistId) -> Result<bool, Fault> {
        at_home!(self, call, at_playlist(id), delete_playlist(id))
    }

    async fn list_playlists(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<Playlist>, Fault> {
        near_or_far!(self, call, far(user), list_playlists(user, page))
    }

    async fn create_token(&self, call: &Call, user: &str, token: NewToken) -> Result<(ApiToken, String), Fault> {
        at_home!(self, call, at(user), create_token(user, token))
    }

    async fn list_tokens(&self, call: &Call, user: &str) -> Result<Vec<ApiToken>, Fault> {
        near_or_far!(self, call, far(user), list_tokens(user))
    }

    async fn revoke_token(&self, call: &Call, user: &str, token: TokenId) -> Result<bool, Fault> {
        at_home!(self, call, at(user), revoke_token(user, token))
    }

    async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
        match self.local.authenticate(secret).await {
            Err(unknown) if unknown.kind == ErrorKind::Unauthenticated => {
                self.far_principal(secret).await?.ok_or(unknown)
            }
            answer => answer,
        }
    }

    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        near_or_far!(self, call, far(user), export_user(user, page))
    }

    async fn erase_user(&self, call: &Call, user: &str) -> Result<ErasureReceipt, Fault> {
        at_home_and_seen!(self, call, user, erase_user(user))
    }

    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        self.local.counts(call).await
    }

    async fn find_user(&self, call: &Call, id: UserId) -> Result<User, Fault> {
        near_or_far!(self, call, far_by_id(id), find_user(id))
    }

    /// A restored account is at home where it was restored, like a new one.
    async fn restore_user(&self, call: &Call, user: User) -> Result<(User, bool), Fault> {
        let (user, made) = self.local.restore_user(call, user).await?;
        if let Err(cause) = self.homes.take(&user).await {
            tracing::warn!(user = %user.id, %cause, "an account was restored that has no home yet");
        }
        Ok((user, made))
    }

    async fn restore_library(
        &self,
        call: &Call,
        user: &str,
        entries: Vec<LibraryEntry>,
    ) -> Result<ListenReceipt, Fault> {
        at_home!(self, call, at(user), restore_library(user, entries))
    }

    async fn restore_playlist(&self, call: &Call, user: &str, playlist: Playlist) -> Result<bool, Fault> {
        at_home!(self, call, at(user), restore_playlist(user, playlist))
    }

    async fn restore_token(&self, call: &Call, user: &str, token: ApiToken, hash: &str) -> Result<bool, Fault> {
        at_home!(self, call, at(user), restore_token(user, token, hash))
    }
}
