use echotune_api::{
    Recommendations as _,
    events::{Payload, USERS_TOPIC},
};
use echotune_eventlog::{EventLog as _, Record};
use echotune_model::ItemKind;
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationStore as _};

use crate::world::{World, call, counted, played, tagged, user};

#[tokio::test]
async fn events_delivered_again_change_nothing_and_unreadable_ones_are_kept_aside() {
    let world = World::new();
    world.join(1, "ann", &["Björk", "Portishead"]).await;
    let payloads = || {
        vec![
            played(&["Björk"], 7),
            counted("Blur", 3, "one"),
            tagged("Blur", "britpop"),
            Payload::FriendsAdded { friends: vec![user(2)] },
        ]
    };
    world.publish(user(1), payloads()).await;
    world.service.refit().await;
    let top = world.service.top_items(&call(), "ann", ItemKind::Artist, 10).await.expect("top");
    let item = world.service.get_item(&call(), top[0].0.id).await.expect("item");
    assert_eq!((item.artist.as_str(), top[0].1), ("Björk", 7));
    let at = world.log.ends(USERS_TOPIC).await.expect("ends").next(USERS_TOPIC);
    let garbage = Record { key: "x".into(), value: vec![0xff; 9], ..Record::default() };
    let long = Record { key: "y".into(), value: vec![0xff; 100_000], ..Record::default() };
    world.log.append(USERS_TOPIC, vec![garbage, long]).await.expect("appended");
    world.publish(user(1), payloads()).await;
    world.service.refit().await;
    assert_eq!(world.service.top_items(&call(), "ann", ItemKind::Artist, 10).await.expect("top"), top);
    assert_eq!(world.service.positions(), world.log.ends(USERS_TOPIC).await.expect("ends"));
    assert_eq!(world.service.counts(&call()).await.expect("counts")["unreadable_events"], 2);
    let kept = EmbeddedRecommendationStore::new(world.db.clone()).unreadable().await.expect("read");
    let told: Vec<_> = kept.iter().map(|one| (one.position, one.key.as_str(), one.value.len())).collect();
    assert_eq!(told, [(at, "x", 9), (at + 1, "y", 64 << 10)]);
    assert!(kept[0].reason.contains("not an event"), "{}", kept[0].reason);
}
