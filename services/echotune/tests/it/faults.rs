//! Processes that are stopped, killed or run out of room: what was acknowledged is there, once.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use echotune::{Connection, demo};
use echotune_api::Users;
use echotune_model::{Call, ErrorKind, Listen, PageRequest, Track};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    command::{json, refused},
    direct, recommend,
};

const CALLERS: usize = 16;
/// Listens acknowledged before the process is ended in the middle of more of them.
const ACKNOWLEDGED: usize = 400;

/// A platform in its own process that fits its models as often as it can.
pub(crate) async fn platform(data: &Path) -> (Child, Connection) {
    started(data, Command::new(env!("CARGO_BIN_EXE_echotune"))).await
}

/// Starts a platform by a program that takes its arguments, and connects to it.
async fn started(data: &Path, mut program: Command) -> (Child, Connection) {
    // One that was killed left its address, which may be another's by now.
    drop(std::fs::remove_file(data.join("address")));
    let child = program
        .arg("--data")
        .arg(data)
        .args(["--set", "recommendations.refit_debounce=1ms", "up", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("started");
    let connected = async {
        loop {
            if let Ok(address) = std::fs::read_to_string(data.join("address"))
                && let Ok(connection) = Connection::remote(data, address.parse().expect("address")).await
            {
                return connection;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let connection = timeout(Duration::from_secs(60), connected).await.expect("it never answered");
    (child, connection)
}

pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("running").to_string();
    assert!(Command::new("kill").args([name, &id]).status().await.expect("kill").success());
}

/// Records listens one by one until the platform is gone; the titles that were acknowledged.
async fn listen_until_gone(users: Arc<dyn Users>, caller: usize, acknowledged: Arc<AtomicUsize>) -> Vec<String> {
    let mut titles = Vec::new();
    for minute in 0..100_000 {
        let title = format!("Song {caller}/{minute}");
        let track = Track { title: title.clone(), artist: format!("Artist {}", minute % 50), album: String::new() };
        let at = 1_700_000_000_000 + minute * 60_000;
        let listen = Listen { listened_at_ms: at, track, played_ms: 0, source: String::new(), explicit: None };
        match users.record_listens(&Call::internal(), &format!("user{caller}"), vec![listen]).await {
            Ok(receipt) => {
                assert_eq!(receipt.recorded, 1, "{receipt:?}");
                acknowledged.fetch_add(1, Ordering::Relaxed);
                titles.push(title);
            }
            Err(fault) => {
                let expected = [ErrorKind::Unavailable, ErrorKind::Indeterminate, ErrorKind::DeadlineExceeded];
                assert!(expected.contains(&fault.kind), "{fault:?}");
                return titles;
            }
        }
    }
    titles
}

/// How often each title is in a history.
async fn history(to: &Connection, user: &str) -> HashMap<String, usize> {
    let mut titles = HashMap::new();
    let mut page = PageRequest { size: 1_000, ..PageRequest::default() };
    loop {
        let listens = to.users.list_listens(&Call::internal(), user, &page).await.expect("listed");
        for listen in &listens.rows {
            *titles.entry(listen.listen.track.title.clone()).or_default() += 1;
        }
        if listens.next.is_empty() {
            return titles;
        }
        page.token = listens.next;
    }
}

/// Ends a platform by a signal while listens come in and models are fitted. Its exit code.
async fn ended_under_load(data: &Path, by: &str) -> Option<i32> {
    let (mut child, to) = platform(data).await;
    for caller in 0..CALLERS {
        to.users.create_user(&Call::internal(), &format!("user{caller}")).await.expect("created");
    }
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(listen_until_gone(Arc::clone(&to.users), caller, Arc::clone(&acknowledged))))
        .collect();
    while acknowledged.load(Ordering::Relaxed) < ACKNOWLEDGED {
        sleep(Duration::from_millis(1)).await;
    }
    signal(&child, by).await;
    let code = timeout(Duration::from_secs(60), child.wait()).await.expect("it never ends").expect("ended").code();
    let mut told = Vec::new();
    for caller in callers {
        told.push(caller.await.expect("the fault is one of a platform that goes"));
    }
    let again = direct(data).await;
    for (caller, titles) in told.iter().enumerate() {
        let held = history(&again, &format!("user{caller}")).await;
        let lost: Vec<_> = titles.iter().filter(|title| !held.contains_key(*title)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(held.values().all(|count| *count == 1), "held twice: {held:?}");
        assert!(held.len() <= titles.len() + 1, "more than was asked for");
    }
    // Whatever a fit had got to, the model is that of the histories.
    let list = recommend(&again, "user0").await;
    let known: HashSet<_> = (0..50).map(|artist| format!("Artist {artist}")).collect();
    assert!(list.items.iter().all(|item| known.contains(&item.artist)), "{list:?}");
    again.close().await.expect("closed");
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_asked_to_stop_under_load_ends_in_order_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    assert_eq!(ended_under_load(folder.path(), "-TERM").await, Some(0));
    assert!(!folder.path().join("address").exists(), "nobody is sent to an address that does not answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_killed_under_load_while_it_fits_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    assert_eq!(ended_under_load(folder.path(), "-KILL").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_or_a_port_that_is_taken_is_refused_with_the_way_out() {
    let (folder, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let (child, _to) = platform(folder.path()).await;
    let address = std::fs::read_to_string(folder.path().join("address")).expect("address");
    refused(folder.path(), &["up", "--listen", "127.0.0.1:0"], 1, "in use by another process");
    refused(other.path(), &["up", "--listen", &address], 1, "choose another address with --listen");
    signal(&child, "-TERM").await;
}

/// The command where files may have so many blocks, of 512 or 1,024 bytes as the shell has it. A limit on
/// the size of files stands for a full disk: writes beyond it fail, the process lives.
fn on_a_small_disk(blocks: u32) -> Command {
    let mut command = Command::new("sh");
    let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_echotune")]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_on_a_full_disk_goes_down_with_its_cause_and_has_all_that_it_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let mut small = on_a_small_disk(65_536);
    small.stderr(Stdio::piped());
    let (child, to) = started(folder.path(), small).await;
    for caller in 0..4 {
        to.users.create_user(&Call::internal(), &format!("user{caller}")).await.expect("created");
    }
    let mut acknowledged = Vec::new();
    let callers = (0..4).map(|caller| {
        let users = to.users.clone();
        tokio::spawn(async move { batches_until_refused(users, caller).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        acknowledged.push(caller.await.expect("joined"));
    }
    drop(to);
    let output =
        timeout(Duration::from_secs(60), child.wait_with_output()).await.expect("it never ended").expect("ended");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("File too large") && error.contains("free space"), "{error}");
    let again = direct(folder.path()).await;
    assert!(acknowledged.iter().sum::<usize>() > 0, "{acknowledged:?}");
    for (caller, count) in acknowledged.into_iter().enumerate() {
        let held = history(&again, &format!("user{caller}")).await.len();
        // What was refused with an unknown outcome may be there, or not.
        assert!((count..=count + BATCH).contains(&held), "{count} acknowledged, {held} held");
    }
    again.close().await.expect("closed");
}

/// Listens in one call.
const BATCH: usize = 500;

/// Records batches of listens until one is refused; how many listens were acknowledged.
async fn batches_until_refused(users: Arc<dyn Users>, caller: usize) -> usize {
    let mut acknowledged = 0;
    for batch in 0..1_000 {
        let listens = (0..BATCH).map(|place| {
            let track = Track { title: format!("Song {batch}/{place}"), artist: "Air".into(), album: "x".repeat(500) };
            let at = 1_700_000_000_000 + i64::try_from(batch * BATCH + place).expect("small") * 60_000;
            Listen { listened_at_ms: at, track, played_ms: 0, source: String::new(), explicit: None }
        });
        match users.record_listens(&Call::internal(), &format!("user{caller}"), listens.collect()).await {
            Ok(receipt) => acknowledged += receipt.recorded as usize,
            Err(fault) => {
                let expected = [ErrorKind::ResourceExhausted, ErrorKind::Indeterminate, ErrorKind::Unavailable];
                assert!(expected.contains(&fault.kind), "{fault:?}");
                return acknowledged;
            }
        }
    }
    panic!("the disk is never full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_an_import_with_its_cause_and_room_completes_it() {
    const LISTENS: u64 = 40_000;
    /// Less than the store of these listens needs.
    const BLOCKS: u32 = 8_192;
    let folder = tempfile::tempdir().expect("folder");
    let (data, export) = (folder.path().join("data"), folder.path().join("export.zip"));
    demo::write_listenbrainz(&export, LISTENS, 5).expect("written");
    let export = export.to_str().expect("text");
    let output = on_a_small_disk(BLOCKS)
        .arg("--data")
        .arg(&data)
        .args(["import", "listenbrainz", export, "--user", "ann"])
        .output()
        .await
        .expect("started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("File too large"), "{error}");
    let wanted = ["import", "listenbrainz", export, "--user", "ann"];
    let rest = tokio::task::block_in_place(|| json(&data, &wanted));
    let rows = |what: &str| rest["rows"]["listens"][what].as_u64().expect("a count");
    assert_eq!(rows("imported") + rows("duplicate"), LISTENS, "{rest}");
    let again = direct(&data).await;
    assert_eq!(again.users.counts(&Call::internal()).await.expect("counts")["listens"], LISTENS);
    again.close().await.expect("closed");
}
