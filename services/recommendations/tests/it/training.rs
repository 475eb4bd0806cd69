//! Histories for training elsewhere, as an object and over gRPC.

use echotune_api::{ListenerHistory, MAX_HISTORY_ROWS, Training, events::Payload};
use echotune_model::{Call, ErrorKind, Fault, Feedback, ItemId, ItemKind, Signal, Tally, TraceId, Track, UserId};
use futures::TryStreamExt as _;

use crate::world::{NOW, World, call, call_of, played, settings, user};

async fn world() -> World {
    let world = World::new();
    world.join(2, "ben", &["Portishead", "Björk"]).await;
    world.join(1, "ann", &["Björk"]).await;
    world.join(3, "cat", &["Tricky"]).await;
    world.publish(user(3), vec![settings(&[], true)]).await;
    world.join(4, "dan", &[]).await;
    world
}

async fn exported(from: &dyn Training, by: &Call, of: Option<&str>) -> Result<(u64, u64, Vec<ListenerHistory>), Fault> {
    let histories = from.export_histories(by, of).await?;
    let (listeners, rows) = (histories.listeners, histories.rows);
    Ok((listeners, rows, histories.parts.try_concat().await?))
}

fn known(histories: &[ListenerHistory]) -> Vec<(UserId, ItemKind, Vec<ItemId>)> {
    let items = |one: &ListenerHistory| {
        let mut items: Vec<ItemId> = one.items.iter().map(|known| known.item).collect();
        items.sort_unstable();
        items
    };
    histories.iter().map(|one| (one.user, one.kind, items(one))).collect()
}

#[tokio::test]
async fn all_who_are_not_private_are_exported_by_id_and_one_by_name_with_the_same_answer_on_both_faces() {
    let world = world().await;
    let remote = world.remote_training().await;
    let mut both = [ItemId::artist("Portishead"), ItemId::artist("Björk")];
    both.sort_unstable();
    for from in [&world.service as &dyn Training, &remote] {
        let (listeners, rows, histories) = exported(from, &call(), None).await.expect("exported");
        assert_eq!((listeners, rows, histories.len()), (3, 6, 4));
        let found = known(&histories);
        assert_eq!(found[0], (user(1), ItemKind::Artist, vec![ItemId::artist("Björk")]));
        assert_eq!((found[1].0, found[1].1), (user(1), ItemKind::Track));
        assert_eq!(found[2], (user(2), ItemKind::Artist, both.to_vec()));
        assert_eq!(histories[0].items[0].plays, 1);
        assert_eq!(histories[0].items[0].last_listened_at_ms, NOW);
        let (listeners, rows, histories) = exported(from, &call(), Some("cat")).await.expect("the operator may");
        assert_eq!((listeners, rows, histories[0].user), (1, 2, user(3)));
        assert_eq!(exported(from, &call(), Some("dan")).await.expect("nothing is known"), (1, 0, Vec::new()));
        let unknown = exported(from, &call(), Some("eve")).await.expect_err("unknown");
        assert_eq!(unknown.kind, ErrorKind::NotFound);
    }
    let refused = exported(&world.service, &call_of(1, "ann"), Some("ann")).await.expect_err("for the operator");
    assert_eq!(refused.kind, ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_stream_is_of_one_moment_and_in_parts() {
    let world = world().await;
    let items = MAX_HISTORY_ROWS + 10;
    let tally = |n: usize| Tally {
        track: Track { title: format!("{n}"), artist: "one".into(), album: String::new() },
        plays: 2,
        last_listened_at_ms: NOW,
        explicit: None,
    };
    world.publish(user(4), vec![Payload::HistoryChanged { tallies: (0..items).map(tally).collect() }]).await;
    let mut histories = world.service.export_histories(&call(), None).await.expect("exported");
    let first = histories.parts.try_next().await.expect("read").expect("a part");
    let size = |part: &[ListenerHistory]| part.iter().map(|one| one.items.len()).sum::<usize>();
    assert_eq!(size(&first), MAX_HISTORY_ROWS);
    world.publish(user(4), vec![played(&["two"], 1)]).await;
    world.publish(user(1), vec![Payload::UserErased]).await;
    let mut all = first;
    while let Some(part) = histories.parts.try_next().await.expect("read") {
        assert!(size(&part) <= MAX_HISTORY_ROWS && !part.is_empty());
        all.extend(part);
    }
    assert_eq!((size(&all) as u64, histories.rows), (histories.rows, 6 + 1 + items as u64));
    let tracks = known(&all).into_iter().filter(|one| (one.0, one.1) == (user(4), ItemKind::Track));
    let mut tracks: Vec<ItemId> = tracks.flat_map(|one| one.2).collect();
    tracks.sort_unstable();
    tracks.dedup();
    assert_eq!(tracks.len(), items);
    assert_eq!(world.service.export_histories(&call(), None).await.expect("exported").listeners, 2);
}

#[tokio::test]
async fn what_is_liked_counts_as_played_once() {
    let world = world().await;
    let feedback = Feedback { item: ItemId::artist("Portishead"), signal: Signal::Liked, trace: TraceId::default() };
    echotune_api::Recommendations::record_feedback(&world.service, &call(), "dan", feedback).await.expect("noted");
    let (_, rows, histories) = exported(&world.service, &call(), Some("dan")).await.expect("exported");
    assert_eq!((rows, histories[0].items[0].plays, histories[0].items[0].last_listened_at_ms), (1, 1, 0));
}
