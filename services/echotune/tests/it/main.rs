//! The whole platform, as its users meet it: over gRPC, on a data folder.

mod command;
mod dlq;
mod double;
mod faults;
mod gateway;
#[cfg(feature = "identity")]
mod identity;
mod import;
mod mcp;
mod migrate;
mod page;
mod rpcs;
mod runs;
mod shapes;
mod spark;
#[cfg(feature = "tls")]
mod tls;

use std::{path::Path, sync::OnceLock, time::Duration};

use echotune::{Config, Connection, Platform, Serving, demo, import::Progress};
use echotune_api::RecommendQuery;
use echotune_kit::telemetry::{self, SpanStore};
use echotune_model::{
    Call, ErrorKind, ItemKind, Listen, ListenReceipt, NewToken, PageRequest, PlayCount, Recommendations, Role, Track,
};
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

/// The spans of this process: the first subscriber stays.
fn spans() -> SpanStore {
    static SPANS: OnceLock<SpanStore> = OnceLock::new();
    SPANS.get_or_init(|| telemetry::init("off")).clone()
}

const LOOPBACK: &str = "127.0.0.1:0";

async fn start(folder: &Path, spans: SpanStore) -> Serving {
    let platform = Platform::open(folder, spans).expect("open");
    platform.serve(LOOPBACK.parse().expect("address")).await.expect("serve")
}

async fn connect(folder: &Path, serving: &Serving) -> Connection {
    Connection::remote(folder, serving.address).await.expect("connect")
}

fn listen(artist: &str, title: &str, minute: i64) -> Listen {
    let track = Track { title: title.into(), artist: artist.into(), album: String::new() };
    Listen {
        listened_at_ms: 1_700_000_000_000 + minute * 60_000,
        track,
        played_ms: 0,
        source: String::new(),
        explicit: None,
    }
}

async fn record(to: &Connection, user: &str, artists: &[&str]) -> ListenReceipt {
    drop(to.users.create_user(&Call::internal(), user).await);
    let listens = (0..).zip(artists).map(|(minute, artist)| listen(artist, "Song", minute)).collect();
    to.users.record_listens(&Call::internal(), user, listens).await.expect("recorded")
}

async fn recommend(to: &Connection, user: &str) -> Recommendations {
    let query = RecommendQuery { kind: ItemKind::Artist, limit: 10, include_known: false };
    to.recommendations.recommend(&Call::internal(), user, &query).await.expect("recommended")
}

/// Asks again until the answer has seen `receipt` and satisfies `wanted`.
async fn recommend_after(
    to: &Connection,
    user: &str,
    receipt: &ListenReceipt,
    wanted: fn(&Recommendations) -> bool,
) -> Recommendations {
    let seen = async {
        loop {
            let query = RecommendQuery { kind: ItemKind::Artist, limit: 10, include_known: false };
            match to.recommendations.recommend(&Call::internal(), user, &query).await {
                Ok(list) if list.watermark >= receipt.written_at && wanted(&list) => return list,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(Duration::from_secs(60), seen).await.expect("the list never saw the listens")
}

fn assert_reasons_sum(list: &Recommendations) {
    assert!(!list.items.is_empty());
    for item in &list.items {
        let sum: f64 = item.base + item.reasons.iter().map(|reason| reason.contribution).sum::<f64>();
        assert!((sum - item.score).abs() < 1e-5, "{item:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listen_becomes_an_explained_recommendation_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let serving = start(folder.path(), SpanStore::default()).await;
    let to = connect(folder.path(), &serving).await;
    record(&to, "ann", &["Björk", "Portishead", "Radiohead"]).await;
    record(&to, "ben", &["Portishead", "Massive Attack"]).await;
    let receipt = record(&to, "cat", &["Portishead"]).await;
    let list = recommend_after(&to, "cat", &receipt, |list| !list.cold_start && list.items.len() == 3).await;
    assert_reasons_sum(&list);
    assert!(list.items.iter().all(|item| item.artist != "Portishead"));
    assert_eq!(list.items[0].artist, "Massive Attack");
    assert!(list.items.iter().all(|item| item.reasons[0].of == "Portishead"), "{list:?}");

    // A new listen changes the next answer without a refit of the graph.
    let version = list.model_version.clone();
    let receipt = record(&to, "cat", &["Portishead", "Massive Attack"]).await;
    assert_eq!((receipt.recorded, receipt.duplicates), (1, 1));
    let changed = recommend_after(&to, "cat", &receipt, |_| true).await;
    assert!(changed.items.iter().all(|item| item.artist != "Massive Attack"));
    assert!(!version.is_empty());

    serving.stop().await.expect("stopped");
    drop(to);
    let again = direct(folder.path()).await;
    let restarted = recommend_after(&again, "cat", &receipt, |list| !list.cold_start).await;
    assert_reasons_sum(&restarted);
    assert_eq!(restarted.items.len(), changed.items.len());
    again.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_reach_their_tools_at_any_address_that_is_served() {
    let folder = tempfile::tempdir().expect("folder");
    let platform = Platform::open(folder.path(), SpanStore::default()).expect("open");
    let serving = platform.serve("127.0.0.2:0".parse().expect("address")).await.expect("serve");
    let to = connect(folder.path(), &serving).await;
    let workflows = to.agents.as_ref().expect("agents").list_workflows(&Call::internal()).await.expect("listed");
    assert!(!workflows.is_empty());
    drop(to);
    serving.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_in_one_process_share_nothing() {
    let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let first = start(one.path(), SpanStore::default()).await;
    let second = start(two.path(), SpanStore::default()).await;
    let (to_first, to_second) = (connect(one.path(), &first).await, connect(two.path(), &second).await);
    record(&to_first, "ann", &["Björk"]).await;
    let unknown = to_second.users.get_user(&Call::internal(), "ann").await.expect_err("unknown");
    assert_eq!(unknown.kind, ErrorKind::NotFound);
    let wrong_token = Connection::remote(two.path(), first.address).await.expect("connect");
    let refused = wrong_token.users.get_user(&Call::internal(), "ann").await.expect_err("refused");
    assert_eq!(refused.kind, ErrorKind::Unauthenticated);
    first.stop().await.expect("stopped");
    record(&to_second, "ann", &["Björk"]).await;
    second.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_records_a_listen_by_a_token_of_their_own() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let serving = start(folder.path(), SpanStore::default()).await;
    let to = connect(folder.path(), &serving).await;
    to.users.create_user(&Call::internal(), "ann").await.expect("made");
    let token = NewToken { label: "player".into(), role: Role::Writer, expires_at_ms: 0 };
    let (_, secret) = to.users.create_token(&Call::internal(), "ann", token).await.expect("made");
    let token_file = elsewhere.path().join("token");
    std::fs::write(&token_file, secret).expect("written");
    let listen = |user: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_echotune"));
        command.env("ECHOTUNE__CONNECT__SERVICES", format!("http://{}", serving.address));
        command.env("ECHOTUNE__CONNECT__TOKEN_FILE", &token_file);
        command.arg("--data").arg(elsewhere.path().join("none"));
        command.args(["listen", "--user", user, "--artist", "Air", "--title", "Talisman"]);
        command.output()
    };
    let done = listen("ann").await.expect("started");
    assert!(done.status.success(), "{done:?}");
    let page = to.users.list_listens(&Call::internal(), "ann", &PageRequest::default()).await.expect("listed");
    assert_eq!(page.rows.len(), 1);
    // Another's account is neither made nor written to.
    let done = listen("ben").await.expect("started");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("'ann'"), "{said}");
    let absent = to.users.get_user(&Call::internal(), "ben").await.expect_err("not made");
    assert_eq!(absent.kind, ErrorKind::NotFound);
    serving.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let serving = start(folder.path(), SpanStore::default()).await;
    let to = connect(folder.path(), &serving).await;
    record(&to, "ann", &["Björk"]).await;
    let call = Call::internal();
    for limit in [0, 501] {
        let query = RecommendQuery { kind: ItemKind::Track, limit, include_known: false };
        let fault = to.recommendations.recommend(&call, "ann", &query).await.expect_err("refused");
        assert_eq!(fault.kind, ErrorKind::InvalidArgument);
        assert!(fault.message.contains(&limit.to_string()), "{fault}");
    }
    let query = RecommendQuery { kind: ItemKind::Track, limit: 1, include_known: false };
    let fault = to.recommendations.recommend(&call, "nobody", &query).await.expect_err("unknown");
    assert_eq!(fault.kind, ErrorKind::NotFound);
    assert!(fault.message.contains("nobody"));
    let fault = to.users.create_user(&call, "two words").await.expect_err("refused");
    assert_eq!(fault.kind, ErrorKind::InvalidArgument);
    let fault = to.users.record_listens(&call, "ann", vec![]).await.expect_err("refused");
    assert_eq!(fault.kind, ErrorKind::InvalidArgument);
    let port = serving.address;
    let other = tempfile::tempdir().expect("folder");
    let taken = Platform::open(other.path(), SpanStore::default()).expect("open").serve(port).await;
    let error = format!("{:#}", taken.err().expect("the port is taken"));
    assert!(error.contains("--listen"), "{error}");
    serving.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_to_the_consumer() {
    let spans = spans();
    let folder = tempfile::tempdir().expect("folder");
    let serving = start(folder.path(), spans.clone()).await;
    let to = connect(folder.path(), &serving).await;
    let root = tracing::info_span!(target: "echotune", "test");
    let trace = telemetry::trace_of(&root);
    let receipt = record(&to, "ann", &["Björk"]).instrument(root.clone()).await;
    drop(root);
    recommend_after(&to, "ann", &receipt, |_| true).await;
    // Which of the spans ends first is not known, and the new account is consumed too.
    let found = async {
        loop {
            let spans = to.operations.trace(&Call::internal(), trace).await.unwrap_or_default();
            let rpc = spans.iter().find(|span| span.name == "echotune.users.v1.UsersService/RecordListens");
            let rpc = rpc.map_or("", |rpc| rpc.span_id.as_str());
            let is_below = |name: &str| spans.iter().any(|span| span.name == name && span.parent_span_id == rpc);
            if !rpc.is_empty() && is_below("users.record_listens") && is_below("recommendations.consume") {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let found = timeout(Duration::from_secs(60), found).await;
    let spans = to.operations.trace(&Call::internal(), trace).await;
    assert!(found.is_ok(), "the request does not lead to its service and its consumer: {spans:#?}");
    recommend(&to, "ann").await;
    serving.stop().await.expect("stopped");
}

fn count(artist: &str, plays: u32) -> PlayCount {
    PlayCount { artist: artist.into(), plays, source: "elsewhere".into() }
}

async fn direct(folder: &Path) -> Connection {
    Connection::to(&Config::default(), folder, SpanStore::default()).await.expect("open")
}

#[tokio::test(flavor = "multi_thread")]
async fn play_counts_make_recommendations_and_an_erased_listener_leaves_no_trace_in_them() {
    let folder = tempfile::tempdir().expect("folder");
    let call = Call::internal();
    let to = direct(folder.path()).await;
    for (user, artists) in
        [("ann", ["Björk", "Portishead"]), ("ben", ["Björk", "Autechre"]), ("cat", ["Björk", "Björk"])]
    {
        to.users.create_user(&call, user).await.expect("created");
        let counts = artists.iter().map(|artist| count(artist, 10)).collect();
        to.users.set_play_counts(&call, user, counts).await.expect("counted");
    }
    // Closed at once: what the relay had not moved yet must show when the folder is opened again.
    to.close().await.expect("closed");

    let mut to = direct(folder.path()).await;
    let artists = |list: &Recommendations| {
        let mut artists: Vec<_> = list.items.iter().map(|item| item.artist.clone()).collect();
        artists.sort();
        artists
    };
    let list = recommend(&to, "cat").await;
    assert_reasons_sum(&list);
    assert!(!list.cold_start);
    assert_eq!(artists(&list), ["Autechre", "Portishead"]);

    let receipt = to.users.erase_user(&call, "ben").await.expect("erased");
    assert_eq!(receipt.erased.get("play_count"), Some(&2), "{receipt:?}");
    to.settle().await.expect("settled");
    let contribution = |list: &Recommendations, of: &str| {
        let item = list.items.iter().find(|item| item.artist == of);
        item.map_or(0.0, |item| item.reasons.iter().filter(|reason| reason.of == "Björk").map(|r| r.contribution).sum())
    };
    let after = recommend(&to, "cat").await;
    assert!(contribution(&list, "Autechre") > 0.0);
    assert_eq!(contribution(&after, "Autechre"), 0.0, "only ben had linked the two");
    let query = RecommendQuery { kind: ItemKind::Artist, limit: 10, include_known: false };
    let fault = to.recommendations.recommend(&call, "ben", &query).await.expect_err("erased");
    assert_eq!(fault.kind, ErrorKind::NotFound);
    to.close().await.expect("closed");

    let mut to = direct(folder.path()).await;
    let restarted = recommend(&to, "cat").await;
    assert_eq!(contribution(&restarted, "Autechre"), 0.0, "nor does the store remember");
    to.users.create_user(&call, "ben").await.expect("the name is free");
    to.settle().await.expect("settled");
    assert!(recommend(&to, "ben").await.cold_start);
    to.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_demo_is_recommended_from_and_loads_once() {
    let folder = tempfile::tempdir().expect("folder");
    let mut to = direct(folder.path()).await;
    let shape = demo::Shape { listeners: 40, artists: 60, tracks: 400, listens: 4_000 };
    let (call, hidden) = (Call::internal(), Progress::hidden());
    let users = to.users.clone();
    let load = || demo::load(users.clone(), &call, folder.path(), &shape, 7, 1_760_000_000_000, &hidden);
    load().await.expect("loaded");
    to.settle().await.expect("settled");
    let counts = to.operations.status(&call).await.expect("status").counts;
    assert_eq!((counts["users"], counts["listens"]), (40, 4_000));
    let page = PageRequest { size: 1, ..PageRequest::default() };
    let name = to.users.list_users(&call, &page).await.expect("listed").rows[0].name.to_string();
    assert_reasons_sum(&recommend(&to, &name).await);
    load().await.expect("loaded");
    to.settle().await.expect("settled");
    assert_eq!(to.operations.status(&call).await.expect("status").counts, counts);
    drop(users);
    to.close().await.expect("closed");
}
