//! The commands about MCP servers: the catalogue, servers that really run, and the ledger of calls.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use echotune_gateway::{
    catalogue::{bundled, runtime},
    metering::{CallOutcome, Metering, MeteringConfig, Tariff, Usage},
};
use serde_json::{Value, json};

use crate::{
    command::{echotune, json, json_of_failed, refused, text},
    spans, start,
};

/// A ledger with a call that costs something, and one whose line was changed.
fn ledgers(data: &Path) -> [String; 2] {
    let make = |name: &str| {
        let folder = data.join(name);
        let mut config = MeteringConfig::new(&folder);
        let tariff = Tariff {
            publisher: "example".into(),
            unit_price_micros: 1_500,
            currency: "EUR".into(),
            publisher_share_bp: 8_000,
            ..Tariff::default()
        };
        config.tariffs.insert("notes".into(), tariff);
        let usage = Usage {
            idempotency_key: "one".into(),
            tenant: "ann".into(),
            caller: "user/ann/writer".into(),
            server: "notes".into(),
            tool: "add".into(),
            era: "2026-07-28".into(),
            outcome: CallOutcome::Ok,
            duration: Duration::from_millis(2),
            bytes_in: 1,
            bytes_out: 2,
            trace_id: String::new(),
        };
        // On a thread of its own: commands run beside the runtime of a test.
        let written = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let ledger = Metering::open(config).expect("a ledger");
                ledger.append(usage).await.expect("written");
                ledger.close().await;
            });
        });
        written.join().expect("written");
        folder
    };
    let (whole, broken) = (make("ledger"), make("broken"));
    let file = broken.join("ledger-00000000000000000000.jsonl");
    let text = fs::read_to_string(&file).expect("text");
    fs::write(file, text.replace("\"units\":1", "\"units\":0")).expect("written");
    [whole, broken].map(|folder| folder.to_str().expect("text").to_owned())
}

/// What the commands print; the platform runs.
pub(crate) fn printed(data: &Path) -> Vec<(&'static str, Value)> {
    let address = json(data, &["status"])["addresses"]["mcp"].as_str().expect("an address").to_owned();
    let (url, token) = (format!("{address}/catalogue"), data.join("token"));
    let token = token.to_str().expect("text");
    // Not that of the platform, which would start what is added.
    let config = data.join("added.toml");
    let add =
        ["mcp", "add", "server-filesystem", "--servers-file", config.to_str().expect("text"), "--with", "folder=/tmp"];
    let call = ["mcp", "call", &url, "find_items", "--token-file", token, "--arg", "text=Air", "--arg", "kind=artist"];
    let [whole, broken] = ledgers(data);
    vec![
        ("mcp list", json(data, &["mcp", "list"])),
        ("mcp add", json(data, &add)),
        ("mcp inspect", json(data, &["mcp", "inspect", &url, "--token-file", token])),
        ("mcp call", json(data, &call)),
        ("mcp ledger verify", json_of_failed(data, &["mcp", "ledger", "verify", &broken])),
        ("mcp ledger sum", json(data, &["mcp", "ledger", "sum", &whole])),
    ]
}

#[test]
fn the_catalogue_is_listed_searched_and_added_from_without_a_platform() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let all = json(data, &["mcp", "list"]);
    let servers = all["servers"].as_array().expect("servers");
    assert_eq!(servers.len(), bundled().len());
    assert_eq!((&servers[0]["name"], &servers[0]["is_ours"]), (&json!("catalogue"), &json!(true)), "ours come first");
    let found = json(data, &["mcp", "list", "--search", "FILESYSTEM"]);
    assert_eq!(found["servers"][0]["name"], "io.github.modelcontextprotocol/server-filesystem");
    let table = text(data, &["mcp", "list"]);
    assert!(table.contains("server-git") && table.contains("stdio"), "{table}");
    assert!(text(data, &["mcp", "list", "--search", "no such thing"]).contains("No server"));

    let config = data.join("servers.toml");
    let path = config.to_str().expect("text");
    refused(data, &["mcp", "add", "listening"], 1, "--as");
    refused(data, &["mcp", "add", "server-filesystem", "--servers-file", path], 2, "--with folder=VALUE");
    refused(data, &["mcp", "add", "no-such-server", "--servers-file", path], 3, "echotune mcp list");
    let wrong = ["mcp", "add", "server-filesystem", "--with", "fodler=/x", "--servers-file", path];
    refused(data, &wrong, 2, "no setting 'fodler'; it has folder");
    assert!(!config.exists());
    let add = ["mcp", "add", "server-filesystem", "--servers-file", path, "--with", "folder=/srv/files"];
    let dry = text(data, &[&add[..], &["--dry-run"]].concat());
    assert!(dry.contains("[[servers]]") && !config.exists(), "{dry}");
    assert!(text(data, &add).contains("is 'server-filesystem'"));
    refused(data, &add, 1, "--as");
    // The file of the data folder needs not be named.
    text(data, &["mcp", "add", "server-filesystem", "--with", "folder=/srv/files", "--as", "files"]);
    let written: toml::Table = fs::read_to_string(&config).expect("text").parse().expect("TOML");
    let tables = written["servers"].as_array().expect("servers");
    assert_eq!(tables.len(), 2);
    let server = &tables[1];
    let texts =
        |key: &str| server[key].as_array().expect("texts").iter().map(|one| one.as_str().expect("text").to_owned());
    let args: Vec<_> = texts("args").collect();
    assert_eq!((server["name"].as_str(), server["command"].as_str()), (Some("files"), Some("npx")));
    assert_eq!((args[0].as_str(), args[2].as_str()), ("-y", "/srv/files"), "{args:?}");
    assert!(args[1].starts_with("@modelcontextprotocol/server-filesystem@2"), "a version is named: {args:?}");
    assert_eq!(server["effects"]["read_text_file"].as_str(), Some("reads"));
    assert_eq!(server["effects"]["edit_file"].as_str(), Some("once"));
}

#[test]
fn files_of_the_data_folder_and_of_elsewhere_are_part_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    fs::create_dir(data.join("catalogue")).expect("made");
    let entry = |version: &str| {
        json!({"name": "com.example/weather", "description": "Tells the weather", "version": version,
               "packages": [{"registryType": "pypi", "identifier": "weather", "version": "3.2.1",
                             "transport": {"type": "stdio"}}]})
    };
    fs::write(data.join("catalogue/weather.json"), entry("1.0.0").to_string()).expect("written");
    fs::write(data.join("catalogue/wrong.json"), json!({"name": "wrong"}).to_string()).expect("written");
    let found = json(data, &["mcp", "list", "--search", "weather"]);
    assert_eq!(found["servers"][0]["name"], "com.example/weather");
    let added = json(data, &["mcp", "add", "weather@1.0.0", "--dry-run"]);
    assert!(added["table"].as_str().expect("text").contains("weather@3.2.1"), "{added}");
    refused(data, &["mcp", "add", "weather@2.0.0", "--dry-run"], 3, "weather@2.0.0");
    let file = data.join("page.json");
    fs::write(&file, json!({"servers": [{"server": entry("2.0.0")}]}).to_string()).expect("written");
    let from = ["--from", file.to_str().expect("text")];
    assert_eq!(json(data, &[&["mcp", "list"], &from[..]].concat())["servers"].as_array().expect("one").len(), 1);
    let added = json(data, &[&["mcp", "add", "weather", "--dry-run"], &from[..]].concat());
    assert_eq!(added["version"], "2.0.0");
}

/// Our own server as a child: what a person would start.
fn child(data: &Path) -> String {
    let config = data.join("child.toml");
    let command = env!("CARGO_BIN_EXE_echotune");
    // The data of the platform is nobody's but where a table says so.
    let table = format!(
        "[[servers]]\nname = \"ours\"\ncommand = {command:?}\nwrites = [{data:?}]\n\
         args = [\"--data\", {data:?}, \"mcp\", \"serve\", \"catalogue\"]\n\
         [servers.effects]\nfind_items = \"reads\"\ngone = \"once\"\n",
        data = data.to_str().expect("text")
    );
    fs::write(&config, table).expect("written");
    config.to_str().expect("text").to_owned()
}

#[test]
fn a_server_is_started_inspected_and_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    text(data, &["listen", "--user", "ann", "--artist", "Air", "--title", "Song", "--at", "1700000000"]);
    let config = child(data);
    let found = json(data, &["mcp", "inspect", "ours", "--servers-file", &config]);
    assert_eq!((&found["transport"], &found["revision"]), (&json!("stdio"), &json!("2026-07-28")), "{found}");
    assert_eq!(found["missing_tools"], json!(["gone"]));
    let tools = found["tools"].as_array().expect("tools");
    let by = |name: &str| tools.iter().find(|tool| tool["name"] == name).map(|tool| tool["effect_by"].clone());
    assert_eq!((by("find_items"), by("get_item")), (Some(json!("declared")), Some(json!("annotations"))));
    let table = text(data, &["mcp", "inspect", "ours", "--servers-file", &config]);
    assert!(table.contains("find_items") && table.contains("declared, and not there: gone"), "{table}");
    let call = ["mcp", "call", "ours", "--servers-file", &config, "find_items"];
    let called = json(data, &[&call[..], &["--arg", "text=air", "--arg", "kind=artist"]].concat());
    assert_eq!((&called["is_error"], &called["tool"]), (&json!(false), &json!("find_items")), "{called}");
    assert!(called["structured"].to_string().contains("Air"), "{called}");
    assert!(text(data, &[&call[..], &["--json", r#"{"text": "air", "kind": "artist"}"#]].concat()).contains("Air"));
    refused(data, &[&call[..], &["--json", "[]"]].concat(), 2, "--json is no JSON object");
    refused(data, &[&call[..], &["--arg", "nonsense=1"]].concat(), 1, "find_items");
    refused(data, &["mcp", "inspect", "nobody", "--servers-file", &config], 3, "it has ours");
    refused(data, &["mcp", "inspect", "https://127.0.0.1:1/mcp"], 2, "no TLS");
    refused(data, &["mcp", "inspect", "http://127.0.0.1:1/mcp"], 1, "does not answer as an MCP server");
    fs::write(data.join("no.toml"), "[[servers]]\nname = \"no\"\ncommand = \"no-such-program-at-all\"\n")
        .expect("written");
    let no = data.join("no.toml");
    refused(data, &["mcp", "inspect", "no", "--servers-file", no.to_str().expect("text")], 1, "put it on the PATH");
}

/// A server with a tool that reads a file of others, and says where its temporary files are; and with one that never
/// answers, heeds no signal, and has started a process that heeds none either.
const READS: &str = r#"while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9][0-9]*\).*/\1/p')
    said='"error":{"code":-32601,"message":"it has no such method"}'
    case "$line" in
    *'"method":"initialize"'*)
        me='"capabilities":{"tools":{}},"serverInfo":{"name":"reader","version":"1"}'
        said='"result":{"protocolVersion":"2025-11-25",'$me'}' ;;
    *'"method":"tools/list"'*)
        said='"result":{"tools":[{"name":"read","inputSchema":{"type":"object"}}]}' ;;
    *'"name":"hang"'*)
        trap '' TERM
        sleep 1000000 &
        printf 'hangs:%s:%s\n' "$TMPDIR" "$!" >&2
        wait ;;
    *'"method":"tools/call"'*)
        file=$(cat 'SECRET' 2>&1 | tr -d '"\\\n')
        said='"result":{"content":[{"type":"text","text":"'$TMPDIR' '$file'"}]}' ;;
    esac
    if [ -n "$id" ]; then printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$said"; fi
done
"#;

/// A program that reads a file which is not its own, and that file.
struct Reader {
    folder: tempfile::TempDir,
    elsewhere: tempfile::TempDir,
}

impl Reader {
    fn new() -> Self {
        let [folder, elsewhere] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let secret = elsewhere.path().join("secret");
        fs::write(&secret, "what others have written").expect("written");
        let script = READS.replace("SECRET", secret.to_str().expect("text"));
        fs::write(folder.path().join("reader.sh"), script).expect("written");
        Self { folder, elsewhere }
    }

    fn script(&self) -> String {
        self.folder.path().join("reader.sh").to_str().expect("text").to_owned()
    }

    /// A file with it as one server for each text, which its table has beside what starts it.
    fn file(&self, data: &Path, servers: &[(&str, &str)]) -> String {
        let table = |(name, more): &(&str, &str)| {
            let script = self.script();
            let starts = format!("command = \"sh\"\nargs = [{script:?}]\nenv = {{ LANG = \"C\" }}");
            format!("[[servers]]\nname = {name:?}\n{starts}\n{more}\n")
        };
        let path = data.join("readers.toml");
        fs::write(&path, servers.iter().map(table).collect::<String>()).expect("written");
        path.to_str().expect("text").to_owned()
    }
}

/// What its tool said: the file, or why it did not get it. What was temporary has gone with it.
fn read_by(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout.clone()).expect("text");
    let (temporary, read) = said.split_once(' ').expect("both");
    assert!(!temporary.is_empty() && !Path::new(temporary).exists(), "it was left behind: {said}");
    read.trim().to_owned()
}

/// Whether it was not started for this system cannot confine it, which is told then.
fn is_refused_here(output: &Output) -> bool {
    let told = String::from_utf8_lossy(&output.stderr);
    let is_refused = told.contains("its confinement is required, and this system lacks");
    if is_refused {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        eprintln!("it is not judged what a started server gets at: {told}");
    }
    is_refused
}

#[test]
fn a_server_that_is_called_gets_at_what_its_table_says_and_at_nothing_else() {
    let (folder, reader) = (tempfile::tempdir().expect("a folder"), Reader::new());
    let data = folder.path();
    let reads = format!("reads = [{:?}]", reader.elsewhere.path().to_str().expect("text"));
    let servers = [("let", reads.as_str()), ("kept", "confinement = \"required\""), ("wrong", "reads = [\"there\"]")];
    let file = reader.file(data, &servers);
    let call = |server: &str| echotune(data, &["mcp", "call", server, "--servers-file", &file, "read"]);
    assert_eq!(read_by(&call("let")), "what others have written");
    refused(data, &["mcp", "inspect", "wrong", "--servers-file", &file], 1, "neither absolute nor below ~/");
    let kept = call("kept");
    if is_refused_here(&kept) {
        return;
    }
    let read = read_by(&kept);
    assert!(read.contains("denied") && !read.contains("what others"), "{read}");
    let found = json(data, &["mcp", "inspect", "kept", "--servers-file", &file]);
    assert_eq!((&found["transport"], &found["tools"][0]["name"]), (&json!("stdio"), &json!("read")), "{found}");
}

#[test]
fn a_server_of_the_catalogue_that_is_called_is_confined_too_and_it_is_told() {
    let (folder, reader) = (tempfile::tempdir().expect("a folder"), Reader::new());
    let data = folder.path();
    fs::create_dir(data.join("catalogue")).expect("made");
    // It names the file by itself, which lets it at nothing.
    let secret = reader.elsewhere.path().join("secret");
    let entry = json!({"name": "com.example/reader", "description": "Reads", "version": "1.0.0",
        "packages": [{"registryType": "npm", "identifier": "reader", "version": "1.0.0", "runtimeHint": "sh",
            "transport": {"type": "stdio"}, "runtimeArguments": [
                {"type": "positional", "valueHint": "script", "isRequired": true},
                {"type": "positional", "value": secret}],
            "environmentVariables": [{"name": "LANG", "value": "C"}, {"name": "FILE", "value": secret}]}]});
    fs::write(data.join("catalogue/reader.json"), entry.to_string()).expect("written");
    let script = format!("script={}", reader.script());
    let call = |how: &str| echotune(data, &["mcp", "call", "reader", "--with", &script, "--confinement", how, "read"]);
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let free = call("none");
    assert!(free.status.success() && told(&free).contains("'com.example/reader' is not confined"), "{free:?}");
    assert_eq!(String::from_utf8_lossy(&free.stdout).trim(), "what others have written");
    let kept = call("required");
    if is_refused_here(&kept) {
        return;
    }
    let read = read_by(&kept);
    assert!(read.contains("denied") && !read.contains("what others"), "{read}");
    let by_itself = echotune(data, &["mcp", "call", "reader", "--with", &script, "read"]);
    assert_eq!(read_by(&by_itself), read);
    for part in ["connects nowhere by TCP", "`reads`", "echotune mcp add", "--confinement none"] {
        assert!(told(&by_itself).contains(part), "{part}: {by_itself:?}");
    }
}

/// A call of what never answers, with its folder for temporary files and the process that it has started.
struct Hanging {
    command: Child,
    errors: BufReader<ChildStderr>,
    temporary: String,
    process: String,
}

impl Hanging {
    fn of(data: &Path, file: &str, server: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echotune"));
        command.arg("--data").arg(data).args(["mcp", "call", server, "--servers-file", file, "--timeout", "1h"]);
        command.args(["--verbose", "hang"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut command = command.spawn().expect("started");
        let mut errors = BufReader::new(command.stderr.take().expect("piped"));
        let mut all = String::new();
        loop {
            let before = all.len();
            assert!(errors.read_line(&mut all).expect("text") > 0, "it ended: {all}");
            let Some(told) = all[before..].trim().strip_prefix("hangs:") else { continue };
            let (temporary, process) = told.rsplit_once(':').expect("both");
            return Self { command, errors, temporary: temporary.to_owned(), process: process.to_owned() };
        }
    }

    fn signal(&self, name: &str) {
        let id = self.command.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill").success());
    }

    /// Its end: by this code, with nothing that it leaves.
    fn ended(mut self, code: i32) {
        let mut said = String::new();
        self.errors.read_to_string(&mut said).expect("text");
        assert_eq!(self.command.wait().expect("ended").code(), Some(code), "{said}");
        assert!(!self.temporary.is_empty() && !Path::new(&self.temporary).exists(), "{said}");
        // Whoever is killed is gone, or waits for nothing but its parent.
        let stat = format!("/proc/{}/stat", self.process);
        let lives = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let patience = Instant::now() + Duration::from_secs(60);
        while lives() {
            assert!(Instant::now() < patience, "process {} was left", self.process);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn whoever_is_asked_to_stop_ends_a_server_that_hangs_and_leaves_nothing_of_it() {
    let (folder, reader) = (tempfile::tempdir().expect("a folder"), Reader::new());
    let data = folder.path();
    let file = reader.file(data, &[("soon", "grace = \"100ms\""), ("late", "grace = \"1000h\"")]);
    let hanging = Hanging::of(data, &file, "soon");
    hanging.signal("-INT");
    hanging.ended(130);
    // It is not waited for once it is asked again, however often that takes.
    let mut hanging = Hanging::of(data, &file, "late");
    while hanging.command.try_wait().expect("asked").is_none() {
        hanging.signal("-TERM");
        thread::sleep(Duration::from_millis(10));
    }
    hanging.ended(143);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_serves_the_catalogue_and_what_is_declared_of_its_servers_is_true() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_owned();
    let serving = start(&data, spans()).await;
    let base = format!("http://{}", serving.mcp);
    let checked = tokio::task::spawn_blocking(move || {
        let listed = json(&data, &["mcp", "list", "--registry", &base]);
        assert_eq!(listed["servers"].as_array().expect("servers").len(), bundled().len(), "{listed}");
        let found = json(&data, &["mcp", "list", "--registry", &base, "--search", "dbhub"]);
        assert_eq!(found["servers"][0]["name"], "io.github.bytebase/dbhub");
        let base = format!("base={base}");
        for (file, entry) in bundled().iter().filter(|(file, _)| file.starts_with("echotune-")) {
            let name = file.strip_prefix("echotune-").expect("ours");
            // The token is that of the data folder.
            let found = json(&data, &["mcp", "inspect", name, "--with", &base]);
            assert_eq!(found["missing_tools"], json!([]), "{file}");
            let declared = runtime(entry).effects;
            let tools = found["tools"].as_array().expect("tools");
            assert_eq!(tools.len(), declared.len(), "{file}: {tools:?}");
            assert!(tools.iter().all(|tool| tool["effect_by"] == "declared"), "{file}: {tools:?}");
        }
    });
    checked.await.expect("checked");
    serving.stop().await.expect("stopped");
}

#[test]
fn ledgers_are_verified_and_added_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let [whole, broken] = ledgers(data);
    let verified = json(data, &["mcp", "ledger", "verify", &whole]);
    let ledger = &verified["ledgers"][0];
    assert_eq!((&ledger["is_whole"], &ledger["calls"]), (&json!(true), &json!(1)), "{verified}");
    let head = format!("{}:{}", ledger["head_sequence"], ledger["head"].as_str().expect("a digest"));
    assert!(text(data, &["mcp", "ledger", "verify", &whole, "--head", &head]).contains("whole"));
    refused(data, &["mcp", "ledger", "verify", &whole, "--head", &format!("1:{}", "0".repeat(64))], 1, "not whole");
    refused(data, &["mcp", "ledger", "verify", &broken], 1, "1 of 1 ledgers are not whole");
    refused(data, &["mcp", "ledger", "verify", data.to_str().expect("text")], 1, "ledger.pub");
    let sums = json(data, &["mcp", "ledger", "sum", &whole, "--by", "tenant,publisher,outcome"]);
    let row = &sums["rows"][0];
    assert_eq!(row["by"], json!({"tenant": "ann", "publisher": "example", "outcome": "ok"}));
    assert_eq!((&row["amount_micros"], &row["publisher_micros"]), (&json!(1_500), &json!(1_200)));
    assert!(text(data, &["mcp", "ledger", "sum", &whole]).contains("0.0015 EUR"));
    refused(data, &["mcp", "ledger", "sum", &broken], 1, "tells what is wrong");
    refused(data, &["mcp", "ledger", "sum", &whole, "--by", "colour"], 2, "none of tenant, publisher");
    let later = ["mcp", "ledger", "sum", &whole, "--from", "2999-01-01T00:00:00Z"];
    assert_eq!(json(data, &later)["rows"], json!([]));
}
