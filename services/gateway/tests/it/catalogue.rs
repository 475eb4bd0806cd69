//! The catalogue by the registry's API, on a real store.

use std::{fs, path::Path, sync::Arc};

use echotune_gateway::catalogue::{Catalogue, Status, bundled, read_page, read_path, router};
use echotune_kit::{
    auth::{Callers, Token},
    embedded::Db,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::house::{Accounts, OPERATOR, SOON, Served, serve};

fn entry(name: &str, version: &str) -> Value {
    json!({"name": name, "title": "Weather", "description": "Tells the weather", "version": version,
           "packages": [{"registryType": "npm", "identifier": "x", "version": "1.0.0", "transport": {"type": "stdio"}}]})
}

struct Desk {
    served: Served,
    http: reqwest::Client,
    catalogue: Catalogue,
    _folder: tempfile::TempDir,
}

impl Desk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let catalogue = Catalogue::new(Db::open(folder.path()).expect("a store"));
        let callers = Callers::new(Token::from(OPERATOR.to_owned()), Some(Arc::new(Accounts)));
        let served = serve("127.0.0.1:0", router(catalogue.clone(), callers)).await;
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { served, http, catalogue, _folder: folder }
    }

    async fn ask(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("http://{}/v0.1/{path}", self.served.address));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.expect("answered");
        let status = response.status();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, "", None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn publish(&self, entry: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, "publish", OPERATOR, Some(entry)).await
    }
}

fn named(page: &Value) -> Vec<String> {
    let servers = page["servers"].as_array().unwrap_or_else(|| panic!("no list: {page}"));
    let text = |server: &Value, key: &str| server["server"][key].as_str().expect("text").to_owned();
    servers.iter().map(|server| format!("{}@{}", text(server, "name"), text(server, "version"))).collect()
}

fn official(of: &Value) -> &Value {
    &of["_meta"]["io.modelcontextprotocol.registry/official"]
}

#[tokio::test]
async fn versions_are_published_listed_and_the_newest_is_latest() {
    let desk = Desk::new().await;
    for version in ["1.0.0", "1.10.0", "1.9.0"] {
        let (status, body) = desk.publish(entry("com.example/weather", version)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["server"]["version"], version);
    }
    let one = desk.get("servers/com.example%2Fweather/versions/latest").await;
    assert_eq!(one["server"], entry("com.example/weather", "1.10.0"), "an entry is answered as it was published");
    assert_eq!((&official(&one)["status"], &official(&one)["isLatest"]), (&json!("active"), &json!(true)));
    assert!(official(&one)["publishedAt"].as_str().expect("a time").ends_with('Z'), "{one}");
    let all = desk.get("servers/com.example%2Fweather/versions").await;
    assert_eq!(all["metadata"]["count"], 3);
    let (again, body) = desk.publish(entry("com.example/weather", "1.0.0")).await;
    assert_eq!(
        (again, official(&body)["isLatest"].as_bool()),
        (StatusCode::OK, Some(false)),
        "the same again is no fault"
    );
    let mut other = entry("com.example/weather", "1.0.0");
    other["description"] = json!("Tells something else");
    let (status, body) = desk.publish(other).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body["error"].as_str().expect("text").contains("another version"), "{body}");
    for (path, why) in [
        ("servers/com.example%2Fnothing/versions", "no server is named 'com.example/nothing'"),
        ("servers/com.example%2Fweather/versions/7.0.0", "it has 1.9.0"),
        ("servers/com.example%2Fweather%00/versions", "no server"),
    ] {
        let (status, body) = desk.ask(Method::GET, path, "", None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(body["error"].as_str().expect("text").contains(why), "{body}");
    }
    for method in [Method::PUT, Method::DELETE] {
        let (status, body) = desk.ask(method, "servers/com.example%2Fweather/versions/1.0.0", OPERATOR, None).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{body}");
    }
}

#[tokio::test]
async fn lists_are_paged_searched_and_followed() {
    let desk = Desk::new().await;
    let report = desk.catalogue.import_bundled().await.expect("imported");
    assert_eq!((report.added.len(), report.refused.len()), (bundled().len(), 0), "{report:?}");
    assert_eq!(desk.catalogue.import_bundled().await.expect("again").unchanged, bundled().len());
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = desk.get(&format!("servers?limit=7&cursor={cursor}")).await;
        let names = named(&page);
        assert!(names.len() <= 7 && page["metadata"]["count"] == names.len());
        seen.extend(names);
        match page["metadata"]["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), bundled().len());
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(named(&desk.get("servers?search=FILESYSTEM").await).len(), 1, "whichever case");
    assert_eq!(named(&desk.get("servers?search=internal.echotune&limit=100").await).len(), 6);
    assert_eq!(named(&desk.get("servers?search=no%20such%20thing").await).len(), 0);
    let since = desk.get("servers/internal.echotune%2Fstatus/versions/latest").await;
    let since = official(&since)["updatedAt"].as_str().expect("a time").to_owned();
    // Not in the same millisecond.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    desk.publish(entry("com.example/weather", "2.0.0")).await;
    let new = named(&desk.get(&format!("servers?updated_since={since}&limit=100")).await);
    assert!(new.contains(&"com.example/weather@2.0.0".to_owned()), "{new:?}");
    let later = named(&desk.get("servers?updated_since=2999-01-01T00:00:00%2B01:00").await);
    assert_eq!(later, Vec::<String>::new());
    for (query, why) in [
        ("limit=0", "1 to 100"),
        ("limit=many", "limit is no number"),
        ("cursor=%21", "cursor"),
        ("updated_since=yesterday", "RFC 3339"),
        ("include_deleted=perhaps", "include_deleted"),
    ] {
        let (status, body) = desk.ask(Method::GET, &format!("servers?{query}"), "", None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(body["error"].as_str().expect("text").contains(why), "{query}: {body}");
    }
}

#[tokio::test]
async fn a_status_is_set_and_deleted_ones_are_seen_where_they_are_asked_for() {
    let desk = Desk::new().await;
    for version in ["1.0.0", "2.0.0"] {
        desk.publish(entry("com.example/weather", version)).await;
    }
    let path = "servers/com.example%2Fweather/versions/2.0.0/status";
    let change = json!({"status": "deleted", "statusMessage": "it rains in it"});
    let (status, body) = desk.ask(Method::PATCH, path, OPERATOR, Some(change.clone())).await;
    assert_eq!((status, &official(&body)["statusMessage"]), (StatusCode::OK, &json!("it rains in it")), "{body}");
    let (status, body) = desk.ask(Method::PATCH, path, OPERATOR, Some(change)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let latest = desk.get("servers/com.example%2Fweather/versions/latest").await;
    assert_eq!(latest["server"]["version"], "1.0.0", "the newest that is not deleted");
    assert_eq!(named(&desk.get("servers").await), ["com.example/weather@1.0.0"]);
    assert_eq!(named(&desk.get("servers?version=2.0.0&include_deleted=true").await), ["com.example/weather@2.0.0"]);
    let synced = named(&desk.get("servers?updated_since=2020-01-01T00:00:00Z").await);
    assert_eq!(synced.len(), 2, "whoever follows learns what was deleted");
    let all = json!({"status": "deprecated"});
    let (status, body) = desk.ask(Method::PATCH, "servers/com.example%2Fweather/status", OPERATOR, Some(all)).await;
    assert_eq!((status, &body["updatedCount"]), (StatusCode::OK, &json!(2)), "{body}");
    let latest = desk.get("servers/com.example%2Fweather/versions/latest").await;
    assert_eq!(latest["server"]["version"], "2.0.0");
    let (status, body) = desk.ask(Method::PATCH, path, OPERATOR, Some(json!({"status": "gone"}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn the_operator_alone_writes_and_what_is_wrong_is_told_with_its_place() {
    let desk = Desk::new().await;
    for (token, refused) in
        [("", StatusCode::UNAUTHORIZED), ("nobody", StatusCode::UNAUTHORIZED), ("user-1", StatusCode::FORBIDDEN)]
    {
        let (status, _) = desk.ask(Method::POST, "publish", token, Some(entry("com.example/weather", "1.0.0"))).await;
        assert_eq!(status, refused, "{token}");
    }
    let mut wrong = entry("weather", "^1.0.0");
    wrong["packages"][0]["registryType"] = json!("tape");
    let (status, body) = desk.publish(wrong).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let paths: Vec<_> = body["faults"].as_array().expect("faults").iter().map(|fault| &fault["path"]).collect();
    assert_eq!(paths, ["name", "version", "packages[0].registryType"], "{body}");
    let huge = json!({"name": "com.example/weather", "x": "x".repeat(1 << 20)});
    let refused = async {
        loop {
            let request = desk.http.post(format!("http://{}/v0.1/publish", desk.served.address)).bearer_auth(OPERATOR);
            // The answer may come before all of it has been sent; then the connection may end under it.
            if let Ok(response) = request.body(huge.to_string()).send().await {
                return response.status();
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, refused).await.expect("answered"), StatusCode::PAYLOAD_TOO_LARGE);
    let full = Catalogue::with_most(desk.catalogue.clone(), 1);
    full.publish(entry("com.example/one", "1.0.0")).await.expect("room");
    let error = full.publish(entry("com.example/two", "1.0.0")).await.expect_err("full").to_string();
    assert!(error.contains("1 entries"), "{error}");
}

#[tokio::test]
async fn files_folders_and_pages_of_other_registries_are_taken_in() {
    let desk = Desk::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, value: &Value| fs::write(folder.path().join(name), value.to_string()).expect("written");
    write("a.json", &entry("com.example/alone", "1.0.0"));
    write(
        "b.json",
        &json!({"servers": [
        {"server": entry("com.example/old", "1.0.0"), "_meta": {"io.modelcontextprotocol.registry/official":
            {"status": "deprecated", "statusMessage": "use new"}}},
        {"server": entry("wrong", "1.0.0")}], "metadata": {"nextCursor": "x", "count": 2}}),
    );
    write("c.txt", &json!("no entry"));
    let report = desk.catalogue.import(read_path(folder.path()).expect("read")).await.expect("imported");
    assert_eq!(report.added, ["com.example/alone@1.0.0", "com.example/old@1.0.0"]);
    let [(from, why)] = &report.refused[..] else { panic!("{report:?}") };
    assert!(from.contains("b.json, entry 2") && why.contains("name: 'wrong'"), "{from}: {why}");
    let old = desk.catalogue.version("com.example/old", "latest", false).await.expect("there");
    assert_eq!((old.status, old.status_message.as_deref()), (Status::Deprecated, Some("use new")));
    // What this one serves, another can take.
    let page = desk.get("servers").await;
    let (entries, next) = read_page(page).expect("a page");
    assert_eq!((entries.len(), next), (2, None));
    let other = Desk::new().await;
    assert_eq!(other.catalogue.import(entries).await.expect("imported").added.len(), 2);
    fs::write(folder.path().join("d.json"), "{").expect("written");
    let error = read_path(folder.path()).expect_err("no JSON").to_string();
    assert!(error.contains("d.json"), "{error}");
    assert!(read_path(Path::new("/nowhere/at/all")).is_err());
}

#[tokio::test]
async fn it_is_there_again_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let db = Db::open(folder.path()).expect("a store");
        let catalogue = Catalogue::new(db.clone());
        catalogue.publish(entry("com.example/weather", "1.0.0")).await.expect("published");
        let released = db.released();
        drop((db, catalogue));
        released.await;
    }
    let catalogue = Catalogue::new(Db::open(folder.path()).expect("a store"));
    let there = catalogue.version("com.example/weather", "latest", false).await.expect("there");
    assert_eq!(there.server, entry("com.example/weather", "1.0.0"));
}
