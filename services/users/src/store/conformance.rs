//! What every adapter of [`UserStore`] must do, as functions that run over any empty store.
//!
//! Each function panics with what is wrong.

use echotune_api::events::{Event, Payload};
use echotune_model::{
    ApiToken, Hlc, LibraryEntry, Listen, NewPlaylist, NewToken, PageRequest, Playlist, PlaylistId, Role, Settings,
    TokenId, Track, User, UserId, UserName,
};

use super::{Checked, Idempotency, KEY_LIFE_MS, Stamp, StoredToken, TokenDraft, UserStore, UserStoreError};

/// Gives the names of the functions of `conformance` to a macro that makes a test of each: what every adapter of
/// `UserStore` is held to, in one place.
#[macro_export]
macro_rules! each_promise {
    ($each:ident) => {
        $each!(
            writes_announce_themselves_in_order,
            totals_tell_the_strongest_mark,
            pages_hold_everything_once,
            keys_give_the_first_answer,
            calls_at_once_under_a_key_make_one_token,
            erasure_leaves_nothing,
            what_is_restored_keeps_its_identity
        );
    };
}

fn name(text: &str) -> UserName {
    text.parse().expect("a name")
}

fn checked<T>(rows: Vec<T>) -> Checked<T> {
    Checked { rows: (0..).zip(rows).collect(), rejections: Vec::new() }
}

fn listen(title: &str, minute: i64) -> Listen {
    let track = Track { title: title.into(), artist: "Björk".into(), album: String::new() };
    Listen {
        listened_at_ms: 1_600_000_000_000 + minute * 60_000,
        track,
        played_ms: 0,
        source: String::new(),
        explicit: None,
    }
}

fn keyed(key: &str, request: u8) -> Stamp {
    Stamp { traceparent: String::new(), idempotency: Some(Idempotency { key: key.into(), request: [request; 32] }) }
}

async fn account(store: &dyn UserStore, of: &str) -> User {
    store.create(name(of), Stamp::default()).await.expect("created")
}

/// All waiting events, oldest first; they are forgotten.
pub async fn drain(store: &dyn UserStore) -> Vec<Event> {
    let waiting = store.next_events(10_000).await.expect("events");
    store.published(waiting.iter().map(|one| one.place.clone()).collect()).await.expect("forgotten");
    waiting.iter().map(|one| Event::decode(&one.record.value).expect("an event").expect("known")).collect()
}

/// Every write announces itself, in the order of the writes.
///
/// # Panics
/// The store does not conform.
pub async fn writes_announce_themselves_in_order(store: &dyn UserStore) {
    let (ann, ben) = (account(store, "ann").await, account(store, "ben").await);
    let none = Stamp::default;
    store.record(ann.clone(), checked(vec![listen("Jóga", 0)]), none()).await.expect("recorded");
    store.set_settings(ann.clone(), Settings { private: true, ..Settings::default() }, none()).await.expect("set");
    store.add_friends(ann.clone(), checked(vec![name("BEN")]), none()).await.expect("added");
    let again = store.record(ann.clone(), checked(vec![listen("JÓGA", 0)]), none()).await.expect("recorded");
    assert_eq!((again.recorded, again.duplicates), (0, 1), "the same listen twice is one");
    let mut events = drain(store).await;
    store.erase(name("ann"), None, none()).await.expect("erased");
    events.extend(drain(store).await);
    assert!(events.is_sorted_by(|a, b| a.written_at < b.written_at), "times of events increase");
    let of_ann: Vec<_> = events.into_iter().filter(|one| one.user == ann.id).map(|one| one.payload).collect();
    assert!(
        matches!(
            of_ann.as_slice(),
            [
                Payload::UserCreated { .. },
                Payload::HistoryChanged { .. },
                Payload::SettingsChanged { .. },
                Payload::FriendsAdded { .. },
                Payload::UserErased
            ]
        ),
        "{of_ann:?}"
    );
    assert_eq!(of_ann[3], Payload::FriendsAdded { friends: vec![ben.id] });
}

/// Totals tell the strongest mark of a track: explicit is more than clean, and that is more than none.
///
/// # Panics
/// The store does not conform.
pub async fn totals_tell_the_strongest_mark(store: &dyn UserStore) {
    let ann = account(store, "ann").await;
    drain(store).await;
    for (minute, mark, told) in [
        (0, None, None),
        (1, Some(false), Some(false)),
        (2, None, Some(false)),
        (3, Some(true), Some(true)),
        (4, Some(false), Some(true)),
    ] {
        let marked = Listen { explicit: mark, ..listen("Jóga", minute) };
        store.record(ann.clone(), checked(vec![marked]), Stamp::default()).await.expect("recorded");
        let payloads: Vec<_> = drain(store).await.into_iter().map(|event| event.payload).collect();
        let [Payload::HistoryChanged { tallies }] = payloads.as_slice() else { panic!("{payloads:?}") };
        assert_eq!((tallies.len(), tallies[0].explicit), (1, told), "after {mark:?}");
    }
    let kept = store.listens(ann.id, PageRequest { size: 10, token: String::new() }).await.expect("listed");
    let marks: Vec<_> = kept.rows.iter().map(|row| row.listen.explicit).collect();
    assert_eq!(marks, [Some(false), Some(true), None, Some(false), None]);
}

/// Pages hold everything once, newest listen first.
///
/// # Panics
/// The store does not conform.
pub async fn pages_hold_everything_once(store: &dyn UserStore) {
    let ann = account(store, "ann").await;
    let listens = (0..25).map(|minute| listen("Jóga", minute)).collect();
    store.record(ann.clone(), checked(listens), Stamp::default()).await.expect("recorded");
    let (mut page, mut times) = (PageRequest { size: 10, token: String::new() }, Vec::new());
    loop {
        let part = store.listens(ann.id, page.clone()).await.expect("listed");
        times.extend(part.rows.iter().map(|row| row.listen.listened_at_ms));
        page.token = part.next;
        if page.token.is_empty() {
            break;
        }
    }
    assert_eq!(times.len(), 25);
    assert!(times.is_sorted_by(|a, b| a > b), "newest first: {times:?}");
    let bad = store.listens(ann.id, PageRequest { size: 10, token: "?".into() }).await.expect_err("refused");
    assert!(matches!(bad, UserStoreError::BadPageToken(_)), "{bad}");
}

/// A key gives the first answer until it ends, and none to another request.
///
/// # Panics
/// The store does not conform.
pub async fn keys_give_the_first_answer(store: &dyn UserStore) {
    let ann = account(store, "ann").await;
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    let make = |stamp| store.create_playlist(ann.clone(), content.clone(), stamp);
    let first = make(keyed("k", 1)).await.expect("made");
    assert_eq!(make(keyed("k", 1)).await.expect("made before"), first);
    let reused = make(keyed("k", 2)).await.expect_err("another request");
    assert!(matches!(reused, UserStoreError::KeyReused(_)), "{reused}");
    assert_ne!(make(keyed("other", 1)).await.expect("made").id, first.id);
    let token = async |stamp: Stamp| {
        let draft = token_draft(store, &ann, &stamp, "hash").await;
        store.create_token(ann.clone(), draft, stamp).await
    };
    let made = token(keyed("t", 1)).await.expect("made");
    let gone = token(keyed("t", 1)).await.expect_err("no secret is kept");
    assert!(matches!(gone, UserStoreError::SecretGone(id) if id == made.id), "{gone}");
    assert_eq!(store.sweep_keys(store.now_ms()).await.expect("swept"), 0, "none has ended");
    assert_eq!(make(keyed("k", 1)).await.expect("made before"), first);
}

/// A token as it is asked for under a key, with the hash of a secret of its own.
async fn token_draft(store: &dyn UserStore, user: &User, stamp: &Stamp, hash: &str) -> TokenDraft {
    let wanted = NewToken { label: "cli".into(), role: Role::Reader, expires_at_ms: 0 };
    let id = store.token_id(user.id, stamp).await.expect("an id");
    TokenDraft { id, wanted, hash: hash.into() }
}

/// Of calls at the same time under one key one makes a token, whose secret it alone tells; the others learn why they do
/// not.
///
/// # Panics
/// The store does not conform.
pub async fn calls_at_once_under_a_key_make_one_token(store: &dyn UserStore) {
    let ann = account(store, "ann").await;
    let ask = async |key: &str, request: u8, hash: &'static str| {
        let stamp = keyed(key, request);
        let draft = token_draft(store, &ann, &stamp, hash).await;
        (hash, store.create_token(ann.clone(), draft, stamp).await)
    };
    let told = tokio::join!(ask("t", 1, "one"), ask("t", 1, "two"), ask("t", 1, "three"), ask("t", 1, "four"));
    let (mut made, mut lost) = (Vec::new(), Vec::new());
    for (hash, told) in <[_; 4]>::from(told) {
        match told {
            Ok(token) => made.push((hash, token)),
            Err(cause) => lost.push(cause),
        }
    }
    let [(hash, token)] = made.as_slice() else { panic!("one is made: {made:?}, {lost:?}") };
    let gone = |cause: &UserStoreError| matches!(cause, UserStoreError::SecretGone(id) if *id == token.id);
    assert!(lost.iter().all(gone), "{lost:?}");
    let (kept, _) = store.token(token.id).await.expect("read").expect("it is there");
    assert_eq!((kept.hash.as_str(), &kept.token), (*hash, token), "the secret that was told opens it");
    assert_eq!(store.tokens(ann.id).await.expect("listed"), std::slice::from_ref(token), "and no other is there");
    let (_, again) = ask("t", 1, "five").await;
    assert!(again.as_ref().is_err_and(gone), "{again:?}");

    let ((_, one), (_, two)) = tokio::join!(ask("u", 1, "one"), ask("u", 2, "two"));
    let reused = |told: &Result<ApiToken, UserStoreError>| matches!(told, Err(UserStoreError::KeyReused(_)));
    assert!(one.is_ok() && reused(&two) || two.is_ok() && reused(&one), "one key is of one request: {one:?}, {two:?}");
    assert_eq!(store.tokens(ann.id).await.expect("listed").len(), 2);
}

/// A key that has ended is forgotten. For stores that are told the time; those whose rows end by themselves are not.
///
/// # Panics
/// The store does not conform.
pub async fn ended_keys_are_swept(store: &dyn UserStore) {
    let ann = account(store, "ann").await;
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    let make = |stamp| store.create_playlist(ann.clone(), content.clone(), stamp);
    let first = make(keyed("k", 1)).await.expect("made");
    assert_eq!(store.sweep_keys(store.now_ms()).await.expect("swept"), 0);
    assert_eq!(store.sweep_keys(store.now_ms() + KEY_LIFE_MS).await.expect("swept"), 1);
    assert_ne!(make(keyed("k", 1)).await.expect("made anew").id, first.id);
}

/// An erasure leaves nothing, counts what it took, and frees the name for another account.
///
/// # Panics
/// The store does not conform.
pub async fn erasure_leaves_nothing(store: &dyn UserStore) {
    let (ann, ben) = (account(store, "ann").await, account(store, "ben").await);
    // More rows than one step of an erasure takes.
    for batch in 0..3 {
        let listens = (0..1_000).map(|minute| listen("Jóga", batch * 1_000 + minute)).collect();
        store.record(ann.clone(), checked(listens), keyed(&format!("b{batch}"), 0)).await.expect("recorded");
    }
    store.add_friends(ben.clone(), checked(vec![name("ann")]), Stamp::default()).await.expect("added");
    let wanted = NewToken { label: "cli".into(), role: Role::Reader, expires_at_ms: 0 };
    let draft = TokenDraft { id: TokenId::new(store.now_ms()), wanted, hash: "hash".into() };
    let token = store.create_token(ann.clone(), draft, Stamp::default()).await.expect("made");
    let other = store.erase(name("Ann"), Some(ben.id), Stamp::default()).await;
    assert!(matches!(other, Err(UserStoreError::UnknownUser(_))), "a name alone erases nobody: {other:?}");
    let receipt = store.erase(name("Ann"), Some(ann.id), keyed("e", 0)).await.expect("erased");
    assert_eq!(receipt.erased.get("listen"), Some(&3_000), "{receipt:?}");
    assert_eq!(receipt.erased.get("friend"), Some(&1), "{receipt:?}");
    let waiting = store.next_events(10_000).await.expect("events");
    let of_ann: Vec<_> = waiting.iter().filter(|one| one.record.key == ann.id.to_string()).collect();
    assert!(matches!(of_ann.as_slice(), [last] if last.record.is_lasting), "only the erasure is announced: {of_ann:?}");
    assert!(waiting.iter().any(|one| one.record.key == ben.id.to_string() && !one.record.is_lasting), "{waiting:?}");
    assert_eq!(store.erase(name("Ann"), None, keyed("e", 0)).await.expect("erased before"), receipt);
    assert!(store.token(token.id).await.expect("read").is_none());
    let friends = store.friends(ben.id, PageRequest { size: 10, token: String::new() }).await.expect("listed");
    assert!(friends.rows.is_empty(), "the friend no longer lists the erased user");
    let late = store.record(ann.clone(), checked(vec![listen("Jóga", 0)]), Stamp::default()).await;
    assert!(matches!(late, Err(UserStoreError::UnknownUser(_))), "{late:?}");
    let counts = store.counts().await.expect("counts");
    assert_eq!((counts["users"], counts["listens"], counts["friendships"]), (1, 0, 0), "{counts:?}");
    let early = store.create(name("cat"), keyed("c", 0)).await.expect("created");
    store.erase(name("cat"), None, Stamp::default()).await.expect("erased");
    let repeated = store.create(name("cat"), keyed("c", 0)).await.expect_err("refused");
    assert!(matches!(&repeated, UserStoreError::ErasedSince(gone) if *gone == early.name), "{repeated}");
    assert_ne!(account(store, "ann").await.id, ann.id, "a name is reused with a new id only");
    let left = store.listens(ann.id, PageRequest { size: 10, token: String::new() }).await.expect("listed");
    assert!(left.rows.is_empty());
}

/// What is restored keeps its identity and its times, happens once, and does not bring back what was erased.
///
/// # Panics
/// The store does not conform.
pub async fn what_is_restored_keeps_its_identity(store: &dyn UserStore) {
    let none = Stamp::default;
    let page = || PageRequest { size: 10, token: String::new() };
    let user = User { id: UserId::new(1_500_000_000_000), name: name("ann"), created_at_ms: 1_500_000_000_000 };
    assert_eq!(store.restore(user.clone(), none()).await.expect("restored"), (user.clone(), true));
    let renamed = User { name: name("anna"), ..user.clone() };
    assert_eq!(store.restore(renamed, none()).await.expect("there"), (user.clone(), false));
    assert_eq!(store.by_name(&name("ANN")).await.expect("read").as_ref(), Some(&user));
    assert_eq!(store.users(page()).await.expect("listed").rows, std::slice::from_ref(&user));
    let other = User { id: UserId::new(1_500_000_000_001), ..user.clone() };
    let taken = store.restore(other, none()).await.expect_err("taken");
    assert!(matches!(taken, UserStoreError::NameTaken(_)), "{taken}");
    let track = |title: &str| Track { title: title.into(), artist: "Björk".into(), album: String::new() };
    let entry = |title, added_at_ms| LibraryEntry { track: track(title), added_at_ms };
    let entries = checked(vec![entry("Jóga", 1_500_000_000_002), entry("Hunter", 1_500_000_000_003)]);
    let kept = store.restore_tracks(user.clone(), entries, none()).await.expect("kept");
    let again = store.restore_tracks(user.clone(), checked(vec![entry("Jóga", 7)]), none()).await.expect("kept");
    assert_eq!((kept.recorded, again.recorded, again.duplicates), (2, 0, 1));
    let mut since: Vec<_> =
        store.library(user.id, page()).await.expect("listed").rows.iter().map(|one| one.added_at_ms).collect();
    since.sort_unstable();
    assert_eq!(since, [1_500_000_000_002, 1_500_000_000_003]);
    playlists_and_tokens_are_restored(store, &user).await;
    let created: Vec<_> = drain(store).await.into_iter().map(|event| (event.user, event.payload)).collect();
    assert_eq!(created, [(user.id, Payload::UserCreated { name: user.name.clone() })], "announced once");
    assert_eq!(store.counts().await.expect("counts")["library"], 2);
    store.erase(name("ann"), None, none()).await.expect("erased");
    let gone = store.restore(user, none()).await.expect_err("refused");
    assert!(matches!(gone, UserStoreError::Erased(_)), "{gone}");
}

async fn playlists_and_tokens_are_restored(store: &dyn UserStore, user: &User) {
    let none = Stamp::default;
    let id = PlaylistId::new(1_500_000_000_004);
    let content = NewPlaylist { title: "Rain".into(), description: "x".repeat(4_096), tracks: Vec::new() };
    let changed_at = Hlc::from_ms(1_500_000_000_005);
    let playlist = Playlist { id, owner: user.id, content, created_at_ms: 1_500_000_000_004, changed_at };
    let put = |user: &User| store.restore_playlist(user.clone(), playlist.clone(), none());
    assert!(put(user).await.expect("made"));
    assert!(!put(user).await.expect("there"));
    assert_eq!(store.playlist(id).await.expect("read").as_ref(), Some(&playlist));
    let content = NewPlaylist { title: "Sun".into(), ..playlist.content.clone() };
    let changed = store.update_playlist(user.clone(), id, content, none()).await.expect("changed");
    assert!(changed.changed_at > playlist.changed_at && changed.created_at_ms == playlist.created_at_ms, "{changed:?}");
    assert_eq!(store.playlist(id).await.expect("read"), Some(changed));
    let id = TokenId::new(1_500_000_000_006);
    let token =
        ApiToken { id, label: "cli".into(), role: Role::Writer, created_at_ms: 1_500_000_000_006, expires_at_ms: 0 };
    let stored = StoredToken { user: user.id, token, hash: "hash".into() };
    let keep = |stored: &StoredToken| store.restore_token(user.clone(), stored.clone(), none());
    assert!(keep(&stored).await.expect("kept"));
    assert!(!keep(&stored).await.expect("there"));
    let other = keep(&StoredToken { hash: "other".into(), ..stored.clone() }).await.expect_err("another one");
    assert!(matches!(other, UserStoreError::Other { .. }), "{other}");
    assert_eq!(store.token(id).await.expect("read"), Some((stored.clone(), user.clone())));
    assert_eq!(store.tokens(user.id).await.expect("listed"), [stored.token]);
}
