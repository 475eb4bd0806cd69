//! Experiments from the first list to the verdict.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use echotune_api::{Experiments, Recommendations, events::Payload};
use echotune_kit::embedded::{Batch, Key, StoreError, Table};
use echotune_model::{
    Call, ErrorKind, ExperimentKind, ExperimentSpec, ExperimentState, Exposure, Fault, Feedback, Guardrail, Impression,
    ItemId, ItemKind, Metric, PARTS, PageRequest, PolicyChange, Recommendations as List, ServedModel, Signal, TraceId,
    Variant, Verdict,
};
use echotune_recommendations::{
    EmbeddedRecommendationStore, Fitting, Policy, RecommendationsService, ReleaseLimits, watch_experiments,
};
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::world::{World, call, call_of, played, query, user};

const ARTISTS: u128 = 60;

fn name(n: u128) -> String {
    format!("user{n}")
}

/// Listeners 1 to `count` who each know three of the artists.
async fn crowd(count: u128) -> World {
    let world = World::new();
    let of = |n: u128| {
        let artist = |step: u128| format!("artist {}", (n * 7 + step * step) % ARTISTS);
        let known = [artist(1), artist(2), artist(3)];
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let created = Payload::UserCreated { name: name(n).parse().expect("a name") };
        [(user(n), created), (user(n), played(&known, 3))]
    };
    world.publish_all((1..=count).flat_map(of).collect()).await;
    world.service.refit().await;
    world
}

fn variant(name: &str, weight: u32, change: PolicyChange) -> Variant {
    Variant { name: name.into(), weight, change }
}

fn spec(name: &str, change: PolicyChange) -> ExperimentSpec {
    ExperimentSpec {
        name: name.into(),
        hypothesis: "listeners like what is popular".into(),
        kind: ExperimentKind::Split,
        variants: vec![variant("control", PARTS / 2, PolicyChange::default()), variant("other", PARTS / 2, change)],
        share: PARTS,
        primary: Metric::Acceptance,
        guardrails: vec![Guardrail { metric: Metric::Refusal, margin: 0.2 }],
        alpha: 0.05,
        min_listeners: 100,
        max_listeners: 400,
        min_duration_ms: 0,
        max_duration_ms: 0,
        slow_list_ms: 60_000,
        window_ms: 0,
        auto_stop: true,
    }
}

fn popular() -> PolicyChange {
    PolicyChange { trending_weight: Some(1.0), ..PolicyChange::default() }
}

fn traced(trace: u128) -> Call {
    Call { trace: TraceId(trace), ..call() }
}

async fn list_of(api: &dyn Recommendations, n: u128, trace: u128) -> List {
    api.recommend(&traced(trace), &name(n), &query(ItemKind::Artist, 10)).await.expect("recommended")
}

fn variant_of(list: &List) -> Option<&str> {
    list.exposure.as_ref().map(|exposure| exposure.variant.as_str())
}

async fn show(api: &dyn Recommendations, n: u128, list: &List, most: usize) -> Vec<ItemId> {
    let items: Vec<ItemId> = list.items.iter().take(most).map(|item| item.id).collect();
    let shown = Impression { trace: list.trace, model_version: list.model_version.clone(), items: items.clone() };
    api.record_impression(&call(), &name(n), shown).await.expect("noted");
    items
}

async fn say(api: &dyn Recommendations, n: u128, trace: TraceId, item: ItemId, signal: Signal) {
    api.record_feedback(&call(), &name(n), Feedback { item, signal, trace }).await.expect("noted");
}

#[tokio::test]
async fn a_listener_keeps_the_variant_over_lists_and_restarts_and_lists_obey_it() {
    let world = crowd(200).await;
    let plain = list_of(&world.service, 1, 1).await;
    assert_eq!(plain.exposure, None);
    world.service.create_experiment(&call(), spec("popular-first", popular())).await.expect("begun");
    let again = RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    again.refit().await;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for n in 1..=200 {
        let (list, same) = (list_of(&world.service, n, n).await, list_of(&again, n, n + 500).await);
        assert_eq!(list.exposure, same.exposure);
        let ids = |list: &List| list.items.iter().map(|item| item.id).collect::<Vec<_>>();
        assert_eq!(ids(&list), ids(&same));
        let Exposure { experiment, variant, propensity } = list.exposure.clone().expect("all take part");
        assert_eq!((experiment.as_str(), propensity), ("popular-first", 0.5));
        let trending = |reasons: &[echotune_model::Reason]| {
            reasons.iter().filter(|one| one.of == "all listeners").map(|one| one.contribution).sum::<f64>()
        };
        let most = list.items.iter().map(|item| trending(&item.reasons)).fold(0.0, f64::max);
        assert_eq!(most > 0.01, variant == "other", "{most} for {variant}");
        let told = world.service.explain(&call(), &name(n), list.items[0].id).await.expect("explained");
        assert_eq!(told.items[0].score, list.items[0].score, "what explains a list obeys the same");
        *seen.entry(variant).or_default() += 1;
    }
    assert!(seen.values().all(|count| (70..=130).contains(count)), "{seen:?}");
}

#[tokio::test]
async fn harm_ends_an_experiment_by_itself_and_lists_are_as_before_at_once() {
    let world = crowd(320).await;
    // One who likes nothing, in whichever variant.
    let plain = list_of(&world.service, 5, 1).await;
    world.service.create_experiment(&call(), spec("harm", popular())).await.expect("begun");
    let api = &world.service;
    let listened = (1..=320_u128).map(|n| async move {
        let list = list_of(api, n, 1_000 + n).await;
        let shown = show(api, n, &list, 2).await;
        let likes = if variant_of(&list) == Some("other") { n % 10 == 0 } else { n % 5 != 0 };
        if likes {
            say(api, n, list.trace, shown[0], Signal::Liked).await;
        }
    });
    futures::future::join_all(listened).await;
    let (before, evidence) = world.service.get_experiment(&call(), "harm").await.expect("known");
    assert_eq!(before.state, ExperimentState::Running);
    assert_eq!(before.decision.expect("said").verdict, Verdict::Harm);
    assert_eq!(evidence.arms.iter().map(|arm| arm.listeners).sum::<u64>(), 320);
    assert_eq!(evidence.arms.iter().map(|arm| arm.lists).sum::<u64>(), 320);
    let stop = CancellationToken::new();
    let watch = tokio::spawn(watch_experiments(world.service.clone(), Duration::from_millis(5), stop.clone()));
    let ended = async {
        loop {
            let (experiment, evidence) = world.service.get_experiment(&call(), "harm").await.expect("known");
            if experiment.state == ExperimentState::Stopped {
                return (experiment, evidence);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (experiment, kept) = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends by itself");
    let decision = experiment.decision.expect("decided");
    assert_eq!((decision.verdict, decision.variant.as_str()), (Verdict::Harm, "other"));
    assert!(decision.reason.contains("acceptance") && experiment.stopped_at_ms > 0, "{decision:?}");
    let goal = &kept.findings[0];
    assert!(goal.high < 0.0 && goal.treated < goal.control, "{goal:?}");
    let after = list_of(&world.service, 5, 2).await;
    assert_eq!((after.exposure, after.items), (None, plain.items));
    stop.cancel();
    watch.await.expect("joined").expect("stopped");
}

#[tokio::test]
async fn a_client_that_loses_one_variants_lists_is_found_by_the_ratio() {
    let world = crowd(2_400).await;
    let mut asked = spec("ratio", PolicyChange::default());
    asked.max_listeners = 0;
    world.service.create_experiment(&call(), asked).await.expect("begun");
    let api = &world.service;
    let listened = (1..=2_400_u128).map(|n| async move {
        let list = list_of(api, n, n).await;
        if variant_of(&list) == Some("control") || n % 2 == 0 {
            show(api, n, &list, 3).await;
        }
    });
    futures::future::join_all(listened).await;
    world.service.look_after_experiments().await.expect("looked");
    let (experiment, evidence) = world.service.get_experiment(&call(), "ratio").await.expect("known");
    let decision = experiment.decision.expect("decided");
    assert_eq!((experiment.state, decision.verdict), (ExperimentState::Stopped, Verdict::BadRatio), "{evidence:?}");
    assert!(evidence.ratio_p_value < 1e-3 && decision.reason.contains("ratio"), "{decision:?}");
}

#[tokio::test]
async fn what_is_explored_is_kept_with_the_services_own_propensities_and_learnt_from() {
    let world = crowd(120).await;
    let explore = PolicyChange { exploration_slots: Some(3), ..PolicyChange::default() };
    let mut asked = spec("explore", explore);
    (asked.variants[0].weight, asked.variants[1].weight) = (1, PARTS - 1);
    world.service.create_experiment(&call(), asked).await.expect("begun");
    let mut explored = HashSet::new();
    for n in 1..=60 {
        let list = list_of(&world.service, n, n).await;
        assert_eq!((list.items.len(), variant_of(&list)), (10, Some("other")));
        let (sure, open) = list.items.split_at(7);
        assert!(sure.iter().all(|item| item.propensity == 1.0));
        assert!(open.iter().all(|item| item.propensity > 0.0 && item.propensity < 1.0), "{open:?}");
        assert_eq!(list.items.iter().map(|item| item.rank).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        explored.extend(open.iter().map(|item| item.id));
        let shown = show(&world.service, n, &list, 10).await;
        say(&world.service, n, list.trace, shown[9], Signal::Played).await;
        let export = world.service.export_user(&call(), &name(n), &PageRequest::default()).await.expect("exported");
        let json: serde_json::Value = serde_json::from_str(&export.rows[0].json).expect("JSON");
        assert_eq!((json["experiment"].as_str(), json["variant"].as_u64()), (Some("explore"), Some(1)));
        for (kept, item) in json["items"].as_array().expect("items").iter().zip(&list.items) {
            assert!((kept["propensity"].as_f64().expect("kept") - item.propensity).abs() < 1e-12);
        }
        assert!(export.rows.iter().any(|row| row.kind == "experiment"), "{export:?}");
    }
    assert!(explored.len() > 10, "chance chooses among many: {}", explored.len());
    world.service.look_after_experiments().await.expect("learnt");
    // A list that this service did not make, or makes no longer known, is shown without an experiment.
    let mut forged = list_of(&world.service, 61, 61).await;
    forged.trace = TraceId(99_999);
    show(&world.service, 61, &forged, 10).await;
    let export = world.service.export_user(&call(), &name(61), &PageRequest::default()).await.expect("exported");
    assert!(export.rows[0].json.contains("\"experiment\":null"), "{}", export.rows[0].json);
}

#[tokio::test]
async fn an_erased_listener_leaves_the_figures() {
    let world = crowd(40).await;
    world.service.create_experiment(&call(), spec("erased", popular())).await.expect("begun");
    let list = list_of(&world.service, 3, 30).await;
    let shown = show(&world.service, 3, &list, 4).await;
    say(&world.service, 3, list.trace, shown[0], Signal::Liked).await;
    let late = list_of(&world.service, 3, 31).await;
    let counted = async || {
        let (_, evidence) = world.service.get_experiment(&call(), "erased").await.expect("known");
        let sum = |of: fn(&echotune_model::Arm) -> u64| evidence.arms.iter().map(of).sum::<u64>();
        [sum(|arm| arm.listeners), sum(|arm| arm.items), sum(|arm| arm.accepted), sum(|arm| arm.lists)]
    };
    assert_eq!(counted().await, [1, 4, 1, 2]);
    list_of(&world.service, 3, 32).await;
    world.publish(user(3), vec![Payload::UserErased]).await;
    assert_eq!(counted().await, [0; 4]);
    let shown = late.items.iter().map(|item| item.id).collect();
    let shown = Impression { trace: late.trace, model_version: late.model_version, items: shown };
    let gone = world.service.record_impression(&call(), &name(3), shown).await.expect_err("erased");
    assert_eq!((gone.kind, counted().await), (ErrorKind::NotFound, [0; 4]));
}

fn lists_counted(evidence: &echotune_model::Evidence) -> u64 {
    evidence.arms.iter().map(|arm| arm.lists).sum()
}

#[tokio::test]
async fn lists_are_counted_though_who_asks_for_the_figures_leaves_before_they_are_written() {
    let world = crowd(4).await;
    world.service.create_experiment(&call(), spec("left", popular())).await.expect("begun");
    for n in 1..=3 {
        list_of(&world.service, n, n).await;
    }
    let (busy, is_busy) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let db = world.db.clone();
    let writing = tokio::spawn(async move {
        db.write(move |_| {
            busy.send(()).expect("the test waits");
            released.recv().expect_err("it goes on when the test lets go");
            Ok::<_, StoreError>(((), Batch::default()))
        })
        .await
    });
    is_busy.await.expect("the store writes");
    let asked = world.service.get_experiment(&call(), "left").now_or_never();
    assert!(asked.is_none(), "what was counted waits for the store");
    tokio::task::yield_now().await;
    list_of(&world.service, 4, 4).await;
    drop(release);
    writing.await.expect("joined").expect("written");
    let (_, evidence) = world.service.get_experiment(&call(), "left").await.expect("known");
    assert_eq!(lists_counted(&evidence), 4);
}

#[tokio::test]
async fn lists_are_counted_once_though_the_store_refuses_them_or_some_of_them() {
    const UNITS: Table = Table("recommendations.experiment_units");
    // More than are written at once: some may be written before others are refused.
    const LISTENERS: u128 = 1_500;
    let world = crowd(LISTENERS).await;
    world.service.create_experiment(&call(), spec("refused", popular())).await.expect("begun");
    for n in 1..=LISTENERS {
        list_of(&world.service, n, n).await;
    }
    let key = Key::new().fixed(user(7).0.as_bytes()).fixed(b"refused");
    let row = async |damage: Option<Vec<u8>>| {
        let (mut batch, key) = (Batch::default(), key.clone());
        match damage {
            Some(bytes) => batch.put_bytes(UNITS, key, bytes),
            None => batch.delete(UNITS, key),
        }
        world.db.write(move |_| Ok::<_, StoreError>(((), batch))).await.expect("written");
    };
    row(Some(vec![0xc1])).await;
    for _ in 0..2 {
        kinds(ErrorKind::DataLoss, world.service.get_experiment(&call(), "refused").await);
    }
    list_of(&world.service, 7, LISTENERS + 1).await;
    row(None).await;
    for _ in 0..2 {
        let (_, evidence) = world.service.get_experiment(&call(), "refused").await.expect("known");
        assert_eq!(u128::from(lists_counted(&evidence)), LISTENERS + 1);
    }
}

#[tokio::test]
async fn interleaved_lists_are_drafted_from_both_and_the_better_one_is_found() {
    let world = crowd(160).await;
    let mut asked = spec("both", popular());
    (asked.kind, asked.guardrails) = (ExperimentKind::Interleaving, Vec::new());
    world.service.create_experiment(&call(), asked).await.expect("begun");
    for n in 1..=60 {
        let list = list_of(&world.service, n, n).await;
        assert_eq!((list.items.len(), variant_of(&list)), (10, Some("")));
        let ids: HashSet<ItemId> = list.items.iter().map(|item| item.id).collect();
        let from = |name: &str| list.items.iter().filter(|item| item.drawn_from == name).count();
        assert_eq!((ids.len(), from("control"), from("other")), (10, 5, 5));
        show(&world.service, n, &list, 10).await;
        let liked = list.items.iter().find(|item| item.drawn_from == "other").expect("drawn");
        say(&world.service, n, list.trace, liked.id, Signal::Liked).await;
    }
    world.service.look_after_experiments().await.expect("looked");
    let (experiment, _) = world.service.get_experiment(&call(), "both").await.expect("known");
    assert_eq!(experiment.decision.expect("said").verdict, Verdict::Continue, "too few listeners to end");
    for n in 61..=120 {
        let list = list_of(&world.service, n, n).await;
        show(&world.service, n, &list, 10).await;
        let liked = list.items.iter().find(|item| item.drawn_from == "other").expect("drawn");
        say(&world.service, n, list.trace, liked.id, Signal::Liked).await;
    }
    world.service.look_after_experiments().await.expect("looked");
    let (experiment, evidence) = world.service.get_experiment(&call(), "both").await.expect("known");
    let decision = experiment.decision.expect("decided");
    assert_eq!((decision.verdict, decision.variant.as_str()), (Verdict::Better, "other"), "{evidence:?}");
    assert_eq!(evidence.arms.iter().map(|arm| arm.accepted).collect::<Vec<_>>(), [0, 120]);
}

#[tokio::test]
async fn tracks_of_one_artist_are_limited_and_the_model_before_serves() {
    let world = World::new();
    let songs = |from: u32, to: u32, artist: &str| Payload::HistoryChanged {
        tallies: (from..to)
            .map(|n| echotune_model::Tally {
                track: echotune_model::Track {
                    title: format!("song {n}"),
                    artist: artist.into(),
                    album: String::new(),
                },
                plays: 1,
                last_listened_at_ms: crate::world::NOW,
                explicit: None,
            })
            .collect(),
    };
    for n in 1..=3 {
        world.join(n, &name(n), &[]).await;
    }
    world.publish(user(1), vec![songs(0, 12, "one"), songs(0, 3, "two"), songs(0, 3, "three")]).await;
    world.publish(user(2), vec![songs(0, 1, "two")]).await;
    world.service.refit().await;
    let change =
        PolicyChange { max_per_artist: Some(2), model: Some(ServedModel::Previous), ..PolicyChange::default() };
    let mut asked = spec("varied", change);
    (asked.variants[0].weight, asked.variants[1].weight) = (1, PARTS - 1);
    let before = world.service.model_version();
    world.service.create_experiment(&call(), asked).await.expect("begun");
    world.publish(user(3), vec![songs(3, 4, "two")]).await;
    world.service.refit().await;
    let list = world.service.recommend(&call(), "user2", &query(ItemKind::Track, 10)).await.expect("recommended");
    assert_eq!((variant_of(&list), list.model_version.as_str()), (Some("other"), before.as_str()));
    let of = |artist: &str| list.items.iter().filter(|item| item.artist == artist).count();
    assert_eq!((of("one"), of("two"), of("three")), (2, 2, 2), "{list:?}");
    world.service.stop_experiment(&call(), "varied", "seen enough").await.expect("stopped");
    let list = world.service.recommend(&call(), "user2", &query(ItemKind::Track, 10)).await.expect("recommended");
    assert_eq!(list.model_version, world.service.model_version());
    assert!(list.model_version > before && list.items.iter().filter(|item| item.artist == "one").count() > 2);
    // Adopted, the winner is how everybody's lists are made.
    let (store, policy) =
        (EmbeddedRecommendationStore::new(world.db.clone()), Policy { max_per_artist: 1, ..Policy::default() });
    let adopted = RecommendationsService::load_with(store, policy, ReleaseLimits::default(), &Fitting::default())
        .expect("loaded");
    adopted.refit().await;
    let list = adopted.recommend(&call(), "user2", &query(ItemKind::Track, 10)).await.expect("recommended");
    let artists: HashSet<&str> = list.items.iter().map(|item| item.artist.as_str()).collect();
    assert_eq!((list.exposure, list.items.len(), artists.len()), (None, 3, 3));
}

#[tokio::test]
async fn every_call_about_experiments_on_the_object_and_over_the_wire() {
    let world = crowd(20).await;
    every_call(&world.service, &world.service, "near").await;
    let (recommendations, experiments) = world.remotes().await;
    every_call(&recommendations, &experiments, "far").await;
}

fn kinds<T: std::fmt::Debug>(kind: ErrorKind, answer: Result<T, Fault>) {
    assert_eq!(answer.expect_err("refused").kind, kind);
}

async fn every_call(lists: &dyn Recommendations, api: &dyn Experiments, name: &str) {
    let mut asked = spec(name, PolicyChange { max_per_artist: Some(3), diversity_weight: Some(0.2), ..popular() });
    asked.share = 6_000;
    let begun = api.create_experiment(&call(), asked.clone()).await.expect("begun");
    assert_eq!((&begun.spec, begun.state, begun.decision), (&asked, ExperimentState::Running, None));
    kinds(ErrorKind::FailedPrecondition, api.create_experiment(&call(), spec("another", popular())).await);
    let (mut part, mut none) = (0, 0);
    for n in 1..=20 {
        *(if list_of(lists, n, n).await.exposure.is_some() { &mut part } else { &mut none }) += 1;
    }
    assert!(part > 5 && none > 2, "{part} take part and {none} do not");
    let (running, evidence) = api.get_experiment(&call(), name).await.expect("known");
    assert_eq!(running.decision.expect("said").verdict, Verdict::Continue);
    assert_eq!((evidence.arms.len(), evidence.findings.len(), evidence.ratio_p_value), (2, 2, 1.0));
    assert_eq!((evidence.findings[0].low, evidence.findings[0].high), (-1.0, 1.0), "nothing is known");
    assert_eq!(api.list_experiments(&call()).await.expect("listed")[0].spec.name, name);
    let (stopped, _) = api.stop_experiment(&call(), name, "enough").await.expect("stopped");
    let decision = stopped.decision.clone().expect("decided");
    assert_eq!((stopped.state, decision.verdict), (ExperimentState::Stopped, Verdict::Stopped));
    assert!(decision.reason.starts_with("enough"), "{decision:?}");
    assert_eq!(api.stop_experiment(&call(), name, "again").await.expect("as it was").0, stopped);
    for n in 1..=20 {
        assert!(list_of(lists, n, n).await.exposure.is_none());
    }
    kinds(ErrorKind::AlreadyExists, api.create_experiment(&call(), asked).await);
    for unknown in [api.get_experiment(&call(), "nothing").await, api.stop_experiment(&call(), "nothing", "").await] {
        kinds(ErrorKind::NotFound, unknown);
    }
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_and_only_the_operator_experiments() {
    let world = crowd(2).await;
    type Spoil = fn(&mut ExperimentSpec);
    let faults: [(Spoil, &str); 18] = [
        (|spec| spec.name = "Two Words".into(), "lower-case"),
        (|spec| spec.hypothesis = " ".into(), "hypothesis"),
        (|spec| spec.variants.truncate(1), "variants"),
        (|spec| spec.variants[1].name = "control".into(), "twice"),
        (|spec| spec.variants[1].weight = 4_999, "9999"),
        (|spec| spec.variants[0].change.max_per_artist = Some(1), "control"),
        (|spec| spec.variants[1].change.trending_weight = Some(f64::NAN), "trending_weight"),
        (|spec| spec.variants[1].change.diversity_weight = Some(1.5), "diversity_weight"),
        (|spec| spec.variants[1].change.exploration_slots = Some(11), "exploration_slots"),
        (|spec| spec.share = 0, "share"),
        (|spec| spec.alpha = 0.6, "alpha"),
        (|spec| spec.guardrails[0].margin = 0.0, "margin"),
        (|spec| spec.guardrails[0].metric = Metric::Acceptance, "acceptance"),
        (|spec| spec.max_listeners = 50, "min_listeners"),
        (|spec| (spec.window_ms, spec.max_duration_ms) = (9, 9), "window"),
        (|spec| spec.min_duration_ms = u64::MAX, "five years"),
        (|spec| spec.slow_list_ms = 60_001, "slow_list_ms"),
        (|spec| spec.kind = ExperimentKind::Interleaving, "guardrail"),
    ];
    for (spoil, naming) in faults {
        let mut wrong = spec("wrong", popular());
        spoil(&mut wrong);
        let fault = world.service.create_experiment(&call(), wrong).await.expect_err(naming);
        assert_eq!(fault.kind, ErrorKind::InvalidArgument);
        assert!(fault.message.contains(naming), "{naming}: {fault}");
    }
    assert!(world.service.list_experiments(&call()).await.expect("listed").is_empty());
    let caller = call_of(1, "user1");
    let denied = [
        world.service.create_experiment(&caller, spec("mine", popular())).await.map(drop),
        world.service.get_experiment(&caller, "mine").await.map(drop),
        world.service.list_experiments(&caller).await.map(drop),
        world.service.stop_experiment(&caller, "mine", "").await.map(drop),
    ];
    assert!(denied.into_iter().all(|one| one.expect_err("denied").kind == ErrorKind::PermissionDenied));
}
