//! Experiments, and the sums that decide them.

use echotune_kit::embedded::{Batch, Key, Order, StoreError, View, get};
use echotune_model::{Decision, ErrorKind, Evidence, Experiment, ExperimentState, Hlc, UserId};

use super::{
    sums::Change,
    tables::{ARMS, EXPERIMENTS, LEARNT, LEARNT_OF, NAMES, Shown, UNITS, WINDOWS, each, of, uuid_at},
    units::{ACCEPTED, Unit, sums},
};
use crate::store::{Answer, ArmSums, Kept, Learnt, ListNote, MAX_CLOSED, MAX_EXPERIMENTS, RecommendationStoreError};

fn named(name: &str) -> Key {
    Key::new().fixed(name.as_bytes())
}

pub(super) fn arm_key(experiment: &str, variant: u8) -> Key {
    Key::new().text(experiment).fixed(&[variant])
}

pub(super) fn unit_key(user: UserId, experiment: &str) -> Key {
    of(user).fixed(experiment.as_bytes())
}

/// The row of a window that is open: before [`Unit::closed`].
pub(super) fn window_key(unit_key: &[u8], ends_at_ms: u64) -> Key {
    Key::new().u64(ends_at_ms).fixed(unit_key)
}

pub(super) fn create(view: &dyn View, experiment: Experiment) -> Answer<(bool, Batch)> {
    let (mut batch, key) = (Batch::default(), named(&experiment.spec.name));
    if view.get(EXPERIMENTS, &key)?.is_some() {
        return Ok((false, batch));
    }
    if all(view)?.len() >= MAX_EXPERIMENTS {
        let message = format!("{MAX_EXPERIMENTS} experiments are held, and no more can be");
        return Err(RecommendationStoreError { kind: ErrorKind::ResourceExhausted, message });
    }
    batch.put(EXPERIMENTS, key, &Kept { experiment, evidence: None });
    Ok((true, batch))
}

pub(super) fn stop(
    view: &dyn View,
    name: &str,
    decision: Decision,
    evidence: Evidence,
) -> Result<(Option<Kept>, Batch), StoreError> {
    let mut batch = Batch::default();
    let Some(mut kept) = get::<Kept>(view, EXPERIMENTS, &named(name))? else { return Ok((None, batch)) };
    if kept.experiment.state == ExperimentState::Running {
        kept.experiment.state = ExperimentState::Stopped;
        kept.experiment.stopped_at_ms = decision.decided_at_ms;
        kept.experiment.decision = Some(decision);
        kept.evidence = Some(evidence);
        batch.put(EXPERIMENTS, named(name), &kept);
    }
    Ok((Some(kept), batch))
}

/// The newest first.
pub(super) fn all(view: &dyn View) -> Result<Vec<Experiment>, StoreError> {
    let mut all = Vec::new();
    each(view, EXPERIMENTS, &Key::new(), |_, kept: Kept| {
        all.push(kept.experiment);
        Ok(())
    })?;
    let order = |one: &Experiment| (std::cmp::Reverse(one.started_at_ms), one.spec.name.clone());
    all.sort_by_cached_key(order);
    Ok(all)
}

pub(super) fn one(view: &dyn View, name: &str) -> Result<Option<(Kept, Vec<ArmSums>)>, StoreError> {
    let Some(kept) = get::<Kept>(view, EXPERIMENTS, &named(name))? else { return Ok(None) };
    let arm = |(variant, _)| Ok(get::<Vec<u128>>(view, ARMS, &arm_key(name, variant))?.unwrap_or_default());
    let arms = (0..).zip(&kept.experiment.spec.variants).map(arm).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(Some((kept, arms.iter().map(|numbers| sums(numbers)).collect())))
}

pub(super) fn learnt(view: &dyn View) -> Result<Learnt, StoreError> {
    Ok(get(view, LEARNT, &Key::new())?.unwrap_or_default())
}

/// Changes what is counted of a listener in an experiment that runs, until the window has passed.
fn change_unit(
    view: &dyn View,
    (user, name, variant): (UserId, &str, u8),
    at_ms: u64,
    (batch, change): (&mut Batch, &mut Change),
    edit: impl FnOnce(&mut Unit),
) -> Result<(), StoreError> {
    let Some(Kept { experiment, .. }) = get::<Kept>(view, EXPERIMENTS, &named(name))? else { return Ok(()) };
    let key = unit_key(user, name);
    let before = get::<Unit>(view, UNITS, &key)?;
    if experiment.state == ExperimentState::Stopped || before.as_ref().is_some_and(|unit| unit.closed) {
        return Ok(());
    }
    let window = experiment.spec.window_ms;
    let ends_at_ms = if window == 0 { 0 } else { at_ms.saturating_add(window) };
    let mut after = before.clone().unwrap_or_else(|| Unit::new(variant, experiment.spec.kind, ends_at_ms));
    edit(&mut after);
    if before.is_none() && after.ends_at_ms > 0 {
        batch.put_bytes(WINDOWS, window_key(&key.0, after.ends_at_ms), Vec::new());
    }
    change.unit(name, before.as_ref(), Some(&after));
    batch.put(UNITS, key, &after);
    Ok(())
}

/// An impression that is new.
pub(super) fn shown(
    view: &dyn View,
    user: UserId,
    shown: &Shown,
    batch: &mut Batch,
    change: &mut Change,
) -> Result<(), StoreError> {
    let Some(served) = &shown.served else { return Ok(()) };
    learn(view, user, (None, shown), batch, change)?;
    let whose = (user, served.experiment.as_str(), served.variant);
    change_unit(view, whose, shown.at.ms(), (batch, change), |unit| unit.shown(shown, served, true))
}

/// What was made of an impression's items has changed.
pub(super) fn answered(
    view: &dyn View,
    user: UserId,
    (before, after): (&Shown, &Shown),
    batch: &mut Batch,
    change: &mut Change,
) -> Result<(), StoreError> {
    let Some(served) = &after.served else { return Ok(()) };
    learn(view, user, (Some(before), after), batch, change)?;
    let whose = (user, served.experiment.as_str(), served.variant);
    change_unit(view, whose, after.at.ms(), (batch, change), |unit| {
        unit.shown(before, served, false);
        unit.shown(after, served, true);
    })
}

/// Learns from what was explored: that it was shown, and whether it was accepted.
fn learn(
    view: &dyn View,
    user: UserId,
    (before, after): (Option<&Shown>, &Shown),
    batch: &mut Batch,
    change: &mut Change,
) -> Result<(), StoreError> {
    let explored = after.served.as_ref().map_or(&[][..], |served| &served.explored);
    let was = |place: u16| before.is_some_and(|shown| shown.has(usize::from(place), ACCEPTED));
    let is = |place: u16| after.has(usize::from(place), ACCEPTED);
    if explored.is_empty() || (before.is_some() && explored.iter().all(|(place, _)| was(*place) == is(*place))) {
        return Ok(());
    }
    let own = get::<Learnt>(view, LEARNT_OF, &of(user))?.unwrap_or_default();
    let mut next = own;
    for (place, features) in explored {
        if before.is_none() {
            next.shown(features, true);
        }
        if was(*place) != is(*place) {
            next.accepted(features, is(*place));
        }
    }
    change.learnt(Some(own), Some(next));
    batch.put(LEARNT_OF, of(user), &next);
    Ok(())
}

pub(super) fn note_lists(view: &dyn View, notes: &[ListNote], at: Hlc) -> Result<((), Batch), StoreError> {
    let (mut batch, mut change) = (Batch::default(), Change::default());
    for note in notes {
        // An account that was erased meanwhile leaves nothing behind.
        if view.get(NAMES, &of(note.user))?.is_some() {
            let whose = (note.user, note.experiment.as_str(), note.variant);
            change_unit(view, whose, at.ms(), (&mut batch, &mut change), |unit| unit.listed(note))?;
        }
    }
    change.write(view, &mut batch)?;
    Ok(((), batch))
}

/// At most `limit` keys of windows that have passed.
pub(super) fn passed(view: &dyn View, now_ms: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let (mut passed, end) = (Vec::new(), Key::new().u64(now_ms.saturating_add(1)));
    view.scan(WINDOWS, &Key::new(), Some(&end), Order::Ascending, &mut |key, _| {
        passed.push(key.to_vec());
        Ok(passed.len() < limit)
    })?;
    Ok(passed)
}

pub(super) fn close_windows(view: &dyn View, now_ms: u64) -> Result<(usize, Batch), StoreError> {
    let (mut batch, mut change) = (Batch::default(), Change::default());
    let passed = passed(view, now_ms, MAX_CLOSED)?;
    for window in &passed {
        let key = Key(window.get(8..).unwrap_or_default().to_vec());
        batch.delete(WINDOWS, Key(window.clone()));
        let Some(before) = get::<Unit>(view, UNITS, &key)? else { continue };
        uuid_at(UNITS, &key.0, 0)?;
        let name = String::from_utf8_lossy(&key.0[16..]).into_owned();
        let kept = get::<Kept>(view, EXPERIMENTS, &named(&name))?;
        if kept.is_some_and(|kept| kept.experiment.state == ExperimentState::Running) {
            let after = Unit { closed: true, ..before.clone() };
            change.unit(&name, Some(&before), Some(&after));
            batch.put(UNITS, key, &after);
        }
    }
    change.write(view, &mut batch)?;
    Ok((passed.len(), batch))
}
