//! Releases, and the record of what was decided on them.

use async_trait::async_trait;
use echotune_kit::embedded::{Batch, Key, Order, StoreError, View, decode, get};
use echotune_model::{Release, ReleaseAction, ReleaseDecision, ReleaseState, UserId};

use super::{
    EmbeddedRecommendationStore,
    tables::{DECISIONS, IMPRESSIONS, RELEASES, Shown, each, keys, uuid_at},
    units::ACCEPTED,
};
use crate::store::{
    Answer,
    releases::{Explored, MAX_DECISIONS, MAX_RELEASES, ReleaseStore},
};

fn named(version: &str) -> Key {
    Key::new().fixed(version.as_bytes())
}

const fn served(state: ReleaseState) -> bool {
    matches!(state, ReleaseState::Serving | ReleaseState::Retired)
}

fn keep(view: &dyn View, mut release: Release) -> Result<((), Batch), StoreError> {
    let (mut batch, key) = (Batch::default(), named(&release.version));
    let before: Option<Release> = get(view, RELEASES, &key)?;
    if before.is_none() {
        let all = all(view)?;
        let spare = all.iter().rev().find(|one| !served(one.state)).filter(|_| all.len() >= MAX_RELEASES);
        spare.into_iter().for_each(|oldest| batch.delete(RELEASES, named(&oldest.version)));
    }
    if let Some(before) = before.filter(|before| served(before.state)) {
        release.state = before.state;
    }
    batch.put(RELEASES, key, &release);
    Ok(((), batch))
}

fn decide(view: &dyn View, decision: &ReleaseDecision) -> Result<(bool, Batch), StoreError> {
    let mut batch = Batch::default();
    let Some(mut release) = get::<Release>(view, RELEASES, &named(&decision.version))? else {
        return Ok((false, batch));
    };
    if decision.action == ReleaseAction::Refuse {
        if !served(release.state) {
            release.state = ReleaseState::Refused;
        }
    } else {
        let others = all(view)?.into_iter().filter(|one| one.state == ReleaseState::Serving);
        for mut other in others.filter(|one| one.version != release.version) {
            other.state = ReleaseState::Retired;
            batch.put(RELEASES, named(&other.version), &other);
        }
        release.state = ReleaseState::Serving;
    }
    batch.put(RELEASES, named(&release.version), &release);
    let last = keys(view, DECISIONS, &Key::new(), Order::Descending, 1)?.pop();
    let last = last.and_then(|key| key.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)));
    batch.put(DECISIONS, Key::new().u64(last.map_or(0, |last| last + 1)), decision);
    Ok((true, batch))
}

/// The newest first.
fn all(view: &dyn View) -> Result<Vec<Release>, StoreError> {
    let mut all = Vec::new();
    each(view, RELEASES, &Key::new(), |_, release: Release| {
        all.push(release);
        Ok(())
    })?;
    all.sort_by_cached_key(|one| (std::cmp::Reverse(one.made_at_ms), one.version.clone()));
    Ok(all)
}

fn decisions(view: &dyn View) -> Result<Vec<ReleaseDecision>, StoreError> {
    let mut newest = Vec::new();
    view.scan(DECISIONS, &Key::new(), None, Order::Descending, &mut |_, value| {
        newest.push(decode(DECISIONS, value)?);
        Ok(newest.len() < MAX_DECISIONS)
    })?;
    Ok(newest)
}

fn explored(view: &dyn View, limit: usize) -> Result<Vec<Explored>, StoreError> {
    let mut found = Vec::new();
    view.scan(IMPRESSIONS, &Key::new(), None, Order::Ascending, &mut |key, value| {
        let shown: Shown = decode(IMPRESSIONS, value)?;
        let Some(served) = shown.served.as_ref().filter(|served| !served.explored.is_empty()) else { return Ok(true) };
        let of = |(place, _): &(u16, _)| {
            let at = usize::from(*place);
            (*place, served.propensity(at), shown.has(at, ACCEPTED))
        };
        let explored = served.explored.iter().map(of).collect();
        found.push(Explored { user: UserId(uuid_at(IMPRESSIONS, key, 0)?), items: shown.items, explored });
        Ok(found.len() < limit)
    })?;
    Ok(found)
}

#[async_trait]
impl ReleaseStore for EmbeddedRecommendationStore {
    async fn keep_release(&self, release: Release) -> Answer<()> {
        Ok(self.db.write(move |view| keep(view, release)).await?)
    }

    async fn decide_release(&self, decision: ReleaseDecision) -> Answer<bool> {
        Ok(self.db.write(move |view| decide(view, &decision)).await?)
    }

    async fn releases(&self) -> Answer<Vec<Release>> {
        Ok(self.db.read(all)?)
    }

    async fn explored(&self, limit: usize) -> Answer<Vec<Explored>> {
        self.read_aside(move |view| Ok(explored(view, limit)?)).await
    }

    async fn release_decisions(&self) -> Answer<Vec<ReleaseDecision>> {
        Ok(self.db.read(decisions)?)
    }
}
