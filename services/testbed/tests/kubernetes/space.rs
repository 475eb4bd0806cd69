//! A namespace of one test, and what is asked of it.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use echotune_testbed::Cluster;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time,
};

/// Where the cluster is.
const RUN: &str = "ECHOTUNE_KUBERNETES";
/// For what comes about by itself.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_secs(3);

/// The cluster and a namespace in it, which goes when its test is over.
pub(crate) struct Space {
    pub(crate) cluster: Cluster,
    pub(crate) name: String,
}

impl Space {
    pub(crate) async fn new(test: &str) -> anyhow::Result<Self> {
        let run = env::var_os(RUN).with_context(|| {
            format!("{RUN} must name the run folder of a cluster: `cargo xtask e2e kubernetes` starts one")
        })?;
        let cluster = Cluster::open(run.as_ref())?;
        // Whoever repeats a test on the same cluster does not wait until its namespace of before is gone.
        let name = format!("{test}-{}", std::process::id());
        let space = Self { cluster, name };
        space.kubectl(&["create", "namespace", &space.name]).await?;
        // Pods need it, and it comes a moment later.
        space.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=30s"]).await?;
        Ok(space)
    }

    /// What kubectl prints when it is told so, in this namespace.
    pub(crate) async fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        self.fed(words, "").await
    }

    /// The same with an input.
    pub(crate) async fn fed(&self, words: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(words);
        said(command, input).await
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", &self.name]);
        command
    }

    pub(crate) async fn apply(&self, objects: &str) -> anyhow::Result<String> {
        self.fed(&["apply", "-f", "-"], objects).await
    }

    /// One object, or a list of them.
    pub(crate) async fn get(&self, words: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], words].concat()).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The names of a list.
    pub(crate) async fn names(&self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let list = self.get(words).await?;
        let items = list["items"].as_array().context("a list")?;
        let name = |item: &Value| item["metadata"]["name"].as_str().map(str::to_owned);
        items.iter().map(|item| name(item).context("a name")).collect()
    }

    /// Asks until the answer is yes.
    pub(crate) async fn eventually(&self, words: &[&str], yes: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            let found = self.get(words).await;
            match found {
                Ok(found) if yes(&found) => return Ok(found),
                found if start.elapsed() > LIMIT => bail!("{words:?} is not what it should be: {found:?}"),
                _ => time::sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let mut command = self.cluster.kubectl().into_std();
        command.args(["delete", "namespace", &self.name, "--wait=false"]).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }
}

/// Runs a program to its end: what it prints, or what it says when it fails.
pub(crate) async fn said(mut command: Command, input: &str) -> anyhow::Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{:?}: {}", command.as_std(), text(&output.stderr));
    Ok(text(&output.stdout))
}

/// Whether something was refused, for one of these reasons.
pub(crate) fn refused(done: anyhow::Result<String>, reasons: &[&str]) -> anyhow::Result<()> {
    match done {
        Ok(text) => bail!("was accepted: {text}"),
        Err(error) => {
            let told = error.to_string();
            ensure!(reasons.iter().any(|reason| told.contains(reason)), "was refused for another reason: {told}");
            Ok(())
        }
    }
}

/// The body that a server answers a GET of `/` by, at once.
pub(crate) async fn http(address: Ipv4Addr, port: u16) -> anyhow::Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(SocketAddr::from((address, port))).await?;
        stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer of HTTP")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "{head}");
        Ok(body.to_owned())
    };
    time::timeout(ANSWER, asked).await.context("no answer")?
}

/// Calls until there is an answer.
pub(crate) async fn http_eventually(address: Ipv4Addr, port: u16) -> anyhow::Result<String> {
    let start = Instant::now();
    loop {
        match http(address, port).await {
            Err(_) if start.elapsed() < LIMIT => time::sleep(LOOK).await,
            answer => return answer,
        }
    }
}
