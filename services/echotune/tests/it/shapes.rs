//! The JSON that commands print is what JSON.md says, to the key.

use std::{path::Path, time::Duration};

use echotune::{Config, Connection, Platform, Serving};
use echotune_model::{Call, PlayCount, Tagging};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    LOOPBACK,
    command::{json, text},
    connect, direct,
    dlq::spoil,
    mcp,
    page::{shape, told},
    spans,
};

fn listen(data: &Path, user: &str, artist: &str, at: &str) -> Value {
    json(data, &["listen", "--user", user, "--artist", artist, "--title", "Song", "--at", at])
}

/// Listeners who know each other's artists, a tag and a platform on them.
async fn world(data: &Path) -> Serving {
    for (user, artist) in
        [("ann", "Air"), ("ann", "Moby"), ("ann", "Zero 7"), ("ben", "Air"), ("cat", "Moby"), ("cat", "Feist")]
    {
        listen(data, user, artist, "1700000000");
    }
    let mut to = direct(data).await;
    let tagging = |artist: &str, tag: &str| Tagging { artist: artist.into(), tag: tag.into(), tagged_at_ms: 0 };
    let mut tags = ["Air", "Moby", "Zero 7"].map(|artist| tagging(artist, "mellow")).to_vec();
    // What the first of the crowd plays is mellow, and half of what is near to it is not.
    let mellow = |n: u32| n < 12 || n.is_multiple_of(2);
    tags.extend((0..40).map(|n| tagging(&format!("Artist {n}"), if mellow(n) { "mellow" } else { "soul" })));
    to.users.add_taggings(&Call::internal(), "ann", tags).await.expect("tagged");
    crowd(&to).await;
    to.settle().await.expect("settled");
    to.close().await.expect("closed");
    // What nobody can apply is told of.
    spoil(data).await;
    // Lists that are evened out have changes to tell.
    let mut config = Config::default();
    config.fitting.recommendations.diversity_weight = 1.0;
    let platform = Platform::open_with(&config, data, spans()).expect("open");
    let serving = platform.serve(LOOPBACK.parse().expect("address")).await.expect("serve");
    // The cut of a blend is told of.
    let fitted = async {
        let to = connect(data, &serving).await;
        while to.operations.status(&Call::internal()).await.expect("status").cuts.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(120), fitted).await.expect("a blend serves");
    serving
}

/// Enough listeners for a training.
async fn crowd(to: &Connection) {
    for n in 0..110_u32 {
        let name = format!("listener{n}");
        to.users.create_user(&Call::internal(), &name).await.expect("created");
        let count =
            |step: u32| PlayCount { artist: format!("Artist {}", (n + step) % 40), plays: 2, source: "x".into() };
        let counts = (0..12).map(count).collect();
        to.users.set_play_counts(&Call::internal(), &name, counts).await.expect("set");
    }
}

/// What the commands about models print.
fn models(data: &Path) -> Vec<(&'static str, Value)> {
    let trained = json(data, &["model", "train", "--trials", "1", "--option", "blend.filter=0.5"]);
    let version = trained["version"].as_str().expect("a version").to_owned();
    json(data, &["model", "promote", &version, "--force", "--reason", "to see it"]);
    let file = data.join("model.onnx");
    let export = json(data, &["model", "export", "--onnx", file.to_str().expect("text")]);
    assert_eq!(std::fs::metadata(file).expect("written").len(), export["bytes"].as_u64().expect("a number"));
    vec![
        ("model train, model promote, model rollback, model cancel", trained),
        ("model list", json(data, &["model", "list"])),
        ("model show", json(data, &["model", "show", &version])),
        ("model card", json(data, &["model", "card"])),
        ("model export", export),
        ("model drift", json(data, &["model", "drift"])),
    ]
}

const NEW_EXPERIMENT: [&str; 9] = [
    "experiment",
    "create",
    "fewer",
    "--hypothesis",
    "two are enough",
    "--variant",
    "two:max_per_artist=2",
    "--guardrail",
    "refusal=0.02",
];

/// What each command prints.
fn printed(data: &Path) -> Vec<(&'static str, Value)> {
    let export = data.join("export.jsonl");
    let line = r#"{"listened_at": 1700000000, "track_metadata": {"track_name": "Song", "artist_name": "Feist"}}"#;
    std::fs::write(&export, format!("{line}\nno listen\n")).expect("written");
    let import = json(data, &["import", "listenbrainz", export.to_str().expect("text"), "--user", "dan"]);
    let list = json(data, &["recommend", "--user", "listener0"]);
    let trace = json(data, &["trace", list["trace_id"].as_str().expect("an id")]);
    let run = json(data, &["run", "listening-report", "--user", "ann"]);
    let id = run["id"].as_str().expect("an id").to_owned();
    let token = json(data, &["user", "token", "create", "ann"]);
    let token_id = token["id"].as_str().expect("an id").to_owned();
    let begun = json(data, &NEW_EXPERIMENT);
    json(data, &["recommend", "--user", "ann"]);
    let record = text(data, &["user", "export", "ann"]);
    let record = serde_json::from_str(record.lines().next().expect("a line")).expect("JSON");
    let models = models(data);
    let others = vec![
        ("recommend, explain, feedback", list),
        ("trace", trace),
        ("similar", json(data, &["similar", "Air"])),
        ("listen", listen(data, "ben", "Moby", "1700000060")),
        ("import", import),
        ("run, runs watch, runs cancel, runs approve, runs reject", run),
        ("runs", json(data, &["runs"])),
        ("runs show", json(data, &["runs", "show", &id])),
        ("runs workflows", json(data, &["runs", "workflows"])),
        ("experiment create", begun),
        ("experiment list", json(data, &["experiment", "list"])),
        ("experiment status, experiment stop", json(data, &["experiment", "status", "fewer"])),
        ("dlq list", json(data, &["dlq", "list"])),
        ("dlq replay", json(data, &["dlq", "replay", "--all"])),
        ("status", json(data, &["status"])),
        ("user list, user create", json(data, &["user", "list"])),
        ("user settings", json(data, &["user", "settings", "ann", "--block", "Moby"])),
        ("user token create", token),
        ("user token list", json(data, &["user", "token", "list", "ann"])),
        ("user token revoke", json(data, &["user", "token", "revoke", "ann", &token_id])),
        ("user export", record),
        ("user erase", json(data, &["user", "erase", "ann", "--yes"])),
    ];
    others.into_iter().chain(models).chain(mcp::printed(data)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_output_has_the_shape_that_the_page_tells() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().to_owned();
    let serving = world(&data).await;
    let printed = tokio::task::spawn_blocking(move || printed(&data)).await.expect("printed");
    serving.stop().await.expect("stopped");
    let mut told = told();
    // What needs a build with Parquet is printed, and compared, in `spark.rs`; what needs two platforms, in `migrate`.
    told.retain(|command, _| !["spark export", "migrate"].contains(&command.as_str()));
    // What needs training elsewhere or the servers of a region is made up, and compared, beside what prints it.
    let printed_elsewhere = ["region ", "schema", "spark candidates", "topics"];
    told.retain(|command, _| !printed_elsewhere.iter().any(|one| command.starts_with(one)));
    for (command, value) in printed {
        let shape = shape("", &value);
        assert_eq!(told.remove(command).as_deref(), Some(shape.as_str()), "{command}");
    }
    assert!(told.is_empty(), "told and not printed: {told:?}");
}
