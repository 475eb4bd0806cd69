//! A small platform in memory behind the service traits: it keeps what it is told, ranks by a linear
//! model and holds to the traits' promises about idempotency keys and order. It answers whoever asks, as a
//! client with the operator's rights does: permission is the tools' to check. What no tool calls it does
//! not do, and says so.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use echotune_api::{Experiments, Operations, PlatformStatus, RecommendQuery, Recommendations, TraceSpan, Users};
use echotune_kit::{auth::Authenticator, telemetry::SpanStore};
use echotune_mcp_servers::Services;
use echotune_model::{
    Acceptance, ApiToken, Arm, Call, Decision, ErasureReceipt, ErrorKind, Evidence, Experiment, ExperimentKind,
    ExperimentSpec, ExperimentState, ExportRecord, Fault, Feedback, Finding, HistoryEntry, Hlc, Impression, Item,
    ItemId, ItemKind, LibraryEntry, Listen, ListenId, ListenReceipt, Metric, NewPlaylist, NewToken, Page, PageRequest,
    PastFeedback, PlayCount, Playlist, PlaylistId, Principal, Profile, Reason, ReasonKind, Recommendation,
    Recommendations as List, Rejection, Role, Settings, SimilarItem, StageChange, Tagging, TokenId, TraceId, Track,
    User, UserId, UserName, Verdict, fold,
};
use tokio::sync::Semaphore;

/// Artists of the catalogue; each has [`SONGS`] tracks.
pub(crate) const ARTISTS: usize = 20;
pub(crate) const SONGS: usize = 4;
/// Reasons that are told one by one.
const REASONS: usize = 5;
/// What every account's tokens begin with; the role follows.
pub(crate) const READER: &str = "reader-of-";
pub(crate) const WRITER: &str = "writer-of-";

#[derive(Default)]
struct State {
    users: Vec<User>,
    listens: HashMap<UserId, BTreeMap<(i64, ListenId), Listen>>,
    playlists: BTreeMap<PlaylistId, Playlist>,
    keys: HashMap<(UserId, String), (String, Given)>,
}

#[derive(Clone)]
enum Given {
    Listens(ListenReceipt),
    Playlist(Playlist),
}

/// The platform. Clones share it.
#[derive(Clone)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    spans: SpanStore,
    /// Places for calls of `status`: taken away, such calls wait.
    pub(crate) open: Arc<Semaphore>,
    /// How many calls of `status` have begun.
    pub(crate) begun: Arc<Semaphore>,
}

pub(crate) fn artist(index: usize) -> String {
    format!("Artist {index}")
}

pub(crate) fn song(index: usize, number: usize) -> Track {
    Track { title: format!("Song {number} of {index}"), artist: artist(index), album: String::new() }
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("fits")
}

impl World {
    /// A world with these accounts, of whom each has played three songs of the first artists.
    pub(crate) fn new(names: &[&str], spans: SpanStore) -> Self {
        let world = Self {
            state: Arc::default(),
            spans,
            open: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            begun: Arc::new(Semaphore::new(0)),
        };
        for name in names {
            let id = UserId::new(now_ms());
            let user = User { id, name: name.parse().expect("a name"), created_at_ms: now_ms() };
            world.with(|state| state.users.push(user));
            for index in 0..3 {
                let at = 1_700_000_000_000 + i64::try_from(index).expect("small") * 60_000;
                world.with(|state| state.add(id, listen(song(index, 0), at)));
            }
        }
        world
    }

    pub(crate) fn services(&self) -> Services {
        let this = || Arc::new(self.clone());
        Services { users: this(), recommendations: this(), experiments: this(), operations: this() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("no test panics while it holds the state"))
    }

    pub(crate) fn user(&self, name: &str) -> Result<User, Fault> {
        let name: UserName = name.parse()?;
        let found = self.with(|state| state.users.iter().find(|user| user.name.folded() == name.folded()).cloned());
        found.ok_or_else(|| Fault::unknown_user(name.as_str()))
    }

    fn account(&self, call: &Call, user: &str) -> Result<User, Fault> {
        call.check_deadline()?;
        self.user(user)
    }

    /// Plays by artist.
    fn history(&self, user: UserId) -> Vec<(usize, f64)> {
        let plays = |state: &mut State| {
            let mut plays = [0.0; ARTISTS];
            for listen in state.listens.entry(user).or_default().values() {
                if let Some(index) = (0..ARTISTS).find(|index| artist(*index) == listen.track.artist) {
                    plays[index] += 1.0;
                }
            }
            plays
        };
        self.with(plays).into_iter().enumerate().filter(|(_, plays)| *plays > 0.0).collect()
    }

    fn knows(&self, user: UserId, item: &Item) -> bool {
        self.with(|state| {
            let mut listens = state.listens.entry(user).or_default().values();
            listens.any(|listen| match item.kind {
                ItemKind::Artist => ItemId::artist(&listen.track.artist) == item.id,
                ItemKind::Track => listen.track.id() == item.id,
            })
        })
    }

    /// Scores are sums of one term for each artist of the history and one for the item itself.
    fn ranked(&self, call: &Call, user: &User, query: &RecommendQuery, without: &[ItemId]) -> List {
        let mut history = self.history(user.id);
        history.retain(|(index, _)| !without.contains(&ItemId::artist(&artist(*index))));
        let items =
            catalogue(query.kind).into_iter().filter(|(_, item)| query.include_known || !self.knows(user.id, item));
        let mut items: Vec<_> = items.map(|(index, item)| scored(&history, index, item)).collect();
        items.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        items.truncate(query.limit as usize);
        for (rank, item) in (1..).zip(&mut items) {
            item.rank = rank;
        }
        list(call, history.is_empty(), items)
    }
}

impl State {
    fn add(&mut self, user: UserId, listen: Listen) -> bool {
        let id = ListenId::of(user, listen.track.id(), listen.listened_at_ms);
        self.listens.entry(user).or_default().insert((listen.listened_at_ms, id), listen).is_none()
    }

    /// What the key gave before. The same key for another request is refused.
    fn given(&self, user: UserId, call: &Call, asked: &str) -> Result<Option<Given>, Fault> {
        match self.keys.get(&(user, call.idempotency_key.clone())) {
            _ if call.idempotency_key.is_empty() => Ok(None),
            None => Ok(None),
            Some((before, given)) if before == asked => Ok(Some(given.clone())),
            Some(_) => Err(Fault::new(ErrorKind::FailedPrecondition, "the key was used for another request")),
        }
    }

    fn give(&mut self, user: UserId, call: &Call, asked: String, given: Given) {
        if !call.idempotency_key.is_empty() {
            self.keys.insert((user, call.idempotency_key.clone()), (asked, given));
        }
    }
}

fn listen(track: Track, at: i64) -> Listen {
    Listen { listened_at_ms: at, track, played_ms: 0, source: "test".into(), explicit: None }
}

/// A list whose last item a stage brought in.
fn list(call: &Call, cold_start: bool, items: Vec<Recommendation>) -> List {
    let change = |last: &Recommendation| StageChange {
        stage: "calibration".into(),
        item: last.id,
        title: last.title.clone(),
        artist: last.artist.clone(),
        from_rank: 0,
        to_rank: last.rank,
    };
    let changes = items.last().map(change).into_iter().collect();
    List {
        model_version: "linear-1".into(),
        watermark: Hlc::from_ms(1),
        trace: call.trace,
        cold_start,
        items,
        exposure: None,
        changes,
    }
}

fn catalogue(kind: ItemKind) -> Vec<(usize, Item)> {
    let item = |index: usize, id, title: String| {
        let listeners = (ARTISTS - index) as u64;
        (index, Item { id, kind, title, artist: artist(index), tags: vec!["tag".into()], listeners })
    };
    match kind {
        ItemKind::Artist => {
            (0..ARTISTS).map(|index| item(index, ItemId::artist(&artist(index)), String::new())).collect()
        }
        ItemKind::Track => (0..ARTISTS)
            .flat_map(|index| (0..SONGS).map(move |number| (index, song(index, number))))
            .map(|(index, song)| item(index, song.id(), song.title))
            .collect(),
    }
}

fn any_item(id: ItemId) -> Result<(usize, Item), Fault> {
    let all = catalogue(ItemKind::Artist).into_iter().chain(catalogue(ItemKind::Track));
    all.into_iter()
        .find(|(_, item)| item.id == id)
        .ok_or_else(|| Fault::new(ErrorKind::NotFound, format!("item {id} is not in the catalogue")))
}

fn nearness(one: usize, other: usize) -> f64 {
    1.0 / (1.0 + one.abs_diff(other) as f64)
}

fn scored(history: &[(usize, f64)], index: usize, item: Item) -> Recommendation {
    let base = item.listeners as f64 / 1_000.0;
    let mut reasons: Vec<Reason> = history
        .iter()
        .map(|(known, plays)| Reason {
            kind: ReasonKind::Listen,
            of: artist(*known),
            contribution: plays * nearness(*known, index),
        })
        .collect();
    reasons.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
    let others: f64 = reasons.iter().skip(REASONS).map(|reason| reason.contribution).sum();
    if reasons.len() > REASONS {
        reasons.truncate(REASONS);
        reasons.push(Reason { kind: ReasonKind::OtherListens, of: "other listens".into(), contribution: others });
    }
    let score = base + reasons.iter().map(|reason| reason.contribution).sum::<f64>();
    Recommendation {
        rank: 1,
        id: item.id,
        kind: item.kind,
        title: item.title,
        artist: item.artist,
        score,
        base,
        reasons,
        propensity: 1.0,
        drawn_from: String::new(),
        score_before: None,
    }
}

fn page<T>(rows: impl Iterator<Item = T>, page: &PageRequest) -> Result<Page<T>, Fault> {
    let size = if page.size == 0 { 100 } else { page.size as usize };
    let start: usize =
        if page.token.is_empty() { 0 } else { page.token.parse().map_err(|_| Fault::invalid("bad page_token"))? };
    let mut rows: Vec<T> = rows.skip(start).take(size + 1).collect();
    let next = if rows.len() > size { (start + size).to_string() } else { String::new() };
    rows.truncate(size);
    Ok(Page { rows, next })
}

/// A call that no tool makes.
fn not_here<T>(call: &str) -> Result<T, Fault> {
    Err(Fault::new(ErrorKind::Internal, format!("no tool calls {call}")))
}

#[async_trait]
impl Authenticator for World {
    async fn principal(&self, secret: &str) -> Result<Principal, Fault> {
        self.authenticate(secret).await
    }
}

#[async_trait]
impl Users for World {
    async fn get_user(&self, call: &Call, name: &str) -> Result<User, Fault> {
        self.account(call, name)
    }

    async fn record_listens(&self, call: &Call, user: &str, listens: Vec<Listen>) -> Result<ListenReceipt, Fault> {
        let user = self.account(call, user)?;
        let asked = format!("{listens:?}");
        self.with(|state| {
            if let Some(Given::Listens(receipt)) = state.given(user.id, call, &asked)? {
                return Ok(receipt);
            }
            let mut receipt = ListenReceipt::default();
            for (index, listen) in (0..).zip(listens) {
                match listen.check(now_ms()) {
                    Err(reason) => receipt.rejections.push(Rejection { index, reason }),
                    Ok(()) if state.add(user.id, listen) => receipt.recorded += 1,
                    Ok(()) => receipt.duplicates += 1,
                }
            }
            state.give(user.id, call, asked, Given::Listens(receipt.clone()));
            Ok(receipt)
        })
    }

    async fn list_listens(&self, call: &Call, user: &str, wanted: &PageRequest) -> Result<Page<HistoryEntry>, Fault> {
        let span = tracing::info_span!(target: "echotune_world", "world.list_listens");
        let _in = span.enter();
        let user = self.account(call, user)?;
        self.with(|state| {
            let listens = state.listens.entry(user.id).or_default();
            page(listens.iter().rev().map(|((_, id), listen)| HistoryEntry { id: *id, listen: listen.clone() }), wanted)
        })
    }

    async fn create_playlist(&self, call: &Call, user: &str, playlist: NewPlaylist) -> Result<Playlist, Fault> {
        let user = self.account(call, user)?;
        let asked = format!("{playlist:?}");
        self.with(|state| {
            if let Some(Given::Playlist(playlist)) = state.given(user.id, call, &asked)? {
                return Ok(playlist);
            }
            let created_at_ms = now_ms();
            let id = PlaylistId::new(created_at_ms);
            let playlist = Playlist {
                id,
                owner: user.id,
                content: playlist,
                created_at_ms,
                changed_at: Hlc::from_ms(created_at_ms),
            };
            state.playlists.insert(id, playlist.clone());
            state.give(user.id, call, asked, Given::Playlist(playlist.clone()));
            Ok(playlist)
        })
    }

    async fn get_playlist(&self, call: &Call, id: PlaylistId) -> Result<Playlist, Fault> {
        call.check_deadline()?;
        let found = self.with(|state| state.playlists.get(&id).cloned());
        found.ok_or_else(|| Fault::new(ErrorKind::NotFound, format!("playlist {id} does not exist")))
    }

    async fn delete_playlist(&self, call: &Call, id: PlaylistId) -> Result<bool, Fault> {
        call.check_deadline()?;
        Ok(self.with(|state| state.playlists.remove(&id).is_some()))
    }

    async fn list_playlists(&self, call: &Call, user: &str, wanted: &PageRequest) -> Result<Page<Playlist>, Fault> {
        let user = self.account(call, user)?;
        self.with(|state| page(state.playlists.values().filter(|list| list.owner == user.id).cloned(), wanted))
    }

    async fn authenticate(&self, secret: &str) -> Result<Principal, Fault> {
        let known = [(READER, Role::Reader), (WRITER, Role::Writer)]
            .into_iter()
            .find_map(|(prefix, role)| Some((secret.strip_prefix(prefix)?, role)));
        let nobody = || Fault::new(ErrorKind::Unauthenticated, "the token is nobody's");
        let (name, role) = known.ok_or_else(nobody)?;
        let user = self.user(name).map_err(|_| nobody())?;
        Ok(Principal::User { id: user.id, name: user.name, role })
    }

    async fn create_user(&self, _: &Call, _: &str) -> Result<User, Fault> {
        not_here("create_user")
    }
    async fn list_users(&self, _: &Call, _: &PageRequest) -> Result<Page<User>, Fault> {
        not_here("list_users")
    }
    async fn get_profile(&self, _: &Call, _: &str) -> Result<Profile, Fault> {
        not_here("get_profile")
    }
    async fn update_profile(&self, _: &Call, _: &str, _: Profile) -> Result<Profile, Fault> {
        not_here("update_profile")
    }
    async fn get_settings(&self, _: &Call, _: &str) -> Result<Settings, Fault> {
        not_here("get_settings")
    }
    async fn update_settings(&self, _: &Call, _: &str, _: Settings) -> Result<Settings, Fault> {
        not_here("update_settings")
    }
    async fn set_play_counts(&self, _: &Call, _: &str, _: Vec<PlayCount>) -> Result<ListenReceipt, Fault> {
        not_here("set_play_counts")
    }
    async fn add_taggings(&self, _: &Call, _: &str, _: Vec<Tagging>) -> Result<ListenReceipt, Fault> {
        not_here("add_taggings")
    }
    async fn add_friends(&self, _: &Call, _: &str, _: Vec<String>) -> Result<ListenReceipt, Fault> {
        not_here("add_friends")
    }
    async fn list_friends(&self, _: &Call, _: &str, _: &PageRequest) -> Result<Page<String>, Fault> {
        not_here("list_friends")
    }
    async fn add_to_library(&self, _: &Call, _: &str, _: Vec<Track>) -> Result<ListenReceipt, Fault> {
        not_here("add_to_library")
    }
    async fn remove_from_library(&self, _: &Call, _: &str, _: ItemId) -> Result<bool, Fault> {
        not_here("remove_from_library")
    }
    async fn list_library(&self, _: &Call, _: &str, _: &PageRequest) -> Result<Page<LibraryEntry>, Fault> {
        not_here("list_library")
    }
    async fn update_playlist(&self, _: &Call, _: PlaylistId, _: NewPlaylist) -> Result<Playlist, Fault> {
        not_here("update_playlist")
    }
    async fn create_token(&self, _: &Call, _: &str, _: NewToken) -> Result<(ApiToken, String), Fault> {
        not_here("create_token")
    }
    async fn list_tokens(&self, _: &Call, _: &str) -> Result<Vec<ApiToken>, Fault> {
        not_here("list_tokens")
    }
    async fn revoke_token(&self, _: &Call, _: &str, _: TokenId) -> Result<bool, Fault> {
        not_here("revoke_token")
    }
    async fn export_user(&self, _: &Call, _: &str, _: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        not_here("export_user")
    }
    async fn erase_user(&self, _: &Call, _: &str) -> Result<ErasureReceipt, Fault> {
        not_here("erase_user")
    }
    async fn counts(&self, _: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        not_here("counts")
    }
    async fn find_user(&self, _: &Call, _: UserId) -> Result<User, Fault> {
        not_here("find_user")
    }
    async fn restore_user(&self, _: &Call, _: User) -> Result<(User, bool), Fault> {
        not_here("restore_user")
    }
    async fn restore_library(&self, _: &Call, _: &str, _: Vec<LibraryEntry>) -> Result<ListenReceipt, Fault> {
        not_here("restore_library")
    }
    async fn restore_playlist(&self, _: &Call, _: &str, _: Playlist) -> Result<bool, Fault> {
        not_here("restore_playlist")
    }
    async fn restore_token(&self, _: &Call, _: &str, _: ApiToken, _: &str) -> Result<bool, Fault> {
        not_here("restore_token")
    }
}

#[async_trait]
impl Recommendations for World {
    async fn export_user(&self, _: &Call, _: &str, _: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        not_here("export_user")
    }

    async fn recommend(&self, call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault> {
        let user = self.account(call, user)?;
        Ok(self.ranked(call, &user, query, &[]))
    }

    async fn explain(&self, call: &Call, user: &str, item: ItemId) -> Result<List, Fault> {
        let user = self.account(call, user)?;
        let (index, item) = any_item(item)?;
        Ok(list(call, false, vec![scored(&self.history(user.id), index, item)]))
    }

    async fn what_if(
        &self,
        call: &Call,
        user: &str,
        without: &[ItemId],
        query: &RecommendQuery,
    ) -> Result<List, Fault> {
        let user = self.account(call, user)?;
        without.iter().try_for_each(|item| any_item(*item).map(drop))?;
        Ok(self.ranked(call, &user, query, without))
    }

    async fn similar(&self, call: &Call, item: ItemId, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        call.check_deadline()?;
        let (index, item) = any_item(item)?;
        let others = catalogue(item.kind).into_iter().filter(|(_, other)| other.id != item.id);
        let mut near: Vec<_> =
            others.map(|(other, item)| SimilarItem { item, score: nearness(index, other) }).collect();
        near.sort_by(|a, b| b.score.total_cmp(&a.score));
        near.truncate(limit as usize);
        Ok(near)
    }

    async fn trending(&self, call: &Call, kind: ItemKind, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        call.check_deadline()?;
        let scored = |(_, item): (usize, Item)| SimilarItem { score: item.listeners as f64 / ARTISTS as f64, item };
        Ok(catalogue(kind).into_iter().map(scored).take(limit as usize).collect())
    }

    async fn top_items(&self, call: &Call, user: &str, kind: ItemKind, limit: u32) -> Result<Vec<(Item, u64)>, Fault> {
        let user = self.account(call, user)?;
        let known = catalogue(kind).into_iter().filter(|(_, item)| self.knows(user.id, item));
        Ok(known.map(|(_, item)| (item, 1)).take(limit as usize).collect())
    }

    async fn find_items(&self, call: &Call, kind: ItemKind, text: &str, limit: u32) -> Result<Vec<Item>, Fault> {
        call.check_deadline()?;
        let wanted = fold(text);
        let named = |item: &Item| if kind == ItemKind::Artist { fold(&item.artist) } else { fold(&item.title) };
        let found = catalogue(kind).into_iter().map(|(_, item)| item).filter(|item| named(item).contains(&wanted));
        Ok(found.take(limit as usize).collect())
    }

    async fn get_item(&self, call: &Call, item: ItemId) -> Result<Item, Fault> {
        call.check_deadline()?;
        Ok(any_item(item)?.1)
    }

    async fn acceptance(&self, call: &Call) -> Result<Vec<Acceptance>, Fault> {
        call.check_deadline()?;
        Ok(vec![Acceptance { model_version: "linear-1".into(), impressions: 2, items: 20, accepted: 3, refused: 1 }])
    }

    async fn record_impression(&self, _: &Call, _: &str, _: Impression) -> Result<(), Fault> {
        not_here("record_impression")
    }
    async fn record_feedback(&self, _: &Call, _: &str, _: Feedback) -> Result<(), Fault> {
        not_here("record_feedback")
    }
    async fn restore_feedback(&self, _: &Call, _: &str, _: PastFeedback) -> Result<(), Fault> {
        not_here("restore_feedback")
    }
    async fn counts(&self, _: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        not_here("counts")
    }
}

#[async_trait]
impl Experiments for World {
    async fn get_experiment(&self, call: &Call, name: &str) -> Result<(Experiment, Evidence), Fault> {
        call.check_deadline()?;
        if name != "two-of-one" {
            return Err(Fault::new(ErrorKind::NotFound, format!("no experiment is named '{name}'")));
        }
        let spec = ExperimentSpec {
            name: name.into(),
            hypothesis: "two tracks of one artist are enough".into(),
            kind: ExperimentKind::Split,
            variants: Vec::new(),
            share: 10_000,
            primary: Metric::Acceptance,
            guardrails: Vec::new(),
            alpha: 0.05,
            min_listeners: 0,
            max_listeners: 0,
            min_duration_ms: 0,
            max_duration_ms: 0,
            slow_list_ms: 100,
            window_ms: 0,
            auto_stop: true,
        };
        let (verdict, variant, reason) = (Verdict::Better, "other".to_owned(), "it is better".to_owned());
        let decision = Some(Decision { verdict, variant: variant.clone(), reason, decided_at_ms: 9 });
        let (state, first_slot) = (ExperimentState::Stopped, 0);
        let experiment = Experiment { spec, state, first_slot, started_at_ms: 1, stopped_at_ms: 9, decision };
        let arm = |variant: &str, accepted| Arm { variant: variant.into(), items: 9, accepted, ..Arm::default() };
        let (metric, control, treated, margin) = (Metric::Acceptance, 0.2, 0.4, None);
        let finding = Finding { variant, metric, control, treated, low: 0.1, high: 0.3, margin };
        let arms = vec![arm("control", 2), arm("other", 4)];
        Ok((experiment, Evidence { arms, findings: vec![finding], ratio_p_value: 1.0 }))
    }

    async fn create_experiment(&self, _: &Call, _: ExperimentSpec) -> Result<Experiment, Fault> {
        not_here("create_experiment")
    }
    async fn list_experiments(&self, _: &Call) -> Result<Vec<Experiment>, Fault> {
        not_here("list_experiments")
    }
    async fn stop_experiment(&self, _: &Call, _: &str, _: &str) -> Result<(Experiment, Evidence), Fault> {
        not_here("stop_experiment")
    }
}

#[async_trait]
impl Operations for World {
    async fn trace(&self, _: &Call, trace: TraceId) -> Result<Vec<TraceSpan>, Fault> {
        match self.spans.trace(trace) {
            spans if spans.is_empty() => Err(Fault::new(ErrorKind::NotFound, format!("trace {trace} is not held"))),
            spans => Ok(spans),
        }
    }

    async fn status(&self, call: &Call) -> Result<PlatformStatus, Fault> {
        call.check_deadline()?;
        self.begun.add_permits(1);
        let _place = self.open.acquire().await.expect("never closed");
        let users = self.with(|state| state.users.len()) as u64;
        Ok(PlatformStatus {
            version: "0.1.0".into(),
            model_version: "linear-1".into(),
            counts: BTreeMap::from([("users".to_owned(), users)]),
            ..PlatformStatus::default()
        })
    }
}
