//! Lists as numbers: their order, their sums, and that they are the same again.

use echotune_api::{MAX_REASONS, RecommendQuery, Recommendations as _, events::Payload};
use echotune_model::{
    ItemId, ItemKind, PlayCount, ReasonKind, Recommendation, Recommendations as List, Tally, Track, UserId,
};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world::{NOW, World, call, query, settings, tagged, user};

/// Play counts of artists by number.
fn counts(rows: impl IntoIterator<Item = (u32, u32)>) -> Payload {
    let count = |(n, plays)| PlayCount { artist: format!("artist {n}"), plays, source: "elsewhere".into() };
    Payload::PlayCountsSet { counts: rows.into_iter().map(count).collect() }
}

/// What has been printed and read again, as (score, base, contributions).
fn read_again(item: &Recommendation) -> (f64, f64, Vec<f64>) {
    let contributions: Vec<f64> = item.reasons.iter().map(|reason| reason.contribution).collect();
    let text = json!({ "score": item.score, "base": item.base, "contributions": contributions }).to_string();
    let read: Value = serde_json::from_str(&text).expect("JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    let contributions = read["contributions"].as_array().expect("an array").iter().map(number).collect();
    (number(&read["score"]), number(&read["base"]), contributions)
}

fn check(list: &List) {
    for (rank, item) in (1..).zip(&list.items) {
        let (score, base, contributions) = read_again(item);
        assert!((base + contributions.iter().sum::<f64>() - score).abs() < 1e-9, "{item:?}");
        assert_eq!(item.rank, rank);
    }
    for pair in list.items.windows(2) {
        let before = pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].id < pair[1].id);
        assert!(before, "{:?} {:?}", pair[0], pair[1]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lists_are_sorted_by_the_scores_they_show_and_the_scores_are_the_sums(
        rows in proptest::collection::vec(proptest::collection::btree_map(0..80_u32, 1..9_u32, 5..40), 4..12),
        reader in proptest::collection::btree_map(0..80_u32, 1..5_000_u32, 20..40),
        mirrored in 1..40_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let world = World::new();
            for (n, row) in (10..).zip(&rows) {
                world.join(n, &format!("user{n}"), &[]).await;
                // Pairs of artists that the same people know have the same score.
                let pairs = row.iter().flat_map(|(item, plays)| [(*item, *plays), (item + 100, *plays)]);
                world.publish(user(n), vec![counts(pairs)]).await;
            }
            world.join(1, "cat", &[]).await;
            let known = reader.iter().map(|(item, plays)| (*item, *plays));
            let twins = reader.keys().take(mirrored as usize).map(|item| (item + 100, 3));
            world.publish(user(1), vec![counts(known.chain(twins))]).await;
            world.service.refit().await;
            for include_known in [false, true] {
                for limit in [3, 40, 500] {
                    let wanted = RecommendQuery { include_known, ..query(ItemKind::Artist, limit) };
                    let list = world.service.recommend(&call(), "cat", &wanted).await.expect("listed");
                    assert!(!list.items.is_empty() && list.items.len() <= limit as usize);
                    check(&list);
                }
            }
        });
    }
}

/// An item and its reasons.
type Told = (ItemId, Vec<(ReasonKind, String, f64)>);

/// Without what is trending, which goes by the time of day.
fn without_trending(list: &List) -> Vec<Told> {
    let reasons = |item: &Recommendation| {
        let kept = item.reasons.iter().filter(|reason| reason.kind != ReasonKind::Trending);
        kept.map(|reason| (reason.kind, reason.of.clone(), reason.contribution)).collect()
    };
    list.items.iter().map(|item| (item.id, reasons(item))).collect()
}

#[tokio::test]
async fn a_restart_and_another_order_of_events_give_the_same_lists_to_the_bit() {
    // Some know more artists of one weight than a row of the graph keeps.
    let events = |n: u128| -> Vec<Payload> {
        let from = u32::try_from(n).expect("small") * 40;
        vec![counts((from..from + 330).map(|artist| (artist, artist % 7 + 1)))]
    };
    let everybody = async |order: Vec<u128>| {
        let world = World::new();
        for n in order {
            let id: UserId = world.join(n, &format!("user{n}"), &[]).await;
            world.publish(id, events(n)).await;
        }
        world.join(50, "cat", &[]).await;
        world.publish(user(50), vec![counts((0..700).step_by(9).map(|artist| (artist, 2)))]).await;
        world.service.refit().await;
        world
    };
    let one = everybody((1..=8).collect()).await;
    let other = everybody((1..=8).rev().collect()).await;
    let again = RecommendationsService::load(EmbeddedRecommendationStore::new(one.db.clone())).expect("loaded");
    again.refit().await;
    assert_eq!(again.model_version(), one.service.model_version());
    for limit in [7, 100, 500] {
        let wanted = query(ItemKind::Artist, limit);
        let list = async |service: &RecommendationsService| {
            without_trending(&service.recommend(&call(), "cat", &wanted).await.expect("listed"))
        };
        let first = list(&one.service).await;
        assert_eq!(first.len(), limit as usize);
        assert_eq!(list(&again).await, first);
        assert_eq!(list(&other.service).await, first);
    }
    let near = async |service: &RecommendationsService| {
        let near = service.similar(&call(), ItemId::artist("artist 200"), 300).await.expect("similar");
        near.into_iter().map(|one| (one.item.id, one.score)).collect::<Vec<_>>()
    };
    let first = near(&one.service).await;
    assert_eq!(first.len(), 256);
    assert_eq!(near(&again).await, first);
    assert_eq!(near(&other.service).await, first);
}

#[tokio::test]
async fn an_explanation_names_as_many_reasons_as_are_told_and_sums_up_the_rest() {
    const MORE: u32 = 40;
    let (world, target) = (World::new(), 1_000_000);
    let all = u32::try_from(MAX_REASONS).expect("small") + MORE;
    for (n, from) in (10..).zip((0..all).step_by(120)) {
        world.join(n, &format!("user{n}"), &[]).await;
        let known = (from..all.min(from + 120)).map(|artist| (artist, 1));
        world.publish(user(n), vec![counts(known.chain([(target, 1)]))]).await;
    }
    world.join(1, "cat", &[]).await;
    world.publish(user(1), vec![settings(&[], true), counts((0..all).map(|artist| (artist, artist % 50 + 1)))]).await;
    world.service.refit().await;
    let id = ItemId::artist(&format!("artist {target}"));
    let told = world.service.explain(&call(), "cat", id).await.expect("explained");
    check(&told);
    let reasons = &told.items[0].reasons;
    let listens = reasons.iter().filter(|reason| reason.kind == ReasonKind::Listen).count();
    assert_eq!(listens, MAX_REASONS);
    let rest = reasons.last().expect("reasons");
    assert_eq!((rest.kind, rest.of.as_str()), (ReasonKind::OtherListens, "40 more"));
    assert!(
        rest.contribution > 0.0 && rest.contribution < f64::from(MORE) * reasons[MAX_REASONS - 1].contribution * 1.01
    );
}

#[tokio::test]
async fn the_blend_serves_many_listeners_with_reasons_that_sum_and_forgets_whom_it_knew() {
    // Three tastes of forty artists each, all of them tagged, with a famous artist known to everybody.
    let knows = |n: u128, artist: u32| {
        let artist_taste = artist / 40;
        artist == 120 || (u128::from(artist_taste) == n % 3 && (u128::from(artist) * 7 + n * 13) % 5 < 2)
    };
    let tags = |n: u128| -> Vec<Payload> {
        let tag = ["slow", "loud", "odd"][usize::try_from(n % 3).expect("small")];
        (0..40).map(|artist| tagged(&format!("artist {}", n % 3 * 40 + artist), tag)).collect()
    };
    let with = async |others: &[u128]| {
        let world = World::new();
        for n in (1..=130).chain(others.iter().copied()) {
            let id = world.join(n, &format!("user{n}"), &[]).await;
            let known = (0..=120).filter(|artist| knows(n, *artist)).map(|artist| (artist, artist % 9 + 1));
            world.publish(id, vec![counts(known)]).await;
            if n <= 9 {
                world.publish(id, tags(n)).await;
            }
        }
        world
    };
    let list = async |world: &World| {
        let wanted = query(ItemKind::Artist, 20);
        world.service.recommend(&call(), "user4", &wanted).await.expect("listed")
    };
    let world = with(&[]).await;
    world.service.refit().await;
    let first = list(&world).await;
    assert!(first.model_version.starts_with("blend-"), "{}", first.model_version);
    check(&first);
    let negative = |item: &Recommendation| item.reasons.iter().any(|reason| reason.contribution < 0.0);
    assert!(first.items.iter().any(negative), "reasons are signed");
    let of_taste = |item: &Recommendation| {
        let number: u32 = item.artist.trim_start_matches("artist ").parse().expect("a number");
        number / 40 == 1
    };
    assert!(first.items.iter().take(10).all(of_taste), "{:?}", first.items);
    // Whoever came and went leaves nothing behind.
    let other = with(&[200, 201, 202]).await;
    other.service.refit().await;
    assert_ne!(without_trending(&list(&other).await), without_trending(&first));
    for gone in [200, 201, 202] {
        other.publish(user(gone), vec![Payload::UserErased]).await;
    }
    other.service.refit().await;
    assert_eq!(without_trending(&list(&other).await), without_trending(&first));
}

fn track(artist: &str, title: &str, last_listened_at_ms: i64) -> Tally {
    let track = Track { title: title.into(), artist: artist.into(), album: String::new() };
    Tally { track, plays: 1, last_listened_at_ms, explicit: None }
}

#[tokio::test]
async fn a_new_track_is_reached_by_what_its_listeners_know_of_the_artist() {
    let world = World::new();
    let mut all = Vec::new();
    for n in 0..120_u128 {
        all.push((user(10 + n), Payload::UserCreated { name: format!("user{n}").parse().expect("a name") }));
        // Four artists of ten tracks; a round of each, in order, a minute apart.
        let start = NOW + i64::try_from(n).expect("small") * 86_400_000;
        let of = |k: u128| track(&format!("artist {}", n % 4), &format!("song {k}"), start + k as i64 * 60_000);
        all.push((user(10 + n), Payload::HistoryChanged { tallies: (0..8).map(|k| of((n / 4 + k) % 10)).collect() }));
    }
    // One who plays nothing of the kind met a new track of artist 1.
    all.push((user(10 + 4), Payload::HistoryChanged { tallies: vec![track("artist 1", "brand new", 0)] }));
    world.publish_all(all).await;
    world.service.refit().await;
    let fan = "user1";
    let wanted = RecommendQuery { include_known: false, ..query(ItemKind::Track, 50) };
    let list = world.service.recommend(&call(), fan, &wanted).await.expect("listed");
    check(&list);
    let new = list.items.iter().find(|item| item.title == "brand new").expect("reached");
    let reasons = new.reasons.iter().filter(|reason| reason.kind == ReasonKind::Listen);
    let (count, alike) = reasons.fold((0, 0), |(count, alike), reason| {
        (count + 1, alike + usize::from(reason.of.starts_with("artist 1 –") && reason.contribution > 0.0))
    });
    assert!(count > 0 && alike == count, "{new:?}");
    let other = world.service.recommend(&call(), "user2", &wanted).await.expect("listed");
    assert!(other.items.iter().filter(|item| item.title == "brand new").all(|item| item.score < new.score));
}
