use echotune_api::{RecommendQuery, Recommendations as _, events::Payload};
use echotune_model::{ErrorKind, ItemId, ItemKind, Reason, ReasonKind, Recommendation};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService};
use proptest::prelude::*;

use crate::world::{World, artists, assert_sums, call, counted, played, query, settings, tagged, user};

const BJORK: &str = "Björk";

async fn world() -> World {
    let world = World::new();
    world.join(1, "ann", &[BJORK, "Portishead", "Radiohead"]).await;
    world.join(2, "ben", &["Portishead", "Massive Attack", "Tricky"]).await;
    world.join(3, "cat", &["Portishead"]).await;
    world
}

#[tokio::test]
async fn a_new_listen_changes_the_next_list_without_a_refit() {
    let world = world().await;
    world.service.refit().await;
    let before = world.list("cat").await;
    assert!(!before.cold_start);
    assert_sums(&before);
    world.publish(user(3), vec![played(&["Tricky"], 5)]).await;
    let after = world.list("cat").await;
    assert_eq!(after.model_version, before.model_version);
    assert!(artists(&before).contains(&"Tricky") && !artists(&after).contains(&"Tricky"));
    let score = |list: &echotune_model::Recommendations| {
        list.items.iter().find(|item| item.artist == "Massive Attack").expect("listed").score
    };
    assert!(score(&after) > score(&before));
    assert!(after.items[0].reasons.iter().any(|reason| reason.kind == ReasonKind::Listen && reason.of == "Tricky"));
    // A later fit sees the listen and says so.
    world.service.refit().await;
    assert!(world.list("cat").await.model_version > before.model_version);
}

#[tokio::test]
async fn play_counts_are_history_and_replace_each_other_by_source() {
    let world = world().await;
    world.join(4, "dan", &[]).await;
    world.service.refit().await;
    assert!(world.list("dan").await.cold_start);
    world.publish(user(4), vec![counted("Portishead", 10, "one"), counted("Portishead", 5, "two")]).await;
    assert!(!world.list("dan").await.cold_start);
    world.publish(user(4), vec![counted("Portishead", 20, "one")]).await;
    let top = world.service.top_items(&call(), "dan", ItemKind::Artist, 5).await.expect("top");
    assert_eq!((top[0].0.artist.as_str(), top[0].1, top.len()), ("Portishead", 25, 1));
    // Replayed, nothing changes.
    world.publish(user(4), vec![counted("Portishead", 20, "one"), counted("Portishead", 5, "two")]).await;
    assert_eq!(world.service.top_items(&call(), "dan", ItemKind::Artist, 5).await.expect("top")[0].1, 25);
}

#[tokio::test]
async fn what_is_blocked_takes_effect_at_once() {
    let world = world().await;
    world.service.refit().await;
    assert!(artists(&world.list("cat").await).contains(&"Massive Attack"));
    world.publish(user(3), vec![settings(&["massive  ATTACK"], false)]).await;
    assert!(!artists(&world.list("cat").await).contains(&"Massive Attack"));
    let tracks = world.service.recommend(&call(), "cat", &query(ItemKind::Track, 50)).await.expect("tracks");
    assert!(!tracks.items.is_empty() && !artists(&tracks).contains(&"Massive Attack"));
    world.publish(user(3), vec![settings(&[], false)]).await;
    assert!(artists(&world.list("cat").await).contains(&"Massive Attack"));
}

#[tokio::test]
async fn a_cold_start_rests_on_tags_and_what_is_popular_and_says_so() {
    let world = world().await;
    world.publish(user(1), vec![tagged(BJORK, "art pop"), tagged("Radiohead", "rock")]).await;
    world.join(4, "dan", &[]).await;
    world.service.refit().await;
    let popular = world.list("dan").await;
    assert!(popular.cold_start);
    assert_eq!(popular.items[0].artist, "Portishead");
    assert!(popular.items.iter().flat_map(|item| &item.reasons).all(|reason| reason.kind == ReasonKind::Trending));
    // Friends' tags count while there are none of one's own.
    world.publish(user(4), vec![Payload::FriendsAdded { friends: vec![user(1)] }]).await;
    let by_friends = world.list("dan").await;
    assert!(by_friends.cold_start && by_friends.items[0].artist != "Portishead");
    world.publish(user(4), vec![tagged("Tricky", "art pop")]).await;
    let by_tags = world.list("dan").await;
    assert!(by_tags.cold_start);
    assert_sums(&by_tags);
    let bjork = by_tags.items.iter().find(|item| item.artist == BJORK).expect("shares the tag");
    assert_eq!((bjork.reasons[0].kind, bjork.reasons[0].of.as_str()), (ReasonKind::Tag, "art pop"));
    assert!(!by_tags.items.iter().any(|item| item.artist == "Radiohead" && item.reasons[0].kind == ReasonKind::Tag));
}

#[tokio::test]
async fn an_erasure_leaves_no_trace_in_memory_store_or_the_next_fit() {
    let world = world().await;
    world.publish(user(2), vec![tagged("Tricky", "trip hop"), Payload::FriendsAdded { friends: vec![user(3)] }]).await;
    world.service.refit().await;
    world.publish(user(2), vec![Payload::UserErased]).await;
    let only_bens = [ItemId::artist("Tricky"), ItemId::artist("Massive Attack")];
    for item in only_bens {
        let gone = world.service.get_item(&call(), item).await.expect_err("erased");
        assert_eq!(gone.kind, ErrorKind::NotFound);
        assert!(gone.message.contains(&item.to_string()));
    }
    assert!(!artists(&world.list("cat").await).contains(&"Tricky"), "not even before the next fit");
    let fault = world.service.recommend(&call(), "ben", &query(ItemKind::Artist, 5)).await.expect_err("erased");
    assert_eq!(fault.kind, ErrorKind::NotFound);
    world.service.refit().await;
    // The fit equals that of a world in which ben never was.
    let without = World::new();
    without.join(1, "ann", &[BJORK, "Portishead", "Radiohead"]).await;
    without.join(3, "cat", &["Portishead"]).await;
    without.service.refit().await;
    assert_eq!(world.list("cat").await.items, without.list("cat").await.items);
    // So does what is loaded from the store.
    let again = RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    again.refit().await;
    let loaded = again.recommend(&call(), "cat", &query(ItemKind::Artist, 50)).await.expect("recommended");
    assert_eq!(loaded.items, without.list("cat").await.items);
    assert_eq!(again.item_counts(), without.service.item_counts());
    assert_eq!(again.positions(), world.service.positions());
}

#[tokio::test]
async fn without_the_whole_history_friends_and_tags_count_as_they_would_and_scores_before_as_they_did() {
    let world = world().await;
    let befriended = Payload::FriendsAdded { friends: vec![user(2)] };
    world.publish(user(3), vec![befriended, tagged("Radiohead", "rock"), tagged("Portishead", "trip hop")]).await;
    world.publish(user(1), vec![tagged("Tricky", "trip hop"), tagged("Radiohead", "rock")]).await;
    world.service.refit().await;
    let all = RecommendQuery { include_known: true, ..query(ItemKind::Artist, 50) };
    for without in [ItemId::artist("Portishead"), ItemId::track("Portishead", "Song of Portishead")] {
        let imagined = world.service.what_if(&call(), "cat", &[without], &all).await.expect("listed");
        assert!(imagined.cold_start && imagined.items.len() > 3, "{imagined:?}");
        assert_sums(&imagined);
        let has = |kind| imagined.items.iter().flat_map(|item| &item.reasons).any(|reason| reason.kind == kind);
        assert!(has(ReasonKind::Tag) && has(ReasonKind::Friend) && !has(ReasonKind::Listen), "{imagined:?}");
        for item in &imagined.items {
            let told = world.service.explain(&call(), "cat", item.id).await.expect("explained");
            assert!(!told.cold_start);
            let (before, now) = (item.score_before.expect("told"), told.items[0].score);
            assert!((before - now).abs() <= 1e-9, "{before} {now}: {item:?}");
        }
    }
}

/// The reasons of an item that rest on the history.
fn listened(item: &Recommendation) -> Vec<Reason> {
    let kinds = [ReasonKind::Listen, ReasonKind::OtherListens];
    item.reasons.iter().filter(|reason| kinds.contains(&reason.kind)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reasons_sum_and_what_if_equals_never_having_played(
        rows in proptest::collection::vec(proptest::collection::btree_map(0..25_u32, 1..5_000_u32, 1..9), 2..8),
        extra in proptest::collection::btree_map(25..30_u32, 1..5_000_u32, 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (with, never) = (World::new(), World::new());
            let name = |n: usize| format!("user{n}");
            let artist = |n: u32| format!("artist {n}");
            for world in [&with, &never] {
                // Everybody's artists are in the catalogue; only `with` gets the extra plays, after the fit.
                let all: Vec<String> = (0..30).map(artist).collect();
                world.join(100, "collector", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
                for (n, row) in rows.iter().enumerate() {
                    let id = world.join(n as u128 + 1, &name(n), &[]).await;
                    let payloads = row.iter().map(|(item, plays)| played(&[&artist(*item)], *plays));
                    world.publish(id, payloads.collect()).await;
                }
                world.service.refit().await;
            }
            let payloads = extra.iter().map(|(item, plays)| counted(&artist(*item), *plays, "other"));
            with.publish(user(1), payloads.collect()).await;
            let without: Vec<ItemId> = extra.keys().map(|item| ItemId::artist(&artist(*item))).collect();
            let wanted = query(ItemKind::Artist, 50);
            let imagined = with.service.what_if(&call(), &name(0), &without, &wanted).await.expect("listed");
            let real = never.service.recommend(&call(), &name(0), &wanted).await.expect("listed");
            assert_sums(&imagined);
            assert_sums(&with.list(&name(0)).await);
            // What is trending differs, for the extra plays were made, and with it the order of items of nearly one score.
            let by_name = |items: &[Recommendation]| {
                let mut items = items.to_vec();
                items.sort_by(|one, other| one.artist.cmp(&other.artist));
                items
            };
            let (imagined_items, real_items) = (by_name(&imagined.items), by_name(&real.items));
            let names = |items: &[Recommendation]| items.iter().map(|item| item.artist.clone()).collect::<Vec<_>>();
            assert_eq!(names(&imagined_items), names(&real_items));
            // Each tells its score as it is.
            for item in &imagined.items {
                let told = with.service.explain(&call(), &name(0), item.id).await.expect("explained");
                let (before, now) = (item.score_before.expect("told"), told.items[0].score);
                assert!((before - now).abs() <= 1e-9 * now.abs(), "{before} {now}: {item:?}");
            }
            assert!(real.items.iter().all(|item| item.score_before.is_none()));
            for (imagined, real) in imagined_items.iter().zip(&real_items) {
                let (imagined, real) = (listened(imagined), listened(real));
                assert_eq!(imagined.len(), real.len());
                for (imagined, real) in imagined.iter().zip(&real) {
                    assert_eq!(imagined.of, real.of);
                    assert!((imagined.contribution - real.contribution).abs() < 1e-9, "{imagined:?} {real:?}");
                }
            }
            for item in &real.items {
                let told = never.service.explain(&call(), &name(0), item.id).await.expect("explained");
                assert_sums(&told);
                assert_eq!(told.items[0].score, item.score);
                assert!(told.items[0].reasons.iter().all(|reason| reason.kind != ReasonKind::OtherListens));
            }
        });
    }
}
