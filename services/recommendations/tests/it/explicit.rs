//! Marks of explicit content, and lists of those who do not want it.

use echotune_api::{RecommendQuery, Recommendations, events::Payload};
use echotune_model::{ExplicitContent, ItemKind, Settings, Tally, Track};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService};

use crate::world::{NOW, World, assert_sums, call, query, user};

fn songs(marks: &[(&str, Option<bool>)]) -> Payload {
    let tally = |(title, explicit): &(&str, Option<bool>)| Tally {
        track: Track { title: (*title).into(), artist: "Low".into(), album: String::new() },
        plays: 2,
        last_listened_at_ms: NOW,
        explicit: *explicit,
    };
    Payload::HistoryChanged { tallies: marks.iter().map(tally).collect() }
}

fn wish(explicit: ExplicitContent, private: bool) -> Payload {
    Payload::SettingsChanged { settings: Settings { explicit, private, ..Settings::default() } }
}

/// Ann's history is one track; ben knows three more, marked as his sources do, and cat one of them otherwise.
async fn world() -> World {
    let world = World::new();
    for (n, name) in (1..).zip(["ann", "ben", "cat"]) {
        world.join(n, name, &[]).await;
    }
    world.publish(user(1), vec![songs(&[("known", None)])]).await;
    let marks = [("known", None), ("clean", Some(false)), ("unmarked", None), ("explicit", Some(false))];
    world.publish(user(2), vec![songs(&marks)]).await;
    world.publish(user(3), vec![songs(&[("known", None), ("explicit", Some(true))])]).await;
    world.service.refit().await;
    world
}

async fn titles(api: &dyn Recommendations) -> Vec<String> {
    let list = api.recommend(&call(), "ann", &query(ItemKind::Track, 10)).await.expect("recommended");
    assert_sums(&list);
    let mut titles: Vec<String> = list.items.into_iter().map(|item| item.title).collect();
    titles.sort_unstable();
    titles
}

#[tokio::test]
async fn a_track_that_any_source_marks_as_explicit_is_left_out_of_lists_and_they_are_filled_up() {
    let world = world().await;
    assert_eq!(titles(&world.service).await, ["clean", "explicit", "unmarked"]);
    world.publish(user(1), vec![wish(ExplicitContent::Hide, false)]).await;
    assert_eq!(titles(&world.service).await, ["clean", "unmarked"]);
    // Left out while the best are sought: a list of one has one.
    for wanted in [ExplicitContent::Hide, ExplicitContent::Strict] {
        world.publish(user(1), vec![wish(wanted, false)]).await;
        let list = world.service.recommend(&call(), "ann", &query(ItemKind::Track, 1)).await.expect("recommended");
        assert_eq!(list.items.len(), 1);
    }
    assert_eq!(titles(&world.service).await, ["clean"]);
    let imagined = [Track { title: "known".into(), artist: "Low".into(), album: String::new() }.id()];
    let list = world.service.what_if(&call(), "ann", &imagined, &query(ItemKind::Track, 10)).await.expect("listed");
    assert_eq!(list.items.iter().map(|item| item.title.as_str()).collect::<Vec<_>>(), ["clean"]);
    // Artists are not marked.
    let all = RecommendQuery { include_known: true, ..query(ItemKind::Artist, 10) };
    let list = world.service.recommend(&call(), "ann", &all).await.expect("recommended");
    assert_eq!(list.items.iter().map(|item| item.artist.as_str()).collect::<Vec<_>>(), ["Low"]);
    // A restart and the wire know as much.
    let again = RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    again.refit().await;
    assert_eq!(titles(&again).await, ["clean"]);
    world.publish(user(1), vec![wish(ExplicitContent::Allow, false)]).await;
    assert_eq!(titles(&world.remote().await).await, ["clean", "explicit", "unmarked"]);
}

#[tokio::test]
async fn a_mark_is_gone_with_whoever_brought_it_and_one_who_is_private_marks_for_nobody_else() {
    let world = world().await;
    world.publish(user(1), vec![wish(ExplicitContent::Hide, false)]).await;
    world.publish(user(3), vec![wish(ExplicitContent::Allow, true)]).await;
    assert_eq!(titles(&world.service).await, ["clean", "explicit", "unmarked"]);
    world.publish(user(3), vec![wish(ExplicitContent::Allow, false)]).await;
    assert_eq!(titles(&world.service).await, ["clean", "unmarked"]);
    world.publish(user(3), vec![Payload::UserErased]).await;
    assert_eq!(titles(&world.service).await, ["clean", "explicit", "unmarked"]);
    // One's own marks count, whoever else sees them.
    world.publish(user(1), vec![songs(&[("known", Some(true))]), wish(ExplicitContent::Hide, true)]).await;
    let all = RecommendQuery { include_known: true, ..query(ItemKind::Track, 10) };
    let list = world.service.recommend(&call(), "ann", &all).await.expect("recommended");
    assert!(!list.items.is_empty() && list.items.iter().all(|item| item.title != "known"), "{list:?}");
}
