//! Several processes on one keyspace.

use std::{collections::BTreeMap, time::Duration};

use echotune_api::events::{Event, Payload};
use echotune_kit::cql::{Scope, WriteClock};
use echotune_model::{
    Clock, Hlc, Listen, NewPlaylist, NewToken, PageRequest, PlayCount, Profile, Role, Settings, TokenId, Track, User,
    UserId, UserName,
};
use echotune_users::{
    Checked, CqlUserStore, Idempotency, Stamp, TokenDraft, UserStore, UserStoreError, conformance::drain,
};
use futures::future::{join, join_all};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::place::Place;

pub(crate) fn name(text: &str) -> UserName {
    text.parse().expect("a name")
}

pub(crate) fn checked<T>(rows: Vec<T>) -> Checked<T> {
    Checked { rows: (0..).zip(rows).collect(), rejections: Vec::new() }
}

pub(crate) fn listen(title: &str, minute: i64) -> Listen {
    let track = Track { title: title.into(), artist: "Björk".into(), album: String::new() };
    let listened_at_ms = 1_600_000_000_000 + minute * 60_000;
    Listen { listened_at_ms, track, played_ms: 0, source: String::new(), explicit: None }
}

pub(crate) fn keyed(key: &str) -> Stamp {
    Stamp { traceparent: String::new(), idempotency: Some(Idempotency { key: key.into(), request: [0; 32] }) }
}

pub(crate) async fn account(store: &CqlUserStore, of: &str) -> User {
    store.create(name(of), Stamp::default()).await.expect("created")
}

pub(crate) fn all() -> PageRequest {
    PageRequest { size: 1_000, token: String::new() }
}

/// Waits until an account has come to the region of a store.
pub(crate) async fn seen_by(store: &CqlUserStore, created: &User) {
    let found = timeout(Duration::from_secs(30), async {
        loop {
            match store.by_name(&created.name).await.expect("read") {
                Some(found) => return found,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert_eq!(&found.await.expect("it comes"), created);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_once_and_the_same_call_twice_is_one() {
    let place = Place::take().await;
    let stores = [place.store_of(0, "one").await, place.store_of(1, "two").await];
    for round in 0..5 {
        let wanted = name(&format!("ann{round}"));
        let told = join_all((0..4).map(|n| stores[n % 2].create(wanted.clone(), Stamp::default()))).await;
        let (won, lost): (Vec<_>, Vec<_>) = told.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "{won:?}");
        assert!(lost.iter().all(|one| matches!(one, Err(UserStoreError::NameTaken(_)))), "{lost:?}");
        let created = won[0].clone().expect("created");
        seen_by(&stores[1], &created).await;
        seen_by(&stores[0], &created).await;
    }
    let stores = [place.store_of(0, "three").await, place.store_of(0, "four").await];
    let calls = (0..4).map(|n| stores[n % 2].create(name("ben"), keyed("k")));
    let told: Vec<_> = join_all(calls).await.into_iter().collect::<Result<_, _>>().expect("created");
    assert!(told.iter().all(|user| *user == told[0]), "repeats at once are one call: {told:?}");
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    let calls = (0..4).map(|n| stores[n % 2].create_playlist(told[0].clone(), content.clone(), keyed("p")));
    join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>().expect("made");
    assert_eq!(stores[0].playlists(told[0].id, all()).await.expect("listed").rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_its_creator_left_becomes_the_account() {
    let place = Place::take().await;
    let (store, session) = (place.store("test").await, &place.sessions[0]);
    let take =
        "INSERT INTO users_names (folded, user_id, created, name, asked) VALUES (?, ?, ?, ?, null) IF NOT EXISTS";
    let take = session.conditional("take", take, Scope::Everywhere).await.expect("prepared");
    let reserve = async |name: &str, age_ms| {
        let made_ms = store.now_ms() - age_ms;
        let (id, created) = (UserId::new(made_ms), Hlc::from_ms(made_ms).0.cast_signed());
        assert!(session.decide(&take, (name, id.0, created, name)).await.expect("reserved"));
        id
    };
    let (ann, _) = (reserve("ann", 3_600_000).await, reserve("ben", 0).await);
    assert_eq!(store.by_name(&name("ben")).await.expect("read"), None, "whoever reserved it may be at it");
    let taken = store.create(name("ann"), Stamp::default()).await.expect_err("reserved");
    assert!(matches!(taken, UserStoreError::NameTaken(_)), "{taken}");
    let found = store.by_name(&name("Ann")).await.expect("read").expect("completed");
    assert_eq!((found.id, found.name.as_str()), (ann, "ann"));
    let events = drain(&store).await;
    assert!(
        matches!(events.as_slice(), [one] if one.user == ann && one.payload == Payload::UserCreated { name: name("ann") }),
        "{events:?}"
    );
    let listed = store.users(all()).await.expect("listed").rows;
    assert_eq!(listed, [found]);
}

/// The last totals that events tell of each track.
fn last_totals(events: Vec<Event>) -> BTreeMap<String, u32> {
    let mut totals = BTreeMap::new();
    for event in events {
        if let Payload::HistoryChanged { tallies } = event.payload {
            totals.extend(tallies.into_iter().map(|tally| (tally.track.title, tally.plays)));
        }
    }
    totals
}

#[tokio::test(flavor = "multi_thread")]
async fn no_listen_is_missing_from_the_last_total_whoever_writes() {
    let place = Place::take().await;
    let stores = [place.store("one").await, place.store("two").await];
    let ann = account(&stores[0], "ann").await;
    let tracks = ["Jóga", "Hunter", "Bachelorette"];
    let write = |writer: usize| {
        let (store, ann) = (stores[writer].clone(), ann.clone());
        async move {
            for call in 0..20 {
                let minute = i64::try_from(writer * 1_000_000 + call * 10_000).expect("small");
                let listens =
                    (0..30).map(|n| listen(tracks[usize::try_from(n).expect("small") % 3], minute + n)).collect();
                store.record(ann.clone(), checked(listens), Stamp::default()).await.expect("recorded");
            }
        }
    };
    let reading = async {
        let mut events = Vec::new();
        while last_totals(events.clone()).values().sum::<u32>() < 1_200 {
            events.extend(timeout(Duration::from_secs(60), drain(&stores[0])).await.expect("an event comes"));
        }
        events
    };
    let ((), ((), events)) = join(write(0), join(write(1), reading)).await;
    let expected: BTreeMap<String, u32> = tracks.map(|track| (track.to_owned(), 400)).into();
    assert_eq!(last_totals(events), expected);
    assert_eq!(stores[1].counts().await.expect("counts")["listens"], 1_200, "sums of both writers");
    drop(stores);
    let again = place.store("one").await;
    again.record(ann, checked(vec![listen("Jóga", -1)]), Stamp::default()).await.expect("recorded");
    assert_eq!(again.counts().await.expect("counts")["listens"], 1_201, "a writer goes on after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_waits_until_what_it_tells_of_is_seen() {
    let place = Place::take().await;
    let (store, session) = (place.store("test").await, &place.sessions[0]);
    let (ann, ben) = (account(&store, "ann").await, account(&store, "ben").await);
    drain(&store).await;
    store
        .record(ann.clone(), checked(vec![listen("Jóga", 0), listen("Jóga", 1)]), Stamp::default())
        .await
        .expect("recorded");
    store
        .set_settings(ann.clone(), Settings { private: true, ..Settings::default() }, Stamp::default())
        .await
        .expect("set");
    // As if a copy of the batch were still on its way.
    let row =
        "SELECT bucket, track_id, listened_at, listen_id FROM users_listens_by_track WHERE user_id = ? AND bucket = ?";
    let row = session.read("row", row).await.expect("prepared");
    let mut rows: Vec<(i32, Uuid, i64, Uuid)> = Vec::new();
    for bucket in 0..16 {
        rows.append(&mut session.rows(&row, (ann.id.0, bucket), 10).await.expect("read"));
    }
    let (bucket, track, at, id) = rows[1];
    let key = (ann.id.0, bucket, track, at, id);
    let remove = "DELETE FROM users_listens_by_track \
                  WHERE user_id = ? AND bucket = ? AND track_id = ? AND listened_at = ? AND listen_id = ?";
    let remove = session.write("remove", remove).await.expect("prepared");
    let times = WriteClock::new(Default::default());
    session.put(&remove, key, times.now()).await.expect("removed");
    let waiting = timeout(Duration::from_secs(3), store.next_events(10)).await;
    assert!(waiting.is_err(), "events of ann wait, also those after: {waiting:?}");
    store.set_settings(ben.clone(), Settings::default(), Stamp::default()).await.expect("set");
    let events = drain(&store).await;
    assert!(matches!(events.as_slice(), [one] if one.user == ben.id), "those of others go on: {events:?}");
    let put = "INSERT INTO users_listens_by_track (user_id, bucket, track_id, listened_at, listen_id, mark) VALUES (?, ?, ?, ?, ?, 0)";
    let put = session.write("put", put).await.expect("prepared");
    session.put(&put, key, times.now()).await.expect("put back");
    let events = timeout(Duration::from_secs(60), drain(&store)).await.expect("they come");
    let told: Vec<_> = events.iter().map(|event| &event.payload).collect();
    let private = Settings { private: true, ..Settings::default() };
    assert!(
        matches!(told.as_slice(), [Payload::HistoryChanged { tallies }, Payload::SettingsChanged { settings }]
            if tallies[0].plays == 2 && *settings == private),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_a_batch_is_kept_whole() {
    let place = Place::take().await;
    let store = place.store("test").await;
    let ann = account(&store, "ann").await;
    drain(&store).await;
    let blocked = (0..1_000).map(|n| format!("{n:x>1000}")).collect();
    let settings = Settings { blocked_artists: blocked, private: true, ..Settings::default() };
    store.set_settings(ann.clone(), settings.clone(), keyed("s")).await.expect("set");
    assert_eq!(store.settings(ann.id).await.expect("read"), settings);
    assert!(
        matches!(drain(&store).await.as_slice(), [one] if one.payload == Payload::SettingsChanged { settings: settings.clone() })
    );
    let track =
        |n: u32| Track { title: format!("{n:t>150}"), artist: format!("{n:a>150}"), album: format!("{n:b>100}") };
    let content =
        NewPlaylist { title: "All".into(), description: String::new(), tracks: (0..10_000).map(track).collect() };
    let made = store.create_playlist(ann.clone(), content.clone(), keyed("p")).await.expect("made");
    assert_eq!(store.playlist(made.id).await.expect("read").as_ref(), Some(&made));
    let again = store.create_playlist(ann.clone(), content.clone(), keyed("p")).await.expect("made before");
    assert_eq!(again, made);
    let shorter = NewPlaylist { tracks: content.tracks[..10].to_vec(), ..content };
    let changed = store.update_playlist(ann.clone(), made.id, shorter, Stamp::default()).await.expect("changed");
    assert_eq!(store.playlist(made.id).await.expect("read").as_ref(), Some(&changed));
    let text = "x".repeat(1_000);
    let long = |minute| Listen {
        track: Track { title: format!("{minute}"), artist: text.clone(), album: text.clone() },
        ..listen("", minute)
    };
    let receipt = store.record(ann.clone(), checked((0..500).map(long).collect()), keyed("l")).await.expect("recorded");
    assert_eq!(receipt.recorded, 500);
    assert_eq!(store.listens(ann.id, all()).await.expect("listed").rows.len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_ran_ahead_hides_no_later_write() {
    let place = Place::take().await;
    let clock = Clock::default();
    clock.observe(Hlc::from_ms(clock.wall_ms() + 3_600_000));
    let ahead = place.store_by(0, "one", clock).await;
    let ann = account(&ahead, "ann").await;
    let settings = |artist: &str| Settings { blocked_artists: vec![artist.into()], ..Settings::default() };
    let profile = |about: &str| Profile { about: about.into(), ..Profile::default() };
    ahead.set_settings(ann.clone(), settings("Creed"), Stamp::default()).await.expect("set");
    ahead.set_profile(ann.clone(), profile("before"), Stamp::default()).await.expect("set");
    drop(ahead);
    let again = place.store("one").await;
    again.set_profile(ann.clone(), profile("after"), Stamp::default()).await.expect("set");
    assert_eq!(again.profile(ann.id).await.expect("read"), profile("after"), "the same process after a restart");
    let other = place.store("two").await;
    other.set_settings(ann.clone(), settings("Nickelback"), Stamp::default()).await.expect("set");
    assert_eq!(other.settings(ann.id).await.expect("read"), settings("Nickelback"), "another that read what was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_by_a_process_with_a_slower_clock_is_changed() {
    let place = Place::take().await;
    let fast = place.store_by(0, "fast", Clock::over(|| Clock::default().wall_ms() + 30_000)).await;
    let slow = place.store("slow").await;
    let ann = account(&fast, "ann").await;
    let settings = |artist: &str| Settings { blocked_artists: vec![artist.into()], ..Settings::default() };
    let profile = |about: &str| Profile { about: about.into(), ..Profile::default() };
    let count = |plays| checked(vec![PlayCount { artist: "Björk".into(), plays, source: "radio".into() }]);
    let list = |title: &str| NewPlaylist { title: title.into(), description: String::new(), tracks: Vec::new() };
    let track = listen("Hunter", 0).track;
    fast.set_settings(ann.clone(), settings("Creed"), Stamp::default()).await.expect("set");
    fast.set_profile(ann.clone(), profile("before"), Stamp::default()).await.expect("set");
    fast.set_counts(ann.clone(), count(3), Stamp::default()).await.expect("set");
    fast.add_tracks(ann.clone(), checked(vec![track.clone()]), Stamp::default()).await.expect("added");
    let (kept, gone) = (list("kept"), list("gone"));
    let kept = fast.create_playlist(ann.clone(), kept, Stamp::default()).await.expect("made");
    let gone = fast.create_playlist(ann.clone(), gone, Stamp::default()).await.expect("made");
    let wanted = NewToken { label: "kitchen".into(), role: Role::Reader, expires_at_ms: 0 };
    let draft = TokenDraft { id: TokenId::new(fast.now_ms()), wanted, hash: "hash".into() };
    let token = fast.create_token(ann.clone(), draft, Stamp::default()).await.expect("made");

    assert!(slow.revoke_token(ann.clone(), token.id, Stamp::default()).await.expect("revoked"));
    assert_eq!(slow.token(token.id).await.expect("read"), None, "a token that was revoked opens nothing");
    let slow = place.store("another slow").await;
    assert!(slow.delete_playlist(ann.clone(), gone.id, Stamp::default()).await.expect("deleted"));
    let slow = place.store("a third").await;
    let changed = slow.update_playlist(ann.clone(), kept.id, list("changed"), Stamp::default()).await.expect("changed");
    assert_eq!(slow.playlists(ann.id, all()).await.expect("listed").rows, [changed]);
    let slow = place.store("a fourth").await;
    assert!(slow.remove_track(ann.clone(), track.id(), Stamp::default()).await.expect("removed"));
    assert!(slow.library(ann.id, all()).await.expect("listed").rows.is_empty());
    fast.add_tracks(ann.clone(), checked(vec![track.clone()]), Stamp::default()).await.expect("added");
    assert!(fast.remove_track(ann.clone(), track.id(), Stamp::default()).await.expect("removed"));
    let slow = place.store("another fourth").await;
    let added = slow.add_tracks(ann.clone(), checked(vec![track.clone()]), Stamp::default()).await.expect("added");
    let kept = slow.library(ann.id, all()).await.expect("listed").rows;
    assert_eq!((added.recorded, kept.len()), (1, 1), "what was removed is there again");
    let slow = place.store("a fifth").await;
    slow.set_counts(ann.clone(), count(4), Stamp::default()).await.expect("set");
    let told = slow.export(ann.clone(), all()).await.expect("exported").rows;
    assert!(told.iter().any(|row| row.kind == "play_count" && row.json.contains("\"plays\":4")), "{told:?}");
    let slow = place.store("a sixth").await;
    slow.set_profile(ann.clone(), profile("after"), Stamp::default()).await.expect("set");
    assert_eq!(slow.profile(ann.id).await.expect("read"), profile("after"));
    let slow = place.store("a seventh").await;
    slow.set_settings(ann.clone(), settings("Nickelback"), Stamp::default()).await.expect("set");
    assert_eq!(slow.settings(ann.id).await.expect("read"), settings("Nickelback"));
}
