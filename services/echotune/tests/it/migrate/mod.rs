//! A folder moves to a platform elsewhere: whole, once, and back on its way after whatever stopped it.

mod planted;
mod process;

use std::path::Path;

use echotune::{
    import::Progress,
    migrate::{MigrateError, Mode, PARALLEL, Report, Request, Table, run},
};
use echotune_model::{
    Call, ErrorKind, ExplicitContent, Feedback, ItemId, ItemKind, LibraryEntry, Listen, NewPlaylist, NewToken,
    PageRequest, PlayCount, Principal, Profile, Role, Settings, Signal, Tagging, TraceId, Track,
};

use self::planted::{Planted, There, left, store};
use crate::{direct, listen};

/// More than one page, and more than one batch.
const LISTENS: i64 = 2_345;

/// What the folder was left with.
struct Folder {
    /// A secret of ann's.
    secret: String,
    bytes: Vec<u8>,
}

/// A folder of three people with rows in every table.
async fn folder(path: &Path) -> Folder {
    let mut to = direct(path).await;
    let call = Call::internal();
    for name in ["Ann", "ben", "cat"] {
        to.users.create_user(&call, name).await.expect("created");
    }
    let heard = |n: i64| Listen {
        source: "radio".into(),
        explicit: [None, Some(true), Some(false)][usize::try_from(n % 3).expect("small")],
        played_ms: 1_000,
        ..listen(["Air", "Moby", "Feist"][usize::try_from(n % 7 % 3).expect("small")], &format!("Song {}", n % 50), n)
    };
    for first in (0..LISTENS).step_by(1_000) {
        let batch = (first..LISTENS.min(first + 1_000)).map(heard).collect();
        to.users.record_listens(&call, "ann", batch).await.expect("recorded");
    }
    to.users.record_listens(&call, "ben", vec![heard(1), heard(2)]).await.expect("recorded");
    let profile = Profile { display_name: "Ann".into(), about: "here".into(), country: "IS".into() };
    to.users.update_profile(&call, "ann", profile).await.expect("set");
    let blocked_artists = vec!["Creed".to_owned()];
    let settings = Settings { blocked_artists, private: true, explicit: ExplicitContent::Hide };
    to.users.update_settings(&call, "ann", settings).await.expect("set");
    let count = |artist: &str| PlayCount { artist: artist.into(), plays: 7, source: "lastfm".into() };
    to.users.set_play_counts(&call, "ann", vec![count("Air"), count("Zero 7")]).await.expect("set");
    let tagging = Tagging { artist: "Air".into(), tag: "Mellow".into(), tagged_at_ms: 1_500_000_000_000 };
    to.users.add_taggings(&call, "ann", vec![tagging]).await.expect("tagged");
    to.users.add_friends(&call, "ann", vec!["ben".into(), "cat".into()]).await.expect("added");
    let track = |title: &str| Track { title: title.into(), artist: "Air".into(), album: "Moon Safari".into() };
    to.users.add_to_library(&call, "ann", vec![track("Talisman"), track("Ce matin là")]).await.expect("kept");
    let content = NewPlaylist { title: "Rain".into(), description: "x".into(), tracks: vec![track("Talisman")] };
    let made = to.users.create_playlist(&call, "ann", content.clone()).await.expect("made");
    to.users.update_playlist(&call, made.id, NewPlaylist { title: "Sun".into(), ..content }).await.expect("changed");
    let token = NewToken { label: "player".into(), role: Role::Writer, expires_at_ms: 0 };
    let (_, secret) = to.users.create_token(&call, "ann", token).await.expect("made");
    to.settle().await.expect("settled");
    for (artist, signal) in [("Moby", Signal::Disliked), ("Air", Signal::Liked)] {
        let feedback = Feedback { item: ItemId::artist(artist), signal, trace: TraceId::default() };
        to.recommendations.record_feedback(&call, "cat", feedback).await.expect("noted");
    }
    Folder { secret, bytes: left(path, to).await }
}

fn request(folder: &Path, mode: Mode) -> Request {
    Request { folder: folder.to_owned(), users: Vec::new(), renames: Vec::new(), mode, parallel: PARALLEL }
}

async fn migrated(there: &There, request: &Request) -> Result<Report, MigrateError> {
    run(there.destination.clone(), &Call::internal(), request, &Progress::hidden()).await
}

async fn done(there: &There, folder: &Path, mode: Mode) -> Report {
    migrated(there, &request(folder, mode)).await.expect("migrated")
}

fn rows(report: &Report, table: Table) -> (u64, u64, u64) {
    let told = &report.tables[&table];
    (told.source.rows, told.destination.rows, told.written)
}

/// Names of accounts and friendships are told from both sides.
const ROWS: [(Table, u64); 11] = [
    (Table::Accounts, 3),
    (Table::Profiles, 1),
    (Table::Settings, 1),
    (Table::Listens, LISTENS.unsigned_abs() + 2),
    (Table::PlayCounts, 2),
    (Table::Taggings, 1),
    (Table::Friends, 4),
    (Table::Library, 2),
    (Table::Playlists, 1),
    (Table::Tokens, 1),
    (Table::Feedback, 2),
];

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_with_its_identity_and_a_second_run_writes_nothing() {
    let (home, mut there) = (tempfile::tempdir().expect("folder"), There::new().await);
    let left = folder(home.path()).await;
    let planned = done(&there, home.path(), Mode::DryRun).await;
    assert_eq!((planned.accounts.len(), there.writes()), (3, 0));
    let missing = done(&there, home.path(), Mode::Verify).await;
    assert_eq!((missing.is_verified(), missing.mismatches.len(), there.writes()), (false, 3, 0), "{missing:?}");
    let report = done(&there, home.path(), Mode::Move).await;
    assert!(report.is_verified(), "{report:?}");
    assert_eq!((report.accounts_made, report.friends_waiting), (3, 0));
    for (table, count) in ROWS {
        let written = if table == Table::Friends { count / 2 } else { count };
        assert_eq!(rows(&report, table), (count, count, written), "{table:?}");
        assert_eq!(planned.tables[&table].source, report.tables[&table].source, "{table:?}");
    }
    let writes = there.writes();
    let again = done(&there, home.path(), Mode::Move).await;
    assert!(again.is_verified(), "{again:?}");
    assert_eq!((again.rows_written(), again.accounts_made), (0, 0), "{again:?}");
    // Friendships are sent again, for the destination to find that they are there.
    assert_eq!(there.writes() - writes, 1);
    assert!(done(&there, home.path(), Mode::Verify).await.is_verified());
    assert!(store(home.path()) == left.bytes, "the folder was changed");

    there.settle().await;
    let call = Call::internal();
    let principal = there.users().authenticate(&left.secret).await.expect("the secret works");
    assert!(matches!(principal, Principal::User { role: Role::Writer, .. }), "{principal:?}");
    let before = direct(home.path()).await;
    let page = PageRequest { size: 100, ..PageRequest::default() };
    for name in ["ann", "ben", "cat"] {
        let of = |users: std::sync::Arc<dyn echotune_api::Users>| async move {
            let user = users.get_user(&Call::internal(), name).await.expect("read");
            let page = PageRequest { size: 100, ..PageRequest::default() };
            (user, users.list_playlists(&Call::internal(), name, &page).await.expect("listed").rows)
        };
        assert_eq!(of(before.users.clone()).await, of(there.users().clone()).await);
    }
    let library = |users: std::sync::Arc<dyn echotune_api::Users>, page| async move {
        users.list_library(&Call::internal(), "ann", &page).await.expect("listed").rows
    };
    let kept: Vec<LibraryEntry> = library(before.users.clone(), page.clone()).await;
    assert_eq!(kept, library(there.users().clone(), page).await);
    before.close().await.expect("closed");
    let query = echotune_api::RecommendQuery { kind: ItemKind::Artist, limit: 10, include_known: false };
    let list = there.recommendations().recommend(&call, "cat", &query).await.expect("recommended");
    assert!(list.items.iter().all(|item| item.artist != "Moby"), "what is disliked stays so: {list:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_destination_drops_doubles_or_alters_is_found_and_named() {
    for planted in [Planted::Dropped, Planted::Doubled, Planted::Altered] {
        let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
        folder(home.path()).await;
        there.plant(planted);
        let report = done(&there, home.path(), Mode::Move).await;
        assert!(!report.is_verified(), "{planted:?}");
        let [mismatch] = report.mismatches.as_slice() else { panic!("{planted:?}: {:?}", report.mismatches) };
        assert_eq!(mismatch.table, Table::Listens, "{planted:?}");
        let (here, found) = (mismatch.source.rows, mismatch.destination.rows);
        assert_ne!(mismatch.source.checksum, mismatch.destination.checksum);
        match planted {
            Planted::Dropped => assert!(found < here && !mismatch.missing.is_empty(), "{mismatch:?}"),
            Planted::Doubled => {
                assert!(found > here && mismatch.missing.is_empty() && !mismatch.unexpected.is_empty(), "{mismatch:?}");
            }
            _ => assert!(found == here && mismatch.missing[0].contains("radio"), "{mismatch:?}"),
        }
        let told = mismatch.missing.iter().chain(&mismatch.unexpected);
        assert!(told.into_iter().all(|row| row.contains("Song ")), "{mismatch:?}");
        // Only looking changes nothing; and a second run sends what is missing, but overwrites nothing.
        assert_eq!(done(&there, home.path(), Mode::Verify).await.mismatches, report.mismatches);
        let again = done(&there, home.path(), Mode::Move).await;
        assert_eq!(again.is_verified(), planted == Planted::Dropped, "{planted:?}: {:?}", again.mismatches);
        assert_eq!(again.rows_written() > 0, planted == Planted::Dropped, "{planted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_in_passing_and_answers_that_get_lost_change_nothing() {
    let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
    folder(home.path()).await;
    there.plant(Planted::Shaky);
    let report = done(&there, home.path(), Mode::Move).await;
    assert!(report.is_verified(), "{report:?}");
    for (table, count) in ROWS {
        assert_eq!(rows(&report, table).1, count, "{table:?}");
    }
    // The answer of the first try, under its key.
    assert_eq!(rows(&report, Table::Listens).2, LISTENS.unsigned_abs() + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_anothers_stops_the_move_before_it_begins_and_a_new_name_is_the_way_out() {
    let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
    folder(home.path()).await;
    let call = Call::internal();
    let stranger = there.users().create_user(&call, "BEN").await.expect("created");
    let fault = migrated(&there, &request(home.path(), Mode::Move)).await.expect_err("taken");
    let told = fault.to_string();
    assert_eq!(fault.kind(), ErrorKind::AlreadyExists);
    for part in ["'ben' of the folder", "'BEN' there", &stranger.id.to_string(), "--rename ben=NEW-NAME"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(there.users().counts(&call).await.expect("counts")["users"], 1, "nothing was moved");

    let rename = |old: &str, new: &str| vec![(old.to_owned(), new.to_owned())];
    let with = |renames| Request { renames, ..request(home.path(), Mode::Move) };
    for (renames, why) in [
        (rename("nobody", "x"), "not among the accounts that move"),
        (rename("ben", "two words"), "not a user name"),
        (rename("ben", "CAT"), "would both be"),
        ([rename("ben", "x"), rename("BEN", "y")].concat(), "twice"),
    ] {
        let fault = migrated(&there, &with(renames)).await.expect_err(why);
        assert!(fault.to_string().contains(why) && fault.kind() == ErrorKind::InvalidArgument, "{fault}");
    }
    let report = migrated(&there, &with(rename("ben", "ben-of-home"))).await.expect("moved");
    assert!(report.is_verified(), "{report:?}");
    let page = PageRequest { size: 10, ..PageRequest::default() };
    let friends = there.users().list_friends(&call, "ann", &page).await.expect("listed").rows;
    assert_eq!(friends, ["ben-of-home", "cat"], "a friend is not mixed up with who has the name there");
    assert!(there.users().list_listens(&call, "BEN", &page).await.expect("listed").rows.is_empty());
    // An account that has arrived is known by its id.
    assert_eq!(done(&there, home.path(), Mode::Move).await.rows_written(), 0);
    let fault = migrated(&there, &with(rename("ben", "benjamin"))).await.expect_err("arrived");
    assert!(fault.to_string().contains("at the destination already, as 'ben-of-home'"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_are_named_move_alone_and_their_friends_bring_the_friendship() {
    let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
    folder(home.path()).await;
    let only = |name: &str| Request { users: vec![name.into()], ..request(home.path(), Mode::Move) };
    let nobody = migrated(&there, &only("nobody")).await.expect_err("unknown");
    assert_eq!(nobody.kind(), ErrorKind::NotFound, "{nobody}");
    let cat = migrated(&there, &only("CAT")).await.expect("moved");
    assert_eq!((cat.is_verified(), cat.accounts.len(), cat.friends_waiting), (true, 1, 1), "{cat:?}");
    assert_eq!(rows(&cat, Table::Feedback).1, 2, "of items that nobody there knows");
    let ann = migrated(&there, &only("ann")).await.expect("moved");
    assert_eq!((ann.is_verified(), ann.friends_waiting), (true, 1), "{ann:?}");
    assert_eq!(rows(&ann, Table::Friends), (1, 1, 1), "{ann:?}");
    let call = Call::internal();
    let created = there.users().find_user(&call, ann.accounts[0].id).await.expect("there");
    assert_eq!(created.name.as_str(), "Ann");
    let all = done(&there, home.path(), Mode::Move).await;
    assert_eq!((all.is_verified(), all.accounts_made, all.friends_waiting), (true, 1, 0), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_at_the_destination_since_stays_and_is_told() {
    let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
    folder(home.path()).await;
    done(&there, home.path(), Mode::Move).await;
    let call = Call::internal();
    let profile = Profile { display_name: "Annie".into(), ..Profile::default() };
    there.users().update_profile(&call, "ann", profile.clone()).await.expect("set");
    there.users().record_listens(&call, "ben", vec![listen("Moby", "New", 99_999)]).await.expect("recorded");
    let report = done(&there, home.path(), Mode::Move).await;
    assert_eq!(report.rows_written(), 0, "{report:?}");
    assert_eq!(there.users().get_profile(&call, "ann").await.expect("read"), profile);
    let told: Vec<_> = report.mismatches.iter().map(|one| (one.user.as_str(), one.table)).collect();
    assert_eq!(told, [("Ann", Table::Profiles), ("ben", Table::Listens)]);
    assert!(report.mismatches[0].unexpected[0].contains("Annie"), "{report:?}");
    assert!(report.mismatches[1].unexpected[0].contains("New"), "{report:?}");
    there.users().erase_user(&call, "ben").await.expect("erased");
    let fault = migrated(&there, &request(home.path(), Mode::Move)).await.expect_err("erased");
    assert!(fault.to_string().contains("what was erased does not come back"), "{fault}");
}
