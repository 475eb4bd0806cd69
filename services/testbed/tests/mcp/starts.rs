//! Servers start as real pods, and answer through the gateway.

use std::{fs, time::Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    agents,
    client::Outcome,
    place::{NODE, OURS, PYTHON, Place, Server, image, row, token},
};

/// One pod, always.
fn one() -> Value {
    json!({"minPods": 1, "maxPods": 1, "callsPerPod": 4})
}

/// Starts a server and calls it in both revisions of the protocol: what its tool says.
async fn starts(place: &Place, (server, kind): (&Server, &str), more: Value, call: &Value) -> anyhow::Result<String> {
    let name = place.route(kind);
    let mut resource = server.resource(&name, &one())?;
    if let (Some(spec), Value::Object(more)) = (resource["spec"].as_object_mut(), more) {
        spec.extend(more);
    }
    let start = Instant::now();
    place.space.apply(&resource.to_string()).await?;
    place.until(&name, "1", |ready, _| ready == 1).await?;
    let ready = start.elapsed();
    confined(&place.running(&name).await?)?;

    let session = place.client.open(&name).await?;
    let tools = session.tools().await?;
    ensure!(tools.iter().any(|tool| tool == server.tool), "{tools:?}");
    let with = session.call(server.tool, call).await;
    let without = place.client.call(&name, server.tool, call, None).await;
    let (Outcome::Answered(said), Outcome::Answered(_)) = (&with, &without) else {
        anyhow::bail!("with a session {with:?}, without {without:?}");
    };
    row(&format!("{kind} server starts"), &format!("{:.1} s until ready, {} tools", ready.as_secs_f64(), tools.len()))?;
    Ok(said.clone())
}

/// Whether there is one pod, of the real node, that may do nothing.
fn confined(pods: &[Value]) -> anyhow::Result<()> {
    ensure!(pods.len() == 1, "{} pods", pods.len());
    let spec = &pods[0]["spec"];
    ensure!(spec["nodeName"] == "real-0" && spec["automountServiceAccountToken"] == false, "{spec}");
    let confined = |container: &Value| {
        let context = &container["securityContext"];
        context["readOnlyRootFilesystem"] == true && context["allowPrivilegeEscalation"] == false
    };
    ensure!(spec["containers"].as_array().context("containers")?.iter().all(confined), "{spec}");
    Ok(())
}

#[tokio::test]
async fn a_server_of_node_starts_and_answers() -> anyhow::Result<()> {
    let place = Place::new("node").await?;
    let said = starts(&place, (&NODE, "node"), json!({}), &json!({"message": "here"})).await?;
    ensure!(said.contains("here"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_server_of_python_starts_and_answers() -> anyhow::Result<()> {
    let place = Place::new("python").await?;
    let said = starts(&place, (&PYTHON, "python"), json!({}), &json!({"timezone": "Europe/Berlin"})).await?;
    ensure!(said.contains("Europe/Berlin"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_server_of_ours_starts_over_a_platform_in_the_cluster() -> anyhow::Result<()> {
    let place = Place::new("ours").await?;
    let address = platform(&place).await?;
    let services = format!("http://{address}:7420");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("platform-token");
    fs::write(&file, token()?)?;
    let far = |words: &[&str]| {
        let token = format!("connect.token_file={}", file.display());
        let set = ["allow_plaintext=true".to_owned(), format!("connect.services={services}"), token];
        [&["--set", &set[0], "--set", &set[1], "--set", &set[2]], words]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let listen = far(&["listen", "--user", "ann", "--artist", "Portishead", "--title", "Roads"]);
    agents::platform(folder.path(), &listen.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let more = json!({
        "env": [
            {"name": "ECHOTUNE__ALLOW_PLAINTEXT", "value": "true"},
            {"name": "ECHOTUNE__CONNECT__SERVICES", "value": services},
            {"name": "ECHOTUNE__CONNECT__TOKEN", "secret": {"name": "platform", "key": "token"}},
        ],
        "egress": {"allow": [{"cidr": format!("{address}/32"), "ports": [7420]}]},
    });
    let call = json!({"text": "Portishead", "kind": "artist"});
    let said = starts(&place, (&OURS, "ours"), more, &call).await?;
    ensure!(said.contains("Portishead"), "{said}");
    Ok(())
}

/// Starts the whole platform in a pod: the address of its service.
async fn platform(place: &Place) -> anyhow::Result<String> {
    let objects = include_str!("platform.yaml").replace("@IMAGE@", &image("echotune")?).replace("@TOKEN@", &token()?);
    place.space.apply(&objects).await?;
    place.space.kubectl(&["rollout", "status", "deployment/platform", "--timeout=300s"]).await?;
    let service = place.space.get(&["service", "platform"]).await?;
    Ok(service["spec"]["clusterIP"].as_str().context("an address")?.to_owned())
}
