//! What friends play is a part of the list, told by friend, for as long as they are friends and not private.

use echotune_api::{Recommendations as _, events::Payload};
use echotune_model::{ItemId, ItemKind, ReasonKind, Recommendation, Recommendations as List};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService};

use crate::world::{World, artists, assert_sums, call, played, query, settings, user};

/// Cat knows Portishead, as ann and ben do. Dan alone plays Tricky and Lamb, with whom nothing is played together.
async fn world() -> World {
    let world = World::new();
    world.join(1, "ann", &["Björk", "Portishead", "Massive Attack"]).await;
    world.join(2, "ben", &["Portishead", "Björk"]).await;
    world.join(3, "cat", &["Portishead"]).await;
    world.join(4, "dan", &["Tricky", "Lamb"]).await;
    world
}

fn befriended(friends: &[u128]) -> Vec<Payload> {
    vec![Payload::FriendsAdded { friends: friends.iter().map(|friend| user(*friend)).collect() }]
}

/// The parts of an item's score by friend.
fn of_friends(item: &Recommendation) -> Vec<(&str, f64)> {
    let friends = item.reasons.iter().filter(|reason| reason.kind == ReasonKind::Friend);
    friends.map(|reason| (reason.of.as_str(), reason.contribution)).collect()
}

fn find<'l>(list: &'l List, artist: &str) -> &'l Recommendation {
    list.items.iter().find(|item| item.artist == artist).expect("listed")
}

fn friends_of(list: &List) -> usize {
    list.items.iter().map(|item| of_friends(item).len()).sum()
}

#[tokio::test]
async fn what_a_friend_plays_is_listed_with_the_friend_as_a_reason_at_once() {
    let world = world().await;
    world.service.refit().await;
    let before = world.list("cat").await;
    assert_eq!(friends_of(&before), 0);
    world.publish(user(3), befriended(&[4])).await;
    let list = world.list("cat").await;
    assert_sums(&list);
    let tricky = find(&list, "Tricky");
    assert!(matches!(of_friends(tricky)[..], [("dan", part)] if part > 0.0), "{tricky:?}");
    assert!(find(&before, "Tricky").score < tricky.score);
    // It goes both ways, and what is explained is what is listed.
    let dans = world.list("dan").await;
    assert!(matches!(of_friends(find(&dans, "Portishead"))[..], [("cat", _)]));
    let told = world.service.explain(&call(), "cat", ItemId::artist("Tricky")).await.expect("explained");
    assert_eq!((told.items[0].score, of_friends(&told.items[0])), (tricky.score, of_friends(tricky)));
    // What the graph does not know counts as well, and tracks do.
    world.publish(user(4), vec![played(&["Goldfrapp"], 9)]).await;
    let list = world.list("cat").await;
    assert_sums(&list);
    assert_eq!(of_friends(find(&list, "Goldfrapp")).len(), 1);
    let tracks = world.service.recommend(&call(), "cat", &query(ItemKind::Track, 50)).await.expect("tracks");
    assert_sums(&tracks);
    assert!(matches!(of_friends(find(&tracks, "Lamb"))[..], [("dan", _)]));
}

#[tokio::test]
async fn a_private_friend_counts_for_nothing_at_once_and_after_a_fit_as_if_there_were_no_friendship() {
    let world = world().await;
    world.publish(user(3), befriended(&[1, 4])).await;
    world.service.refit().await;
    assert!(!of_friends(find(&world.list("cat").await, "Tricky")).is_empty());
    world.publish(user(4), vec![settings(&[], true)]).await;
    let list = world.list("cat").await;
    assert!(!artists(&list).contains(&"Tricky"));
    assert!(list.items.iter().flat_map(of_friends).all(|(friend, _)| friend == "ann"));
    world.service.refit().await;
    let without = self::world().await;
    without.publish(user(4), vec![settings(&[], true)]).await;
    without.publish(user(3), befriended(&[1])).await;
    without.service.refit().await;
    assert_eq!(world.list("cat").await.items, without.list("cat").await.items);
    // The private listener still sees what friends play.
    assert!(friends_of(&world.list("dan").await) > 0);
    world.publish(user(4), vec![settings(&[], false)]).await;
    assert!(!of_friends(find(&world.list("cat").await, "Tricky")).is_empty());
}

#[tokio::test]
async fn an_erased_friend_is_gone_from_the_next_list_and_a_restart_changes_nothing() {
    let world = world().await;
    world.publish(user(3), befriended(&[1, 4, 2])).await;
    world.service.refit().await;
    let before = world.list("cat").await;
    let loaded = RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    loaded.refit().await;
    let again = loaded.recommend(&call(), "cat", &query(ItemKind::Artist, 50)).await.expect("listed");
    assert_eq!(again.items, before.items);
    world.publish(user(4), vec![Payload::UserErased]).await;
    let after = world.list("cat").await;
    assert!(after.items.iter().flat_map(of_friends).all(|(friend, _)| friend != "dan"));
    assert!(friends_of(&after) > 0 && !artists(&after).contains(&"Tricky"));
}

#[tokio::test]
async fn without_a_history_friends_make_the_list() {
    let world = world().await;
    world.join(5, "eve", &[]).await;
    world.publish(user(5), befriended(&[4, 1])).await;
    world.service.refit().await;
    let list = world.list("eve").await;
    assert_sums(&list);
    assert!(list.cold_start && artists(&list).contains(&"Tricky"));
    assert!(of_friends(&list.items[0]).iter().all(|(_, part)| *part > 0.0) && friends_of(&list) >= 5);
    let one = world.service.recommend(&call(), "eve", &query(ItemKind::Artist, 1)).await.expect("listed");
    assert_eq!(one.items[0], list.items[0]);
}

#[tokio::test]
async fn so_many_friends_are_told_one_by_one_and_the_rest_together() {
    let world = world().await;
    let more: Vec<u128> = (10..320).collect();
    for (n, friend) in more.iter().enumerate() {
        world.join(*friend, &format!("user{friend}"), if n < 300 { &["Tricky"] } else { &["Lamb"] }).await;
    }
    world.publish(user(3), befriended(&more)).await;
    world.service.refit().await;
    let list = world.list("cat").await;
    assert_sums(&list);
    let told = of_friends(find(&list, "Tricky"));
    assert_eq!((told.len(), told.last().expect("six").0), (6, "251 more"), "256 friends count");
    let explained = world.service.explain(&call(), "cat", ItemId::artist("Tricky")).await.expect("explained");
    assert_eq!(of_friends(&explained.items[0]).len(), 256);
    assert!((explained.items[0].score - find(&list, "Tricky").score).abs() < 1e-12);
    // Those beyond are the last by id.
    assert!(of_friends(find(&list, "Lamb")).is_empty());
}
