//! A run of the platform's agents calls tools of pods through the gateway.

use std::{env, fs, path::Path};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    collector::{Collector, roots, shown},
    place::{NODE, PYTHON, Place, row, token},
    space::said,
};

/// The command of the platform.
const PLATFORM: &str = "ECHOTUNE_E2E_PLATFORM";
const SERVICES: [&str; 4] = ["echotune", "echotune-gateway", "node", "python"];
const WORKFLOW: &str = "name: far-tools
description: Calls a tool of each of two servers that run as pods.
version: 1
input: {properties: {}}
budget: {steps: 10, tool_calls: 10, wall_ms: 120000}
steps:
  - {id: time, type: tool, tool: get_current_time, args: {timezone: Europe/Berlin}}
  - {id: said, type: tool, tool: echo, args: {message: an agent was here}}
output:
  value: {said: \"${ steps.said }\"}
  schema: {type: object, required: [said], properties: {said: {type: string}}}
";

/// What the command prints.
pub(crate) async fn platform(data: &Path, words: &[&str]) -> anyhow::Result<Value> {
    let program = env::var_os(PLATFORM).with_context(|| format!("{PLATFORM} must be set"))?;
    let mut command = Command::new(program);
    command.arg("--data").arg(data).args(["--output", "json"]).args(words);
    let text = said(command, "").await?;
    let last = text.trim().lines().last().unwrap_or_default();
    serde_json::from_str(&text).or_else(|_| serde_json::from_str(last)).with_context(|| text.clone())
}

#[tokio::test]
async fn a_run_of_agents_calls_tools_of_pods() -> anyhow::Result<()> {
    let place = Place::new("agent").await?;
    let collector = Collector::begin(&place.space).await?;
    let scaling = json!({"minPods": 1, "maxPods": 1, "callsPerPod": 4});
    let names = [("node", &NODE), ("python", &PYTHON)].map(|(kind, server)| (place.route(kind), kind, server));
    for (name, kind, server) in &names {
        let mut resource = server.resource(name, &scaling)?;
        collector.tell(&mut resource, kind);
        place.space.apply(&resource.to_string()).await?;
    }
    for (name, ..) in &names {
        place.until(name, "1", |ready, _| ready == 1).await?;
    }

    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("workflows"))?;
    fs::write(folder.path().join("workflows/far-tools.yaml"), WORKFLOW)?;
    fs::write(folder.path().join("gateway-token"), token()?)?;
    let servers: Vec<String> = names.iter().map(|(name, ..)| format!("{name}={}", place.client.url(name))).collect();
    let config = format!(
        "allow_plaintext = true\n[agents]\nservers = {}\nservers_token_file = {:?}\n\
         [telemetry]\notlp_endpoint = {:?}\n",
        json!(servers),
        folder.path().join("gateway-token"),
        collector.endpoint,
    );
    fs::write(folder.path().join("config.toml"), config)?;
    platform(folder.path(), &["listen", "--user", "ann", "--artist", "Portishead", "--title", "Roads"]).await?;
    let run = platform(folder.path(), &["run", "far-tools", "--user", "ann"]).await?;
    ensure!(run.to_string().contains("an agent was here"), "{run}");

    let trace = run["trace_id"].as_str().or_else(|| run["run"]["trace_id"].as_str());
    let trace = trace.with_context(|| format!("no trace in {run}"))?;
    let trace = u128::from_str_radix(trace, 16)?;
    let of = |spans: &[(String, _)]| SERVICES.iter().all(|service| spans.iter().any(|(of, _)| of == service));
    let spans = collector.wait(trace, "spans of agent, gateway and both pods", of).await?;
    row("spans of a run of agents", &format!("{} roots; {}", roots(&spans).len(), shown(&spans)))
}
