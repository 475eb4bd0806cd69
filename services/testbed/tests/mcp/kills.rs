//! Pods die in the middle, and whoever calls a tool that may be called twice does not notice.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::time;

use crate::{
    load::{Load, Work},
    place::{NODE, OPERATORS, Place, row},
};

/// Pods that are killed.
const KILLS: usize = 4;

fn two() -> Value {
    json!({"minPods": 2, "maxPods": 3, "callsPerPod": 8, "startMs": 3000, "tickMs": 500})
}

fn work(server: &str) -> Work {
    Work {
        server: server.to_owned(),
        tool: "echo",
        arguments: json!({"message": "still here"}),
        sessions: 3,
        others: 3,
        pause: Duration::from_millis(40),
    }
}

async fn ready(place: &Place) -> anyhow::Result<String> {
    let name = place.route("kill");
    place.space.apply(&NODE.resource(&name, &two())?.to_string()).await?;
    place.until(&name, "2", |ready, _| ready >= 2).await?;
    Ok(name)
}

#[tokio::test]
async fn pods_are_killed_and_nobody_notices() -> anyhow::Result<()> {
    let place = Place::new("kill").await?;
    let name = ready(&place).await?;
    let load = Load::begin(&place.client, &work(&name));
    time::sleep(Duration::from_secs(2)).await;
    for _ in 0..KILLS {
        let pods = place.running(&name).await?;
        let pod = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).context("a pod to kill")?;
        // Without grace: the container is gone before anybody is told.
        place.space.kubectl(&["delete", "pod", pod, "--force", "--grace-period=0"]).await?;
        place.until(&name, "2", |ready, _| ready >= 2).await?;
        time::sleep(Duration::from_secs(1)).await;
    }
    let seen = load.end().await;
    row(&format!("{KILLS} pods killed without grace"), &seen.told())?;
    ensure!(seen.lost == 0 && seen.unknown == 0 && seen.answered > 100, "{}", seen.told());
    Ok(())
}

#[tokio::test]
async fn the_operator_that_leads_is_killed_and_calls_go_on() -> anyhow::Result<()> {
    let place = Place::new("leader").await?;
    let name = ready(&place).await?;
    let load = Load::begin(&place.client, &work(&name));
    let before = place.running(&name).await?.len();
    place.keep("operators-that-were-killed", &OPERATORS);
    let killed = [&["delete", "pods", "--force", "--grace-period=0"], &OPERATORS[..]].concat();
    place.space.kubectl(&killed).await?;
    time::sleep(Duration::from_secs(3)).await;
    let whole = |list: &Value| {
        let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        pods.len() >= 2 && pods.iter().all(ready)
    };
    place.space.eventually(&[&["pods"], &OPERATORS[..]].concat(), whole).await?;
    // Whoever leads now knows the pods that are there, and makes none twice.
    time::sleep(Duration::from_secs(20)).await;
    let after = place.running(&name).await?.len();
    let seen = load.end().await;
    row("all operators killed", &format!("{before} pods before, {after} after; {}", seen.told()))?;
    ensure!(after == before, "{before} pods before, {after} after");
    ensure!(seen.lost == 0 && seen.unknown == 0 && seen.answered > 100, "{}", seen.told());
    Ok(())
}
