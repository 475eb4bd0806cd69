//! Impressions and what was made of them. Time logarithmic in what is held, and linear in one list.

use echotune_kit::embedded::{Batch, Key, Order, StoreError, View, get};
use echotune_model::{Feedback, Hlc, Impression, ItemId, TraceId, UserId};

use super::{
    sums::{Change, FEEDBACK_TOTAL},
    tables::{
        FEEDBACK, IMPRESSIONS, NAMES, PROGRESS, SHOWN, SHOWN_AT, Said, Shown, each, keys, number, of, said_key,
        shown_at_key, shown_key, trace_of,
    },
    trials,
};
use crate::store::{LOOK_BACK, MAX_IMPRESSIONS, Named, Progress, ShownAt};

type Written = Result<((), Batch), StoreError>;

pub(super) fn record_impression(view: &dyn View, user: UserId, impression: Impression, given: ShownAt) -> Written {
    let (mut batch, mut change) = (Batch::default(), Change::default());
    let key = shown_key(user, impression.trace);
    // An account that was erased meanwhile leaves nothing behind.
    if view.get(IMPRESSIONS, &key)?.is_some() || view.get(NAMES, &of(user))?.is_none() {
        return Ok(((), batch));
    }
    let Impression { trace, model_version: model, items } = impression;
    let ShownAt { served, at } = given;
    let mut shown = Shown { at, model, items, signals: Vec::new(), served };
    answered_before(view, user, trace, &mut shown)?;
    change.shown(&shown, 1);
    trials::shown(view, user, &shown, &mut batch, &mut change)?;
    make_room(view, user, &mut batch, &mut change)?;
    batch.put_bytes(SHOWN_AT, shown_at_key(user, at, trace), Vec::new());
    batch.put(IMPRESSIONS, key, &shown);
    change.write(view, &mut batch)?;
    Ok(((), batch))
}

/// Counts one more impression of a user; past the most that is kept, the oldest goes.
fn make_room(view: &dyn View, user: UserId, batch: &mut Batch, change: &mut Change) -> Result<(), StoreError> {
    let held = get::<u64>(view, SHOWN, &of(user))?.unwrap_or(0);
    if held < MAX_IMPRESSIONS as u64 {
        batch.put(SHOWN, of(user), &(held + 1));
        return Ok(());
    }
    for oldest in keys(view, SHOWN_AT, &of(user), Order::Ascending, 1)? {
        let key = shown_key(user, trace_of(&oldest)?);
        if let Some(shown) = get::<Shown>(view, IMPRESSIONS, &key)? {
            change.shown(&shown, -1);
        }
        batch.delete(IMPRESSIONS, key);
        batch.delete(SHOWN_AT, Key(oldest));
    }
    Ok(())
}

/// Feedback may be here before the news that the list was shown.
fn answered_before(view: &dyn View, user: UserId, trace: TraceId, shown: &mut Shown) -> Result<(), StoreError> {
    if keys(view, FEEDBACK, &of(user), Order::Ascending, 1)?.is_empty() {
        return Ok(());
    }
    for item in shown.items.clone() {
        let mut latest: Option<(Hlc, u8)> = None;
        each(view, FEEDBACK, &of(user).fixed(item.0.as_bytes()), |_, said: Said| {
            if said.trace == trace.0 {
                latest = latest.max(Some((said.at, said.signal)));
            }
            Ok(())
        })?;
        if let Some((_, signal)) = latest {
            shown.answer(item, signal);
        }
    }
    Ok(())
}

pub(super) fn record_feedback(
    view: &dyn View,
    user: UserId,
    feedback: &Feedback,
    item: Named,
    at: Hlc,
    progress: Progress,
) -> Written {
    let (mut batch, mut change) = (Batch::default(), Change::default());
    if view.get(NAMES, &of(user))?.is_none() {
        return Ok(((), batch));
    }
    let trace = match feedback.trace {
        TraceId(0) => newest_with(view, user, feedback.item)?,
        given => given,
    };
    let said = Said { at, signal: number(feedback.signal), item, trace: trace.0 };
    let key = said_key(user, feedback.item, said.signal);
    match get::<Said>(view, FEEDBACK, &key)? {
        // What comes from another platform may be older than what is here.
        Some(held) if held.at >= at => return Ok(((), batch)),
        Some(_) => {}
        None => change.total(FEEDBACK_TOTAL, 1),
    }
    batch.put(FEEDBACK, key, &said);
    let key = shown_key(user, trace);
    if let Some(before) = get::<Shown>(view, IMPRESSIONS, &key)? {
        let mut shown = before.clone();
        shown.answer(feedback.item, said.signal);
        change.shown(&before, -1);
        change.shown(&shown, 1);
        trials::answered(view, user, (&before, &shown), &mut batch, &mut change)?;
        batch.put(IMPRESSIONS, key, &shown);
    }
    batch.put(PROGRESS, Key::new(), &progress);
    change.write(view, &mut batch)?;
    Ok(((), batch))
}

/// The trace of the newest impression in which a user saw an item; zero when there is none among the
/// last ones.
fn newest_with(view: &dyn View, user: UserId, item: ItemId) -> Result<TraceId, StoreError> {
    for key in keys(view, SHOWN_AT, &of(user), Order::Descending, LOOK_BACK)? {
        let trace = trace_of(&key)?;
        let shown = get::<Shown>(view, IMPRESSIONS, &shown_key(user, trace))?;
        if shown.is_some_and(|shown| shown.items.contains(&item)) {
            return Ok(trace);
        }
    }
    Ok(TraceId::default())
}
