//! Servers start as real pods, and answer through the gateway.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    client::Outcome,
    place::{NODE, PYTHON, Place, Server, row},
};

/// One pod, always.
fn one() -> Value {
    json!({"minPods": 1, "maxPods": 1, "callsPerPod": 4})
}

/// Starts a server and calls it in both revisions of the protocol: what its tool says.
async fn starts(server: &Server, kind: &str, arguments: &Value) -> anyhow::Result<String> {
    let place = Place::new(kind).await?;
    let name = place.route(kind);
    let start = Instant::now();
    place.space.apply(&server.resource(&name, &one())?.to_string()).await?;
    place.until(&name, "1", |ready, _| ready == 1).await?;
    let ready = start.elapsed();

    let pods = place.running(&name).await?;
    ensure!(pods.len() == 1, "{} pods", pods.len());
    let spec = &pods[0]["spec"];
    ensure!(spec["nodeName"] == "real-0", "{spec}");
    let confined = |container: &Value| {
        let context = &container["securityContext"];
        context["readOnlyRootFilesystem"] == true && context["allowPrivilegeEscalation"] == false
    };
    ensure!(spec["containers"].as_array().context("containers")?.iter().all(confined), "{spec}");

    let session = place.client.open(&name).await?;
    let tools = session.tools().await?;
    ensure!(tools.iter().any(|tool| tool == server.tool), "{tools:?}");
    let with = session.call(server.tool, arguments).await;
    let without = place.client.call(&name, server.tool, arguments, None).await;
    let (Outcome::Answered(said), Outcome::Answered(_)) = (&with, &without) else {
        anyhow::bail!("with a session {with:?}, without {without:?}");
    };
    row(&format!("{kind} server starts"), &format!("{:.1} s until ready, {} tools", ready.as_secs_f64(), tools.len()))?;
    Ok(said.clone())
}

#[tokio::test]
async fn a_server_of_node_starts_and_answers() -> anyhow::Result<()> {
    let said = starts(&NODE, "node", &json!({"message": "here"})).await?;
    ensure!(said.contains("here"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_server_of_python_starts_and_answers() -> anyhow::Result<()> {
    let said = starts(&PYTHON, "python", &json!({"timezone": "Europe/Berlin"})).await?;
    ensure!(said.contains("Europe/Berlin"), "{said}");
    Ok(())
}
