use echotune_api::{
    Recommendations as _,
    events::{Payload, USERS_TOPIC},
};
use echotune_eventlog::{EventLog as _, Record};
use echotune_model::ItemKind;

use crate::world::{World, call, counted, played, tagged, user};

#[tokio::test]
async fn events_delivered_again_change_nothing_and_unreadable_ones_are_passed_over() {
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
    let garbage = Record { key: "x".into(), value: vec![0xff; 9] };
    world.log.append(USERS_TOPIC, vec![garbage]).await.expect("appended");
    world.publish(user(1), payloads()).await;
    world.service.refit().await;
    assert_eq!(world.service.top_items(&call(), "ann", ItemKind::Artist, 10).await.expect("top"), top);
    assert_eq!(world.service.position(), world.log.end(USERS_TOPIC).await.expect("end"));
}
