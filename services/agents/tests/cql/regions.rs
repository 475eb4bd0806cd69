//! What the regions see and may do of each other's runs.

use std::time::Duration;

use echotune_agents::{RunStore as _, RunStoreError};
use tokio::time::{sleep, timeout};

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
