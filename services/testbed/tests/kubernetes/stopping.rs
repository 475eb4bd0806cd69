//! How pods of the real node end.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::time;

use crate::{
    running::Demo,
    space::{Space, http, http_eventually},
};

/// A pod of the demo server with so many seconds to drain in, a limit of memory, and arguments.
fn pod(name: &str, grace: u32, drain: u32, memory: &str, args: &[&str]) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"testbed/node": "real"},
            "terminationGracePeriodSeconds": grace,
            "restartPolicy": "Never",
            "containers": [{
                "name": "c",
                "image": "localhost/demo:1",
                "args": args,
                "env": [{"name": "DRAIN_SECONDS", "value": drain.to_string()}],
                "resources": {"limits": {"memory": memory}},
            }],
        },
    })
    .to_string()
}

#[tokio::test]
async fn a_pod_hears_sigterm_and_leaves_its_service_while_it_drains() -> anyhow::Result<()> {
    let demo = Demo::new("sigterm").await?;
    let (space, pod) = (&demo.space, demo.pods[1].as_str());
    let mut log = space.command();
    let log = log.args(["logs", "--follow", pod]).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let log = log.spawn()?;
    time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    space.kubectl(&["delete", "pod", pod, "--wait=false"]).await?;
    let gone = |slices: &Value| {
        let slices = slices["items"].as_array().into_iter().flatten();
        let mut endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        !endpoints.any(|one| one["targetRef"]["name"] == pod && one["conditions"]["ready"] == true)
    };
    space.eventually(&["endpointslices", "--selector=kubernetes.io/service-name=demo"], gone).await?;
    space.get(&["pod", pod]).await.context("a pod that drains is still there")?;
    space.kubectl(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=30s"]).await?;
    let took = start.elapsed();
    let said = time::timeout(Duration::from_secs(10), log.wait_with_output()).await.context("the log goes on")??;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.contains("SIGTERM received") && said.contains("drained, exit 0"), "{said}");
    // It drains for three seconds, and may for ten.
    ensure!(took >= Duration::from_secs(3), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_does_not_end_is_killed_after_its_grace() -> anyhow::Result<()> {
    let space = Space::new("grace").await?;
    space.apply(&pod("stubborn", 2, 60, "64Mi", &[])).await?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/stubborn", "--timeout=60s"]).await?;
    let start = Instant::now();
    space.kubectl(&["delete", "pod", "stubborn", "--timeout=40s"]).await?;
    let took = start.elapsed();
    ensure!((2..20).contains(&took.as_secs()), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn a_container_beyond_its_memory_is_killed_for_it() -> anyhow::Result<()> {
    let space = Space::new("memory").await?;
    space.apply(&pod("eater", 1, 1, "32Mi", &["eat", "200"])).await?;
    let killed = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled";
    space.eventually(&["pod", "eater"], killed).await.map(|_| ())
}

#[tokio::test]
async fn no_request_fails_while_all_pods_are_replaced() -> anyhow::Result<()> {
    let demo = Demo::new("rolling").await?;
    http_eventually(demo.service, 80).await?;
    demo.space.kubectl(&["rollout", "restart", "deployment/demo"]).await?;
    let old: Vec<String> = demo.pods.iter().map(|pod| format!("pod/{pod}")).collect();
    let replaced = async {
        demo.space.kubectl(&["rollout", "status", "deployment/demo", "--timeout=120s"]).await?;
        // Those of before serve on while they drain.
        demo.space.kubectl(&["wait", "--for=delete", &old[0], &old[1], "--timeout=60s"]).await
    };
    let (mut served, mut failed) = (0, Vec::new());
    let requests = async {
        loop {
            match http(demo.service, 80).await {
                Ok(_) => served += 1,
                Err(error) => failed.push(format!("{error:#}")),
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        done = replaced => done.map(|_| ())?,
        () = requests => {}
    }
    println!("{served} requests were served while all pods were replaced");
    ensure!(failed.is_empty(), "{} of {} requests failed: {failed:?}", failed.len(), served + failed.len());
    ensure!(served > 20, "only {served} requests were made");
    let now = demo.space.names(&["pods", "--selector=app=demo"]).await?;
    ensure!(now.len() == 2 && demo.pods.iter().all(|pod| !now.contains(pod)), "not all pods were replaced: {now:?}");
    Ok(())
}
