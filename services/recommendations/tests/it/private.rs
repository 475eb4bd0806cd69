//! What only private listeners know or say is theirs alone, from the moment they are private on.

use echotune_api::{RecommendQuery, Recommendations, events::Payload};
use echotune_model::{Call, ErrorKind, Fault, Feedback, Impression, ItemId, ItemKind, Signal, TraceId};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService};

use crate::world::{World, artists, call, call_of, counted, query, settings, tagged, user};

const SECRET: [&str; 3] = ["Tricky", "Goldfrapp", "Lamb"];

/// Everybody is public when the graph is fitted; then ben, who alone listened to Tricky, counted
/// Goldfrapp and tagged Lamb, becomes private, and nothing is fitted again.
async fn world() -> World {
    let world = World::new();
    world.join(1, "ann", &["Björk", "Portishead"]).await;
    world.join(2, "ben", &["Portishead", "Björk", "Tricky"]).await;
    world.join(3, "cat", &["Portishead"]).await;
    world.join(4, "dan", &[]).await;
    let taggings = vec![tagged("Lamb", "trip hop"), tagged("Portishead", "secret"), tagged("Björk", "trip hop")];
    world.publish(user(2), taggings).await;
    world.publish(user(2), vec![counted("Goldfrapp", 9, "elsewhere")]).await;
    world
        .publish(user(4), vec![tagged("Portishead", "trip hop"), Payload::FriendsAdded { friends: vec![user(2)] }])
        .await;
    world.service.refit().await;
    world
}

fn go(private: bool) -> Vec<Payload> {
    vec![settings(&[], private)]
}

fn kind_of<T>(answer: Result<T, Fault>) -> Option<ErrorKind> {
    answer.err().map(|fault| fault.kind)
}

fn ids() -> Vec<ItemId> {
    SECRET.into_iter().map(ItemId::artist).chain([ItemId::track("Tricky", "Song of Tricky")]).collect()
}

async fn listed(api: &dyn Recommendations, by: &Call, name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for kind in [ItemKind::Artist, ItemKind::Track] {
        let list =
            api.recommend(by, name, &RecommendQuery { include_known: true, ..query(kind, 50) }).await.expect("list");
        all.extend(artists(&list).into_iter().map(str::to_owned));
    }
    all
}

/// Which of the secrets a caller learns of by any call.
async fn learns(api: &dyn Recommendations, by: &Call, name: &str) -> Vec<&'static str> {
    let mut seen = listed(api, by, name).await;
    for kind in [ItemKind::Artist, ItemKind::Track] {
        seen.extend(api.trending(by, kind, 50).await.expect("trending").into_iter().map(|one| one.item.artist));
        for text in ["tricky", "goldfrapp", "lamb"] {
            seen.extend(api.find_items(by, kind, text, 5).await.expect("found").into_iter().map(|item| item.artist));
        }
    }
    let near = api.similar(by, ItemId::artist("Portishead"), 50).await.expect("similar");
    seen.extend(near.into_iter().map(|one| one.item.artist));
    for id in ids() {
        seen.extend(api.get_item(by, id).await.into_iter().map(|item| item.artist));
    }
    SECRET.into_iter().filter(|secret| seen.iter().any(|one| one == secret)).collect()
}

#[tokio::test]
async fn what_only_a_private_listener_knows_is_theirs_and_the_operators_at_once() {
    let world = world().await;
    let api: &dyn Recommendations = &world.service;
    let (ben, cat, dan) = (call_of(2, "ben"), call_of(3, "cat"), call_of(4, "dan"));
    assert_eq!(learns(api, &cat, "cat").await, SECRET);
    assert_eq!(learns(api, &dan, "dan").await, SECRET);
    world.publish(user(2), go(true)).await;
    assert!(learns(api, &cat, "cat").await.is_empty());
    assert!(learns(api, &dan, "dan").await.is_empty(), "a cold start");
    assert_eq!(learns(api, &ben, "ben").await, SECRET);
    assert_eq!(learns(api, &call(), "cat").await, SECRET, "the operator looks each one up");
    // Lists are for the listener, whoever asks.
    assert!(!listed(api, &call(), "cat").await.iter().any(|artist| SECRET.contains(&artist.as_str())));
    world.service.refit().await;
    assert!(learns(api, &cat, "cat").await.is_empty());
    world.publish(user(2), go(false)).await;
    assert_eq!(learns(api, &dan, "dan").await, SECRET);
}

#[tokio::test]
async fn ids_made_of_names_confirm_nothing() {
    let world = world().await;
    world.publish(user(2), go(true)).await;
    let api: &dyn Recommendations = &world.service;
    let (ben, cat) = (call_of(2, "ben"), call_of(3, "cat"));
    for id in ids() {
        let shown = Impression { trace: TraceId(1), model_version: "m".into(), items: vec![id] };
        let said = Feedback { item: id, signal: Signal::Skipped, trace: TraceId(1) };
        for (by, name, expected) in [(&cat, "cat", Some(ErrorKind::NotFound)), (&ben, "ben", None)] {
            let wanted = query(ItemKind::Artist, 5);
            assert_eq!(kind_of(api.get_item(by, id).await), expected);
            assert_eq!(kind_of(api.similar(by, id, 5).await), expected);
            assert_eq!(kind_of(api.explain(by, name, id).await), expected);
            assert_eq!(kind_of(api.what_if(by, name, &[id], &wanted).await), expected);
            assert_eq!(kind_of(api.record_impression(by, name, shown.clone()).await), expected);
            assert_eq!(kind_of(api.record_feedback(by, name, said.clone()).await), expected);
        }
        // What is refused tells no more than what was never there.
        let told = |id: ItemId, fault: Fault| fault.message.replace(&id.to_string(), "it");
        let nothing = ItemId::artist("Nobody Knows");
        let never = told(nothing, api.get_item(&cat, nothing).await.expect_err("unknown"));
        assert_eq!(told(id, api.get_item(&cat, id).await.expect_err("private")), never);
    }
}

#[tokio::test]
async fn tags_of_private_listeners_count_for_nobody() {
    let world = world().await;
    let cat = call_of(3, "cat");
    let tags = async |service: &RecommendationsService, artist| {
        service.get_item(&cat, ItemId::artist(artist)).await.expect("public").tags
    };
    assert_eq!(tags(&world.service, "Portishead").await, ["secret", "trip hop"]);
    world.publish(user(2), go(true)).await;
    let again = RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    for service in [&world.service, &again] {
        assert_eq!(tags(service, "Portishead").await, ["trip hop"]);
        assert!(tags(service, "Björk").await.is_empty());
        // dan's own tag leads to no artist that only ben gave it to.
        let list = service.recommend(&call(), "dan", &query(ItemKind::Artist, 50)).await.expect("list");
        assert!(list.cold_start && !artists(&list).contains(&"Lamb"));
        assert!(list.items.iter().flat_map(|item| &item.reasons).all(|reason| reason.of != "secret"));
    }
    // What a private listener tags counts from the day on that the listener is public.
    world.publish(user(2), vec![tagged("Björk", "ice")]).await;
    assert!(tags(&world.service, "Björk").await.is_empty());
    world.publish(user(2), go(false)).await;
    assert_eq!(tags(&world.service, "Björk").await, ["ice", "trip hop"]);
    world.publish(user(2), vec![settings(&[], true), Payload::UserErased]).await;
    assert_eq!(tags(&world.service, "Portishead").await, ["trip hop"]);
}
