//! Lists within experiments.

use std::{
    collections::hash_map::Entry,
    sync::Arc,
    time::{Duration, Instant},
};

use echotune_api::RecommendQuery;
use echotune_engine::Scores;
use echotune_model::{Call, Fault, Recommendations as List, ServedModel, TraceId, UserId, UserName};

use super::{Explorer, Part, Trials, draft::draft, held};
use crate::{
    RecommendationsService,
    model::Model,
    policy::Policy,
    rank::{Ranked, Ranking},
    serve,
    state::{Person, State},
    store::{ListNote, Served},
};

/// Listeners whose lists may wait to be noted; beyond them lists are not counted until there is room.
const MAX_NOTES: usize = 100_000;

/// A list, and how it came about.
pub(crate) struct Made {
    pub(crate) id: UserId,
    /// The part that the listener takes in an experiment.
    pub(crate) part: Option<Part>,
    pub(crate) list: List,
    /// What is kept of a list within an experiment.
    pub(crate) served: Option<Served>,
}

impl RecommendationsService {
    /// The list of a listener, by the policy of the experiment in which the listener takes part.
    pub(crate) async fn recommended(&self, call: &Call, user: &str, query: &RecommendQuery) -> Result<List, Fault> {
        let began = Instant::now();
        let name = serve::readable(call, user)?;
        serve::check_limit(query.limit)?;
        #[cfg(feature = "cache")]
        let near = self.near(call, &name, query).await?;
        #[cfg(not(feature = "cache"))]
        let near = None;
        let made = match near {
            Some(made) => made,
            None => self.made(call, &name, query)?,
        };
        let Made { id, part, list, served } = made;
        if let Some(first) = list.items.first() {
            self.0.releases.window.add(id, query.kind, first.score);
        }
        self.0.asked.note(call.trace, id, query.kind);
        if let (Some(part), Some(served)) = (part, served) {
            self.0.trials.made(id, &list, &part, served, began.elapsed());
            // An account that was erased meanwhile leaves nothing behind.
            if self.read(|state| state.by_id(id).is_none()) {
                self.0.trials.forget(id);
            }
        }
        Ok(list)
    }

    /// A list that is made now.
    pub(crate) fn made(&self, call: &Call, name: &UserName, query: &RecommendQuery) -> Result<Made, Fault> {
        self.with_scores(|scores| {
            self.read(|state| {
                let (id, person) = serve::person(state, call, name)?;
                let part = self.0.trials.part_of(id);
                let listener = Listener { service: self, state, person, query, seed: seed(id, call.trace, self) };
                let (list, served) = listener.list(part.as_ref(), call.trace, scores);
                Ok(Made { id, part, list, served })
            })
        })
    }

    /// The model that a policy asks for.
    pub(crate) fn model_of(&self, policy: &Policy) -> Arc<Model> {
        let current = self.0.model.load_full();
        let previous = || self.0.trials.previous.load_full();
        match policy.model {
            ServedModel::Current => current,
            ServedModel::Previous => {
                previous().map_or_else(|| Arc::clone(&current), |one| Arc::new(one.with_popularity_of(&current)))
            }
        }
    }
}

/// What chance hangs on: new for each list.
fn seed(user: UserId, trace: TraceId, service: &RecommendationsService) -> u64 {
    let time = service.0.clock.now().0;
    let halves = |wide: u128| {
        let [high, low] = [wide >> 64, wide & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
        high ^ low
    };
    halves(user.0.as_u128()) ^ halves(trace.0).rotate_left(17) ^ time.rotate_left(31)
}

/// For whom a list is made.
struct Listener<'s> {
    service: &'s RecommendationsService,
    state: &'s State,
    person: &'s Person,
    query: &'s RecommendQuery,
    seed: u64,
}

impl Listener<'_> {
    fn list(&self, part: Option<&Part>, trace: TraceId, scores: &mut Scores) -> (List, Option<Served>) {
        let Some(part) = part else { return (self.by(&self.service.0.trials.base(), trace, scores).0, None) };
        let (mut list, served) = match part.interleaved() {
            Some(both) => self.interleaved(part, both, trace, scores),
            None => {
                let (list, explored) = self.by(part.policy(), trace, scores);
                let mut served = part.served();
                if !explored.is_empty() {
                    served.propensities = list.items.iter().map(|item| item.propensity).collect();
                    let from = list.items.len() - explored.len();
                    served.explored =
                        (from..).map(|place| u16::try_from(place).unwrap_or(u16::MAX)).zip(explored).collect();
                }
                (list, served)
            }
        };
        list.exposure = Some(part.exposure());
        (list, Some(served))
    }

    /// The list by one policy, and the features of what closes it when it explores.
    fn by(&self, policy: &Policy, trace: TraceId, scores: &mut Scores) -> (List, Vec<[u32; crate::store::FEATURES]>) {
        let (state, person, kind) = (self.state, self.person, self.query.kind);
        let model = self.service.model_of(policy);
        let history = person.history(kind).to_vec();
        let ranking = Ranking { state, model: &model, person, policy, kind, history };
        let posterior = || self.service.0.trials.posterior.load_full();
        let explorer = (policy.exploration_slots > 0).then(|| Explorer { posterior: posterior(), seed: self.seed });
        let mut ranked: Ranked = ranking.list(self.query, scores, explorer.as_ref());
        let explored = std::mem::take(&mut ranked.explored);
        (serve::list(state, &model, trace, ranked), explored)
    }

    fn interleaved(
        &self,
        part: &Part,
        (first, second): (&Policy, &Policy),
        trace: TraceId,
        scores: &mut Scores,
    ) -> (List, Served) {
        let (mut list, _) = self.by(first, trace, scores);
        let (other, _) = self.by(second, trace, scores);
        // What a stage changed in either is not what came of both.
        list.changes.clear();
        let lists = [std::mem::take(&mut list.items), other.items];
        let mut served = part.served();
        for (mut item, team) in draft(lists, self.query.limit as usize, self.seed) {
            item.drawn_from = part.variant_name(usize::from(team)).to_owned();
            served.teams.push(team);
            list.items.push(item);
        }
        (list, served)
    }
}

impl Trials {
    /// Takes note of a list that was made within an experiment.
    fn made(&self, user: UserId, list: &List, part: &Part, served: Served, took: Duration) {
        let (experiment, variant) = (served.experiment.clone(), served.variant);
        if list.trace != TraceId::default() && !list.items.is_empty() {
            let items = list.items.iter().map(|item| item.id).collect();
            held(&self.served).add(user, list.trace, items, served);
        }
        let mut notes = held(&self.notes);
        let key = (user, experiment);
        if notes.len() >= MAX_NOTES && !notes.contains_key(&key) {
            return;
        }
        let new = || ListNote { user, experiment: key.1.clone(), variant, lists: 0, empty: 0, slow: 0 };
        let note = notes.entry(key.clone()).or_insert_with(new);
        note.lists += 1;
        note.empty += u64::from(list.items.is_empty());
        note.slow += u64::from(part.is_slow(took));
    }

    /// Takes out what the store has now; lists that were made meanwhile go on waiting.
    pub(super) fn noted(&self, written: &[ListNote]) {
        let mut notes = held(&self.notes);
        for note in written {
            let Entry::Occupied(mut waiting) = notes.entry((note.user, note.experiment.clone())) else { continue };
            let left = waiting.get_mut();
            // There may be less: the listener was forgotten meanwhile.
            left.lists = left.lists.saturating_sub(note.lists);
            left.empty = left.empty.saturating_sub(note.empty);
            left.slow = left.slow.saturating_sub(note.slow);
            if left.lists == 0 {
                waiting.remove();
            }
        }
    }
}
