//! Drift: how far those for whom lists are made are from those whom the serving model was fitted on, and the scores
//! they get from those it gives. What was served is remembered as who and how well, bounded; histories are looked
//! up when it is asked, so that whoever became private or was erased does not count.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echotune_api::RecommendQuery;
use echotune_engine::trials::drift::{self, Divergence, Shift};
use echotune_kit::telemetry::metrics::Gauge;
use echotune_model::{Drift, ItemKind, UserId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::judge::KINDS;
use crate::{
    RecommendationsService,
    model::{Links, Model},
    rank::Ranking,
    shelf::History,
    state::State,
};

/// Lists remembered at the most; the oldest go first.
const LISTS: usize = 4_096;
/// Lists of a kind below which nothing is said of a shift.
const ENOUGH: u64 = 100;
/// Listeners of the fit whose lists are scored again, to compare scores with.
const SAMPLE: usize = 500;
/// Groups of equal weight into which items and scores are put.
const GROUPS: usize = 10;
/// Lengths of histories by their power of two.
const LENGTHS: usize = 24;

/// What a model of one kind was fitted on.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Listeners by item of the graph.
    counts: Vec<u64>,
    lengths: [u64; LENGTHS],
    pub(super) listeners: u64,
    pub(super) pairs: u64,
}

impl Facts {
    /// Of histories, by the graph that was fitted on them. Time O(listens).
    pub(crate) fn of<'h>(histories: impl Iterator<Item = &'h History>, links: &Links) -> Self {
        let mut facts = Self { counts: vec![0; links.graph().item_count()], ..Self::default() };
        for history in histories {
            facts.push(history, links);
        }
        facts
    }

    /// Takes in a history; answers how many of its items the graph does not know.
    fn push(&mut self, history: &History, links: &Links) -> u64 {
        if history.is_empty() {
            return 0;
        }
        self.listeners += 1;
        self.pairs += history.len() as u64;
        self.lengths[(history.len().ilog2() as usize).min(LENGTHS - 1)] += 1;
        let mut unknown = 0;
        for known in history.iter() {
            match links.item(known.item) {
                Some(item) => self.counts[item as usize] += 1,
                None => unknown += 1,
            }
        }
        unknown
    }

    /// Items that nobody knows.
    pub(super) fn unknown_items(&self) -> u64 {
        self.counts.iter().filter(|count| **count == 0).count() as u64
    }
}

/// A list that was made.
#[derive(Debug, Clone, Copy)]
struct Made {
    user: UserId,
    kind: ItemKind,
    /// Of its first item.
    score: f64,
}

/// The lists made last.
#[derive(Debug, Default)]
pub(crate) struct Window(Mutex<VecDeque<Made>>);

impl Window {
    fn held(&self) -> MutexGuard<'_, VecDeque<Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a list by the score of its first item. O(1).
    pub(crate) fn add(&self, user: UserId, kind: ItemKind, score: f64) {
        let mut made = self.held();
        if made.len() == LISTS {
            made.pop_front();
        }
        made.push_back(Made { user, kind, score });
    }

    pub(crate) fn forget(&self, user: UserId) {
        self.held().retain(|made| made.user != user);
    }
}

const fn shift_name(shift: Shift) -> &'static str {
    match shift {
        Shift::Little => "little",
        Shift::Some => "some",
        Shift::Great => "great",
    }
}

/// What is compared, for lists of a kind.
struct Compared<'m> {
    kind: ItemKind,
    facts: &'m Facts,
    served: Facts,
    /// Items in the histories of those served that the model does not know.
    new_items: u64,
    /// Scores that the model gives to those it was fitted on, and that were served.
    scores: [Vec<f64>; 2],
}

impl Compared<'_> {
    fn told(&self) -> Vec<Drift> {
        let [given, served] = &self.scores;
        let by_score = drift::quantile_edges(given, GROUPS)
            .and_then(|edges| drift::divergence(&drift::binned(given, &edges), &drift::binned(served, &edges)));
        let listeners = (self.facts.listeners, self.served.listeners);
        let rows = [
            ("popularity", drift::popularity(&self.facts.counts, &self.served.counts, GROUPS), listeners),
            ("history_length", drift::divergence(&self.facts.lengths, &self.served.lengths), listeners),
            ("score", by_score, (given.len() as u64, served.len() as u64)),
        ];
        // A side without any observation has no distribution.
        let rows = rows.into_iter().filter_map(|(feature, found, counts)| Some(self.row(feature, found.ok()?, counts)));
        rows.chain([self.new_items()]).collect()
    }

    fn row(&self, feature: &str, found: Divergence, (fitted, served): (u64, u64)) -> Drift {
        let shift = if served < ENOUGH { "unknown" } else { shift_name(found.shift) };
        Drift {
            feature: feature.to_owned(),
            kind: self.kind.name().to_owned(),
            index: found.stability_index,
            divergence: found.jensen_shannon,
            shift: shift.to_owned(),
            fitted,
            served,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn new_items(&self) -> Drift {
        let share = self.new_items as f64 / self.served.pairs.max(1) as f64;
        // The readings of the index, for want of better ones.
        let shift = match share {
            share if share < 0.1 => Shift::Little,
            share if share < 0.25 => Shift::Some,
            _ => Shift::Great,
        };
        let (fitted, served) = (self.facts.pairs, self.served.pairs);
        let found = Divergence { stability_index: share, jensen_shannon: 0.0, shift };
        let enough = self.served.listeners >= ENOUGH;
        let row = self.row("new_items", found, (fitted, served));
        if enough { row } else { Drift { shift: "unknown".to_owned(), ..row } }
    }
}

/// Tells a gauge every so often how far what is served is from the fit, by `feature` and `kind`, until told to stop.
pub async fn report_drift(service: RecommendationsService, gauge: Gauge, every: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        let service = service.clone();
        match tokio::task::spawn_blocking(move || service.measure_drift()).await {
            Ok(rows) => {
                rows.iter().for_each(|one| gauge.record(one.index, &[("feature", &one.feature), ("kind", &one.kind)]));
            }
            Err(cause) => tracing::error!(%cause, "drift cannot be measured"),
        }
    }
}

impl RecommendationsService {
    /// How far what was served is from what the serving model was fitted on; nothing of kinds of which no list was
    /// made. Blocks; time O(histories of the lists remembered) and that of [`SAMPLE`] lists.
    pub(super) fn measure_drift(&self) -> Vec<Drift> {
        let made: Vec<Made> = self.0.releases.window.held().iter().copied().collect();
        let model = self.0.model.load_full();
        KINDS.into_iter().filter_map(|kind| self.compared(&model, kind, &made)).flatten().collect()
    }

    fn compared(&self, model: &Model, kind: ItemKind, made: &[Made]) -> Option<Vec<Drift>> {
        let (links, facts) = (model.links(kind), model.facts(kind));
        let mut served = Facts { counts: vec![0; links.graph().item_count()], ..Facts::default() };
        let (mut new_items, mut scores) = (0, Vec::new());
        for made in made.iter().filter(|made| made.kind == kind) {
            self.read(|state| {
                let Some(person) = state.by_id(made.user).filter(|person| !person.private) else { return };
                new_items += served.push(person.history(kind), links);
                scores.push(made.score);
            });
        }
        if scores.is_empty() || facts.listeners == 0 {
            return None;
        }
        let given = self.given_scores(model, kind);
        Some(Compared { kind, facts, served, new_items, scores: [given, scores] }.told())
    }

    /// The scores of the first items of lists that a model makes for some of those that are not private.
    fn given_scores(&self, model: &Model, kind: ItemKind) -> Vec<f64> {
        let people = self.read(|state| State::public_users(state, kind, SAMPLE));
        let (policy, query) = (self.0.trials.base(), RecommendQuery { kind, limit: 1, include_known: false });
        let score = |user: UserId| {
            self.with_scores(|scores| {
                self.read(|state| {
                    let person = state.by_id(user)?;
                    let history = person.history(kind).to_vec();
                    let ranking = Ranking { state, model, person, policy: &policy, kind, history };
                    Some(ranking.list(&query, scores, None).items.first()?.score)
                })
            })
        };
        people.into_iter().filter_map(score).collect()
    }
}
