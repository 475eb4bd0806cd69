//! The command in its own process: what stops it, its exit codes and its output.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use echotune::migrate::Mode;
use serde_json::Value;
use tokio::{process::Command, time::sleep};

use super::{Planted, There, done, folder, planted::store};
use crate::{
    command::refused,
    direct,
    faults::{platform, signal},
    page,
};

const MIGRATE: [&str; 5] = ["migrate", "--from", "embedded", "--to", "distributed"];

fn command(there: &There, folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echotune"));
    command.arg("--data").arg(folder).arg("--set").arg(format!("connect.services=http://{}", there.address));
    command.arg("--set").arg(format!("connect.token_file={}", there.token_file().display()));
    command.args(MIGRATE).args(more).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(there: &There, folder: &Path, more: &[&str]) -> Output {
    command(there, folder, more).output().await.expect("started")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|cause| panic!("{cause}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_killed_or_interrupted_goes_on_when_it_is_run_again() {
    let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
    let left = folder(home.path()).await;
    let mut cut = 0;
    // Not SIGINT, which whoever runs this in the background of a shell has ignored.
    for (name, writes) in [("-KILL", 1), ("-TERM", 4), ("-KILL", 7), ("-TERM", 10)] {
        // Each time a little further, in the middle of a write.
        let until = there.writes() + writes;
        there.plant(Planted::SlowFrom(until - 1));
        let mut child = command(&there, home.path(), &["--parallel", "1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        while there.writes() < until && child.try_wait().expect("asked").is_none() {
            sleep(Duration::from_millis(2)).await;
        }
        if child.try_wait().expect("asked").is_none() {
            signal(&child, name).await;
            assert!(!child.wait().await.expect("ended").success());
            cut += 1;
        }
    }
    assert!(cut >= 3, "only {cut} were cut off");
    there.plant(Planted::Nothing);
    let output = run(&there, home.path(), &["--output", "json"]).await;
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!(report["verified"], true, "{report}");
    let again = json(&run(&there, home.path(), &["--output", "json"]).await);
    let written = again["tables"].as_array().expect("tables").iter().map(|one| one["written"].as_u64().expect("rows"));
    assert_eq!(written.sum::<u64>(), 0, "{again}");
    assert!(store(home.path()) == left.bytes, "the folder was changed");

    // The same as without any of it.
    let straight = There::new().await;
    let other = done(&straight, home.path(), Mode::Move).await;
    for (table, told) in &other.tables {
        let row = again["tables"].as_array().expect("tables").iter().find(|one| one["table"] == table.name());
        let checksum = format!("{:032x}", told.destination.checksum);
        assert_eq!(row.expect("a table")["destination_checksum"], checksum.as_str(), "{table:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_what_it_did_and_ends_with_1_when_both_sides_differ() {
    let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
    folder(home.path()).await;
    let planned = run(&there, home.path(), &["--dry-run"]).await;
    let text = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(planned.status.success() && text.contains("3 accounts would move: 3 are not"), "{planned:?}");
    there.plant(Planted::Altered);
    let output = run(&there, home.path(), &["--output", "json"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = json(&output);
    assert_eq!(report["verified"], false, "{report}");
    page::check("migrate", &report);
    let output = run(&there, home.path(), &["--verify"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for part in ["DIFFER", "differs in listens", "missing:    {", "unexpected: {", "Left behind in the folder"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert!(error.contains("differs from the folder in 1 accounts"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_is_refused_with_the_way_out() {
    let (home, there) = (tempfile::tempdir().expect("folder"), There::new().await);
    let told = |output: Output, code: i32, why: &str| {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(why), "{error}");
    };
    told(run(&there, home.path(), &[]).await, 1, "holds no data");
    direct(home.path()).await.close().await.expect("closed");
    refused(home.path(), &MIGRATE, 2, "no destination is configured");
    told(run(&there, home.path(), &["--user", "nobody"]).await, 3, "has no user 'nobody'");
    told(run(&there, home.path(), &["--rename", "ann"]).await, 2, "expected OLD=NEW");
    told(run(&there, home.path(), &["--parallel", "0"]).await, 2, "0 is not in 1..=64");
    told(run(&there, home.path(), &["--dry-run", "--verify"]).await, 2, "cannot be used with");
    let (mut child, to) = platform(home.path()).await;
    told(run(&there, home.path(), &[]).await, 1, "in use by another process; stop it");
    drop(to);
    signal(&child, "-KILL").await;
    child.wait().await.expect("ended");
    told(run(&there, home.path(), &[]).await, 1, "status` once, then try again");
}
