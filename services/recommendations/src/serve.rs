//! The calls of the API: what they check, and what they read.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use echotune_api::{MAX_LIMIT, MAX_WITHOUT, RecommendQuery, Recommendations};
use echotune_engine::best_by;
use echotune_model::{
    Acceptance, Call, ErrorKind, ExportRecord, Fault, Feedback, Hlc, Impression, Item, ItemId, ItemKind, MAX_PAGE,
    MAX_TEXT_BYTES, Page, PageRequest, PastFeedback, Principal, Recommendations as List, SimilarItem, TraceId, UserId,
    UserName, check_text, fold,
};

use crate::{
    RecommendationsService,
    model::Model,
    policy::Policy,
    rank::{Ranked, Ranking},
    state::{Person, State},
    store::{Named, ShownAt, Totals},
    what_if::Without,
};

/// Longest text to search for, in bytes.
const MAX_SEARCH_BYTES: usize = 256;
/// How far ahead of our clock the clock of another platform may be, in milliseconds: one hour.
const MAX_AHEAD_MS: u64 = 3_600_000;
/// Records in a page when the request does not say.
const DEFAULT_PAGE: u32 = 100;
/// Exponent on the listeners of an item that is like another: with the model's own it makes ½, as in a
/// cosine.
const POPULARITY: f64 = 0.25;
/// Tags told of an item.
const TAGS: usize = 10;

pub(crate) fn check_limit(limit: u32) -> Result<usize, Fault> {
    if limit == 0 || limit > MAX_LIMIT {
        return Err(Fault::invalid(format!("limit is {limit}; ask for 1 to {MAX_LIMIT} items")));
    }
    Ok(limit as usize)
}

fn check_page(page: &PageRequest) -> Result<PageRequest, Fault> {
    match page.size {
        0 => Ok(PageRequest { size: DEFAULT_PAGE, token: page.token.clone() }),
        1..=MAX_PAGE => Ok(page.clone()),
        size => Err(Fault::invalid(format!("page_size {size} is more than {MAX_PAGE}; ask for the next page"))),
    }
}

fn check_count(field: &str, count: usize, most: usize) -> Result<(), Fault> {
    if count == 0 || count > most {
        return Err(Fault::invalid(format!("{field} has {count} items; send 1 to {most}")));
    }
    Ok(())
}

fn unknown_item(id: ItemId) -> Fault {
    Fault::new(
        ErrorKind::NotFound,
        format!("item {id} is not in the catalogue; look its id up by name, or record a listen of it"),
    )
}

/// Who looks at the catalogue.
enum Viewer<'s> {
    /// Sees everything.
    Operator,
    /// Sees what is public and what the account, if it is still there, knows itself.
    Listener(Option<&'s Person>),
}

impl<'s> Viewer<'s> {
    fn of(state: &'s State, call: &Call) -> Self {
        match &call.principal {
            Principal::Operator => Self::Operator,
            Principal::User { id, .. } => Self::Listener(state.by_id(*id)),
        }
    }

    fn sees(&self, state: &State, kind: ItemKind, place: u32) -> bool {
        match self {
            Self::Operator => true,
            Self::Listener(person) => {
                state.shelf(kind).entries[place as usize].is_public()
                    || person.is_some_and(|person| person.knows(kind, place))
            }
        }
    }
}

/// Where an item is. To one who may not see it, it is as if it were not there.
fn find_item(state: &State, call: &Call, id: ItemId) -> Result<(ItemKind, u32), Fault> {
    let found = state.item(id).filter(|(kind, place)| Viewer::of(state, call).sees(state, *kind, *place));
    found.ok_or_else(|| unknown_item(id))
}

pub(crate) fn readable(call: &Call, user: &str) -> Result<UserName, Fault> {
    call.check_deadline()?;
    let name: UserName = user.parse()?;
    call.may_read(&name)?;
    Ok(name)
}

fn writable(call: &Call, user: &str) -> Result<UserName, Fault> {
    call.check_deadline()?;
    let name: UserName = user.parse()?;
    call.may_write(&name)?;
    Ok(name)
}

/// The account of a name, for a caller that may read or write what belongs to it.
pub(crate) fn person<'s>(state: &'s State, call: &Call, name: &UserName) -> Result<(UserId, &'s Person), Fault> {
    let unknown = || Fault::unknown_user(name.as_str());
    let (id, person) = state.by_name(name).ok_or_else(unknown)?;
    match &call.principal {
        // Ids sort by creation: the token of a later account is here before the news of it.
        Principal::User { id: caller, .. } if *caller > id => Err(unknown()),
        Principal::User { id: caller, .. } if *caller != id => {
            Err(Fault::new(ErrorKind::PermissionDenied, format!("the token is of an earlier account '{name}'")))
        }
        Principal::Operator | Principal::User { .. } => Ok((id, person)),
    }
}

fn described(state: &State, kind: ItemKind, place: u32) -> Item {
    let entry = &state.shelf(kind).entries[place as usize];
    let artist = state.artists.get(entry.artist_id);
    Item {
        id: entry.id,
        kind,
        title: entry.title.clone(),
        artist: entry.artist.clone(),
        tags: artist.map_or_else(Vec::new, |artist| state.tags.of(artist, TAGS)),
        listeners: u64::from(entry.listeners),
    }
}

pub(crate) fn list(state: &State, model: &Model, trace: TraceId, ranked: Ranked) -> List {
    let Ranked { items, cold_start, changes, .. } = ranked;
    let (model_version, watermark) = (model.version(), state.watermark);
    List { model_version, watermark, trace, cold_start, items, exposure: None, changes }
}

impl RecommendationsService {
    /// By what the lists of a listener are made.
    fn policy_of(&self, user: UserId) -> Policy {
        self.0.trials.part_of(user).map_or_else(|| self.0.trials.base(), |part| *part.policy())
    }

    /// The list of a listener without some items.
    fn list_without(
        &self,
        call: &Call,
        user: &str,
        without: &HashSet<ItemId>,
        query: &RecommendQuery,
    ) -> Result<List, Fault> {
        let name = readable(call, user)?;
        check_limit(query.limit)?;
        self.with_scores(|scores| {
            self.read(|state| {
                let (id, person) = person(state, call, &name)?;
                let policy = self.policy_of(id);
                let model = self.model_of(&policy);
                without.iter().try_for_each(|item| find_item(state, call, *item).map(drop))?;
                let without = Without::of(state, person, query.kind, without);
                let history = without.history.clone();
                let ranking = Ranking { state, model: &model, person, policy: &policy, kind: query.kind, history };
                let mut ranked = ranking.list(query, scores, None);
                ranking.tell_before(&without, &mut ranked, scores);
                Ok(list(state, &model, call.trace, ranked))
            })
        })
    }
}

#[async_trait]
impl Recommendations for RecommendationsService {
    #[tracing::instrument(name = "recommendations.recommend", skip_all, fields(limit = query.limit), err(level = "debug"))]
    async fn recommend(&self, call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault> {
        self.recommended(call, user, query).await
    }

    #[tracing::instrument(name = "recommendations.explain", skip_all, err(level = "debug"))]
    async fn explain(&self, call: &Call, user: &str, item: ItemId) -> Result<List, Fault> {
        let name = readable(call, user)?;
        self.with_scores(|scores| {
            self.read(|state| {
                let (id, person) = person(state, call, &name)?;
                let policy = self.policy_of(id);
                let model = self.model_of(&policy);
                let (kind, place) = find_item(state, call, item)?;
                let history = person.history(kind).to_vec();
                let ranking = Ranking { state, model: &model, person, policy: &policy, kind, history };
                Ok(list(state, &model, call.trace, ranking.explain(place, scores)))
            })
        })
    }

    #[tracing::instrument(name = "recommendations.what_if", skip_all, err(level = "debug"))]
    async fn what_if(
        &self,
        call: &Call,
        user: &str,
        without: &[ItemId],
        query: &RecommendQuery,
    ) -> Result<List, Fault> {
        check_count("without", without.len(), MAX_WITHOUT)?;
        self.list_without(call, user, &without.iter().copied().collect(), query)
    }

    #[tracing::instrument(name = "recommendations.similar", skip_all, err(level = "debug"))]
    async fn similar(&self, call: &Call, item: ItemId, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        call.check_deadline()?;
        let limit = check_limit(limit)?;
        let model = self.0.model.load_full();
        self.read(|state| {
            let (kind, place) = find_item(state, call, item)?;
            let entries = &state.shelf(kind).entries;
            let viewer = Viewer::of(state, call);
            let links = model.links(kind);
            let row = links.item(place).into_iter().flat_map(|item| links.graph().row(item));
            // What everybody plays is near to everything: a part of its weight is its popularity.
            let rarity = |place: u32| f64::from(entries[place as usize].listeners.max(1)).powf(-POPULARITY);
            // A link below 0 says that two items go less together than by chance.
            let row = row.filter(|(_, weight)| *weight > 0.0);
            let row = row.filter_map(|(other, weight)| Some((links.place(other)?, f64::from(weight))));
            let row = row.map(|(place, weight)| (place, weight * rarity(place)));
            // Since the fit, an item may have been forgotten or become private.
            let known = row.filter(|(other, _)| entries[*other as usize].uses > 0);
            let seen = known.filter(|(other, _)| viewer.sees(state, kind, *other));
            let heaviest = f64::from(links.graph().heaviest());
            let near = best_by(seen.collect(), limit, |item| entries[item as usize].id).into_iter();
            Ok(near
                .map(|(other, weight)| SimilarItem { item: described(state, kind, other), score: weight / heaviest })
                .collect())
        })
    }

    #[tracing::instrument(name = "recommendations.trending", skip_all, err(level = "debug"))]
    async fn trending(&self, call: &Call, kind: ItemKind, limit: u32) -> Result<Vec<SimilarItem>, Fault> {
        call.check_deadline()?;
        let limit = check_limit(limit)?;
        let model = self.0.model.load_full();
        let prior = model.prior(kind);
        Ok(self.read(|state| {
            let entries = &state.shelf(kind).entries;
            let public = prior.order.iter().filter(|item| entries[**item as usize].listeners > 0).take(limit);
            public.map(|item| SimilarItem { item: described(state, kind, *item), score: prior.of(*item) }).collect()
        }))
    }

    #[tracing::instrument(name = "recommendations.top_items", skip_all, err(level = "debug"))]
    async fn top_items(&self, call: &Call, user: &str, kind: ItemKind, limit: u32) -> Result<Vec<(Item, u64)>, Fault> {
        let name = readable(call, user)?;
        let limit = check_limit(limit)?;
        self.read(|state| {
            let (_, person) = person(state, call, &name)?;
            let mut played: Vec<(u64, u32)> =
                person.history(kind).iter().map(|known| (known.plays(), known.item)).filter(|(n, _)| *n > 0).collect();
            let id = |item: u32| state.shelf(kind).entries[item as usize].id;
            played.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| id(a.1).cmp(&id(b.1))));
            played.truncate(limit);
            Ok(played.into_iter().map(|(plays, item)| (described(state, kind, item), plays)).collect())
        })
    }

    #[tracing::instrument(name = "recommendations.find_items", skip_all, err(level = "debug"))]
    async fn find_items(&self, call: &Call, kind: ItemKind, text: &str, limit: u32) -> Result<Vec<Item>, Fault> {
        call.check_deadline()?;
        let limit = check_limit(limit)?;
        let wanted = fold(text);
        if wanted.is_empty() || text.len() > MAX_SEARCH_BYTES {
            let bytes = text.len();
            return Err(Fault::invalid(format!("text has {bytes} bytes; send 1 to {MAX_SEARCH_BYTES}, not all blank")));
        }
        Ok(self.read(|state| {
            let shelf = &state.shelf(kind).entries;
            let viewer = Viewer::of(state, call);
            let found = (0..).zip(shelf).filter(|(_, entry)| entry.folded.contains(&wanted));
            let found = found.filter(|(place, _)| viewer.sees(state, kind, *place));
            let found = found.map(|(place, entry)| (place, f64::from(entry.listeners))).collect();
            let found = best_by(found, limit, |item| shelf[item as usize].id);
            found.into_iter().map(|(place, _)| described(state, kind, place)).collect()
        }))
    }

    #[tracing::instrument(name = "recommendations.get_item", skip_all, err(level = "debug"))]
    async fn get_item(&self, call: &Call, item: ItemId) -> Result<Item, Fault> {
        call.check_deadline()?;
        self.read(|state| find_item(state, call, item).map(|(kind, place)| described(state, kind, place)))
    }

    #[tracing::instrument(name = "recommendations.record_impression", skip_all, err(level = "debug"))]
    async fn record_impression(&self, call: &Call, user: &str, impression: Impression) -> Result<(), Fault> {
        let name = writable(call, user)?;
        check_count("items", impression.items.len(), MAX_LIMIT as usize)?;
        if impression.trace == TraceId::default() {
            return Err(Fault::invalid("trace_id is empty; send that of the call that made the list"));
        }
        if impression.model_version.is_empty() || impression.model_version.len() > MAX_TEXT_BYTES {
            return Err(Fault::invalid(format!("model_version is not 1 to {MAX_TEXT_BYTES} bytes; send the list's")));
        }
        let user = self.read(|state| {
            let (id, _) = person(state, call, &name)?;
            impression.items.iter().try_for_each(|item| find_item(state, call, *item).map(drop)).map(|()| id)
        })?;
        // How it was made is what was noted when it was made, not what a client says.
        let served = self.0.trials.served(user, impression.trace, &impression.items);
        Ok(self.0.store.record_impression(user, impression, ShownAt { served, at: self.0.clock.now() }).await?)
    }

    #[tracing::instrument(name = "recommendations.record_feedback", skip_all, err(level = "debug"))]
    async fn record_feedback(&self, call: &Call, user: &str, feedback: Feedback) -> Result<(), Fault> {
        let name = writable(call, user)?;
        let (user, item) = self.read(|state| {
            let (id, _) = person(state, call, &name)?;
            let (kind, place) = find_item(state, call, feedback.item)?;
            let entry = &state.shelf(kind).entries[place as usize];
            Ok::<_, Fault>((id, Named { title: entry.title.clone(), artist: entry.artist.clone() }))
        })?;
        let service = self.clone();
        // A task of its own: a caller that leaves must not part the write from what serves.
        let noted = tokio::spawn(async move { service.note_feedback(user, feedback, item, None).await });
        let lost = |cause| Fault::new(ErrorKind::Indeterminate, format!("the write was cut off: {cause}"));
        noted.await.map_err(lost)?
    }

    #[tracing::instrument(name = "recommendations.restore_feedback", skip_all, err(level = "debug"))]
    async fn restore_feedback(&self, call: &Call, user: &str, past: PastFeedback) -> Result<(), Fault> {
        call.may_operate()?;
        let name = writable(call, user)?;
        let PastFeedback { feedback, title, artist, said_at_ms } = past;
        check_text("title", &title, MAX_TEXT_BYTES, false).map_err(Fault::invalid)?;
        check_text("artist", &artist, MAX_TEXT_BYTES, true).map_err(Fault::invalid)?;
        let now_ms = self.0.clock.wall_ms();
        if said_at_ms > now_ms.saturating_add(MAX_AHEAD_MS) {
            return Err(Fault::invalid(format!(
                "said_at_ms {said_at_ms} is more than one hour in the future (now is {now_ms}); check the clocks"
            )));
        }
        let user = self.read(|state| person(state, call, &name).map(|(id, _)| id))?;
        let (item, at, service) = (Named { title, artist }, Hlc::from_ms(said_at_ms), self.clone());
        let noted = tokio::spawn(async move { service.note_feedback(user, feedback, item, Some(at)).await });
        let lost = |cause| Fault::new(ErrorKind::Indeterminate, format!("the write was cut off: {cause}"));
        noted.await.map_err(lost)?
    }

    async fn acceptance(&self, call: &Call) -> Result<Vec<Acceptance>, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        Ok(self.0.store.acceptance().await?)
    }

    #[tracing::instrument(name = "recommendations.export_user", skip_all, err(level = "debug"))]
    async fn export_user(&self, call: &Call, user: &str, page: &PageRequest) -> Result<Page<ExportRecord>, Fault> {
        let name = readable(call, user)?;
        let page = check_page(page)?;
        let user = self.read(|state| person(state, call, &name).map(|(id, _)| id))?;
        Ok(self.0.store.export(user, page).await?)
    }

    async fn counts(&self, call: &Call) -> Result<BTreeMap<String, u64>, Fault> {
        call.check_deadline()?;
        call.may_operate()?;
        let (artists, tracks) = self.item_counts();
        let Totals { impressions, feedback, unreadable_events } = self.0.store.totals().await?;
        let counts = [
            ("artists", artists),
            ("tracks", tracks),
            ("items", artists + tracks),
            ("impressions", impressions),
            ("feedback", feedback),
            ("unreadable_events", unreadable_events),
        ];
        Ok(counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect())
    }
}
