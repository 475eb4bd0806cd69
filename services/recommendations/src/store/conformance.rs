//! What every store of recommendations must do, as functions that panic when one does not. Each takes
//! an empty store.

use echotune_api::events::{Event, Payload};
use echotune_model::{
    Acceptance, EventId, Feedback, Hlc, Impression, ItemId, PlayCount, Settings, Signal, Tagging, Tally, TraceId,
    Track, UserId,
};

use super::{Named, Progress, RecommendationStore, Row};

/// An event of a user at a time.
pub fn event(user: UserId, at: u64, payload: Payload) -> Event {
    let written_at = Hlc::from_ms(at);
    let id = EventId::of(&user.to_string(), written_at.0, 0);
    Event { id, user, region: "test".into(), written_at, traceparent: String::new(), payload }
}

/// One event of every kind but erasure, of a user with a friend.
fn world(user: UserId, friend: UserId) -> Vec<Event> {
    let track = Track { title: "Jóga".into(), artist: "Björk".into(), album: String::new() };
    let tally = Tally { track, plays: 3, last_listened_at_ms: 1_700_000_000_000 };
    let count = PlayCount { artist: "Björk".into(), plays: 40, source: "elsewhere".into() };
    let tagging = Tagging { artist: "Björk".into(), tag: "art pop".into(), tagged_at_ms: 0 };
    let settings = Settings { blocked_artists: vec!["Blur".into()], private: true };
    vec![
        event(user, 1, Payload::UserCreated { name: "ann".parse().expect("a name") }),
        event(friend, 2, Payload::UserCreated { name: "ben".parse().expect("a name") }),
        event(user, 3, Payload::HistoryChanged { tallies: vec![tally] }),
        event(user, 4, Payload::PlayCountsSet { counts: vec![count] }),
        event(user, 5, Payload::TaggingsAdded { taggings: vec![tagging] }),
        event(user, 6, Payload::FriendsAdded { friends: vec![friend] }),
        event(user, 7, Payload::SettingsChanged { settings }),
    ]
}

async fn rows(store: &dyn RecommendationStore) -> (Vec<Row>, Progress) {
    let mut rows = Vec::new();
    let progress = store.load(&mut |row| rows.push(row)).await.expect("loaded");
    (rows, progress)
}

fn progress(position: u64) -> Progress {
    Progress { position, watermark: Hlc::from_ms(position), revision: position }
}

/// What events say is loaded as written, friendship in both directions, and a replay changes nothing.
///
/// # Panics
/// The store does otherwise.
pub async fn replay(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    assert_eq!(rows(store).await, (Vec::new(), Progress::default()), "the store is empty");
    store.apply(world(user, friend), progress(7)).await.expect("applied");
    let first = rows(store).await;
    assert_eq!((first.0.len(), first.1), (8, progress(7)));
    assert!(first.0.contains(&Row::Friend(user, friend)) && first.0.contains(&Row::Friend(friend, user)));
    store.apply(world(user, friend), progress(7)).await.expect("applied");
    assert_eq!(rows(store).await, first);
}

/// Erasure leaves nothing of the user, whether written before or in the same call, and spares others.
///
/// # Panics
/// The store does otherwise.
pub async fn erasure(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    store.apply(world(user, friend), progress(7)).await.expect("applied");
    let item = Named { title: String::new(), artist: "Björk".into() };
    let shown = Impression { trace: TraceId(1), model_version: "m1".into(), items: vec![ItemId::artist("Björk")] };
    store.record_impression(user, shown, Hlc::from_ms(8)).await.expect("noted");
    let said = Feedback { item: ItemId::artist("Björk"), signal: Signal::Liked, trace: TraceId(1) };
    store.record_feedback(user, said, item, Hlc::from_ms(9), progress(7)).await.expect("noted");
    let mut again = world(user, friend);
    again.push(event(user, 10, Payload::UserErased));
    store.apply(again, progress(8)).await.expect("applied");
    let (left, at) = rows(store).await;
    assert_eq!(left, vec![Row::Name(friend, "ben".parse().expect("a name"))]);
    assert_eq!(at, progress(8));
    assert_eq!(store.counts().await.expect("counted"), (0, 0));
    assert!(store.acceptance().await.expect("read").is_empty());
}

/// A name taken again before the erasure of its first account is over belongs to the new one, whatever
/// the order of their ids.
///
/// # Panics
/// The store does otherwise.
pub async fn retaken_name(store: &dyn RecommendationStore) {
    let created = |user, at| event(user, at, Payload::UserCreated { name: "ann".parse().expect("a name") });
    let (first, second) = (UserId::new(2), UserId::new(1));
    store.apply(vec![created(first, 1), created(second, 2)], progress(2)).await.expect("applied");
    let name = |user| Row::Name(user, "ann".parse().expect("a name"));
    assert_eq!(rows(store).await.0, [name(first), name(second)]);
    store.apply(vec![event(first, 3, Payload::UserErased)], progress(3)).await.expect("applied");
    assert_eq!(rows(store).await.0, [name(second)]);
}

/// An impression counts once; feedback counts by its latest signal, with its own trace or that of the
/// newest impression of the item.
///
/// # Panics
/// The store does otherwise.
pub async fn acceptance(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    store.apply(world(user, friend), progress(7)).await.expect("applied");
    let items: Vec<ItemId> = ["a", "b", "c"].into_iter().map(ItemId::artist).collect();
    for (trace, model, at) in [(1, "m1", 10), (1, "m1", 11), (2, "m2", 12)] {
        let shown = Impression { trace: TraceId(trace), model_version: model.into(), items: items.clone() };
        store.record_impression(user, shown, Hlc::from_ms(at)).await.expect("noted");
    }
    let named = || Named { title: String::new(), artist: "a".into() };
    let said = [(0, Signal::Skipped, 1), (0, Signal::Liked, 1), (1, Signal::Disliked, 0), (2, Signal::Played, 2)];
    for (at, (item, signal, trace)) in (20..).zip(said) {
        let feedback = Feedback { item: items[item], signal, trace: TraceId(trace) };
        store.record_feedback(user, feedback, named(), Hlc::from_ms(at), progress(7)).await.expect("noted");
    }
    let one = |model: &str, accepted, refused| Acceptance {
        model_version: model.into(),
        impressions: 1,
        items: 3,
        accepted,
        refused,
    };
    assert_eq!(store.acceptance().await.expect("read"), vec![one("m2", 1, 1), one("m1", 1, 0)]);
    assert_eq!(store.counts().await.expect("counted"), (2, 3));
}
