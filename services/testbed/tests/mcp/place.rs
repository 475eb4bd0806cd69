//! Where the gateway is, servers behind it, and what was measured.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::time;

use crate::{client::Client, space::Space};

/// Where the charts were installed.
pub(crate) const SYSTEM: &str = "echotune-system";
/// A file that rows of figures are added to.
const REPORT: &str = "ECHOTUNE_E2E_REPORT";
/// A folder that keeps what pods said.
const LOGS: &str = "ECHOTUNE_E2E_LOGS";
/// The token of the gateway's operator.
const TOKEN: &str = "ECHOTUNE_E2E_TOKEN";
/// The tag of the images.
const TAG: &str = "ECHOTUNE_E2E_TAG";
const GATEWAY: &str = "app.kubernetes.io/name=echotune-gateway";
/// Whatever the operator made.
const SERVERS: &str = "app.kubernetes.io/managed-by=echotune-operator";
/// Pods of the operator.
pub(crate) const OPERATORS: [&str; 4] =
    ["--namespace", SYSTEM, "--selector", "app.kubernetes.io/name=echotune-operator"];
/// For what comes about by itself, on a machine that is busy: whoever begins to lead removes nothing for a minute, and
/// a pod that goes has half of one for its sessions.
const LIMIT: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(250);

/// A namespace for servers, and the way to them.
pub(crate) struct Place {
    pub(crate) space: Space,
    pub(crate) client: Client,
}

/// A server of others, and how it is called.
pub(crate) struct Server {
    image: &'static str,
    command: &'static [&'static str],
    pub(crate) tool: &'static str,
}

/// The reference server, on Node.js.
pub(crate) const NODE: Server = Server {
    image: "mcp-everything",
    command: &[
        "/usr/local/bin/node",
        "/app/node_modules/@modelcontextprotocol/server-everything/dist/index.js",
        "stdio",
    ],
    tool: "echo",
};
/// What time it is, on Python.
pub(crate) const PYTHON: Server = Server {
    image: "mcp-time",
    command: &["/usr/local/bin/python3", "-m", "mcp_server_time"],
    tool: "get_current_time",
};

/// One of the platform's own, over a platform that runs elsewhere in the cluster.
pub(crate) const OURS: Server = Server {
    image: "mcp-echotune",
    command: &["/usr/local/bin/echotune", "mcp", "serve", "catalogue"],
    tool: "find_items",
};

/// The name of an image that was made for these proofs.
pub(crate) fn image(name: &str) -> anyhow::Result<String> {
    let tag = env::var(TAG).with_context(|| format!("{TAG} must be set"))?;
    Ok(format!("localhost/{name}:{tag}"))
}

impl Server {
    /// The resource, so named and scaled by this policy.
    pub(crate) fn resource(&self, name: &str, scaling: &Value) -> anyhow::Result<Value> {
        Ok(json!({
            "apiVersion": "mcp.echotune.internal/v1alpha1",
            "kind": "MCPServer",
            "metadata": {"name": name},
            "spec": {
                "image": image(self.image)?,
                "transport": "stdio",
                "adapter": "Bundled",
                "command": self.command,
                "route": name,
                "effects": {self.tool: "Reads", "trigger-long-running-operation": "Reads"},
                "scaling": scaling,
                "healthPath": "/health/ready",
                "wakeMs": 90_000,
                "graceSeconds": 20,
                "nodeSelector": {"testbed/node": "real"},
                "resources": {
                    "requests": {"cpu": "10m", "memory": "64Mi"},
                    "limits": {"cpu": "2", "memory": "2Gi"},
                },
            },
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keep(&self.space.name, &["--selector", SERVERS]);
    }
}

impl Place {
    /// A namespace in which nothing runs that has rights of the node.
    pub(crate) async fn new(test: &str) -> anyhow::Result<Self> {
        let space = Space::new(test).await?;
        let label = "pod-security.kubernetes.io/enforce=restricted";
        space.kubectl(&["label", "namespace", &space.name, label]).await?;
        let client = client(&space).await?;
        Ok(Self { space, client })
    }

    /// Keeps what some pods have said until now, where that is wanted: it goes with them.
    pub(crate) fn keep(&self, name: &str, of: &[&str]) {
        let Some(folder) = env::var_os(LOGS) else { return };
        let Ok(file) = File::create(Path::new(&folder).join(format!("{name}.log"))) else { return };
        let mut command = self.space.cluster.kubectl().into_std();
        command.args(["--namespace", &self.space.name, "logs", "--all-containers", "--prefix", "--timestamps"]);
        command.args(["--tail=-1", "--ignore-errors"]).args(of).stdout(file).stderr(Stdio::null());
        // It is for people who look for why something failed.
        let _ = command.status();
    }

    /// A name for a server that no other test has had at the gateway.
    pub(crate) fn route(&self, name: &str) -> String {
        // Those of a test before may not have gone yet.
        format!("{name}-{}", self.space.name)
    }

    /// How many pods a server has: ready ones, and all.
    pub(crate) async fn pods(&self, server: &str) -> anyhow::Result<(u64, u64)> {
        let found = self.space.get(&["mcpserver", server]).await?;
        let count = |field: &str| found["status"][field].as_u64().unwrap_or_default();
        Ok((count("readyReplicas"), count("replicas")))
    }

    /// Waits until a server has pods that are as wanted: how long that took.
    pub(crate) async fn until(
        &self,
        server: &str,
        what: &str,
        yes: impl Fn(u64, u64) -> bool,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let (ready, all) = self.pods(server).await?;
            if yes(ready, all) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > LIMIT {
                let told = self.space.kubectl(&["get", "mcpserver,pods,events", "--output=wide"]).await?;
                bail!("'{server}' has {ready} of {all} pods ready, not {what}, after {LIMIT:?}:\n{told}");
            }
            time::sleep(LOOK).await;
        }
    }

    /// The pods that run for a server.
    pub(crate) async fn running(&self, server: &str) -> anyhow::Result<Vec<Value>> {
        let selector = self.space.get(&["mcpserver", server]).await?;
        let selector = selector["status"]["selector"].as_str().context("a selector")?.to_owned();
        let pods = self.space.get(&["pods", "--selector", &selector]).await?;
        let pods = pods["items"].as_array().context("a list")?;
        Ok(pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect())
    }
}

/// What the gateway knows its operator by.
pub(crate) fn token() -> anyhow::Result<String> {
    env::var(TOKEN).with_context(|| format!("{TOKEN} must be set"))
}

/// A client of the gateway's service, once that answers.
pub(crate) async fn client(space: &Space) -> anyhow::Result<Client> {
    let services = space.get(&["services", "--namespace", SYSTEM, "--selector", GATEWAY]).await?;
    let address = services["items"].as_array().into_iter().flatten().find_map(|service| {
        let address = service["spec"]["clusterIP"].as_str().filter(|address| *address != "None")?;
        let ports = service["spec"]["ports"].as_array()?;
        let port = ports.iter().find(|port| port["name"] == "http")?["port"].as_u64()?;
        Some(format!("http://{address}:{port}"))
    });
    let address = address.with_context(|| format!("no service of the gateway in {SYSTEM}: {services}"))?;
    let client = Client::new(&address, &token()?);
    let start = Instant::now();
    while !client.ready().await {
        ensure!(start.elapsed() < LIMIT, "the gateway at {address} is not ready");
        time::sleep(LOOK).await;
    }
    Ok(client)
}

/// Tells a figure, and adds it to the table.
pub(crate) fn row(what: &str, figure: &str) -> anyhow::Result<()> {
    println!("{what}: {figure}");
    if let Some(report) = env::var_os(REPORT) {
        let report = Path::new(&report);
        fs::create_dir_all(report.parent().context("a file in a folder")?)?;
        writeln!(OpenOptions::new().create(true).append(true).open(report)?, "{what}\t{figure}")?;
    }
    Ok(())
}
