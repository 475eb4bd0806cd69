//! The gateway of a platform: servers of others as children of it, and agents that call tools by way of it.

use std::fs;

use echotune_kit::config::Period;
use echotune_model::{NewRun, RunState, TraceId};
use serde_json::{Value, json};

use super::*;
use crate::command::{json, text};

async fn serving(data: &Path, config: &Config) -> Serving {
    let platform = Platform::open_with(config, data, spans()).expect("open");
    platform.serve(LOOPBACK.parse().expect("address")).await.expect("serve")
}

/// A platform that looks at its file of servers all the time.
async fn looking(data: &Path) -> Serving {
    let mut config = Config::default();
    config.gateway.servers_reload_every = Period(Duration::from_millis(50));
    serving(data, &config).await
}

/// Puts a text in the place of a file, whole: the platform reads it now and then, and must not find half of it.
fn put(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).expect("written");
    fs::rename(&beside, file).expect("put in its place");
}

/// The platform's own program as a server of others: it serves another data folder.
fn theirs(data: &Path) -> String {
    let (command, data) = (env!("CARGO_BIN_EXE_echotune"), data.to_str().expect("text"));
    format!(
        "[[servers]]\nname = \"theirs\"\ncommand = {command:?}\n\
         args = [\"--data\", {data:?}, \"mcp\", \"serve\", \"catalogue\"]\nsharing = \"all\"\ncalls_per_child = 4\n\
         writes = [{data:?}]\nstart = \"60s\"\ndeadline = \"60s\"\neffects = {{ find_items = \"reads\" }}\n"
    )
}

/// The processes of this machine that were told of a folder.
fn processes(of: &Path) -> Vec<u32> {
    let told = of.to_str().expect("text");
    let entries = fs::read_dir("/proc").expect("processes");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let has_been_told = |number: &u32| {
        fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(told))
    };
    names.filter_map(|name| name.parse().ok()).filter(has_been_told).collect()
}

/// Whether a process of the platform's program is there, be it that nobody has waited for its end.
fn is_there(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|about| about.contains("(echotune)"))
}

/// The answer to a call of a tool, in the revision 2026-07-28.
async fn call(serving: &Serving, path: &str, token: &str, tool: &str, arguments: Value) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(format!("http://{}{path}", serving.mcp)).bearer_auth(token);
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
    let request = request.header("mcp-name", tool).header("content-type", "application/json");
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let request = request.header("accept", "application/json, text/event-stream").body(body.to_string());
    let text = request.send().await.expect("answered").text().await.expect("a body");
    let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let message = |text: &str| serde_json::from_str::<Value>(text.trim()).ok();
    message(&text).or_else(|| events.filter_map(message).next_back()).unwrap_or_default()
}

fn operator(data: &Path) -> String {
    fs::read_to_string(data.join("token")).expect("a token").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_file_are_children_for_the_operator_and_end_with_the_platform() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let (data, other) = (folder.path(), elsewhere.path());
    tokio::task::block_in_place(|| text(other, &["listen", "--user", "bob", "--artist", "Air", "--title", "Talisman"]));
    let serving = looking(data).await;
    let token = operator(data);
    let wanted = || json!({"text": "air", "kind": "artist"});
    let absent = call(&serving, "/servers/theirs/mcp", &token, "find_items", wanted()).await;
    assert!(absent.to_string().contains("no server is named 'theirs'"), "{absent}");

    put(&data.join("servers.toml"), &theirs(other));
    let called = async {
        loop {
            let answer = call(&serving, "/mcp", &token, "theirs__find_items", wanted()).await;
            let running = processes(other);
            let has_air = answer["result"]["structuredContent"].to_string().contains("Air");
            if has_air && running.iter().any(|process| is_there(*process)) {
                return running;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let running = timeout(Duration::from_secs(120), called).await.expect("it was never called");
    let ours = call(&serving, "/mcp", &token, "catalogue__find_items", wanted()).await;
    assert_eq!(ours["result"]["isError"], false, "{ours}");
    assert!(!ours["result"]["structuredContent"].to_string().contains("Air"), "each has its own: {ours}");

    // What a person is given a token for is their own.
    let to = connect(data, &serving).await;
    to.users.create_user(&Call::internal(), "ann").await.expect("created");
    let new = NewToken { label: "player".into(), role: Role::Writer, expires_at_ms: 0 };
    let (_, hers) = to.users.create_token(&Call::internal(), "ann", new).await.expect("made");
    drop(to);
    let refused = call(&serving, "/servers/theirs/mcp", &hers, "find_items", wanted()).await;
    assert_eq!(refused["result"]["structuredContent"]["error"]["kind"], "PERMISSION_DENIED", "{refused}");
    let own = call(&serving, "/servers/listening/mcp", &hers, "listening_summary", json!({"user": "ann"})).await;
    assert_eq!(own["result"]["isError"], false, "{own}");
    let trace = json!({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"});
    let of_all = call(&serving, "/servers/status/mcp", &hers, "get_trace", trace).await;
    let kind = &of_all["result"]["structuredContent"]["error"]["kind"];
    assert_eq!(kind, "PERMISSION_DENIED", "a server is told who asks: {of_all}");

    serving.stop().await.expect("stopped");
    assert!(!running.into_iter().any(is_there) && processes(other).is_empty(), "no child is left");
}

/// A server that nobody can reach, under a name.
fn unreachable(name: &str) -> String {
    format!("[[servers]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:9/mcp\"\n")
}

/// Whether there is a server of a name, whatever it answers: without a session, nothing is listened for.
async fn is_served(serving: &Serving, token: &str, name: &str) -> bool {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/servers/{name}/mcp", serving.mcp);
    client.get(url).bearer_auth(token).send().await.expect("answered").status().as_u16() == 405
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_servers_is_followed_while_it_is_right() {
    let folder = tempfile::tempdir().expect("folder");
    let (data, file) = (folder.path(), folder.path().join("servers.toml"));
    put(&file, &unreachable("far"));
    let serving = looking(data).await;
    let token = operator(data);
    assert!(is_served(&serving, &token, "far").await && is_served(&serving, &token, "status").await);
    put(&file, &[unreachable("further"), unreachable("other")].concat());
    let followed = async {
        while is_served(&serving, &token, "far").await || !is_served(&serving, &token, "other").await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), followed).await.expect("the file is not followed");
    fs::remove_file(&file).expect("removed");
    let followed = async {
        while is_served(&serving, &token, "further").await || is_served(&serving, &token, "other").await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), followed).await.expect("what is named nowhere is served for ever");
    for path in ["/mcp/status", "/servers/status/mcp", "/mcp"] {
        let status = call(&serving, path, &token, "platform_status", json!({})).await;
        assert_eq!(status["result"]["isError"], false, "{path}: {status}");
    }
    serving.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_servers_that_is_wrong_is_told_at_the_start() {
    let wrong = [
        (unreachable("status"), "'status'"),
        (unreachable("far").replace("url", "address"), "servers.toml"),
        (unreachable("far").replace("[[servers]]\n", "[[servers]]\ntariff = { plan = \"free\" }\n"), "metering.folder"),
    ];
    for (text, why) in wrong {
        let folder = tempfile::tempdir().expect("folder");
        put(&folder.path().join("servers.toml"), &text);
        let platform = Platform::open_with(&Config::default(), folder.path(), spans()).expect("open");
        let wrong = platform.serve(LOOPBACK.parse().expect("address")).await.err().expect("refused");
        let told = format!("{wrong:#}");
        assert!(told.contains("gateway.servers_file") && told.contains(why), "{told}");
    }
}

/// A server of others that tells the time, of before 2026-07-28.
const CLOCK: &str = r#"me='{"name":"clock","version":"1"}'
while read -r line; do
  id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
  case "$line" in
    *'"method":"initialize"'*)
      result='{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":'"$me"'}' ;;
    *'"method":"tools/list"'*)
      result='{"tools":[{"name":"tell_time","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}' ;;
    *'"method":"tools/call"'*)
      result='{"content":[{"type":"text","text":"noon"}],"structuredContent":{"time":"noon"},"isError":false}' ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;

const WORKFLOW: &str = "name: count\ndescription: Counts listens.\nversion: 1\n\
    budget: {steps: 5, tool_calls: 5, wall_ms: 60000}\nsteps:\n  - id: all\n    type: tool\n    \
    tool: listening_summary\n    args: {user: \"${ user }\"}\n  - id: now\n    type: tool\n    tool: tell_time\n    \
    args: {}\noutput:\n  \
    value: {listens: \"${ steps.all.listens }\", time: \"${ steps.now.time }\"}\n";

/// Whether a trace leads from a run by way of the gateway to the platform's own server.
async fn is_one_trace(to: &Connection, trace: TraceId) -> bool {
    let spans = to.operations.trace(&Call::internal(), trace).await.unwrap_or_default();
    let by_gateway = spans.iter().find(|span| {
        span.attributes.get("echotune.mcp.server").map(String::as_str) == Some("listening")
            && span.name == "tools/call listening_summary"
    });
    let Some(by_gateway) = by_gateway else { return false };
    let mut above = Some(by_gateway);
    while let Some(span) = above.filter(|span| span.name != "run count") {
        above = spans.iter().find(|other| other.span_id == span.parent_span_id);
    }
    above.is_some() && spans.iter().any(|span| span.parent_span_id == by_gateway.span_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_call_tools_by_way_of_the_gateway_in_one_trace_and_every_call_is_entered() {
    let folder = tempfile::tempdir().expect("folder");
    let (data, ledger) = (folder.path(), folder.path().join("ledger"));
    tokio::task::block_in_place(|| text(data, &["listen", "--user", "ann", "--artist", "Air", "--title", "Talisman"]));
    fs::create_dir(data.join("workflows")).expect("made");
    fs::write(data.join("workflows/count.yaml"), WORKFLOW).expect("written");
    fs::write(data.join("clock.sh"), CLOCK).expect("written");
    let clock = data.join("clock.sh");
    let clock = clock.to_str().expect("text");
    let server = format!(
        "[[servers]]\nname = \"clock\"\ncommand = \"sh\"\nargs = [{clock:?}]\nsharing = \"all\"\nera = \"legacy\"\n\
         effects = {{ tell_time = \"reads\" }}\n"
    );
    put(&data.join("servers.toml"), &server);
    let mut config = Config::default();
    config.gateway.agent_servers = vec!["clock".to_owned()];
    config.metering.folder.clone_from(&ledger);
    let serving = serving(data, &config).await;
    let to = connect(data, &serving).await;
    let agents = to.agents.clone().expect("agents");
    let new = NewRun { workflow: "count".into(), user: "ann".into(), input: String::new() };
    let id = agents.start_run(&Call::internal(), new).await.expect("started").id;
    let ended = async {
        loop {
            let run = agents.get_run(&Call::internal(), id).await.expect("read");
            if run.state.is_final() {
                return run;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let run = timeout(Duration::from_secs(60), ended).await.expect("it never ended");
    assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    let output: Value = serde_json::from_str(&run.output).expect("JSON");
    assert_eq!(output, json!({"listens": 1, "time": "noon"}));
    let traced = async {
        while !is_one_trace(&to, run.trace).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let traced = timeout(Duration::from_secs(60), traced).await;
    assert!(traced.is_ok(), "{:#?}", to.operations.trace(&Call::internal(), run.trace).await);
    drop((agents, to));
    serving.stop().await.expect("stopped");
    let wanted = ["mcp", "ledger", "sum", ledger.to_str().expect("text"), "--by", "server,tool"];
    let sums = tokio::task::block_in_place(|| json(data, &wanted));
    let rows = sums["rows"].as_array().expect("rows");
    for (server, tool) in [("listening", "listening_summary"), ("clock", "tell_time")] {
        let by = json!({"server": server, "tool": tool});
        assert!(rows.iter().any(|row| row["by"] == by && row["done"].as_u64() > Some(0)), "{by} is not in {sums}");
    }
    // A command that runs a workflow without a platform serves what that needs.
    let run = tokio::task::block_in_place(|| {
        let set = ["--set", "gateway.agent_servers=[\"clock\"]"];
        json(data, &[&set[..], &["run", "count", "--user", "ann"]].concat())
    });
    assert_eq!(run["output"], json!({"listens": 1, "time": "noon"}), "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_agents_that_are_in_no_file_are_told() {
    let folder = tempfile::tempdir().expect("folder");
    let mut config = Config::default();
    config.gateway.agent_servers = vec!["clock".to_owned()];
    let platform = Platform::open_with(&config, folder.path(), spans()).expect("open");
    let wrong = platform.serve(LOOPBACK.parse().expect("address")).await.err().expect("refused");
    let told = format!("{wrong:#}");
    assert!(told.contains("gateway.agent_servers") && told.contains("'clock'"), "{told}");
}
