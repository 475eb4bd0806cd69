//! Imports and the demo, on files made here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use echotune::{
    Connection, Platform, demo,
    import::{self, Counts, Failure, Kind, Progress, Request, SHOWN_REJECTED, Summary},
};
use echotune_kit::telemetry::SpanStore;
use echotune_model::{Call, ErrorKind, Fault, ItemId, UserName};
use tokio::{io::AsyncBufReadExt as _, process::Command};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::double::Double;

fn request(format: &str, path: &Path, user: Option<&str>) -> Request {
    Request { format: format.into(), paths: vec![path.to_owned()], user: user.map(Into::into), rejects: None }
}

async fn run(users: &Double, request: &Request) -> Result<Summary, Failure> {
    import::run(Arc::new(users.clone()), &Call::internal(), request, &Progress::hidden()).await
}

async fn refused(format: &str, path: &Path) -> String {
    let failure = run(&Double::default(), &request(format, path, Some("hetrec-2"))).await.expect_err("refused");
    assert_ne!(Fault::from(failure).kind, ErrorKind::Internal);
    run(&Double::default(), &request(format, path, Some("hetrec-2"))).await.expect_err("refused").to_string()
}

fn counts(imported: u64, duplicate: u64, merged: u64, rejected: u64) -> Counts {
    Counts { imported, duplicate, merged, rejected }
}

fn hetrec(folder: &Path) {
    let write = |file: &str, bytes: &[u8]| fs::write(folder.join(file), bytes).expect("written");
    write(
        "artists.dat",
        "id\tname\turl\tpictureURL\n1\tBjörk\tu\tp\n2\tMÚM\tu\t\n3\tmum\tu\tp\n4\t \tu\tp\nx\n".as_bytes(),
    );
    write("tags.dat", b"tagID\ttagValue\r\n1\tfu\xdfball\r\n2\tpop\r\n");
    write("user_artists.dat", b"userID\tartistID\tweight\n2\t1\t100\n2\t2\t5\n2\t3\t7\n3\t1\t0\n3\t9\t1\n3\t2\t-1\n");
    let taggings = b"userID\tartistID\ttagID\tday\tmonth\tyear\n2\t1\t1\t1\t4\t2009\n2\t2\t2\t1\t1\t1956\n2\t1\t2\t31\t2\t2009\n2\t1\t7\t1\t4\t2009\n";
    write("user_taggedartists.dat", taggings);
    write("user_friends.dat", b"userID\tfriendID\n2\t3\n3\t2\n2\t4");
}

#[tokio::test]
async fn hetrec_counts_tags_and_friends_arrive_once_and_bad_rows_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    hetrec(folder.path());
    let users = Double::default();
    let rejects = folder.path().join("rejects.jsonl");
    let wanted = Request { rejects: Some(rejects.clone()), ..request("lastfm-hetrec", folder.path(), None) };
    let first = run(&users, &wanted).await.expect("imported");
    assert_eq!(first.of(Kind::PlayCounts), counts(2, 0, 1, 3));
    assert_eq!(first.of(Kind::Taggings), counts(2, 0, 0, 2));
    assert_eq!(first.of(Kind::Friendships), counts(2, 1, 0, 0));
    assert_eq!(first.of(Kind::Names).rejected, 2);
    assert_eq!(first.accounts_created, 3);
    let reason = |file: &str, line: u64| {
        let found = first.rejected.iter().find(|row| row.file == file && row.line == line);
        found.unwrap_or_else(|| panic!("{file}:{line} in {first:?}")).reason.clone()
    };
    assert!(reason("artists.dat", 6).contains("1 fields; expected 4"));
    assert!(reason("user_artists.dat", 5).contains("plays is 0"), "the edge's reason with the line of the row");
    assert!(reason("user_artists.dat", 6).contains("artistID 9 is not in artists.dat"));
    assert!(reason("user_artists.dat", 7).contains("weight '-1'"));
    assert!(reason("user_taggedartists.dat", 4).contains("2009-2-31"));
    assert!(reason("user_taggedartists.dat", 5).contains("tagID 7"));
    assert_eq!(fs::read_to_string(&rejects).expect("written").lines().count(), 7);
    users.held(|held| {
        let mum = ("hetrec-2".to_owned(), ItemId::artist("Múm"), "lastfm-hetrec".to_owned());
        assert_eq!(held.counts[&mum], 12, "one artist under two ids is counted together");
        let tag = |artist: &str, tag: &str| held.taggings[&("hetrec-2".into(), artist.into(), tag.into())];
        assert_eq!(tag("bjork", "fußball"), 1_238_544_000_000);
        assert_eq!(tag("mum", "pop"), 0, "a date before the service is unknown");
        assert!(held.listens.is_empty(), "counts stay counts");
    });
    let again = run(&users, &wanted).await.expect("imported");
    assert_eq!((again.imported(), again.accounts_created), (0, 0));
    assert_eq!(again.of(Kind::PlayCounts), counts(0, 2, 1, 3));
}

#[tokio::test]
async fn a_hetrec_table_without_rows_is_no_fault() {
    let folder = tempfile::tempdir().expect("folder");
    hetrec(folder.path());
    fs::write(folder.path().join("user_friends.dat"), "userID\tfriendID\n").expect("written");
    let users = Double::default();
    let summary = run(&users, &request("lastfm-hetrec", folder.path(), None)).await.expect("imported");
    assert_eq!(summary.of(Kind::Friendships), counts(0, 0, 0, 0));
    assert_eq!(summary.of(Kind::Taggings).imported, 2);
}

#[tokio::test]
async fn hetrec_can_be_restricted_to_one_user() {
    let folder = tempfile::tempdir().expect("folder");
    hetrec(folder.path());
    let users = Double::default();
    let summary = run(&users, &request("lastfm-hetrec", folder.path(), Some("hetrec-3"))).await.expect("imported");
    assert_eq!(summary.of(Kind::Taggings).imported, 0);
    assert_eq!(summary.of(Kind::Friendships).imported, 1);
    for user in ["hetrec-99", "ann"] {
        let failure = run(&users, &request("lastfm-hetrec", folder.path(), Some(user))).await.expect_err("unknown");
        assert!(failure.to_string().contains(&format!("'{user}'")), "{failure}");
        assert_eq!(Fault::from(failure).kind, ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_hetrec_folder_that_lacks_a_file_or_a_header_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    hetrec(folder.path());
    fs::write(folder.path().join("tags.dat"), "1\tpop\n").expect("written");
    let message = refused("lastfm-hetrec", folder.path()).await;
    assert!(message.contains("tags.dat, line 1") && message.contains("tagValue"), "{message}");
    fs::write(folder.path().join("tags.dat"), "").expect("written");
    assert!(refused("lastfm-hetrec", folder.path()).await.contains("tags.dat, line 1"));
    fs::remove_file(folder.path().join("user_friends.dat")).expect("removed");
    assert!(refused("lastfm-hetrec", folder.path()).await.contains("no file 'user_friends.dat'"));
}

/// A zip with these files.
fn zip(path: &Path, files: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(File::create(path).expect("created"));
    for (name, bytes) in files {
        let method = if name.ends_with(".stored") { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("started");
        zip.write_all(bytes).expect("written");
    }
    zip.finish().expect("finished");
}

fn row(at: &str, title: &str, artist: &str) -> String {
    let track =
        serde_json::json!({"track_name": title, "artist_name": artist, "release_name": null, "mbid_mapping": null});
    format!("{{\"inserted_at\":1.5,\"listened_at\":{at},\"track_metadata\":{track}}}\n")
}

/// Letters that do not compress like a bomb.
fn noise(length: usize) -> String {
    let letters =
        std::iter::successors(Some(1_u32), |state| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)));
    letters.take(length).map(|state| char::from(b'a' + (state >> 24) as u8 % 26)).collect()
}

#[tokio::test]
async fn a_listenbrainz_zip_arrives_once_and_bad_rows_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("listenbrainz_ann_1.zip");
    let mut june = row("1749780612", "Jóga", "Björk") + &row("1749780900.5", "Hyperballad", "Björk") + "\n";
    june += &row("1749780612", "JÓGA", "björk");
    june += &row("1749780612", "", "Björk");
    june += &row("9749780612", "Later", "Björk");
    june += &row("946684800", "Earlier", "Björk");
    june += "{\"listened_at\": 17497\n";
    june += &row("null", "Never", "Björk");
    let mut june = june.into_bytes();
    june.extend(b"{\"listened_at\":1,\"track_metadata\":{\"track_name\":\"\xff\"}}\n");
    june.extend(row("1749780612", &noise(10_000_000), "Björk").bytes());
    june.extend(row("1749780612", &"x".repeat(100_000), "Björk").bytes());
    june.extend(b"{\"listened_at\":1749780612,\"track_meta");
    let may = row("1747000000", "Army of Me", "Björk");
    let evil = row("1747000000", "Evil", "Evil");
    zip(
        &path,
        &[
            ("user.json", br#"{"user_id": 7, "username": "ann"}"#),
            ("listens/2025/6.jsonl", &june),
            ("listens/2025/5.jsonl", may.as_bytes()),
            ("../listens/2025/4.jsonl", evil.as_bytes()),
            ("/listens/2025/3.jsonl", b"not read as a folder of the system"),
            ("feedback.jsonl", b"{}\n"),
        ],
    );
    let users = Double::default();
    let first = run(&users, &request("listenbrainz", &path, None)).await.expect("imported");
    let listens = first.of(Kind::Listens);
    assert_eq!((listens.imported, listens.duplicate, first.files_ignored), (3, 1, 1), "{first}");
    let reasons: BTreeMap<u64, &str> = first
        .rejected
        .iter()
        .filter(|row| row.file == "listens/2025/6.jsonl")
        .map(|row| (row.line, row.reason.as_str()))
        .collect();
    for (line, part) in [
        (5, "title is empty"),
        (6, "in the future"),
        (7, "before 2002"),
        (8, "not a listen: EOF"),
        (9, "invalid type: null"),
        (10, "not UTF-8"),
        (11, "at most 1048576"),
        (12, "title has 100000 bytes"),
        (13, "not a listen: EOF"),
    ] {
        assert!(reasons[&line].contains(part), "{line}: {}", reasons[&line]);
    }
    users.held(|held| {
        assert!(held.listens.contains(&("ann".into(), 1_749_780_900_500, ItemId::track("Björk", "Hyperballad"))));
        assert!(held.listens.iter().all(|(_, _, track)| *track != ItemId::track("Evil", "Evil")));
    });
    let again = run(&users, &request("listenbrainz", &path, None)).await.expect("imported");
    assert_eq!(again.of(Kind::Listens), Counts { imported: 0, duplicate: 4, ..listens });
    let json = serde_json::to_value(&first).expect("json");
    assert_eq!(json["rows"]["listens"]["imported"], 3);
    assert_eq!(json["rejected"][0]["file"], "listens/2025/6.jsonl");
}

#[tokio::test]
async fn the_first_rejected_rows_are_shown_and_all_of_them_written_when_wanted() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, rejects) = (folder.path().join("a.jsonl"), folder.path().join("rejects.jsonl"));
    fs::write(&path, "no\n".repeat(SHOWN_REJECTED + 5)).expect("written");
    let wanted = Request { rejects: Some(rejects.clone()), ..request("listenbrainz", &path, Some("ann")) };
    let summary = run(&Double::default(), &wanted).await.expect("imported");
    assert_eq!((summary.rejected.len(), summary.rejected_not_shown), (SHOWN_REJECTED, 5));
    assert!(summary.to_string().contains("… and 5 more"), "{summary}");
    let written = fs::read_to_string(&rejects).expect("written");
    let last: serde_json::Value = serde_json::from_str(written.lines().last().expect("rows")).expect("json");
    assert_eq!((written.lines().count(), &last["line"]), (25, &serde_json::json!(25)));
}

#[tokio::test]
async fn an_unpacked_listenbrainz_folder_and_a_missing_user_are_handled() {
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir_all(folder.path().join("listens/2025")).expect("created");
    let file = folder.path().join("listens/2025/6.jsonl");
    fs::write(&file, row("1749780612", "Jóga", "Björk")).expect("written");
    let users = Double::default();
    let failure = run(&users, &request("listenbrainz", folder.path(), None)).await.expect_err("whose?");
    assert!(failure.to_string().contains("--user NAME"), "{failure}");
    for path in [folder.path(), &file] {
        run(&users, &request("listenbrainz", path, Some("ann"))).await.expect("imported");
    }
    assert_eq!(users.held(|held| held.listens.len()), 1);
}

#[tokio::test]
async fn damaged_and_hostile_archives_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let whole = folder.path().join("whole.zip");
    demo::write_listenbrainz(&whole, 2_000, 1).expect("written");
    let mut bytes = Vec::new();
    File::open(&whole).expect("open").read_to_end(&mut bytes).expect("read");

    let cut = folder.path().join("cut.zip");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("written");
    let message = refused("listenbrainz", &cut).await;
    assert!(message.contains("cut off or damaged") && message.contains("download"), "{message}");

    let flipped = folder.path().join("flipped.zip");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    fs::write(&flipped, &bytes).expect("written");
    let message = refused("listenbrainz", &flipped).await;
    assert!(message.contains("listens/20") && message.contains("download the export again"), "{message}");

    let bomb = folder.path().join("bomb.zip");
    zip(&bomb, &[("listens/2025/6.jsonl", &vec![b' '; 40 << 20])]);
    let message = refused("listenbrainz", &bomb).await;
    assert!(message.contains("compression ratio") && message.contains("250"), "{message}");

    let crowd = folder.path().join("crowd.zip");
    let names: Vec<String> = (0..10_001).map(|at| format!("{at}.stored")).collect();
    zip(&crowd, &names.iter().map(|name| (name.as_str(), &b""[..])).collect::<Vec<_>>());
    let message = refused("listenbrainz", &crowd).await;
    assert!(message.contains("number of files 10001"), "{message}");
}

#[tokio::test]
async fn an_archive_that_understates_a_size_is_refused_while_it_is_read() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("liar.zip");
    let text = row("1749780612", "Jóga", "Björk").repeat(1_000);
    zip(&path, &[("listens/2025/6.jsonl", text.as_bytes())]);
    let mut bytes = fs::read(&path).expect("read");
    let (true_size, false_size) = (u32::try_from(text.len()).expect("small").to_le_bytes(), 5_000_u32.to_le_bytes());
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..at + 4] == true_size).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 4].copy_from_slice(&false_size);
    }
    fs::write(&path, bytes).expect("written");
    let message = refused("listenbrainz", &path).await;
    assert!(message.contains("listens/2025/6.jsonl, line"), "{message}");
}

#[tokio::test]
async fn an_export_of_another_service_is_refused_and_recognised() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let spotify = br#"[{"ts":"2025-04-28T21:04:35Z","ms_played":1603}]"#;
    zip(&path("my.zip"), &[("MyData/Streaming_History_Audio_2024_0.json", spotify)]);
    zip(&path("listens.xlsx"), &[("xl/workbook.xml", b"<x/>")]);
    fs::write(path("history.json"), spotify).expect("written");
    fs::write(path("scrobbles.csv"), "uts,utc_time,artist\n1,2,3\n").expect("written");
    fs::write(path("notes.txt"), "shopping").expect("written");
    fs::write(path("ann_lb-2023-10-31.json"), r#"[{"listened_at":1,"track_metadata":{}}]"#).expect("written");
    fs::create_dir(path("hetrec")).expect("created");
    hetrec(&path("hetrec"));
    for (format, name, parts) in [
        ("listenbrainz", "my.zip", ["extended Spotify", "cannot be imported yet"]),
        ("listenbrainz", "listens.xlsx", ["no export that is known", "as it was downloaded"]),
        ("listenbrainz", "history.json", ["extended Spotify", "history.json"]),
        ("listenbrainz", "scrobbles.csv", ["Last.fm history", "scrobbles.csv"]),
        ("listenbrainz", "notes.txt", ["no export that is known", "notes.txt"]),
        ("listenbrainz", "hetrec", ["HetRec", "echotune import lastfm-hetrec"]),
        ("listenbrainz", "ann_lb-2023-10-31.json", ["before the zip", "request a new export"]),
        ("lastfm-hetrec", "my.zip", ["extended Spotify", "HetRec"]),
        ("lastfm-hetrec", "nowhere", ["nowhere", "cannot be used"]),
        ("spotify", "my.zip", ["'spotify' is not an import format", "lastfm-hetrec, listenbrainz"]),
    ] {
        let message = refused(format, &path(name)).await;
        assert!(parts.iter().all(|part| message.contains(part)), "{name}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_is_away_for_a_moment_or_for_good_loses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("export.zip");
    demo::write_listenbrainz(&path, 5_500, 3).expect("written");
    let users = Double::default();
    users.0.lock().expect("lock").alive = Some(2);
    let failure = run(&users, &request("listenbrainz", &path, Some("ann"))).await.expect_err("gone");
    assert_eq!(failure.summary.imported(), 2_000);
    assert!(failure.to_string().contains("2000 rows before it were imported"), "{failure}");
    {
        let mut held = users.0.lock().expect("lock");
        (held.alive, held.shaky) = (None, 3);
    }
    let rest = run(&users, &request("listenbrainz", &path, Some("ann"))).await.expect("imported");
    assert_eq!(rest.of(Kind::Listens), counts(3_500, 2_000, 0, 0));
    assert_eq!(users.held(|held| held.listens.len()), 5_500);
}

/// Imports into the folder named in the environment; killed by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that the test of kill -9 starts"]
async fn imports_until_it_is_killed() {
    let folder = PathBuf::from(std::env::var("IMPORT_FOLDER").expect("folder"));
    let platform = Platform::open(&folder.join("data"), SpanStore::default()).expect("open");
    let users = Arc::clone(&platform.users);
    tokio::spawn(async move {
        loop {
            let counts = platform.operations.status(&Call::internal()).await.expect("status").counts;
            if counts["listens"] > 0 {
                println!("\nsome are in");
            }
            tokio::task::yield_now().await;
        }
    });
    let wanted = request("listenbrainz", &folder.join("export.zip"), Some("ann"));
    import::run(users, &Call::internal(), &wanted, &Progress::hidden()).await.expect("imported");
    // The one who kills is late; there is nothing left to interrupt.
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_killed_is_completed_by_another_one() {
    const LISTENS: u64 = 30_000;
    let folder = tempfile::tempdir().expect("folder");
    demo::write_listenbrainz(&folder.path().join("export.zip"), LISTENS, 5).expect("written");
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "import::imports_until_it_is_killed", "--ignored", "--nocapture"])
        .env("IMPORT_FOLDER", folder.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("started");
    let mut lines = tokio::io::BufReader::new(child.stdout.take().expect("output")).lines();
    while let Some(line) = lines.next_line().await.expect("line") {
        if line == "some are in" {
            break;
        }
    }
    child.kill().await.expect("killed");

    let platform = Platform::open(&folder.path().join("data"), SpanStore::default()).expect("open");
    let listens = async || platform.operations.status(&Call::internal()).await.expect("status").counts["listens"];
    let before = listens().await;
    assert!(before > 0);
    let wanted = request("listenbrainz", &folder.path().join("export.zip"), Some("ann"));
    let users = Arc::clone(&platform.users);
    let rest = import::run(users, &Call::internal(), &wanted, &Progress::hidden()).await.expect("imported");
    assert_eq!(rest.of(Kind::Listens), counts(LISTENS - before, before, 0, 0));
    assert_eq!(listens().await, LISTENS);

    // The same once more, now into a platform that runs elsewhere.
    let data = folder.path().join("data");
    let serving = platform.serve("127.0.0.1:0".parse().expect("address")).await.expect("serve");
    let to = Connection::remote(&data, serving.address).await.expect("connect");
    let users = Arc::clone(&to.users);
    let again = import::run(users, &Call::internal(), &wanted, &Progress::hidden()).await.expect("imported");
    assert_eq!(again.of(Kind::Listens), counts(0, LISTENS, 0, 0));
    serving.stop().await.expect("stopped");
}

const SMALL: demo::Shape = demo::Shape { listeners: 120, artists: 200, tracks: 1_500, listens: 12_000 };
const DEMO_NOW: i64 = 1_759_999_999_999;

#[test]
fn a_demo_world_depends_on_its_seed_alone_and_keeps_to_its_shape() {
    let world = |seed| demo::generate(&SMALL, seed, DEMO_NOW).listeners().collect::<Vec<_>>();
    let listeners = world(7);
    assert_eq!(listeners, world(7));
    assert_ne!(listeners, world(8));
    let names: BTreeSet<_> = listeners.iter().map(|listener| listener.name.clone()).collect();
    assert_eq!(names.len(), SMALL.listeners);
    assert_eq!(listeners.iter().map(|listener| listener.listens.len()).sum::<usize>(), SMALL.listens);
    let mut tracks = BTreeMap::new();
    for listener in &listeners {
        listener.name.parse::<UserName>().expect("a user name");
        assert!(listener.friends.iter().all(|friend| names.contains(friend) && *friend != listener.name));
        let year = DEMO_NOW - 366 * 86_400_000..=DEMO_NOW;
        for pair in listener.listens.windows(2) {
            let ends = pair[0].listened_at_ms + i64::from(pair[0].played_ms);
            assert!(ends <= pair[1].listened_at_ms, "nobody plays two tracks at once");
        }
        for listen in &listener.listens {
            listen.check(u64::try_from(DEMO_NOW).expect("positive")).expect("a listen");
            assert!(year.contains(&listen.listened_at_ms));
            *tracks.entry(listen.track.id()).or_insert(0_usize) += 1;
        }
    }
    let mut plays: Vec<_> = tracks.into_values().collect();
    plays.sort_unstable_by(|one, other| other.cmp(one));
    let top: usize = plays[..SMALL.tracks / 10].iter().sum();
    assert!(top * 3 > SMALL.listens, "a tenth of the tracks has {top} of {} listens", SMALL.listens);
}

/// A listener's second half of the year resembles the first far more than it resembles everybody's.
#[test]
fn a_demo_world_has_taste_that_can_be_learned() {
    let world = demo::generate(&SMALL, 7, DEMO_NOW);
    let mut everybody = BTreeMap::<&str, f64>::new();
    let mut histories = Vec::new();
    for listener in world.listeners() {
        let genres: Vec<&str> =
            listener.listens.iter().map(|listen| world.genre_of(&listen.track.artist).expect("known")).collect();
        for genre in &genres {
            *everybody.entry(genre).or_default() += 1.0;
        }
        histories.push((listener, genres));
    }
    let all: f64 = everybody.values().sum();
    let (mut own, mut global, mut repeated) = (0.0, 0.0, 0.0);
    for (listener, genres) in &histories {
        let (first, second) = genres.split_at(genres.len() / 2);
        let mut learned = BTreeMap::<&str, usize>::new();
        for genre in first {
            *learned.entry(genre).or_default() += 1;
        }
        let Some((favourite, _)) = learned.into_iter().max_by_key(|(_, plays)| *plays) else { continue };
        own += second.iter().filter(|genre| **genre == favourite).count() as f64 / second.len() as f64;
        global += everybody[favourite] / all;
        let distinct: BTreeSet<_> = listener.listens.iter().map(|listen| listen.track.id()).collect();
        repeated += 1.0 - distinct.len() as f64 / listener.listens.len() as f64;
    }
    let listeners = histories.len() as f64;
    assert!(own > 3.0 * global, "own {own}, global {global}");
    assert!(own / listeners > 0.4, "{}", own / listeners);
    assert!(repeated / listeners > 0.2, "{}", repeated / listeners);
}

#[tokio::test]
async fn an_interrupted_demo_is_completed_on_a_later_day_and_a_complete_one_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let users = Double::default();
    let load = |now: i64, seed: u64| {
        let (users, folder) = (Arc::new(users.clone()), folder.path().to_owned());
        async move { demo::load(users, &Call::internal(), &folder, &SMALL, seed, now, &Progress::hidden()).await }
    };
    users.0.lock().expect("lock").alive = Some(30);
    let failure = load(DEMO_NOW, 7).await.expect_err("gone");
    assert!(failure.summary.imported() > 0);
    users.0.lock().expect("lock").alive = None;
    let rest = load(DEMO_NOW + 5 * 86_400_000, 8).await.expect("loaded");
    assert!(rest.of(Kind::Listens).duplicate > 0);
    assert!(rest.rejected.is_empty(), "{rest}");
    let expected: BTreeSet<_> = demo::generate(&SMALL, 7, DEMO_NOW)
        .listeners()
        .flat_map(|one| one.listens.into_iter().map(move |row| (one.name.clone(), row.listened_at_ms, row.track.id())))
        .collect();
    users.held(|held| {
        assert_eq!(held.listens, expected);
        assert_eq!(held.accounts.len(), SMALL.listeners);
        assert!(!held.taggings.is_empty() && !held.friends.is_empty());
    });
    let calls = users.held(|held| held.calls);
    let again = load(DEMO_NOW, 7).await.expect("nothing to do");
    assert_eq!((again.imported(), users.held(|held| held.calls)), (0, calls));
    fs::write(folder.path().join(demo::MARKER_FILE), "{").expect("written");
    let failure = load(DEMO_NOW, 7).await.expect_err("damaged");
    assert!(failure.to_string().contains("delete the file"), "{failure}");
}
