//! Lists that are evened out by the genres and the popularity of what the listener plays.

use echotune_api::{Experiments as _, RecommendQuery, Recommendations, events::Payload};
use echotune_model::{
    Call, ExperimentKind, ExperimentSpec, ItemKind, Metric, PARTS, PlayCount, PolicyChange, ReasonKind, Recommendation,
    Recommendations as List, TraceId, Variant,
};
use echotune_recommendations::{EmbeddedRecommendationStore, Fitting, Policy, RecommendationsService, ReleaseLimits};

use crate::world::{World, assert_sums, call, query, tagged, user};

fn counts(artists: impl IntoIterator<Item = String>, plays: u32) -> Payload {
    let count = |artist| PlayCount { artist, plays, source: "elsewhere".into() };
    Payload::PlayCountsSet { counts: artists.into_iter().map(count).collect() }
}

/// Ann plays six of rock and two of jazz; those who know her rock know 30 more, and those who know her jazz 10.
async fn world() -> World {
    let world = World::new();
    let id = world.join(1, "ann", &[]).await;
    let known = (0..6).map(|n| format!("rock {n}")).chain((0..2).map(|n| format!("jazz {n}")));
    world.publish(id, vec![counts(known, 20)]).await;
    for n in 0..8_u32 {
        let id = world.join(u128::from(n) + 10, &format!("rocker{n}"), &[]).await;
        let known = (0..6).chain((6..36).filter(|k| (k + n) % 4 > 0)).map(|k| format!("rock {k}"));
        world.publish(id, vec![counts(known, 5)]).await;
    }
    for n in 0..3_u32 {
        let id = world.join(u128::from(n) + 30, &format!("cat{n}"), &[]).await;
        let known = (0..12).filter(|k| (k + n) % 3 > 0).map(|k| format!("jazz {k}"));
        world.publish(id, vec![counts(known, 5)]).await;
    }
    let tags = (0..36)
        .map(|n| tagged(&format!("rock {n}"), "Rock"))
        .chain((0..12).map(|n| tagged(&format!("jazz {n}"), "Jazz")));
    world.publish(user(10), tags.collect()).await;
    world.service.refit().await;
    world
}

async fn evened(world: &World, diversity_weight: f64) -> RecommendationsService {
    let store = EmbeddedRecommendationStore::new(world.db.clone());
    let policy = Policy { diversity_weight, ..Policy::default() };
    let service = RecommendationsService::load_with(store, policy, ReleaseLimits::default(), &Fitting::default())
        .expect("loaded");
    service.refit().await;
    service
}

async fn list_of(api: &dyn Recommendations, limit: u32) -> List {
    let list = api.recommend(&call(), "ann", &query(ItemKind::Artist, limit)).await.expect("recommended");
    assert_sums(&list);
    list
}

fn jazz(list: &List) -> usize {
    list.items.iter().filter(|item| item.artist.starts_with("jazz")).count()
}

fn stage_of(item: &Recommendation) -> Option<f64> {
    let mut stages = item.reasons.iter().filter(|reason| reason.kind == ReasonKind::Stage);
    let stage = stages.next().map(|reason| {
        assert_eq!(reason.of, "calibration");
        reason.contribution
    });
    assert!(stages.next().is_none());
    stage
}

#[tokio::test]
async fn a_list_gets_the_genres_of_the_history_and_tells_what_came_and_went() {
    let world = world().await;
    let plain = list_of(&world.service, 12).await;
    assert!(plain.changes.is_empty() && plain.items.iter().all(|item| stage_of(item).is_none()));
    let service = evened(&world, 1.0).await;
    let list = list_of(&service, 12).await;
    assert!(jazz(&plain) == 0 && (1..=4).contains(&jazz(&list)), "{} {}", jazz(&plain), jazz(&list));
    let best = plain.items[0].score;
    assert!(list.items.iter().all(|item| stage_of(item).is_some_and(|part| part.abs() <= best)), "{list:?}");
    assert!(list.items.iter().any(|item| stage_of(item) > Some(0.0)), "{list:?}");
    // The changes tell the list before: what is not named kept its place.
    let mut before = vec![None; 12];
    for change in &list.changes {
        assert!(change.stage == "calibration" && change.from_rank != change.to_rank, "{change:?}");
        if let Some(place) = change.from_rank.checked_sub(1) {
            before[place as usize] = Some(change.artist.clone());
        }
        let after = list.items.iter().find(|item| item.id == change.item).map_or(0, |item| item.rank);
        assert_eq!(after, change.to_rank, "{change:?}");
    }
    for item in list.items.iter().filter(|item| list.changes.iter().all(|change| change.item != item.id)) {
        before[item.rank as usize - 1] = Some(item.artist.clone());
    }
    let told: Vec<&str> = before.iter().flatten().map(String::as_str).collect();
    assert_eq!(told, plain.items.iter().map(|item| item.artist.as_str()).collect::<Vec<_>>());
    assert!(list.changes.iter().any(|change| change.from_rank == 0 && change.artist.starts_with("jazz")));
    assert!(list.changes.iter().any(|change| change.to_rank == 0 && change.artist.starts_with("rock")));
    // The model's own score of an item is what it was.
    for item in &list.items {
        let alone = service.explain(&call(), "ann", item.id).await.expect("explained");
        let stage = stage_of(item).unwrap_or_default();
        assert!((alone.items[0].score + stage - item.score).abs() < 1e-9 && stage_of(&alone.items[0]).is_none());
    }
}

#[tokio::test]
async fn a_small_weight_does_little_and_a_listener_without_a_history_is_left_alone() {
    let world = world().await;
    let (little, much) = (evened(&world, 0.02).await, evened(&world, 1.0).await);
    assert!(jazz(&list_of(&little, 12).await) < jazz(&list_of(&much, 12).await));
    world.join(2, "new", &[]).await;
    let much = evened(&world, 1.0).await;
    let list = much.recommend(&call(), "new", &query(ItemKind::Artist, 12)).await.expect("recommended");
    assert!(list.cold_start && list.changes.is_empty() && list.items.iter().all(|item| stage_of(item).is_none()));
    // All of a pool leaves only the order to change.
    let all = RecommendQuery { include_known: true, ..query(ItemKind::Artist, 500) };
    let list = much.recommend(&call(), "ann", &all).await.expect("recommended");
    assert_sums(&list);
    assert!(list.changes.iter().all(|change| change.from_rank > 0 && change.to_rank > 0), "{:?}", list.changes);
}

#[tokio::test]
async fn a_variant_evens_out_what_is_not_explored_and_the_wire_tells_as_much() {
    let world = world().await;
    let change = PolicyChange { diversity_weight: Some(1.0), exploration_slots: Some(2), ..PolicyChange::default() };
    let variant = |name: &str, weight, change| Variant { name: name.into(), weight, change };
    let asked = ExperimentSpec {
        name: "even".into(),
        hypothesis: "variety is liked".into(),
        kind: ExperimentKind::Split,
        variants: vec![variant("control", 1, PolicyChange::default()), variant("even", PARTS - 1, change)],
        share: PARTS,
        primary: Metric::Acceptance,
        guardrails: Vec::new(),
        alpha: 0.05,
        min_listeners: 0,
        max_listeners: 0,
        min_duration_ms: 0,
        max_duration_ms: 0,
        slow_list_ms: 60_000,
        window_ms: 0,
        auto_stop: false,
    };
    let (remote, experiments) = world.remotes().await;
    experiments.create_experiment(&call(), asked).await.expect("begun");
    let traced = Call { trace: TraceId(7), ..call() };
    let list = remote.recommend(&traced, "ann", &query(ItemKind::Artist, 12)).await.expect("recommended");
    assert_eq!(list.exposure.as_ref().map(|one| one.variant.as_str()), Some("even"));
    let (sure, explored) = list.items.split_at(10);
    assert!(sure.iter().all(|item| item.propensity == 1.0 && stage_of(item).is_some()), "{sure:?}");
    assert!(explored.iter().all(|item| item.propensity < 1.0 && stage_of(item).is_none()), "{explored:?}");
    assert!(!list.changes.is_empty() && list.changes.iter().all(|change| change.from_rank.max(change.to_rank) <= 10));
    let items = explored.iter().map(|item| item.id);
    assert!(items.into_iter().all(|item| list.changes.iter().all(|change| change.item != item || change.to_rank == 0)));
}
