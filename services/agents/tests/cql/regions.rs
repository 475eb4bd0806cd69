//! What the regions see and may do of each other's runs.

use std::time::Duration;

use echotune_agents::{RunStore as _, RunStoreError};
use echotune_kit::cql::WriteClock;
use echotune_model::{PageRequest, RunId};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{Stores, crowd::draft};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_region_that_started_a_run_changes_it() {
    let all = Stores::open("regions").await;
    let (home, other) = (&all.stores[0], &all.stores[all.stores.len() - 1]);
    let regions = (&all.sessions[0].config().datacenter, &all.sessions[all.sessions.len() - 1].config().datacenter);
    println!("runs of {} seen from {}", regions.0, regions.1);
    let started = home.start(draft(home, "ann"), None).await.expect("started");
    let seen = async {
        while other.run(started.id).await.expect("read").is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), seen).await.expect("it comes to the other region");
    let asked = other.cancel(started.id, "k".into()).await;
    if regions.0 == regions.1 {
        assert_eq!(asked.expect("of the same region").cancel.as_deref(), Some("k"));
    } else {
        assert!(matches!(&asked, Err(RunStoreError::Elsewhere { region, .. }) if region == regions.0), "{asked:?}");
        assert!(
            other.claim(1_000).await.expect("claimed").is_none() && other.next_due_ms().await.expect("read").is_none()
        );
        assert_eq!(other.erase("ann".parse().expect("a name"), u64::MAX).await.expect("erased"), 0);
    }
    assert_eq!(home.claim(1_000).await.expect("claimed").expect("due").id, started.id);
    assert_eq!(home.erase("ann".parse().expect("a name"), u64::MAX).await.expect("erased"), 1);
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_another_region_whose_run_has_not_come_stays_on_the_list() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let all = Stores::open("regions").await;
    let (session, store) = (&all.sessions[0], &all.stores[0]);
    let times = WriteClock::new(Default::default());
    let [own, other] = [1, 2].map(|n| RunId::new(times.wall_ms() - 3 * DAY_MS - n));
    let open = session.write("open", "INSERT INTO run_periods (owner, period) VALUES (?, ?)").await.expect("prepared");
    let list = "INSERT INTO runs_listed (owner, period, run_id, region) VALUES (?, ?, ?, ?)";
    let list = session.write("list", list).await.expect("prepared");
    for (run, region) in [(own, session.config().datacenter.as_str()), (other, "far_away")] {
        let period = i32::try_from(run.made_ms() / DAY_MS).expect("a day");
        session.put(&open, ("*", period), times.now()).await.expect("opened");
        session.put(&list, ("*", period, run.0, region), times.now()).await.expect("listed");
    }
    let page = PageRequest { size: 100, token: String::new() };
    assert!(store.runs(None, page).await.expect("listed").rows.is_empty());
    let left = session.read("left", "SELECT run_id FROM runs_listed").await.expect("prepared");
    let left: Vec<(Uuid,)> = session.rows(&left, (), usize::MAX).await.expect("read");
    assert_eq!(left, [(other.0,)], "that of this region leads nowhere, and goes");
    all.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_closed_by_the_region_whose_runs_it_has_not_and_by_no_other() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let all = Stores::open("regions").await;
    let (session, store) = (&all.sessions[0], &all.stores[0]);
    let times = WriteClock::new(Default::default());
    let started = store.start(draft(store, "ann"), None).await.expect("started");
    let own = session.config().datacenter.as_str();
    let periods = [3, 4].map(|days| i32::try_from(times.wall_ms() / DAY_MS - days).expect("a day"));
    let open = "INSERT INTO run_region_periods (owner, period, region) VALUES (?, ?, ?)";
    let open = session.write("open", open).await.expect("prepared");
    for (period, region) in [(periods[0], own), (periods[0], "far_away"), (periods[1], own)] {
        session.put(&open, ("*", period, region), times.now()).await.expect("opened");
    }
    let page = PageRequest { size: 100, token: String::new() };
    let listed = store.runs(None, page).await.expect("listed").rows;
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [started.id]);
    let left = "SELECT period, region FROM run_region_periods WHERE owner = ? AND period < ?";
    let left = session.read("left", left).await.expect("prepared");
    let today = i32::try_from(started.id.made_ms() / DAY_MS).expect("a day");
    let left: Vec<(i32, String)> = session.rows(&left, ("*", today), usize::MAX).await.expect("read");
    assert_eq!(left, [(periods[0], "far_away".to_owned())], "what is of no run here goes, and nothing else");

    // What was put on that list there comes at last.
    let late = RunId::new(u64::try_from(periods[0]).expect("a day") * DAY_MS);
    let list = "INSERT INTO runs_listed (owner, period, run_id, region) VALUES (?, ?, ?, ?)";
    let list = session.write("list", list).await.expect("prepared");
    session.put(&list, ("*", periods[0], late.0, "far_away"), times.now()).await.expect("listed");
    assert_eq!(store.count().await.expect("counted"), 2, "it is found");
    all.close().await;
}
