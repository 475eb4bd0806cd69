//! Sums that are kept in step with the rows, in the same transaction.

use std::collections::BTreeMap;

use echotune_kit::embedded::{Batch, Key, StoreError, View, get};
use echotune_model::{Acceptance, Hlc};
use serde::{Deserialize, Serialize};

use super::{
    tables::{ARMS, LEARNT, MODELS, Shown, TOTALS, each},
    trials::arm_key,
    units::{ACCEPTED, NUMBERS, Numbers, REFUSED, Unit},
};
use crate::store::{Learnt, Totals};

/// Names of the totals.
pub(super) const IMPRESSIONS_TOTAL: &str = "impressions";
pub(super) const FEEDBACK_TOTAL: &str = "feedback";
pub(super) const UNREADABLE_TOTAL: &str = "unreadable_events";
/// Of the unreadable records those still held.
pub(super) const UNREADABLE_HELD: &str = "unreadable_held";

/// What was made of what one model showed.
#[derive(Default, Serialize, Deserialize)]
struct Sums {
    newest: Hlc,
    impressions: u64,
    items: u64,
    accepted: u64,
    refused: u64,
}

/// By how much sums change.
#[derive(Default)]
pub(super) struct Change {
    totals: BTreeMap<&'static str, i64>,
    models: BTreeMap<String, (Hlc, [i64; 4])>,
    arms: BTreeMap<(String, u8), Numbers>,
    /// What was learnt from listeners before, and after.
    learnt: Vec<(Option<Learnt>, Option<Learnt>)>,
}

impl Change {
    pub(super) fn total(&mut self, name: &'static str, by: i64) {
        *self.totals.entry(name).or_default() += by;
    }

    /// Adds an impression as it is now (`by` is 1), or takes it away (−1).
    pub(super) fn shown(&mut self, shown: &Shown, by: i64) {
        self.total(IMPRESSIONS_TOTAL, by);
        let (newest, sums) = self.models.entry(shown.model.clone()).or_default();
        if by > 0 {
            *newest = shown.at.max(*newest);
        }
        let (accepted, refused) = (shown.with(ACCEPTED), shown.with(REFUSED));
        for (sum, one) in sums.iter_mut().zip([1, shown.items.len(), accepted, refused]) {
            *sum += by * i64::try_from(one).unwrap_or(i64::MAX);
        }
    }

    /// Replaces what a listener adds to an experiment.
    pub(super) fn unit(&mut self, experiment: &str, before: Option<&Unit>, after: Option<&Unit>) {
        for (unit, sign) in [(before, -1), (after, 1)] {
            for (variant, numbers) in unit.map(Unit::numbers).unwrap_or_default() {
                let arm = self.arms.entry((experiment.to_owned(), variant)).or_insert([0; NUMBERS]);
                arm.iter_mut().zip(numbers).for_each(|(sum, by)| *sum += sign * by);
            }
        }
    }

    /// Replaces what was learnt from a listener.
    pub(super) fn learnt(&mut self, before: Option<Learnt>, after: Option<Learnt>) {
        self.learnt.push((before, after));
    }

    fn write_experiments(self, view: &dyn View, batch: &mut Batch) -> Result<(), StoreError> {
        for ((experiment, variant), by) in self.arms.into_iter().filter(|(_, by)| by.iter().any(|by| *by != 0)) {
            let key = arm_key(&experiment, variant);
            let mut numbers = get::<Vec<u128>>(view, ARMS, &key)?.unwrap_or_default();
            numbers.resize(NUMBERS, 0);
            numbers.iter_mut().zip(by).for_each(|(sum, by)| *sum = sum.saturating_add_signed(by));
            batch.put(ARMS, key, &numbers);
        }
        if !self.learnt.is_empty() {
            let mut learnt = get::<Learnt>(view, LEARNT, &Key::new())?.unwrap_or_default();
            for (before, after) in self.learnt {
                after.iter().for_each(|part| learnt.with(part));
                before.iter().for_each(|part| learnt.without(part));
            }
            batch.put(LEARNT, Key::new(), &learnt);
        }
        Ok(())
    }

    /// Writes the sums after the change.
    pub(super) fn write(mut self, view: &dyn View, batch: &mut Batch) -> Result<(), StoreError> {
        for (name, by) in std::mem::take(&mut self.totals).into_iter().filter(|(_, by)| *by != 0) {
            batch.put(TOTALS, Key::new().text(name), &total(view, name)?.saturating_add_signed(by));
        }
        for (model, (newest, by)) in std::mem::take(&mut self.models) {
            let key = Key::new().fixed(model.as_bytes());
            let mut sums = get::<Sums>(view, MODELS, &key)?.unwrap_or_default();
            sums.newest = sums.newest.max(newest);
            let [impressions, items, accepted, refused] = by;
            for (sum, by) in [
                (&mut sums.impressions, impressions),
                (&mut sums.items, items),
                (&mut sums.accepted, accepted),
                (&mut sums.refused, refused),
            ] {
                *sum = sum.saturating_add_signed(by);
            }
            if sums.impressions == 0 {
                batch.delete(MODELS, key);
            } else {
                batch.put(MODELS, key, &sums);
            }
        }
        self.write_experiments(view, batch)
    }
}

pub(super) fn total(view: &dyn View, name: &str) -> Result<u64, StoreError> {
    Ok(get(view, TOTALS, &Key::new().text(name))?.unwrap_or(0))
}

pub(super) fn totals(view: &dyn View) -> Result<Totals, StoreError> {
    Ok(Totals {
        impressions: total(view, IMPRESSIONS_TOTAL)?,
        feedback: total(view, FEEDBACK_TOTAL)?,
        unreadable_events: total(view, UNREADABLE_TOTAL)?,
    })
}

/// Newest model first, at most `limit`.
pub(super) fn acceptance(view: &dyn View, limit: usize) -> Result<Vec<Acceptance>, StoreError> {
    let mut models = Vec::new();
    each(view, MODELS, &Key::new(), |key, sums: Sums| {
        let Sums { newest, impressions, items, accepted, refused } = sums;
        let model_version = String::from_utf8_lossy(key).into_owned();
        models.push((newest, Acceptance { model_version, impressions, items, accepted, refused }));
        Ok(())
    })?;
    models.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| b.1.model_version.cmp(&a.1.model_version)));
    models.truncate(limit);
    Ok(models.into_iter().map(|(_, one)| one).collect())
}
