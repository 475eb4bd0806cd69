//! The program itself: what it prints, how it ends, the file of servers, and the adapter of a pod.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use echotune_gateway::{BreakerConfig, Limits, Reach, ServerConfig};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    fixture::{Era, Fixture},
    house::{House, OPERATOR, SOON, config, http, message_of, names, program as stdio_server, result_of, rmcp},
    takeover::{keep_lists, seen},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_echotune-gateway");

/// A program that runs, with where it says that it speaks MCP.
struct Running {
    child: Child,
    base: String,
    /// Over TLS, if it does.
    secure: Option<String>,
    http: reqwest::Client,
}

impl Running {
    async fn start(arguments: &[&str], token: Option<&str>) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
        if let Some(token) = token {
            command.env("ECHOTUNE_ADAPTER_TOKEN", token);
        }
        let mut child = command.spawn().expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = async {
            let mut secure = None;
            loop {
                let line = lines.next_line().await.expect("read").expect("it says where");
                if let Some((_, rest)) = line.split_once("speaks MCP over TLS on ") {
                    secure = Some(rest.to_owned());
                }
                if let Some((_, rest)) = line.split_once("speaks MCP on ") {
                    return (rest.trim_end_matches("/mcp").to_owned(), secure);
                }
            }
        };
        let (base, secure) = timeout(SOON, said).await.expect("in time");
        // What else it says is of no interest, but somebody must read it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let running = Self { child, base, secure, http };
        running.until("/health/ready", 200).await;
        running
    }

    async fn until(&self, path: &str, status: u16) {
        let looking = async {
            while self.http.get(format!("{}{path}", self.base)).send().await.expect("answered").status() != status {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, looking).await.expect("in time");
    }

    async fn ask(&self, path: &str, token: &str, method: &str, mut params: Value) -> reqwest::Response {
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(token);
        let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        let request = match params.get("name").and_then(Value::as_str) {
            Some(name) => request.header("mcp-name", name),
            None => request,
        };
        let request = request.header("accept", "application/json, text/event-stream");
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        request.header("content-type", "application/json").body(body.to_string()).send().await.expect("answered")
    }

    /// Asks it to stop; its exit code.
    async fn stop(mut self) -> i32 {
        terminate(&self.child).await;
        code(&mut self.child).await
    }
}

async fn terminate(child: &Child) {
    let pid = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.expect("sent").success());
}

/// With which code it ends.
async fn code(child: &mut Child) -> i32 {
    let ended = timeout(SOON, child.wait()).await.expect("in time").expect("waited for");
    ended.code().unwrap_or_else(|| panic!("{ended}"))
}

fn token_file(folder: &Path) -> String {
    let path = folder.join("token");
    fs::write(&path, OPERATOR).expect("written");
    path.display().to_string()
}

/// Puts a text in the place of a file, whole: the program reads it now and then, and must not find half of it.
fn put(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).expect("written");
    fs::rename(&beside, file).expect("put in its place");
}

#[tokio::test]
async fn its_configuration_is_shown_and_a_wrong_one_is_told_with_the_code_for_it() {
    let folder = tempfile::tempdir().expect("folder");
    let token = format!("token_file={}", token_file(folder.path()));
    let shown = Command::new(PROGRAM).args(["--set", &token, "--print-config"]).output().await.expect("ran");
    let text = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.status.success() && text.contains("[operator]") && text.contains("servers_file"), "{text}");
    let wrong = Command::new(PROGRAM).args(["--set", "mcp.requests=0"]).output().await.expect("ran");
    let text = String::from_utf8(wrong.stderr).expect("text");
    assert_eq!(wrong.status.code(), Some(64), "{text}");
    assert!(text.contains("mcp.requests") && text.contains("token_file"), "{text}");
    for (arguments, told) in [(&["--help"][..], "Serves many MCP servers"), (&["adapter", "--help"], "Exit codes")] {
        let help = Command::new(PROGRAM).args(arguments).output().await.expect("ran");
        let text = String::from_utf8_lossy(&help.stdout);
        assert!(help.status.success() && text.contains("Exit codes") && text.contains(told), "{help:?}");
    }
    let nothing = Command::new(PROGRAM).args(["adapter", "--listen", "127.0.0.1:0"]).output().await.expect("ran");
    assert_eq!(nothing.status.code(), Some(2));
}

/// Both ends of a stream that takes no more bytes until some are read.
fn full() -> (UnixStream, UnixStream) {
    let (reading, mut writing) = UnixStream::pair().expect("a pair");
    writing.set_nonblocking(true).expect("set");
    loop {
        match writing.write(&[b'.'; 4_096]) {
            Ok(written) => assert!(written > 0),
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => break,
            Err(cause) => panic!("{cause}"),
        }
    }
    writing.set_nonblocking(false).expect("set");
    (reading, writing)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_down_in_order_though_it_is_asked_to_as_soon_as_it_answers() {
    let folder = tempfile::tempdir().expect("folder");
    let token = format!("token_file={}", token_file(folder.path()));
    // An address that no other test takes ports of.
    let free = std::net::TcpListener::bind("127.9.8.7:0").expect("bound").local_addr().expect("an address");
    let listen = format!("mcp.listen={free}");
    // What it says first is not taken from it, so that it comes no further than that.
    let (reading, writing) = full();
    let mut command = Command::new(PROGRAM);
    command.args(["--listen", "127.0.0.1:0", "--set", &token, "--set", &listen]);
    let mut child = command.stdout(OwnedFd::from(writing)).kill_on_drop(true).spawn().expect("started");
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answered = async {
        while http.get(format!("http://{free}/health/live")).send().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, answered).await.expect("in time");
    terminate(&child).await;
    reading.set_nonblocking(true).expect("set");
    let mut reading = tokio::net::UnixStream::from_std(reading).expect("a stream");
    tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
    assert_eq!(code(&mut child).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_the_file_are_served_and_followed_as_it_changes() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("servers.toml");
    let table = |name: &str, more: &str| {
        let program = stdio_server().display().to_string();
        format!("[[servers]]\nname = \"{name}\"\ncommand = '{program}'\nargs = ['{name}', 'modern', 'echo']\n{more}\n")
    };
    fs::write(&file, table("one", "")).expect("written");
    let settings = [
        format!("token_file={}", token_file(folder.path())),
        format!("mcp.servers_file={}", file.display()),
        "mcp.servers_reload_every=100ms".to_owned(),
    ];
    let mut arguments = vec!["--listen", "127.0.0.1:0"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting.as_str()]));
    let running = Running::start(&arguments, None).await;
    // While no list can be had, as when a program takes long to start, that is what is answered.
    let tools = async || {
        let listed = message_of(running.ask("/mcp", OPERATOR, "tools/list", json!({})).await).await;
        if listed["result"].is_object() { names(&listed["result"]) } else { Vec::new() }
    };
    until(&tools, &["echo"]).await;
    let stranger = running.ask("/mcp", "somebody else's", "tools/list", json!({})).await;
    assert!(matches!(stranger.status().as_u16(), 401 | 503), "{}", stranger.status());
    // A server that comes and goes with its calls beside one that is always there.
    let both =
        table("one", "") + &table("two", "sharing = \"all\"\ncalls_per_child = 2\neffects = { echo = \"reads\" }");
    put(&file, &both);
    until(&tools, &["one__echo", "two__echo"]).await;
    let called = running.ask("/mcp", OPERATOR, "tools/call", json!({"name": "two__echo"})).await;
    assert_eq!(result_of(called).await["structuredContent"]["server"], "two");
    // What is wrong changes nothing.
    put(&file, "[[servers]]\nname = 'three'\n");
    sleep(Duration::from_millis(400)).await;
    assert_eq!(tools().await, ["one__echo", "two__echo"]);
    put(&file, &table("one", "concurrency = 3"));
    until(&tools, &["echo"]).await;
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_over_what_another_gateway_lists_for_everybody() {
    let folder = tempfile::tempdir().expect("folder");
    let served = rmcp(Fixture::new("a", Era::Legacy, &["echo"])).await;
    // It is asked each time.
    let server = ServerConfig { lists_kept: Duration::ZERO, ..http("a", &served.url()) };
    let house = House::of(vec![server]).await;
    keep_lists(&house, &folder);
    assert_eq!(seen(&house, "/mcp", OPERATOR).await, ["echo"]);
    let file = folder.path().join("taken.json");
    let settings = [
        format!("token_file={}", token_file(folder.path())),
        format!("mcp.lists_file={}", file.display()),
        format!("mcp.lists_from=[\"{}\"]", house.base),
    ];
    let mut arguments = vec!["--listen", "127.0.0.1:0"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting.as_str()]));
    // The other is given a moment only, and may be slower: then it is started again.
    let taken = async {
        loop {
            assert_eq!(Running::start(&arguments, None).await.stop().await, 0);
            if fs::read_to_string(&file).is_ok_and(|kept| kept.contains("\"echo\"")) {
                return;
            }
        }
    };
    timeout(SOON, taken).await.expect("in time");
    house.close().await;
}

async fn until(tools: &impl AsyncFn() -> Vec<String>, wanted: &[&str]) {
    let looking = async {
        while tools().await != wanted {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, looking).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_reached_over_tls_by_whoever_knows_its_authority() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("random");
    let authority = rcgen::CertifiedIssuer::self_signed(params, key).expect("signed");
    let key = rcgen::KeyPair::generate().expect("random");
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).expect("names").signed_by(&key, &authority).expect("signed");
    fs::write(at("ca.crt"), authority.pem()).expect("written");
    fs::write(at("tls.crt"), certificate.pem()).expect("written");
    fs::write(at("tls.key"), key.serialize_pem()).expect("written");
    let program = stdio_server().display().to_string();
    let table = format!("[[servers]]\nname = 'far'\ncommand = '{program}'\nargs = ['far', 'modern', 'echo']\n");
    fs::write(at("servers.toml"), table).expect("written");
    let settings = [
        format!("token_file={}", token_file(folder.path())),
        format!("mcp.servers_file={}", at("servers.toml")),
        "mcp.tls_listen=127.0.0.1:0".to_owned(),
        format!("tls.certificate={}", at("tls.crt")),
        format!("tls.key={}", at("tls.key")),
    ];
    let mut arguments = vec!["--listen", "127.0.0.1:0"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting.as_str()]));
    let running = Running::start(&arguments, None).await;
    let url = running.secure.clone().expect("over TLS").replace("127.0.0.1", "localhost");
    for known in [true, false] {
        let authorization = Some(format!("Bearer {OPERATOR}").into());
        let reach = Reach::Http { endpoints: vec![url.clone()], authorization };
        // Each call that fails is to say why, and not that this one is left alone for having failed.
        let rest = Duration::from_millis(1);
        let breaker = BreakerConfig { failures: 5, rest, rest_max: rest };
        let server = ServerConfig { breaker, ..ServerConfig::new("a", reach) };
        let mut config = config(vec![server], Limits::default());
        config.authorities = known.then(|| at("ca.crt").into());
        let house = House::with(config).await;
        if known {
            let called = house.call("/servers/a/mcp", "echo", json!({})).await;
            assert_eq!(called["structuredContent"]["server"], "far");
        } else {
            // How far it gets in the time it has is not known, so it is asked until it got as far as the certificate.
            let refused = async {
                loop {
                    let params = json!({"name": "echo", "_meta": {"echotune/timeout-ms": 1_000}});
                    let refused = house.modern("/servers/a/mcp", OPERATOR, "tools/call", params).send().await;
                    let text = refused.expect("answered").text().await.expect("text");
                    assert!(!text.contains("\"far\""), "it was called: {text}");
                    if text.contains("certificate") {
                        return;
                    }
                }
            };
            timeout(SOON, refused).await.expect("it is told why");
        }
        house.close().await;
    }
    assert_eq!(running.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_serves_a_program_as_itself_and_ends_it() {
    let program = stdio_server().display().to_string();
    for (token, sharing) in [(None, "all"), (Some("a token of this pod that is long enough"), "session")] {
        let arguments =
            ["adapter", "--listen", "127.0.0.1:0", "--sharing", sharing, "--", &program, "inner", "legacy", "echo"];
        let running = Running::start(&arguments, token).await;
        let shown = token.unwrap_or("nobody asks for it");
        let discovered = running.ask("/mcp", shown, "server/discover", json!({})).await;
        let server = &result_of(discovered).await["_meta"]["io.modelcontextprotocol/serverInfo"];
        assert_eq!(server["name"], "inner", "it is as if the program itself were asked: {server}");
        let called = result_of(running.ask("/mcp", shown, "tools/call", json!({"name": "echo"})).await).await;
        assert_eq!(called["structuredContent"]["server"], "inner");
        let pid = called["structuredContent"]["pid"].as_u64().expect("a number");
        if token.is_some() {
            let stranger = running.ask("/mcp", "another", "tools/list", json!({})).await;
            assert_eq!(stranger.status(), 401, "{}", message_of(stranger).await);
        }
        assert_eq!(running.stop().await, 0);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the program has ended");
    }
}
