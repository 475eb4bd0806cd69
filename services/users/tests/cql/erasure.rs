//! An erasure takes everything, also when it is cut off or made by two at once.

use std::time::Duration;

use echotune_api::events::Payload;
use echotune_kit::cql::{WriteClock, encode};
use echotune_model::{NewPlaylist, NewToken, PlayCount, Profile, Role, Settings, Tagging, User, UserName};
use echotune_users::{CqlUserStore, Stamp, TokenDraft, UserStore, UserStoreError, conformance::drain};
use futures::future::join;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    crowd::{account, all, checked, keyed, listen, name},
    place::Place,
};

/// Leaves something of a user in every table.
pub(crate) async fn live(store: &CqlUserStore, of: &str, friend: &UserName) -> User {
    let ann = account(store, of).await;
    let profile = Profile { display_name: "Ann of Reykjavik".into(), ..Profile::default() };
    store.set_profile(ann.clone(), profile, keyed("1")).await.expect("set");
    let settings = Settings { blocked_artists: vec!["Creed".into()], ..Settings::default() };
    store.set_settings(ann.clone(), settings, keyed("2")).await.expect("set");
    let listens = (0..250).map(|minute| listen("Jóga", minute)).collect();
    store.record(ann.clone(), checked(listens), keyed("3")).await.expect("recorded");
    let count = PlayCount { artist: "Sigur Rós".into(), plays: 3, source: "radio".into() };
    store.set_counts(ann.clone(), checked(vec![count]), keyed("4")).await.expect("set");
    let tagging = Tagging { artist: "Sigur Rós".into(), tag: "ice".into(), tagged_at_ms: 0 };
    store.add_taggings(ann.clone(), checked(vec![tagging]), keyed("5")).await.expect("added");
    store.add_friends(ann.clone(), checked(vec![friend.clone()]), keyed("6")).await.expect("added");
    store.add_tracks(ann.clone(), checked(vec![listen("Hunter", 0).track]), keyed("7")).await.expect("added");
    let removed = listen("Unravel", 0).track;
    store.add_tracks(ann.clone(), checked(vec![removed.clone()]), Stamp::default()).await.expect("added");
    assert!(store.remove_track(ann.clone(), removed.id(), Stamp::default()).await.expect("removed"));
    let content = NewPlaylist {
        title: "Rain on the roof".into(),
        description: String::new(),
        tracks: vec![listen("Jóga", 0).track],
    };
    store.create_playlist(ann.clone(), content.clone(), keyed("8")).await.expect("made");
    let gone = store.create_playlist(ann.clone(), content, Stamp::default()).await.expect("made");
    assert!(store.delete_playlist(ann.clone(), gone.id, Stamp::default()).await.expect("deleted"));
    let wanted = NewToken { label: "kitchen".into(), role: Role::Reader, expires_at_ms: 0 };
    let id = store.token_id(ann.id, &keyed("9")).await.expect("an id");
    let draft = TokenDraft { id, wanted, hash: "hash".into() };
    store.create_token(ann.clone(), draft, keyed("9")).await.expect("made");
    ann
}

/// Tables that hold one of these texts or ids.
pub(crate) async fn tables_with(place: &Place, user: Uuid, texts: &[&str]) -> Vec<String> {
    let session = &place.sessions[0];
    let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let tables = session.read("tables", tables).await.expect("prepared");
    let tables: Vec<(String,)> = session.rows(&tables, (&session.config().keyspace,), usize::MAX).await.expect("read");
    let mut wanted = vec![user.to_string(), user.simple().to_string()];
    // Bytes are printed as hexadecimal digits.
    wanted.extend(texts.iter().map(|text| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()));
    wanted.extend(texts.iter().map(|text| format!("\"{text}\"")));
    let mut found = Vec::new();
    for (table,) in tables {
        let read = session.read("all", &format!("SELECT JSON * FROM {table}")).await.expect("prepared");
        let rows: Vec<(String,)> = session.rows(&read, (), usize::MAX).await.expect("read");
        if rows.iter().any(|(row,)| wanted.iter().any(|text| row.contains(text))) {
            found.push(table);
        }
    }
    found.sort();
    found
}

const TEXTS: [&str; 7] = ["ann", "Reykjavik", "Creed", "Hunter", "radio", "ice", "Rain"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_in_any_table_and_nothing_comes_after() {
    let place = Place::take().await;
    let (store, session) = (place.store("test").await, &place.sessions[0]);
    account(&store, "ben").await;
    let ann = live(&store, "ann", &name("ben")).await;
    let before = tables_with(&place, ann.id.0, &TEXTS).await;
    assert!(before.len() >= 20, "the search finds what is there: {before:?}");
    // Waiting events of the erased are dropped when they are come upon.
    let receipt = store.erase(name("ann"), None, keyed("e")).await.expect("erased");
    assert_eq!(
        (receipt.erased["listen"], receipt.erased["playlist"], receipt.erased["tally"]),
        (250, 1, 1),
        "{receipt:?}"
    );
    let events = drain(&store).await;
    let of_ann: Vec<_> = events.into_iter().filter(|event| event.user == ann.id).map(|event| event.payload).collect();
    assert_eq!(of_ann, [Payload::UserErased]);
    let left = tables_with(&place, ann.id.0, &TEXTS).await;
    assert!(place.keys(0).await.existing(&ann.id.to_string()).await.expect("read").is_none(), "the key is gone");
    // The receipt, and the ids of the account and of the deleted playlist, whose row ends within a day.
    let known = ["users_erased", "users_erasure_counts", "users_keys", "users_playlists_by_id"];
    assert_eq!(left, known, "no more than what tells of the erasure");
    assert_eq!(tables_with(&place, Uuid::max(), &TEXTS).await, [""; 0], "and no text");
    // A write of somebody who looked before.
    let late = "INSERT INTO users_listens (user_id, period, listened_at, listen_id, value) VALUES (?, ?, ?, ?, ?)";
    let late = session.write("late", late).await.expect("prepared");
    let times = WriteClock::new(Default::default());
    let values = (ann.id.0, 617_i64, 1_600_000_000_000_i64, Uuid::new_v4(), encode(&listen("Jóga", 0)));
    session.put(&late, values, times.now()).await.expect("written");
    assert!(!tables_with(&place, ann.id.0, &[]).await.contains(&"users_listens".to_owned()), "it is gone at once");
    let refused = store.record(ann, checked(vec![listen("Jóga", 0)]), Stamp::default()).await;
    assert!(matches!(refused, Err(UserStoreError::UnknownUser(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_erase_at_once_take_the_same() {
    let place = Place::take().await;
    let (one, two) = (place.store("one").await, place.store("two").await);
    account(&one, "ben").await;
    let ann = live(&one, "ann", &name("ben")).await;
    let (a, b) = join(one.erase(name("ann"), None, keyed("a")), two.erase(name("Ann"), None, keyed("b"))).await;
    let told: Vec<_> = [a, b].into_iter().filter(|one| !matches!(one, Err(UserStoreError::UnknownUser(_)))).collect();
    let receipts: Vec<_> = told.into_iter().collect::<Result<_, _>>().expect("erased");
    assert!(receipts.iter().all(|receipt| *receipt == receipts[0] && receipt.user == ann.id), "{receipts:?}");
    assert_eq!(receipts[0].erased["listen"], 250, "{receipts:?}");
    assert_eq!(one.counts().await.expect("counts")["listens"], 0, "taken off once");
    assert_ne!(account(&two, "ann").await.id, ann.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_was_cut_off_is_finished() {
    let place = Place::take().await;
    let store = place.store("test").await;
    account(&store, "ben").await;
    let mut cut = 0;
    for patience in [0, 5, 20, 60, 150, 400] {
        let ann = live(&store, "ann", &name("ben")).await;
        drain(&store).await;
        let erased = timeout(Duration::from_millis(patience), store.erase(name("ann"), None, Stamp::default())).await;
        cut += u32::from(erased.is_err());
        let resumed = store.resume_erasures().await.expect("finished");
        if let (Err(_), [receipt]) = (erased, resumed.as_slice()) {
            assert_eq!((receipt.user, receipt.erased["listen"]), (ann.id, 250), "after {patience} ms: {receipt:?}");
        }
        // Cut off before it began: the account is as it was.
        if store.by_name(&name("ann")).await.expect("read").is_some() {
            store.erase(name("ann"), None, Stamp::default()).await.expect("erased");
        }
        assert!(store.listens(ann.id, all()).await.expect("listed").rows.is_empty(), "after {patience} ms");
        let events = drain(&store).await;
        assert!(events.iter().any(|event| event.user == ann.id && event.payload == Payload::UserErased), "{events:?}");
        assert!(store.resume_erasures().await.expect("nothing is left").is_empty());
    }
    assert!(cut >= 3, "{cut} of them were cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_of_which_only_the_note_has_come_waits_and_holds_up_no_other() {
    let place = Place::take().await;
    let (store, session) = (place.store("test").await, &place.sessions[0]);
    let note = "INSERT INTO users_erasing (part, user_id) VALUES (0, ?)";
    let note = session.write("note", note).await.expect("prepared");
    session.put(&note, (Uuid::nil(),), WriteClock::new(Default::default()).now()).await.expect("noted");
    assert_eq!(store.resume_erasures().await.expect("none is known"), []);
    let notes = session.read("notes", "SELECT user_id FROM users_erasing WHERE part = 0").await.expect("prepared");
    let left: Vec<(Uuid,)> = session.rows(&notes, (), usize::MAX).await.expect("read");
    assert_eq!(left, [(Uuid::nil(),)], "the rest of it may come yet");
}
