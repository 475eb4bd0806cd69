//! What every store must do for experiments. Each takes an empty store.

use echotune_api::events::Payload;
use echotune_model::{
    Decision, Evidence, Experiment, ExperimentKind, ExperimentSpec, ExperimentState, Feedback, Hlc, Impression, ItemId,
    Metric, PARTS, PolicyChange, Signal, TraceId, UserId, Variant, Verdict,
};

use super::{event, progress};
use crate::store::{ArmSums, Explored, Learnt, ListNote, Named, ONE, RecommendationStore, Served, Shares, ShownAt};

/// An experiment of a control and one other variant, begun at a time.
pub fn experiment(name: &str, kind: ExperimentKind, started_at_ms: u64, window_ms: u64) -> Experiment {
    let variant = |name: &str| Variant { name: name.into(), weight: PARTS / 2, change: PolicyChange::default() };
    let spec = ExperimentSpec {
        name: name.into(),
        hypothesis: "none".into(),
        kind,
        variants: vec![variant("control"), variant("other")],
        share: PARTS,
        primary: Metric::Acceptance,
        guardrails: Vec::new(),
        alpha: 0.05,
        min_listeners: 0,
        max_listeners: 0,
        min_duration_ms: 0,
        max_duration_ms: 0,
        slow_list_ms: 100,
        window_ms,
        auto_stop: true,
    };
    let (state, first_slot) = (ExperimentState::Running, 0);
    Experiment { spec, state, first_slot, started_at_ms, stopped_at_ms: 0, decision: None }
}

fn served(experiment: &str, variant: u8) -> Served {
    Served {
        experiment: experiment.into(),
        variant,
        share: 0.5,
        propensities: Vec::new(),
        teams: Vec::new(),
        explored: Vec::new(),
    }
}

fn items() -> Vec<ItemId> {
    ["a", "b", "c", "d"].into_iter().map(ItemId::artist).collect()
}

/// Two accounts and an experiment.
async fn world(store: &dyn RecommendationStore, experiment: Experiment) -> [UserId; 2] {
    let users = [UserId::new(1), UserId::new(2)];
    let joined = users
        .iter()
        .zip(["ann", "ben"])
        .map(|(user, name)| event(*user, 1, Payload::UserCreated { name: name.parse().expect("a name") }));
    store.apply(joined.collect(), 0, progress(2)).await.expect("applied");
    assert!(store.create_experiment(experiment).await.expect("kept"));
    users
}

async fn show(store: &dyn RecommendationStore, user: UserId, trace: u128, at: u64, served: Option<Served>) {
    let shown = Impression { trace: TraceId(trace), model_version: "m".into(), items: items() };
    store.record_impression(user, shown, ShownAt { served, at: Hlc::from_ms(at) }).await.expect("noted");
}

async fn say(store: &dyn RecommendationStore, user: UserId, trace: u128, item: usize, signal: Signal) {
    let feedback = Feedback { item: items()[item], signal, trace: TraceId(trace) };
    let item = Named { title: String::new(), artist: "a".into() };
    store.record_feedback(user, feedback, item, Hlc::from_ms(trace as u64), progress(2)).await.expect("noted");
}

/// Impressions with explored items are told with their chances and what became of them, and no others are; an
/// erased listener's go.
///
/// # Panics
/// The store does otherwise.
pub async fn explored(store: &dyn RecommendationStore) {
    let [ann, ben] = world(store, experiment("one", ExperimentKind::Split, 1, 0)).await;
    let explored = vec![(2, [1; 5]), (3, [2; 5])];
    let exploring =
        || Some(Served { propensities: vec![1.0, 1.0, 0.25, 0.5], explored: explored.clone(), ..served("one", 1) });
    show(store, ann, 10, 10, exploring()).await;
    show(store, ann, 11, 11, Some(served("one", 1))).await;
    show(store, ben, 20, 20, exploring()).await;
    say(store, ann, 10, 3, Signal::Liked).await;
    say(store, ben, 20, 2, Signal::Skipped).await;
    let found = store.explored(10).await.expect("read");
    let row = |user, liked| Explored { user, items: items(), explored: vec![(2, 0.25, false), (3, 0.5, liked)] };
    assert_eq!(found, [row(ann, true), row(ben, false)]);
    assert_eq!(store.explored(1).await.expect("read").len(), 1);
    store.apply(vec![event(ann, 30, Payload::UserErased)], 0, progress(3)).await.expect("applied");
    assert_eq!(store.explored(10).await.expect("read"), [row(ben, false)]);
}

async fn sums(store: &dyn RecommendationStore, name: &str) -> Vec<ArmSums> {
    store.experiment(name).await.expect("read").expect("known").1
}

/// A share of so many quarters of one listener.
const fn quarters(quarters: u128) -> Shares {
    let share = quarters << 30;
    Shares { count: 1, sum: share, squares: share * share }
}

/// A name is taken once, the newest comes first, and the first decision stays.
///
/// # Panics
/// The store does otherwise.
pub async fn kept(store: &dyn RecommendationStore) {
    let split = ExperimentKind::Split;
    for (name, at) in [("one", 5), ("two", 7)] {
        assert!(store.create_experiment(experiment(name, split, at, 0)).await.expect("kept"));
        assert!(!store.create_experiment(experiment(name, split, at + 9, 0)).await.expect("refused"));
    }
    let names = |all: Vec<Experiment>| all.into_iter().map(|one| one.spec.name).collect::<Vec<_>>();
    assert_eq!(names(store.experiments().await.expect("read")), ["two", "one"]);
    let decision = |verdict, at| Decision { verdict, variant: "other".into(), reason: "why".into(), decided_at_ms: at };
    let evidence = Evidence { ratio_p_value: 0.5, ..Evidence::default() };
    for (verdict, at) in [(Verdict::Harm, 20), (Verdict::Better, 30)] {
        let stopped = store.stop_experiment("one", decision(verdict, at), evidence.clone()).await.expect("stopped");
        let stopped = stopped.expect("known");
        assert_eq!(stopped.experiment.decision, Some(decision(Verdict::Harm, 20)));
        assert_eq!((stopped.experiment.state, stopped.experiment.stopped_at_ms), (ExperimentState::Stopped, 20));
        assert_eq!(stopped.evidence, Some(evidence.clone()));
        assert_eq!(store.experiment("one").await.expect("read").expect("known").0, stopped);
    }
    assert_eq!(store.experiment("two").await.expect("read").expect("known").1, [ArmSums::default(); 2]);
    assert!(store.stop_experiment("none", decision(Verdict::Harm, 1), evidence).await.expect("nothing").is_none());
    assert!(store.experiment("none").await.expect("read").is_none());
}

/// Impressions, their feedback and lists are summed up by variant, each once, until the experiment stops.
///
/// # Panics
/// The store does otherwise.
pub async fn accrual(store: &dyn RecommendationStore) {
    let [ann, ben] = world(store, experiment("one", ExperimentKind::Split, 1, 0)).await;
    for _ in 0..2 {
        show(store, ann, 10, 10, Some(served("one", 1))).await;
    }
    show(store, ann, 11, 11, None).await;
    show(store, ann, 12, 12, Some(served("unknown", 1))).await;
    say(store, ann, 10, 0, Signal::Skipped).await;
    say(store, ann, 10, 0, Signal::Liked).await;
    say(store, ann, 10, 1, Signal::Disliked).await;
    say(store, ann, 11, 2, Signal::Liked).await;
    // Feedback may be here before the news that the list was shown.
    say(store, ben, 20, 3, Signal::Played).await;
    show(store, ben, 20, 20, Some(served("one", 0))).await;
    let note = |user, variant, empty| ListNote { user, experiment: "one".into(), variant, lists: 4, empty, slow: 1 };
    store.note_lists(vec![note(ann, 1, 2), note(ben, 0, 0)], Hlc::from_ms(30)).await.expect("noted");
    store.note_lists(vec![note(UserId::new(3), 1, 2)], Hlc::from_ms(30)).await.expect("passed over");
    let arm = |accepted, refused, empty| ArmSums {
        listeners: 1,
        impressions: 1,
        items: 4,
        accepted,
        refused,
        lists: 4,
        empty_lists: empty,
        slow_lists: 1,
        metrics: [accepted, refused, empty, 1].map(|count| quarters(u128::from(count))),
        preference: Shares::default(),
    };
    assert_eq!(sums(store, "one").await, [arm(1, 0, 0), arm(1, 1, 2)]);
    let decision =
        Decision { verdict: Verdict::Stopped, variant: String::new(), reason: String::new(), decided_at_ms: 40 };
    store.stop_experiment("one", decision, Evidence::default()).await.expect("stopped");
    show(store, ann, 13, 50, Some(served("one", 1))).await;
    say(store, ann, 10, 2, Signal::Liked).await;
    assert_eq!(sums(store, "one").await, [arm(1, 0, 0), arm(1, 1, 2)], "what was decided on stays");
}

/// With a window, values count when it has passed, and no longer change.
///
/// # Panics
/// The store does otherwise.
pub async fn windows(store: &dyn RecommendationStore) {
    let [ann, ben] = world(store, experiment("one", ExperimentKind::Split, 1, 100)).await;
    show(store, ann, 10, 1_000, Some(served("one", 1))).await;
    show(store, ben, 20, 1_050, Some(served("one", 1))).await;
    say(store, ann, 10, 0, Signal::Liked).await;
    let acceptance = async || sums(store, "one").await[1].metrics[0];
    assert_eq!(store.close_windows(1_099).await.expect("closed"), 0);
    assert_eq!((acceptance().await, sums(store, "one").await[1].accepted), (Shares::default(), 1));
    assert_eq!(store.close_windows(1_100).await.expect("closed"), 1);
    assert_eq!(acceptance().await, quarters(1));
    say(store, ann, 10, 1, Signal::Liked).await;
    show(store, ann, 11, 1_200, Some(served("one", 1))).await;
    assert_eq!((acceptance().await, sums(store, "one").await[1].impressions), (quarters(1), 2));
    // One who is erased has no window any more.
    store.apply(vec![event(ben, 9, Payload::UserErased)], 0, progress(3)).await.expect("applied");
    assert_eq!(store.close_windows(9_999).await.expect("closed"), 0);
    assert_eq!((acceptance().await, sums(store, "one").await[1].listeners), (quarters(1), 1));
}

/// When variants are interleaved, items count for the variant that they were drawn from, and a listener
/// prefers one, the other or neither.
///
/// # Panics
/// The store does otherwise.
pub async fn interleaving(store: &dyn RecommendationStore) {
    let [ann, ben] = world(store, experiment("one", ExperimentKind::Interleaving, 1, 0)).await;
    let drafted = || Some(Served { teams: vec![0, 1, 1, 0], ..served("one", 0) });
    show(store, ann, 10, 10, drafted()).await;
    show(store, ben, 20, 20, drafted()).await;
    let preference = async || sums(store, "one").await[1].preference;
    for (user, trace, item, expected) in
        [(ann, 10, 1, (1, 4)), (ann, 10, 2, (1, 4)), (ben, 20, 0, (2, 4)), (ben, 20, 2, (1, 4)), (ben, 20, 3, (2, 4))]
    {
        say(store, user, trace, item, Signal::Liked).await;
        let Shares { count, sum, .. } = preference().await;
        assert_eq!((count, sum >> 30), expected, "{item}");
    }
    let arms = sums(store, "one").await;
    let counts: Vec<_> = arms.iter().map(|arm| (arm.listeners, arm.impressions, arm.items, arm.accepted)).collect();
    assert_eq!(counts, [(2, 2, 4, 2), (2, 2, 4, 3)]);
}

/// Erasure takes a listener out of every sum and out of what was learnt, to the last bit, and spares others.
///
/// # Panics
/// The store does otherwise.
pub async fn erasure(store: &dyn RecommendationStore) {
    let [ann, ben] = world(store, experiment("one", ExperimentKind::Split, 1, 0)).await;
    let features = |n: u32| [ONE, ONE / 3 * n % ONE, ONE / 7 * n % ONE, n, 0];
    let explored = |n: u32| Some(Served { explored: vec![(2, features(n)), (3, features(n + 1))], ..served("one", 1) });
    show(store, ben, 20, 20, explored(3)).await;
    say(store, ben, 20, 3, Signal::Played).await;
    let before = (sums(store, "one").await, store.learnt().await.expect("read"));
    assert_eq!((before.1.count, before.1.rewards), (2, features(4).map(u64::from)));
    for trace in 10..13_u64 {
        show(store, ann, trace.into(), trace, explored(1)).await;
        say(store, ann, trace.into(), 3, Signal::Liked).await;
        say(store, ann, trace.into(), 0, Signal::Skipped).await;
    }
    say(store, ann, 11, 3, Signal::Disliked).await;
    let learnt = store.learnt().await.expect("read");
    assert_eq!((learnt.count, learnt.rewards[0]), (8, 3 * u64::from(ONE)), "what is no longer liked earns nothing");
    assert_ne!(sums(store, "one").await, before.0);
    let erased = vec![event(ann, 9, Payload::UserErased), event(ann, 10, Payload::UserErased)];
    store.apply(erased, 0, progress(3)).await.expect("applied");
    assert_eq!((sums(store, "one").await, store.learnt().await.expect("read")), before);
    // Nothing is left to be erased, nor comes back late.
    show(store, ann, 14, 14, explored(1)).await;
    assert_eq!(sums(store, "one").await, before.0);
    store.apply(vec![event(ben, 11, Payload::UserErased)], 0, progress(4)).await.expect("applied");
    assert_eq!(sums(store, "one").await, [ArmSums::default(); 2]);
    assert_eq!(store.learnt().await.expect("read"), Learnt::default());
}
