//! What every adapter of [`RunStore`] must do, as functions that run over any empty store.
//!
//! Each function panics with what is wrong.

use echotune_model::{PageRequest, RunEventKind, RunId, RunState, UserId, UserName};

use super::{
    Advance, Decision, End, Followed, Idempotency, NewEntry, PinnedText, Release, RunDraft, RunRecord, RunStore,
    RunStoreError,
};

/// A lease that no test outlives.
const LONG: u64 = 3_600_000;

/// Gives the names of the functions of `conformance` to a macro that makes a test of each: what every adapter of
/// `RunStore` is held to, in one place.
#[macro_export]
macro_rules! each_promise {
    ($each:ident) => {
        $each!(
            runs_are_kept_and_keys_give_the_first,
            pages_hold_everything_once,
            journals_are_in_order_without_gaps,
            owners_are_fenced,
            decisions_reach_their_step_once,
            cancellations_are_kept,
            ended_runs_are_removed_whole,
            erasure_leaves_nothing,
            accounts_are_followed,
            accounts_that_went_without_a_name_are_remembered
        );
    };
}

fn name(text: &str) -> UserName {
    text.parse().expect("a name")
}

fn draft(store: &dyn RunStore, user: &str) -> RunDraft {
    RunDraft {
        id: RunId::new(store.now_ms()),
        workflow: "report".into(),
        user: name(user),
        input: r#"{"count":3}"#.into(),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        texts: vec![PinnedText { file: "report.yaml".into(), text: "name: report".into() }],
        detail: "{}".into(),
    }
}

fn keyed(key: &str, request: u8) -> Option<Idempotency> {
    Some(Idempotency { key: key.into(), request: [request; 32] })
}

fn entry(kind: RunEventKind, step: &str) -> NewEntry {
    NewEntry { kind, step: step.into(), detail: format!("about {step}") }
}

fn advance(entries: Vec<NewEntry>) -> Advance {
    Advance { entries, ..Advance::default() }
}

fn end(state: RunState) -> Advance {
    let end = End { state, message: "why".into(), output: "[1]".into() };
    Advance { entries: vec![entry(RunEventKind::RunEnded, "")], end: Some(end), ..Advance::default() }
}

fn decision(step: &str, key: &str) -> Decision {
    Decision { step: step.into(), approved: true, comment: "fine".into(), key: key.into() }
}

async fn claimed(store: &dyn RunStore) -> RunRecord {
    store.claim(LONG).await.expect("claimed").expect("a run is due")
}

async fn read(store: &dyn RunStore, id: RunId) -> RunRecord {
    store.run(id).await.expect("read").expect("the run")
}

/// A run is kept whole, and a key gives the first one.
///
/// # Panics
/// The store does not conform.
pub async fn runs_are_kept_and_keys_give_the_first(store: &dyn RunStore) {
    let first = store.start(draft(store, "Ann"), keyed("k", 1)).await.expect("started");
    assert_eq!((first.state, first.sequence, first.user.as_str()), (RunState::Queued, 1, "Ann"));
    assert_eq!(read(store, first.id).await, first);
    assert_eq!(first.trace().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(store.texts(first.id).await.expect("texts"), draft(store, "Ann").texts);
    assert_eq!(store.start(draft(store, "ann"), keyed("k", 1)).await.expect("again").id, first.id);
    let reused = store.start(draft(store, "ann"), keyed("k", 2)).await.expect_err("another request");
    assert!(matches!(reused, RunStoreError::KeyReused(_)), "{reused}");
    assert_ne!(store.start(draft(store, "ben"), keyed("k", 1)).await.expect("another user").id, first.id);
    assert_ne!(store.start(draft(store, "ann"), None).await.expect("no key").id, first.id);
    assert_eq!(store.count().await.expect("counted"), 3);
    let unknown = RunId::new(store.now_ms());
    assert!(store.run(unknown).await.expect("read").is_none());
    assert!(matches!(store.texts(unknown).await, Err(RunStoreError::UnknownRun(_))));
    assert!(matches!(store.cancel(unknown, String::new()).await, Err(RunStoreError::UnknownRun(_))));
}

/// Pages hold every run once, newest first, by user or all.
///
/// # Panics
/// The store does not conform.
pub async fn pages_hold_everything_once(store: &dyn RunStore) {
    let mut of_ann = Vec::new();
    for number in 0..25 {
        let user = if number % 5 == 0 { "ben" } else { "ann" };
        let run = store.start(draft(store, user), None).await.expect("started");
        if user == "ann" {
            of_ann.push(run.id);
        }
    }
    for (user, wanted) in [(Some(name("ANN")), 20), (Some(name("ben")), 5), (Some(name("eve")), 0), (None, 25)] {
        let (mut page, mut seen) = (PageRequest { size: 7, token: String::new() }, Vec::new());
        loop {
            let part = store.runs(user.clone(), page.clone()).await.expect("listed");
            assert!(part.rows.iter().all(|run| run.input == r#"{"count":3}"#), "rows are whole");
            seen.extend(part.rows.into_iter().map(|run| run.id));
            page.token = part.next;
            if page.token.is_empty() {
                break;
            }
        }
        assert_eq!(seen.len(), wanted, "{user:?}");
        assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
        if wanted == 20 {
            of_ann.sort();
            seen.reverse();
            assert_eq!(seen, of_ann);
        }
    }
    let bad = store.runs(None, PageRequest { size: 7, token: "?".into() }).await.expect_err("refused");
    assert!(matches!(bad, RunStoreError::BadPageToken(_)), "{bad}");
}

/// Journals are in order without gaps, in parts, and each run has its own.
///
/// # Panics
/// The store does not conform.
pub async fn journals_are_in_order_without_gaps(store: &dyn RunStore) {
    store.start(draft(store, "ann"), None).await.expect("started");
    store.start(draft(store, "ben"), None).await.expect("started");
    let (one, two) = (claimed(store).await, claimed(store).await);
    for step in 0..130 {
        let steps = vec![entry(RunEventKind::StepStarted, &step.to_string()), entry(RunEventKind::StepSucceeded, "x")];
        let more = Advance { steps: 1, tool_calls: 2, worked_ms: step, ..advance(steps) };
        store.append(one.id, one.epoch, more).await.expect("appended");
        store.append(two.id, two.epoch, advance(vec![entry(RunEventKind::StepStarted, "y")])).await.expect("appended");
    }
    let mut entries = Vec::new();
    loop {
        let part = store.journal(one.id, entries.len() as u64).await.expect("read");
        if part.is_empty() {
            break;
        }
        entries.extend(part);
    }
    assert_eq!(entries.len(), 261);
    assert!((1..).zip(&entries).all(|(place, entry)| entry.sequence == place), "no gaps");
    assert_eq!((entries[0].kind, entries[1].step.as_str()), (RunEventKind::RunStarted, "0"));
    assert!(entries.is_sorted_by_key(|entry| entry.at_ms));
    let record = read(store, one.id).await;
    assert_eq!((record.steps, record.tool_calls, record.worked_ms, record.sequence), (130, 260, 129, 261));
}

/// A claim is exclusive, the one that waited longest comes first, and an older epoch writes nothing.
///
/// # Panics
/// The store does not conform.
pub async fn owners_are_fenced(store: &dyn RunStore) {
    assert_eq!(store.next_due_ms().await.expect("read"), None);
    assert!(store.claim(LONG).await.expect("claimed").is_none());
    let run = store.start(draft(store, "ann"), None).await.expect("started");
    assert!(store.next_due_ms().await.expect("read").is_some_and(|due| due <= store.now_ms()));
    // A lease that is over at once: the next claim takes the run away.
    let first = store.claim(0).await.expect("claimed").expect("due");
    assert_eq!((first.id, first.state, first.input.as_str()), (run.id, RunState::Running, r#"{"count":3}"#));
    let second = claimed(store).await;
    assert!(second.id == run.id && second.epoch > first.epoch);
    assert!(store.claim(LONG).await.expect("claimed").is_none(), "it is owned");
    let stale = first.epoch;
    let late = store.append(run.id, stale, advance(vec![entry(RunEventKind::StepStarted, "late")])).await;
    assert!(matches!(late, Err(RunStoreError::Fenced(_))), "{late:?}");
    assert!(matches!(store.renew(run.id, stale, LONG).await, Err(RunStoreError::Fenced(_))));
    assert!(matches!(store.release(run.id, stale, Release::Unfinished).await, Err(RunStoreError::Fenced(_))));
    assert_eq!(store.journal(run.id, 1).await.expect("read"), [], "the late owner wrote nothing");
    store.renew(run.id, second.epoch, LONG).await.expect("renewed");
    store.release(run.id, second.epoch, Release::Unfinished).await.expect("released");
    let after = store.append(run.id, second.epoch, Advance::default()).await;
    assert!(matches!(after, Err(RunStoreError::Fenced(_))), "{after:?}");
    let third = claimed(store).await;
    store.append(run.id, third.epoch, end(RunState::Succeeded)).await.expect("ended");
    let ended = read(store, run.id).await;
    assert_eq!((ended.state, ended.output.as_str(), ended.message.as_str()), (RunState::Succeeded, "[1]", "why"));
    assert!(ended.ended_at_ms >= ended.started_at_ms && ended.due_ms.is_none());
    let late = store.append(run.id, third.epoch, Advance::default()).await;
    assert!(matches!(late, Err(RunStoreError::Fenced(_))), "an ended run changes no more: {late:?}");
    assert!(store.claim(LONG).await.expect("claimed").is_none());
}

/// Decisions go to the step they name, once, and wake the run.
///
/// # Panics
/// The store does not conform.
pub async fn decisions_reach_their_step_once(store: &dyn RunStore) {
    let id = store.start(draft(store, "ann"), None).await.expect("started").id;
    let owner = claimed(store).await;
    let until = store.now_ms() + LONG;
    let waiting = vec![("a/ok".to_owned(), until), ("b/ok".to_owned(), until + 1)];
    let asked = vec![entry(RunEventKind::ApprovalRequested, "a/ok"), entry(RunEventKind::ApprovalRequested, "b/ok")];
    store.append(id, owner.epoch, Advance { waiting, ..advance(asked) }).await.expect("asked");
    let both = vec!["a/ok".to_owned(), "b/ok".to_owned()];
    store.release(id, owner.epoch, Release::Waiting(both, "may it?".into())).await.expect("released");
    let record = read(store, id).await;
    assert_eq!((record.state, record.message.as_str()), (RunState::AwaitingApproval, "may it?"));
    assert_eq!(store.next_due_ms().await.expect("read"), Some(until), "it wakes when the first question ends");
    assert!(store.claim(LONG).await.expect("claimed").is_none(), "it waits");
    let wrong = store.decide(id, decision("c", "")).await.expect_err("waits for nobody");
    assert!(wrong.to_string().contains("'a/ok', 'b/ok'"), "{wrong}");
    store.decide(id, decision("b/ok", "k")).await.expect("decided");
    assert_eq!(store.decide(id, decision("b/ok", "k")).await.expect("the same again").id, id);
    let twice = store.decide(id, decision("b/ok", "other")).await;
    assert!(matches!(twice, Err(RunStoreError::NotWaiting { .. })), "{twice:?}");
    let last = store.journal(id, 3).await.expect("read");
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!((last[0].kind, last[0].step.as_str()), (RunEventKind::ApprovalDecided, "b/ok"));
    assert_eq!(last[0].detail, r#"{"approved":true,"comment":"fine"}"#);
    let owner = claimed(store).await;
    assert_eq!((owner.id, owner.state), (id, RunState::Running));
    // A decision that comes before the run is released wakes it at once.
    store.decide(id, decision("a/ok", "")).await.expect("decided");
    store.release(id, owner.epoch, Release::Waiting(vec!["a/ok".into()], "?".into())).await.expect("released");
    let owner = claimed(store).await;
    store.append(id, owner.epoch, end(RunState::Failed)).await.expect("ended");
    let late = store.decide(id, decision("a/ok", "")).await;
    assert!(matches!(late, Err(RunStoreError::Ended { state: RunState::Failed, .. })), "{late:?}");
}

/// A cancellation is kept, wakes a run that nobody owns, and is refused when the run has ended.
///
/// # Panics
/// The store does not conform.
pub async fn cancellations_are_kept(store: &dyn RunStore) {
    let id = store.start(draft(store, "ann"), None).await.expect("started").id;
    let owner = claimed(store).await;
    let waiting = vec![("ok".to_owned(), store.now_ms() + LONG)];
    store.append(id, owner.epoch, Advance { waiting, ..Advance::default() }).await.expect("asked");
    store.release(id, owner.epoch, Release::Waiting(vec!["ok".into()], "?".into())).await.expect("released");
    assert!(store.claim(LONG).await.expect("claimed").is_none());
    let asked = store.cancel(id, "k".into()).await.expect("cancelled");
    assert_eq!(asked.cancel.as_deref(), Some("k"));
    let owner = claimed(store).await;
    assert_eq!(owner.cancel.as_deref(), Some("k"));
    store.cancel(id, String::new()).await.expect("asked twice");
    // Released for a question, a cancelled run does not wait.
    store.release(id, owner.epoch, Release::Waiting(vec!["ok".into()], "?".into())).await.expect("released");
    let owner = claimed(store).await;
    store.append(id, owner.epoch, end(RunState::Cancelled)).await.expect("ended");
    assert_eq!(store.cancel(id, "k".into()).await.expect("the same again").state, RunState::Cancelled);
    let late = store.cancel(id, "other".into()).await;
    assert!(matches!(late, Err(RunStoreError::Ended { state: RunState::Cancelled, .. })), "{late:?}");
}

/// Ended runs leave nothing after their time; others stay.
///
/// # Panics
/// The store does not conform.
pub async fn ended_runs_are_removed_whole(store: &dyn RunStore) {
    let gone = store.start(draft(store, "ann"), None).await.expect("started").id;
    let owner = claimed(store).await;
    // More entries than one step of a sweep takes.
    for _ in 0..13 {
        let many = (0..100).map(|_| entry(RunEventKind::StepStarted, "s")).collect();
        store.append(gone, owner.epoch, advance(many)).await.expect("appended");
    }
    store.append(gone, owner.epoch, end(RunState::Succeeded)).await.expect("ended");
    let stays = store.start(draft(store, "ann"), None).await.expect("started").id;
    let ended = read(store, gone).await.ended_at_ms;
    assert_eq!(store.sweep(ended - 1).await.expect("swept"), 0);
    assert_eq!(store.sweep(ended).await.expect("swept"), 1);
    assert!(store.run(gone).await.expect("read").is_none());
    assert_eq!(store.journal(gone, 0).await.expect("read"), []);
    assert!(matches!(store.texts(gone).await, Err(RunStoreError::UnknownRun(_))));
    let left = store.runs(Some(name("ann")), PageRequest { size: 10, token: String::new() }).await.expect("listed");
    assert_eq!(left.rows.iter().map(|run| run.id).collect::<Vec<_>>(), [stays]);
    assert_eq!(store.journal(stays, 0).await.expect("read").len(), 1);
}

/// An erasure leaves nothing of a user, takes runs from their owners, and others keep theirs.
///
/// # Panics
/// The store does not conform.
pub async fn erasure_leaves_nothing(store: &dyn RunStore) {
    let ended = store.start(draft(store, "ann"), keyed("k", 1)).await.expect("started").id;
    let owner = claimed(store).await;
    store.append(ended, owner.epoch, end(RunState::Succeeded)).await.expect("ended");
    let running = store.start(draft(store, "Ann"), None).await.expect("started").id;
    let owner = claimed(store).await;
    let queued = store.start(draft(store, "ann"), None).await.expect("started").id;
    let other = store.start(draft(store, "anna"), keyed("k", 1)).await.expect("started").id;
    assert_eq!(store.erase(name("ANN"), u64::MAX).await.expect("erased"), 3);
    for id in [ended, running, queued] {
        assert!(store.run(id).await.expect("read").is_none());
        assert_eq!(store.journal(id, 0).await.expect("read"), []);
    }
    let late = store.append(running, owner.epoch, Advance::default()).await;
    assert!(matches!(late, Err(RunStoreError::UnknownRun(_))), "{late:?}");
    assert_eq!(claimed(store).await.id, other);
    assert_eq!(store.start(draft(store, "anna"), keyed("k", 1)).await.expect("again").id, other);
    // The key of the erased user is free for any request.
    assert_ne!(store.start(draft(store, "ann"), keyed("k", 2)).await.expect("started").id, ended);
    assert_eq!(store.sweep(u64::MAX).await.expect("swept"), 0, "no index leads to what is gone");
}

/// An erasure does not reach the runs of a later account of the same name, and accounts are followed.
///
/// # Panics
/// The store does not conform.
pub async fn accounts_are_followed(store: &dyn RunStore) {
    let (ann, ben) = (UserId::new(1), UserId::new(2));
    let created = vec![(ann, name("ann")), (ben, name("ben"))];
    for _ in 0..2 {
        store.follow(Followed { created: created.clone(), ..Followed::default() }).await.expect("kept");
    }
    assert_eq!(store.account(ann).await.expect("read"), Some(name("ann")));
    let earlier = store.start(draft(store, "ann"), None).await.expect("started").id;
    let later = RunDraft { id: RunId::new(store.now_ms() + 60_000), ..draft(store, "ann") };
    let later = store.start(later, keyed("k", 1)).await.expect("started").id;
    assert_eq!(store.erase(name("ann"), store.now_ms() + 1_000).await.expect("erased"), 1);
    assert!(store.run(earlier).await.expect("read").is_none());
    assert!(store.run(later).await.expect("read").is_some());
    store.follow(Followed { erased: vec![ann], ..Followed::default() }).await.expect("kept");
    assert_eq!(store.account(ann).await.expect("read"), None);
    assert_eq!(store.account(ben).await.expect("read"), Some(name("ben")));
}

/// That an account is gone whose name is not known is remembered, also once it was kept as gone.
///
/// # Panics
/// The store does not conform.
pub async fn accounts_that_went_without_a_name_are_remembered(store: &dyn RunStore) {
    let (ann, ben) = (UserId::new(1), UserId::new(2));
    for _ in 0..2 {
        store.follow(Followed { unnamed: vec![(ann, 7)], ..Followed::default() }).await.expect("kept");
    }
    assert_eq!(store.unnamed(vec![ben, ann]).await.expect("read"), [(ann, 7)]);
    store.follow(Followed { created: vec![(ann, name("ann"))], ..Followed::default() }).await.expect("kept");
    assert_eq!(store.account(ann).await.expect("read"), Some(name("ann")), "for who looks again");
    store.follow(Followed { erased: vec![ann], ..Followed::default() }).await.expect("kept");
    assert_eq!(store.account(ann).await.expect("read"), None);
    assert_eq!(store.unnamed(vec![ann]).await.expect("read"), [(ann, 7)], "what is told of it may come again");
}
