//! What every store of recommendations must do, as functions that panic when one does not. Each takes
//! an empty store.

pub mod experiments;
pub mod releases;

use echotune_api::events::{Event, Payload};
use echotune_eventlog::Positions;
use echotune_model::{
    Acceptance, ErrorKind, EventId, ExplicitContent, ExportRecord, Feedback, Hlc, Impression, ItemId, PageRequest,
    PlayCount, Settings, Signal, Tagging, Tally, TraceId, Track, UserId,
};

use super::{MAX_IMPRESSIONS, Named, Progress, RecommendationStore, Row, Totals};

/// Gives a name and the function of `conformance` that it is of, for each, to a macro that makes a test of each: what
/// every adapter of `RecommendationStore` is held to, in one place.
#[macro_export]
macro_rules! each_promise {
    ($each:ident) => {
        $each!(
            replays_without_change: replay,
            keeps_the_later_of_totals_that_come_in_any_order: totals,
            erases_everything_of_a_user: erasure,
            tells_acceptance_by_model: acceptance,
            gives_a_retaken_name_to_its_new_account: retaken_name,
            bounds_what_it_holds_of_a_user: bounds,
            exports_what_it_holds_of_a_user: export,
            counts_what_is_set_aside: dead,
            keeps_experiments: experiments::kept,
            sums_experiments_up: experiments::accrual,
            counts_listeners_when_their_windows_have_passed: experiments::windows,
            tells_whose_items_were_preferred: experiments::interleaving,
            takes_the_erased_out_of_experiments: experiments::erasure,
            tells_what_was_explored: experiments::explored,
            keeps_releases_and_their_record: releases::record,
            bounds_releases_and_keeps_those_that_served: releases::bounds
        );
    };
}

/// An event of a user at a time.
pub fn event(user: UserId, at: u64, payload: Payload) -> Event {
    let written_at = Hlc::from_ms(at);
    let id = EventId::of(&user.to_string(), written_at.0, 0);
    Event { id, user, region: "test".into(), written_at, traceparent: String::new(), payload }
}

/// One event of every kind but erasure, of a user with a friend.
fn world(user: UserId, friend: UserId) -> Vec<Event> {
    let track = Track { title: "Jóga".into(), artist: "Björk".into(), album: String::new() };
    let tally = Tally { track, plays: 3, last_listened_at_ms: 1_700_000_000_000, explicit: Some(true) };
    let count = PlayCount { artist: "Björk".into(), plays: 40, source: "elsewhere".into() };
    let tagging = Tagging { artist: "Björk".into(), tag: "art pop".into(), tagged_at_ms: 0 };
    let explicit = ExplicitContent::Hide;
    let settings = Settings { blocked_artists: vec!["Blur".into()], private: true, explicit };
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
    let positions = Positions::of("topic", position);
    Progress { positions, watermark: Hlc::from_ms(position), revision: position }
}

/// What events say is loaded as written, friendship in both directions, and a replay changes nothing.
///
/// # Panics
/// The store does otherwise.
pub async fn replay(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    assert_eq!(rows(store).await, (Vec::new(), Progress::default()), "the store is empty");
    store.apply(world(user, friend), 0, progress(7)).await.expect("applied");
    let first = rows(store).await;
    assert_eq!((first.0.len(), first.1.clone()), (8, progress(7)));
    assert!(first.0.contains(&Row::Friend(user, friend)) && first.0.contains(&Row::Friend(friend, user)));
    store.apply(world(user, friend), 0, progress(7)).await.expect("applied");
    assert_eq!(rows(store).await, first);
}

/// Of totals of a track that come in any order, in one call or several, the larger stay; none of them outlives an
/// erasure.
///
/// # Panics
/// The store does otherwise.
pub async fn totals(store: &dyn RecommendationStore) {
    let user = UserId::new(1);
    let tally = |plays, last_listened_at_ms, explicit| {
        let track = Track { title: "Jóga".into(), artist: "Björk".into(), album: String::new() };
        Tally { track, plays, last_listened_at_ms, explicit }
    };
    let heard = |tally| event(user, 1, Payload::HistoryChanged { tallies: vec![tally] });
    let (early, late) = (tally(3, 1_000, Some(true)), tally(5, 2_000, None));
    let joined = Row::Tally(user, tally(5, 2_000, Some(true)));
    for calls in [vec![vec![&early, &late]], vec![vec![&late, &early]], vec![vec![&late], vec![&early], vec![&late]]] {
        for call in calls {
            let events = call.into_iter().cloned().map(heard).collect();
            store.apply(events, 0, progress(1)).await.expect("applied");
        }
        assert_eq!(rows(store).await.0, std::slice::from_ref(&joined));
        let again = vec![event(user, 2, Payload::UserErased), heard(early.clone())];
        store.apply(again, 0, progress(2)).await.expect("applied");
        assert_eq!(rows(store).await.0, [Row::Tally(user, early.clone())], "what was erased counts no more");
        store.apply(vec![event(user, 3, Payload::UserErased)], 0, progress(3)).await.expect("applied");
    }
}

/// Erasure leaves nothing of the user, whether written before or in the same call, and spares others.
///
/// # Panics
/// The store does otherwise.
pub async fn erasure(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    store.apply(world(user, friend), 0, progress(7)).await.expect("applied");
    let item = Named { title: String::new(), artist: "Björk".into() };
    let shown = Impression { trace: TraceId(1), model_version: "m1".into(), items: vec![ItemId::artist("Björk")] };
    store.record_impression(user, shown, Hlc::from_ms(8).into()).await.expect("noted");
    let said = Feedback { item: ItemId::artist("Björk"), signal: Signal::Liked, trace: TraceId(1) };
    store.record_feedback(user, said, item, Hlc::from_ms(9), progress(7)).await.expect("noted");
    let mut again = world(user, friend);
    again.push(event(user, 10, Payload::UserErased));
    store.apply(again, 0, progress(8)).await.expect("applied");
    let (left, at) = rows(store).await;
    assert_eq!(left, vec![Row::Name(friend, "ben".parse().expect("a name"))]);
    assert_eq!(at, progress(8));
    assert_eq!(store.totals().await.expect("counted"), Totals::default());
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
    store.apply(vec![created(first, 1), created(second, 2)], 0, progress(2)).await.expect("applied");
    let name = |user| Row::Name(user, "ann".parse().expect("a name"));
    assert_eq!(rows(store).await.0, [name(first), name(second)]);
    store.apply(vec![event(first, 3, Payload::UserErased)], 0, progress(3)).await.expect("applied");
    assert_eq!(rows(store).await.0, [name(second)]);
}

/// An impression counts once; feedback counts by its latest signal, with its own trace or that of the
/// newest impression of the item, and also when it comes before the impression.
///
/// # Panics
/// The store does otherwise.
pub async fn acceptance(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    store.apply(world(user, friend), 0, progress(7)).await.expect("applied");
    let items: Vec<ItemId> = ["a", "b", "c"].into_iter().map(ItemId::artist).collect();
    let early = Feedback { item: items[2], signal: Signal::Skipped, trace: TraceId(1) };
    let named = || Named { title: String::new(), artist: "a".into() };
    store.record_feedback(user, early, named(), Hlc::from_ms(9), progress(7)).await.expect("noted");
    for (trace, model, at) in [(1, "m1", 10), (1, "m1", 11), (2, "m2", 12)] {
        let shown = Impression { trace: TraceId(trace), model_version: model.into(), items: items.clone() };
        store.record_impression(user, shown, Hlc::from_ms(at).into()).await.expect("noted");
    }
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
    assert_eq!(store.acceptance().await.expect("read"), vec![one("m2", 1, 1), one("m1", 1, 1)]);
    let totals = Totals { impressions: 2, feedback: 5, unreadable_events: 0 };
    assert_eq!(store.totals().await.expect("counted"), totals);
}

/// Feedback repeated under any traces stays one record for each item and signal, the oldest impressions
/// make room for new ones, and the sums follow.
///
/// # Panics
/// The store does otherwise.
pub async fn bounds(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    store.apply(world(user, friend), 0, progress(7)).await.expect("applied");
    let item = ItemId::artist("a");
    let named = || Named { title: String::new(), artist: "a".into() };
    for trace in 1..=50_u64 {
        for signal in [Signal::Liked, Signal::Skipped] {
            let feedback = Feedback { item, signal, trace: TraceId(u128::from(trace) << 64) };
            store.record_feedback(user, feedback, named(), Hlc::from_ms(trace), progress(7)).await.expect("noted");
        }
    }
    assert_eq!(store.totals().await.expect("counted").feedback, 2);
    let most = MAX_IMPRESSIONS as u64;
    // The trace says nothing about the time.
    let trace = |n: u64| TraceId(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let notes = (1..=most + 5).map(|n| {
        let model_version = if n <= 3 { "old".into() } else { "new".into() };
        let shown = Impression { trace: trace(n), model_version, items: vec![item] };
        store.record_impression(user, shown, Hlc::from_ms(100 + n).into())
    });
    futures::future::join_all(notes).await.into_iter().for_each(|noted| noted.expect("noted"));
    let shown = Impression { trace: trace(1), model_version: "other".into(), items: vec![item] };
    store.record_impression(friend, shown, Hlc::from_ms(99).into()).await.expect("noted");
    assert_eq!(store.totals().await.expect("counted").impressions, most + 1);
    let acceptance = store.acceptance().await.expect("read");
    let told: Vec<_> = acceptance.iter().map(|one| (one.model_version.as_str(), one.impressions)).collect();
    assert_eq!(told, [("new", most), ("other", 1)], "the three oldest and two more have gone");
    // One that has gone can be noted again; one that is held cannot.
    for n in [1, most + 5] {
        let shown = Impression { trace: trace(n), model_version: "again".into(), items: vec![item] };
        store.record_impression(user, shown, Hlc::from_ms(200 + most + n).into()).await.expect("noted");
    }
    let acceptance = store.acceptance().await.expect("read");
    assert_eq!((acceptance[0].model_version.as_str(), acceptance[0].impressions), ("again", 1));
    assert_eq!(store.totals().await.expect("counted").impressions, most + 1);
    let erased = vec![event(user, 9, Payload::UserErased), event(user, 10, Payload::UserErased)];
    store.apply(erased, 0, progress(8)).await.expect("applied");
    let totals = Totals { impressions: 1, feedback: 0, unreadable_events: 0 };
    assert_eq!(store.totals().await.expect("counted"), totals, "what was erased counts no more, and once");
    assert_eq!(store.acceptance().await.expect("read").len(), 1);
}

/// An export tells all impressions and feedback of one user, in pages of any size.
///
/// # Panics
/// The store does otherwise.
pub async fn export(store: &dyn RecommendationStore) {
    let (user, friend) = (UserId::new(1), UserId::new(2));
    store.apply(world(user, friend), 0, progress(7)).await.expect("applied");
    let items: Vec<ItemId> = ["a", "b", "c"].into_iter().map(ItemId::artist).collect();
    for (n, who) in [(1, user), (2, user), (3, friend)] {
        let shown = Impression { trace: TraceId(n), model_version: format!("m{n}"), items: items.clone() };
        store.record_impression(who, shown, Hlc::from_ms(10).into()).await.expect("noted");
        for item in &items[..2] {
            let feedback = Feedback { item: *item, signal: Signal::Liked, trace: TraceId(n) };
            let item = Named { title: "t".into(), artist: "a".into() };
            store.record_feedback(who, feedback, item, Hlc::from_ms(20), progress(7)).await.expect("noted");
        }
    }
    let whole = exported(store, user, 1_000).await;
    let kinds: Vec<&str> = whole.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["impression", "impression", "feedback", "feedback"]);
    for part in
        ["\"trace_id\":\"00000000000000000000000000000001\"", "\"model_version\":\"m1\"", "\"signal\":\"liked\""]
    {
        assert!(whole[0].json.contains(part), "{}", whole[0].json);
    }
    assert!(whole[2].json.contains("\"artist\":\"a\"") && whole[2].json.contains("\"said_at_ms\":20"));
    for size in [1, 2, 3] {
        assert_eq!(exported(store, user, size).await, whole, "pages of {size}");
    }
    assert_eq!(exported(store, friend, 2).await.len(), 3);
    assert!(exported(store, UserId::new(3), 2).await.is_empty());
    for token in ["x", "listen.", "feedback.?", ".", &"feedback.".repeat(100)] {
        let page = PageRequest { size: 5, token: token.into() };
        assert_eq!(store.export(user, page).await.expect_err("no token").kind(), ErrorKind::InvalidArgument, "{token}");
    }
}

async fn exported(store: &dyn RecommendationStore, user: UserId, size: u32) -> Vec<ExportRecord> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = store.export(user, PageRequest { size, token }).await.expect("exported");
        assert!(page.rows.len() <= size as usize);
        all.extend(page.rows);
        token = page.next;
        if token.is_empty() {
            return all;
        }
    }
}

/// Records that were set aside are counted with the progress.
///
/// # Panics
/// The store does otherwise.
pub async fn dead(store: &dyn RecommendationStore) {
    for (count, all) in [(3, 3), (0, 3), (2, 5)] {
        store.apply(Vec::new(), count, progress(all)).await.expect("applied");
        assert_eq!(store.totals().await.expect("counted").unreadable_events, all);
        assert_eq!(rows(store).await.1, progress(all));
    }
}
