//! Lists kept near in process: exact, and for as long as nothing changes that they are made from.
//!
//! A list is kept under all that it hangs on: the listener, the query, the policy, the model with its snapshot of what is
//! popular, what was told last of the listener and of friends, and what everybody may know of items. An event that changes
//! any of these changes the key, and that is all there is to invalidating. What is new in each answer is not kept: the
//! trace, the watermark, and the exposure by which impressions are counted. Lists that hang on chance (exploration,
//! interleaving) or on sums that each play changes (calibration) are made each time.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use echotune_api::{
    RecommendQuery,
    events::{Event, Payload},
};
use echotune_kit::{
    cache::{Cache as _, CacheSection, Key, LocalCache, SharedTier},
    telemetry::metrics::Meter,
};
use echotune_model::{Call, Fault, Recommendation, Recommendations as List, ServedModel, UserId, UserName};

use crate::{
    RecommendationsService,
    experiments::{Made, Part},
    policy::Policy,
    rank::Ranking,
    serve,
    state::{Person, State},
};

/// For how long after an event what it concerns is not kept in the shared tier: its rows may come from another region a
/// little later than the event.
const HOLD: Duration = Duration::from_secs(2);

/// The cache of lists, and what tells the models apart.
#[derive(Debug)]
pub(crate) struct Lists {
    held: LocalCache<List>,
    /// How often another model, or another snapshot of what is popular, has come to serve.
    models: AtomicU64,
}

fn bytes(list: &List) -> usize {
    let of = |item: &Recommendation| {
        let reasons = item.reasons.iter().map(|reason| size_of_val(reason) + reason.of.len()).sum::<usize>();
        size_of_val(item) + item.title.len() + item.artist.len() + reasons
    };
    size_of_val(list) + list.model_version.len() + list.items.iter().map(of).sum::<usize>()
}

impl Lists {
    /// As much and as long as the section says.
    pub(crate) fn new(section: &CacheSection, meter: &Meter) -> Self {
        Self { held: LocalCache::new("lists", section.limits(100), bytes, meter), models: AtomicU64::new(0) }
    }

    /// Another model serves, or popularity was looked at again. To be called once that is so.
    pub(crate) fn model_changed(&self) {
        self.models.fetch_add(1, SeqCst);
    }

    pub(crate) async fn forget(&self, user: UserId) {
        self.held.invalidate(&user.to_string(), Duration::ZERO).await;
    }

    /// Under what the list is kept that would be made now; nothing when it hangs on more.
    fn key(
        &self,
        state: &State,
        (id, person): (UserId, &Person),
        policy: &Policy,
        query: &RecommendQuery,
    ) -> Option<Key> {
        let Policy { trending_weight, max_per_artist, exploration_slots, model, diversity_weight } = *policy;
        if exploration_slots > 0 || diversity_weight > 0.0 || model != ServedModel::Current {
            return None;
        }
        let RecommendQuery { kind, limit, include_known } = query;
        let (models, seen) = (self.models.load(SeqCst), state.seen_by(person));
        let weight = trending_weight.to_bits();
        let detail = format!("{}/{limit}/{include_known}/{weight:x}/{max_per_artist}/{models}/{seen:?}", kind.name());
        Some(Key { subject: id.to_string(), detail })
    }
}

impl RecommendationsService {
    /// Keeps lists near, once.
    pub fn keep_lists(&self, section: &CacheSection, meter: &Meter) {
        // Who asks for it twice has it already.
        drop(self.0.lists.set(Lists::new(section, meter)));
    }

    /// Has what this tier keeps of a user forgotten when an event tells of a change, of any region.
    pub fn tell_changes_to(&self, tier: SharedTier) {
        drop(self.0.told.set(tier));
    }

    /// Settings and erasures, the latter also of lists.
    pub(crate) async fn tell_of_changes(&self, events: &[Event]) {
        for event in events {
            if let (Payload::UserErased, Some(lists)) = (&event.payload, self.0.lists.get()) {
                lists.forget(event.user).await;
            }
            let changes = matches!(event.payload, Payload::UserErased | Payload::SettingsChanged { .. });
            if let (true, Some(tier)) = (changes, self.0.told.get()) {
                tier.forget(&event.user.to_string(), HOLD).await;
            }
        }
    }

    /// The list of a listener, kept near or made and kept; nothing when it is to be made each time.
    pub(crate) async fn near(
        &self,
        call: &Call,
        name: &UserName,
        query: &RecommendQuery,
    ) -> Result<Option<Made>, Fault> {
        let Some(lists) = self.0.lists.get() else { return Ok(None) };
        let looked = self.read(|state| {
            let (id, person) = serve::person(state, call, name)?;
            let part = self.0.trials.part_of(id);
            if part.as_ref().is_some_and(Part::is_interleaved) {
                return Ok(None);
            }
            let policy = part.as_ref().map_or_else(|| self.0.trials.base(), |part| *part.policy());
            let key = lists.key(state, (id, person), &policy, query);
            Ok::<_, Fault>(key.map(|key| (id, part, policy, key)))
        })?;
        let Some((id, part, policy, key)) = looked else { return Ok(None) };
        // What is made may be of a later state than the key tells; nobody asks for an earlier one any more.
        let make = Box::pin(async { self.plain(id, name, &policy, query) });
        let mut list = lists.held.get_or_compute(key, make).await?.as_ref().clone();
        (list.trace, list.watermark) = (call.trace, self.watermark());
        list.exposure = part.as_ref().map(Part::exposure);
        let served = part.as_ref().map(Part::served);
        Ok(Some(Made { id, part, list, served }))
    }

    /// A list by one policy without exploration, and without what is new in each answer.
    fn plain(&self, id: UserId, name: &UserName, policy: &Policy, query: &RecommendQuery) -> Result<List, Fault> {
        self.with_scores(|scores| {
            self.read(|state| {
                let person = state.by_id(id).ok_or_else(|| Fault::unknown_user(name.as_str()))?;
                let model = self.model_of(policy);
                let history = person.history(query.kind).to_vec();
                let ranking = Ranking { state, model: &model, person, policy, kind: query.kind, history };
                let ranked = ranking.list(query, scores, None);
                Ok(serve::list(state, &model, Default::default(), ranked))
            })
        })
    }
}

#[cfg(test)]
mod tests;
