//! A name that is taken again while the erasure of its first account is still under way.

use std::sync::Arc;

use echotune_api::{Recommendations, events::Payload};
use echotune_model::{ErrorKind, Feedback, Impression, ItemId, ItemKind, PageRequest, Signal, TraceId};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService};

use crate::world::{World, call, call_of, query, user};

/// The name first of account 7, then of account 8, and the news of the first one's end comes last.
async fn retaken() -> World {
    let world = World::new();
    world.join(1, "ben", &["Portishead", "Tricky"]).await;
    world.join(7, "ann", &["Björk"]).await;
    world.join(8, "Ann", &["Portishead"]).await;
    world
}

async fn top(service: &RecommendationsService, name: &str) -> Vec<String> {
    let top = service.top_items(&call(), name, ItemKind::Artist, 5).await.expect("known");
    top.into_iter().map(|(item, _)| item.artist).collect()
}

#[tokio::test]
async fn the_new_account_keeps_the_name_at_once_and_after_a_restart() {
    let world = retaken().await;
    let again = || RecommendationsService::load(EmbeddedRecommendationStore::new(world.db.clone())).expect("loaded");
    assert_eq!(top(&again(), "ann").await, ["Portishead"], "loaded before the news of the erasure");
    world.publish(user(7), vec![Payload::UserErased]).await;
    assert_eq!(top(&world.service, "ann").await, ["Portishead"]);
    assert_eq!(top(&again(), "ann").await, ["Portishead"]);
    assert_eq!(
        world.service.get_item(&call(), ItemId::artist("Björk")).await.expect_err("gone").kind,
        ErrorKind::NotFound
    );
    // The name is free again after the new account's own erasure.
    world.publish(user(8), vec![Payload::UserErased]).await;
    let fault = world.service.top_items(&call(), "ann", ItemKind::Artist, 5).await.expect_err("erased");
    assert_eq!(fault.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn the_token_of_an_erased_account_opens_nothing_of_the_new_one() {
    let world = retaken().await;
    world.publish(user(7), vec![Payload::UserErased]).await;
    let api: Arc<dyn Recommendations> = Arc::new(world.service.clone());
    let by = |n| call_of(n, "ann");
    let item = ItemId::artist("Portishead");
    let shown = Impression { trace: TraceId(1), model_version: "m".into(), items: vec![item] };
    let said = Feedback { item, signal: Signal::Liked, trace: TraceId(1) };
    let wanted = query(ItemKind::Artist, 5);
    for (n, expected) in [(7, Some(ErrorKind::PermissionDenied)), (8, None), (9, Some(ErrorKind::NotFound))] {
        let outcomes = [
            api.recommend(&by(n), "ann", &wanted).await.map(drop),
            api.explain(&by(n), "ann", item).await.map(drop),
            api.what_if(&by(n), "ann", &[item], &wanted).await.map(drop),
            api.top_items(&by(n), "ann", ItemKind::Artist, 5).await.map(drop),
            api.export_user(&by(n), "ann", &PageRequest::default()).await.map(drop),
            api.record_impression(&by(n), "ann", shown.clone()).await,
            api.record_feedback(&by(n), "ann", said.clone()).await,
        ];
        for outcome in outcomes {
            assert_eq!(outcome.as_ref().err().map(|fault| fault.kind), expected, "{n}: {outcome:?}");
        }
    }
}
