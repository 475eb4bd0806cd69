//! Every call of the trait, on the object and over gRPC.

use argon2::{Argon2, password_hash::PasswordHasher as _};
use echotune_api::Users;
use echotune_model::{
    ApiToken, Call, ErrorKind, ExplicitContent, Fault, Hlc, ItemId, LibraryEntry, Listen, NewPlaylist, NewToken,
    PageRequest, PlayCount, Playlist, PlaylistId, Principal, Profile, Role, Settings, Tagging, TokenId, Track, User,
    UserId,
};

use crate::faces::Faces;

pub(crate) fn track(title: &str) -> Track {
    Track { title: title.into(), artist: "Björk".into(), album: String::new() }
}

pub(crate) fn listen(title: &str, minute: i64) -> Listen {
    let listened_at_ms = 1_600_000_000_000 + minute * 60_000;
    Listen { listened_at_ms, track: track(title), played_ms: 0, source: String::new(), explicit: None }
}

pub(crate) fn first(size: u32) -> PageRequest {
    PageRequest { size, token: String::new() }
}

pub(crate) fn keyed(key: &str) -> Call {
    Call { idempotency_key: key.into(), ..Call::internal() }
}

pub(crate) fn reader(role: Role) -> NewToken {
    NewToken { label: "player".into(), role, expires_at_ms: 0 }
}

macro_rules! on_both_faces {
    ($($test:ident),*) => {
        mod object {$(
            #[tokio::test]
            async fn $test() {
                let faces = super::Faces::new().await;
                super::$test(faces.object.as_ref()).await;
            }
        )*}
        mod grpc {$(
            #[tokio::test]
            async fn $test() {
                let faces = super::Faces::new().await;
                super::$test(&faces.remote).await;
            }
        )*}
    };
}

on_both_faces!(
    accounts_profiles_and_settings_are_kept,
    histories_are_paged_newest_first,
    counts_tags_friends_and_tracks_are_kept,
    playlists_are_made_changed_and_deleted,
    an_export_holds_everything_and_an_erasure_leaves_nothing,
    bad_input_is_refused_by_name,
    keys_make_writes_repeatable,
    what_is_restored_keeps_its_identity_and_is_checked,
    tokens_open_what_they_should
);

async fn accounts_profiles_and_settings_are_kept(users: &dyn Users) {
    let call = Call::internal();
    let ann = users.create_user(&call, "Ann").await.expect("created");
    let ben = users.create_user(&call, "ben").await.expect("created");
    let taken = users.create_user(&call, "ann").await.expect_err("taken");
    assert_eq!(taken.kind, ErrorKind::AlreadyExists);
    assert_eq!(users.get_user(&call, "ANN").await.expect("read"), ann);
    let one = users.list_users(&call, &first(1)).await.expect("listed");
    let two = users.list_users(&call, &PageRequest { size: 1, token: one.next }).await.expect("listed");
    let mut both = vec![ann, ben];
    // By id: two that were made within a millisecond come in any order.
    both.sort_unstable_by_key(|user| user.id);
    assert_eq!(([one.rows, two.rows].concat(), two.next), (both, String::new()));
    assert_eq!(users.get_profile(&call, "ann").await.expect("read"), Profile::default());
    let profile = Profile { display_name: "Ann".into(), about: String::new(), country: "IS".into() };
    users.update_profile(&call, "ann", profile.clone()).await.expect("written");
    assert_eq!(users.get_profile(&call, "ann").await.expect("read"), profile);
    let explicit = ExplicitContent::Strict;
    let settings = Settings { blocked_artists: vec!["Creed".into()], private: true, explicit };
    users.update_settings(&call, "ann", settings.clone()).await.expect("written");
    assert_eq!(users.get_settings(&call, "ann").await.expect("read"), settings);
    assert_eq!(users.get_settings(&call, "ben").await.expect("read"), Settings::default());
    assert_eq!(users.counts(&call).await.expect("counts")["users"], 2);
}

async fn histories_are_paged_newest_first(users: &dyn Users) {
    let call = Call::internal();
    users.create_user(&call, "ann").await.expect("created");
    let batch: Vec<_> = (0..5).map(|minute| listen("Jóga", minute)).collect();
    let receipt = users.record_listens(&call, "ann", batch.clone()).await.expect("recorded");
    assert_eq!((receipt.recorded, receipt.duplicates), (5, 0));
    let again = users.record_listens(&call, "ann", batch.clone()).await.expect("recorded");
    assert_eq!((again.recorded, again.duplicates, again.written_at.0), (0, 5, 0));
    let new = users.list_listens(&call, "ann", &first(3)).await.expect("listed");
    let old = users.list_listens(&call, "ann", &PageRequest { size: 3, token: new.next }).await.expect("listed");
    let mut listed: Vec<_> = [new.rows, old.rows].concat().into_iter().map(|entry| entry.listen).collect();
    assert_eq!(old.next, "");
    listed.reverse();
    assert_eq!(listed, batch);
}

async fn counts_tags_friends_and_tracks_are_kept(users: &dyn Users) {
    let call = Call::internal();
    for name in ["ann", "Zoe", "ben"] {
        users.create_user(&call, name).await.expect("created");
    }
    let count = |plays| PlayCount { artist: "Björk".into(), plays, source: "lastfm".into() };
    let set = users.set_play_counts(&call, "ann", vec![count(3), count(3), count(0), count(4)]).await.expect("set");
    assert_eq!((set.recorded, set.duplicates, set.rejections[0].index), (2, 1, 2));
    let tag = |tag: &str| Tagging { artist: "Björk".into(), tag: tag.into(), tagged_at_ms: 0 };
    let tags = users.add_taggings(&call, "ann", vec![tag("trip hop"), tag("Trip  Hop"), tag("")]).await.expect("added");
    assert_eq!((tags.recorded, tags.duplicates, tags.rejections[0].index), (1, 1, 2));
    let names = ["zoe", "nobody", "ben", "ann", "ZOE"].map(String::from).to_vec();
    let friends = users.add_friends(&call, "ann", names).await.expect("added");
    let refused: Vec<_> = friends.rejections.iter().map(|one| one.index).collect();
    assert_eq!((friends.recorded, friends.duplicates, refused), (2, 1, vec![1, 3]));
    assert!(friends.rejections[0].reason.contains("'nobody'"));
    assert_eq!(users.list_friends(&call, "ann", &first(0)).await.expect("listed").rows, ["ben", "zoe"]);
    assert_eq!(users.list_friends(&call, "zoe", &first(0)).await.expect("listed").rows, ["ann"]);
    let kept = users.add_to_library(&call, "ann", vec![track("Jóga"), track("JOGA"), track("")]).await.expect("added");
    assert_eq!((kept.recorded, kept.duplicates, kept.rejections[0].index), (1, 1, 2));
    assert_eq!(users.list_library(&call, "ann", &first(0)).await.expect("listed").rows[0].track, track("Jóga"));
    let joga = track("Jóga").id();
    assert!(users.remove_from_library(&call, "ann", joga).await.expect("removed"));
    assert!(!users.remove_from_library(&call, "ann", joga).await.expect("not there"));
    let counts = users.counts(&call).await.expect("counts");
    let held = ["play_counts", "taggings", "friendships", "library"].map(|name| counts[name]);
    assert_eq!(held, [1, 1, 2, 0], "{counts:?}");
}

async fn playlists_are_made_changed_and_deleted(users: &dyn Users) {
    let call = Call::internal();
    users.create_user(&call, "ann").await.expect("created");
    let content = NewPlaylist { title: "Rain".into(), description: "slow".into(), tracks: vec![track("Jóga")] };
    let made = users.create_playlist(&call, "ann", content.clone()).await.expect("made");
    assert_eq!((&made.content, users.get_playlist(&call, made.id).await.as_ref()), (&content, Ok(&made)));
    let changed = NewPlaylist { tracks: vec![track("Jóga"), track("Hunter")], ..content };
    let after = users.update_playlist(&call, made.id, changed.clone()).await.expect("changed");
    assert_eq!(after.content, changed);
    assert!(after.changed_at > made.changed_at);
    assert_eq!(users.list_playlists(&call, "ann", &first(0)).await.expect("listed").rows, [after]);
    assert!(users.delete_playlist(&call, made.id).await.expect("deleted"));
    assert!(!users.delete_playlist(&call, made.id).await.expect("gone"));
    let gone = users.get_playlist(&call, made.id).await.expect_err("gone");
    assert_eq!(gone.kind, ErrorKind::NotFound);
    assert!(gone.message.contains(&made.id.to_string()), "{gone}");
}

async fn an_export_holds_everything_and_an_erasure_leaves_nothing(users: &dyn Users) {
    let call = Call::internal();
    let ann = users.create_user(&call, "ann").await.expect("created");
    users.create_user(&call, "ben").await.expect("created");
    users.update_profile(&call, "ann", Profile::default()).await.expect("written");
    users.update_settings(&call, "ann", Settings::default()).await.expect("written");
    users.record_listens(&call, "ann", vec![listen("Jóga", 0), listen("Jóga", 1)]).await.expect("recorded");
    let count = PlayCount { artist: "Björk".into(), plays: 1, source: String::new() };
    users.set_play_counts(&call, "ann", vec![count]).await.expect("set");
    let tagging = Tagging { artist: "Björk".into(), tag: "pop".into(), tagged_at_ms: 0 };
    users.add_taggings(&call, "ann", vec![tagging]).await.expect("added");
    users.add_friends(&call, "ben", vec!["ann".into()]).await.expect("added");
    users.add_to_library(&call, "ann", vec![track("Jóga")]).await.expect("added");
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: Vec::new() };
    let playlist = users.create_playlist(&call, "ann", content).await.expect("made");
    let (_, secret) = users.create_token(&call, "ann", reader(Role::Reader)).await.expect("made");
    let kinds = [
        "account",
        "profile",
        "settings",
        "listen",
        "listen",
        "play_count",
        "tagging",
        "friend",
        "library",
        "playlist",
        "token",
    ];
    for size in [1, 3, 1_000] {
        let (mut page, mut records) = (first(size), Vec::new());
        loop {
            let part = users.export_user(&call, "ann", &page).await.expect("exported");
            assert!(part.rows.len() <= size as usize);
            records.extend(part.rows);
            page.token = part.next;
            if page.token.is_empty() {
                break;
            }
        }
        assert_eq!(records.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), kinds);
        assert!(records.iter().all(|one| one.json.starts_with('{') && !one.json.contains("argon2")), "{records:?}");
    }
    let receipt = users.erase_user(&call, "ann").await.expect("erased");
    assert_eq!((receipt.user, receipt.erased["listen"], receipt.erased["token"]), (ann.id, 2, 1));
    assert_eq!(users.get_user(&call, "ann").await.expect_err("gone").kind, ErrorKind::NotFound);
    assert_eq!(users.get_playlist(&call, playlist.id).await.expect_err("gone").kind, ErrorKind::NotFound);
    assert_eq!(users.authenticate(&secret).await.expect_err("gone").kind, ErrorKind::Unauthenticated);
    assert!(users.list_friends(&call, "ben", &first(0)).await.expect("listed").rows.is_empty());
    assert_eq!(users.erase_user(&call, "ann").await.expect_err("gone").kind, ErrorKind::NotFound);
    assert_ne!(users.create_user(&call, "ann").await.expect("created").id, ann.id);
    assert_eq!(users.list_listens(&call, "ann", &first(0)).await.expect("listed").rows, []);
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Fault>, kind: ErrorKind, named: &str) {
    let fault = answer.expect_err("refused");
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.contains(named), "{fault}");
}

async fn bad_input_is_refused_by_name(users: &dyn Users) {
    use ErrorKind::{InvalidArgument, NotFound};
    let call = Call::internal();
    users.create_user(&call, "ann").await.expect("created");
    refused(users.create_user(&call, "two words").await, InvalidArgument, "two words");
    refused(users.get_user(&call, "nobody").await, NotFound, "'nobody'");
    refused(users.record_listens(&call, "nobody", vec![listen("Jóga", 0)]).await, NotFound, "'nobody'");
    refused(users.erase_user(&call, "nobody").await, NotFound, "'nobody'");
    refused(users.record_listens(&call, "ann", vec![]).await, InvalidArgument, "listens");
    refused(users.record_listens(&call, "ann", vec![listen("a", 0); 1_001]).await, InvalidArgument, "1001");
    let future = Listen { listened_at_ms: i64::MAX / 2, ..listen("Jóga", 0) };
    let early = Listen { listened_at_ms: 946_684_800_000, ..listen("Jóga", 0) };
    let batch = vec![listen("Jóga", 0), future, early, listen("", 1), listen(&"x".repeat(10_000_000), 2)];
    let receipt = users.record_listens(&call, "ann", batch).await.expect("recorded");
    let reasons: Vec<_> = receipt.rejections.iter().map(|one| (one.index, one.reason.as_str())).collect();
    assert_eq!((receipt.recorded, reasons.len()), (1, 4), "{reasons:?}");
    for (wrong, (index, field)) in
        reasons.iter().zip([(1, "listened_at_ms"), (2, "listened_at_ms"), (3, "title"), (4, "title")])
    {
        assert!(wrong.0 == index && wrong.1.starts_with(field), "{wrong:?}");
    }
    refused(users.list_listens(&call, "ann", &first(1_001)).await, InvalidArgument, "1001");
    let token = PageRequest { size: 1, token: "not one!".into() };
    refused(users.list_listens(&call, "ann", &token).await, InvalidArgument, "page token");
    refused(users.export_user(&call, "ann", &token).await, InvalidArgument, "page token");
    let profile = Profile { country: "Iceland".into(), ..Profile::default() };
    refused(users.update_profile(&call, "ann", profile).await, InvalidArgument, "country");
    let settings = Settings { blocked_artists: vec!["a".into(), " ".into()], ..Settings::default() };
    refused(users.update_settings(&call, "ann", settings).await, InvalidArgument, "blocked_artists[1]");
    let playlist = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: vec![track("")] };
    refused(users.create_playlist(&call, "ann", playlist).await, InvalidArgument, "tracks[0].title");
    let unknown = PlaylistId::new(1);
    refused(users.get_playlist(&call, unknown).await, NotFound, &unknown.to_string());
    let past = NewToken { expires_at_ms: 1, ..reader(Role::Reader) };
    refused(users.create_token(&call, "ann", past).await, InvalidArgument, "expires_at_ms");
    assert!(!users.revoke_token(&call, "ann", TokenId::new(1)).await.expect("not there"));
    assert!(!users.remove_from_library(&call, "ann", ItemId::artist("x")).await.expect("not there"));
}

async fn keys_make_writes_repeatable(users: &dyn Users) {
    let ann = users.create_user(&keyed("c"), "ann").await.expect("created");
    assert_eq!(users.create_user(&keyed("c"), "ann").await.expect("created before"), ann);
    let content = |title: &str| NewPlaylist { title: title.into(), description: String::new(), tracks: Vec::new() };
    let made = users.create_playlist(&keyed("p"), "ann", content("Rain")).await.expect("made");
    assert_eq!(users.create_playlist(&keyed("p"), "ann", content("Rain")).await.expect("made before"), made);
    let other = users.create_playlist(&keyed("p"), "ann", content("Sun")).await;
    refused(other, ErrorKind::FailedPrecondition, "'p'");
    let changed = users.update_playlist(&keyed("u"), made.id, content("Sun")).await.expect("changed");
    assert!(users.delete_playlist(&keyed("d"), made.id).await.expect("deleted"));
    assert!(users.delete_playlist(&keyed("d"), made.id).await.expect("deleted before"));
    assert!(!users.delete_playlist(&keyed("d2"), made.id).await.expect("gone"));
    assert_eq!(users.update_playlist(&keyed("u"), made.id, content("Sun")).await.expect("changed before"), changed);
    let late = users.update_playlist(&keyed("u2"), made.id, content("Sun")).await;
    refused(late, ErrorKind::NotFound, &made.id.to_string());
    let receipt = users.record_listens(&keyed("l"), "ann", vec![listen("Jóga", 0), listen("", 0)]).await.expect("new");
    let again = users.record_listens(&keyed("l"), "ann", vec![listen("Jóga", 0), listen("", 0)]).await.expect("old");
    assert_eq!((receipt.recorded, &again), (1, &receipt));
    let (token, _) = users.create_token(&keyed("t"), "ann", reader(Role::Reader)).await.expect("made");
    let gone = users.create_token(&keyed("t"), "ann", reader(Role::Reader)).await;
    refused(gone, ErrorKind::FailedPrecondition, &token.id.to_string());
    let receipt = users.erase_user(&keyed("e"), "ann").await.expect("erased");
    assert_eq!(users.erase_user(&keyed("e"), "ann").await.expect("erased before"), receipt);
    refused(users.create_user(&keyed("c"), "ann").await, ErrorKind::FailedPrecondition, "a new key");
    assert_ne!(users.create_user(&keyed("c2"), "ann").await.expect("created anew").id, ann.id);
}

async fn tokens_open_what_they_should(users: &dyn Users) {
    let call = Call::internal();
    let ann = users.create_user(&call, "ann").await.expect("created");
    users.create_user(&call, "ben").await.expect("created");
    let (token, secret) = users.create_token(&call, "ann", reader(Role::Writer)).await.expect("made");
    assert!(secret.starts_with("etk_"));
    assert_eq!(users.list_tokens(&call, "ann").await.expect("listed"), std::slice::from_ref(&token));
    let who = Principal::User { id: ann.id, name: ann.name, role: Role::Writer };
    assert_eq!(users.authenticate(&secret).await.expect("known"), who);
    assert_eq!(users.authenticate(&secret).await.expect("remembered"), who);
    let (head, tail) = secret.split_at(secret.len() - 1);
    let forged = format!("{head}{}", if tail == "A" { "B" } else { "A" });
    for wrong in [forged.as_str(), "", "etk_", "etk_x_y", head] {
        refused(users.authenticate(wrong).await, ErrorKind::Unauthenticated, "token");
    }
    assert!(!users.revoke_token(&call, "ben", token.id).await.expect("another's"));
    assert_eq!(users.authenticate(&secret).await.expect("known"), who);
    assert!(users.revoke_token(&call, "ann", token.id).await.expect("revoked"));
    refused(users.authenticate(&secret).await, ErrorKind::Unauthenticated, "revoked");
    assert!(users.list_tokens(&call, "ann").await.expect("listed").is_empty());
}

async fn what_is_restored_keeps_its_identity_and_is_checked(users: &dyn Users) {
    let call = Call::internal();
    let id = UserId::new(1_500_000_000_000);
    let ann = User { id, name: "Ann".parse().expect("a name"), created_at_ms: 1_500_000_000_000 };
    assert_eq!(users.find_user(&call, id).await.expect_err("unknown").kind, ErrorKind::NotFound);
    assert_eq!(users.restore_user(&call, ann.clone()).await.expect("restored"), (ann.clone(), true));
    assert_eq!(users.restore_user(&call, ann.clone()).await.expect("restored"), (ann.clone(), false));
    assert_eq!(users.find_user(&call, id).await.expect("found"), ann);
    let late = User { created_at_ms: 1 << 47, id: UserId::new(1), name: "ben".parse().expect("a name") };
    let fault = users.restore_user(&call, late).await.expect_err("refused");
    assert_eq!(fault.kind, ErrorKind::InvalidArgument, "{fault}");
    let kept = LibraryEntry { track: track("Jóga"), added_at_ms: 1_500_000_000_001 };
    let broken = LibraryEntry { track: track("Hunter"), added_at_ms: -1 };
    let receipt = users.restore_library(&call, "ann", vec![kept.clone(), broken]).await.expect("kept");
    assert_eq!((receipt.recorded, receipt.rejections[0].index), (1, 1));
    assert_eq!(users.list_library(&call, "ann", &first(10)).await.expect("listed").rows, [kept]);
    let content = NewPlaylist { title: "Rain".into(), description: String::new(), tracks: vec![track("Jóga")] };
    let changed_at = Hlc::from_ms(1_500_000_000_003);
    let id = PlaylistId::new(1_500_000_000_002);
    let playlist = Playlist { id, owner: ann.id, content, created_at_ms: 1_500_000_000_002, changed_at };
    assert!(users.restore_playlist(&call, "ann", playlist.clone()).await.expect("made"));
    assert!(!users.restore_playlist(&call, "ann", playlist.clone()).await.expect("there"));
    assert_eq!(users.get_playlist(&call, id).await.expect("read"), playlist);
    let foreign = Playlist { owner: UserId::new(2), ..playlist };
    let fault = users.restore_playlist(&call, "ann", foreign).await.expect_err("refused");
    assert_eq!(fault.kind, ErrorKind::InvalidArgument, "{fault}");
    restored_secrets_open_what_they_did(users).await;
}

/// The secret of a token that was made on another platform, with its hash, goes on working.
async fn restored_secrets_open_what_they_did(users: &dyn Users) {
    let call = Call::internal();
    let (id, label) = (TokenId::new(1_500_000_000_004), "player".to_owned());
    let secret = format!("etk_{}_c2VjcmV0LXNlY3JldC1zZWNyZXQ", id.0.simple());
    let hash = Argon2::default().hash_password(secret.as_bytes()).expect("hashed").to_string();
    let token = ApiToken { id, label, role: Role::Writer, created_at_ms: 1_500_000_000_004, expires_at_ms: 0 };
    assert!(users.restore_token(&call, "ann", token.clone(), &hash).await.expect("made"));
    assert!(!users.restore_token(&call, "ann", token.clone(), &hash).await.expect("there"));
    assert_eq!(users.list_tokens(&call, "ann").await.expect("listed"), std::slice::from_ref(&token));
    let principal = users.authenticate(&secret).await.expect("known");
    assert!(matches!(principal, Principal::User { role: Role::Writer, .. }), "{principal:?}");
    let dear = hash.replace("m=19456", "m=4000000");
    assert_ne!(dear, hash);
    for hash in ["secret", "$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", dear.as_str()] {
        let fault = users.restore_token(&call, "ann", token.clone(), hash).await.expect_err("refused");
        assert_eq!(fault.kind, ErrorKind::InvalidArgument, "{fault}");
    }
}
