//! Demand makes pods, and the lack of it takes them away; nobody who calls meanwhile loses anything.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time;

use crate::{
    load::{Load, Work},
    place::{NODE, Place, row},
};

/// Gives up pods within seconds, so that a proof need not take minutes.
fn eager() -> Value {
    json!({
        "minPods": 0, "maxPods": 4, "callsPerPod": 2, "holdMs": 5000, "drainMs": 30000, "startMs": 3000, "tickMs": 500,
        "keep": {"rule": "fixed", "fixedMs": 6000, "atMostMs": 6000},
    })
}

fn work(server: &str, callers: usize, seconds: f64, pause: Duration) -> Work {
    Work {
        server: server.to_owned(),
        tool: "trigger-long-running-operation",
        arguments: json!({"duration": seconds, "steps": 1}),
        sessions: callers,
        others: 0,
        pause,
    }
}

#[tokio::test]
async fn a_server_goes_from_zero_up_and_down_and_loses_nothing() -> anyhow::Result<()> {
    let place = Place::new("scale").await?;
    let name = place.route("scale");
    place.space.apply(&NODE.resource(&name, &eager())?.to_string()).await?;
    let accepted = |server: &Value| server["status"]["route"] == name.as_str();
    place.space.eventually(&["mcpserver", &name], accepted).await?;

    // From zero: whoever calls waits for a pod.
    let start = Instant::now();
    let few = Load::begin(&place.client, &work(&name, 1, 0.2, Duration::from_millis(500)));
    while few.so_far().answered == 0 {
        let seen = few.so_far();
        ensure!(seen.lost == 0 && start.elapsed() < Duration::from_secs(120), "from zero: {}", seen.told());
        time::sleep(Duration::from_millis(50)).await;
    }
    row("first call at zero pods", &format!("answered after {:.1} s", start.elapsed().as_secs_f64()))?;

    // Up: eight at once, of which a pod makes two.
    let many = Load::begin(&place.client, &work(&name, 8, 1.0, Duration::ZERO));
    let up = place.until(&name, "at least 3", |ready, _| ready >= 3).await?;
    row("demand of 8 calls at once", &format!("3 pods ready after {:.1} s", up.as_secs_f64()))?;
    time::sleep(Duration::from_secs(5)).await;
    let many = many.end().await;
    row("… meanwhile", &many.told())?;

    // Down, while the first goes on in its session.
    let down = place.until(&name, "1", |ready, all| (ready, all) == (1, 1)).await?;
    row("that demand gone", &format!("1 pod left after {:.1} s", down.as_secs_f64()))?;
    let few = few.end().await;
    row("… meanwhile, in one session from zero on", &few.told())?;
    let zero = place.until(&name, "0", |_, all| all == 0).await?;
    row("nobody calls", &format!("no pod left after {:.1} s", zero.as_secs_f64()))?;
    for seen in [&many, &few] {
        ensure!(seen.lost == 0 && seen.unknown == 0 && seen.answered > 0, "{}", seen.told());
    }
    Ok(())
}
