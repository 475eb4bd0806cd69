//! Records that no consumer can apply, from the log to the command and back.

use std::path::Path;

use echotune_api::events::USERS_TOPIC;
use echotune_eventlog::{EmbeddedEventLog, EventLog as _, Record};
use echotune_kit::embedded::Db;
use serde_json::Value;

use crate::{
    command::{json, refused, text},
    spans, start,
};

/// Puts a record that is no event into the log of a folder that nobody holds.
pub(crate) async fn spoil(data: &Path) {
    let db = Db::open(data).expect("open");
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let garbage = Record { key: "x".into(), value: vec![0xff; 9], traceparent, ..Record::default() };
    EmbeddedEventLog::new(db.clone()).append(USERS_TOPIC, vec![garbage]).await.expect("appended");
    let released = db.released();
    drop(db);
    released.await;
}

fn told(list: &Value) -> Vec<(String, u64, String)> {
    let rows = list["dead_letters"].as_array().expect("rows").iter();
    let mut told: Vec<_> = rows
        .map(|one| {
            let text = |key: &str| one[key].as_str().expect("text").to_owned();
            (text("consumer"), one["tries"].as_u64().expect("a number"), text("state"))
        })
        .collect();
    told.sort();
    told
}

fn row(consumer: &str, tries: u64, state: &str) -> (String, u64, String) {
    (consumer.into(), tries, state.into())
}

/// The span of a letter that a consumer set aside.
fn told_by(consumer: &str) -> String {
    format!("{consumer}.dead_letter")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_and_replayed_in_a_folder_and_on_a_platform() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().to_owned();
    json(&data, &["listen", "--user", "ann", "--artist", "Air", "--title", "Song"]);
    assert!(text(&data, &["dlq", "list"]).contains("no dead letters"));
    spoil(&data).await;
    let list = json(&data, &["dlq", "list"]);
    assert_eq!(told(&list), [row("agents", 1, "dead"), row("recommendations", 1, "dead")]);
    let first = &list["dead_letters"][0];
    assert_eq!(
        (&first["key"], &first["stream"], &first["region"]),
        (&"x".into(), &USERS_TOPIC.into(), &"local".into())
    );
    assert_eq!(first["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert!(first["reason"].as_str().expect("text").contains("not an event"), "{first}");
    let id = first["id"].as_str().expect("text").to_owned();
    let table = text(&data, &["dlq", "list", "--consumer", "agents"]);
    assert!(table.contains(&id) && table.contains("agents") && !table.contains("recommendations"), "{table}");
    refused(&data, &["dlq", "replay"], 2, "--id");
    refused(&data, &["dlq", "replay", "--id", "nowhere@1"], 3, "nowhere@1");
    refused(&data, &["dlq", "list", "--consumer", "nobody"], 3, "recommendations of users.v1");
    let receipt = json(&data, &["dlq", "replay", "--all", "--consumer", "agents"]);
    assert_eq!((&receipt["replayed"], &receipt["left"]), (&1.into(), &0.into()));
    let list = json(&data, &["dlq", "list"]);
    assert_eq!(told(&list), [row("agents", 2, "failed again"), row("recommendations", 1, "dead")]);

    let serving = start(&data, spans()).await;
    let on_platform = tokio::task::spawn_blocking(move || {
        let receipt = json(&data, &["dlq", "replay", "--all"]);
        assert_eq!((&receipt["replayed"], &receipt["left"]), (&1.into(), &1.into()));
        let receipt = json(&data, &["dlq", "replay", "--id", &id, "--consumer", "agents", "--again"]);
        assert_eq!((&receipt["replayed"], &receipt["left"]), (&1.into(), &0.into()));
        let wanted = [row("agents", 3, "failed again"), row("recommendations", 2, "failed again")];
        while told(&json(&data, &["dlq", "list"])) != wanted {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        // A span ends just after what it tells of is there.
        let is_told = |trace: &str| ["agents", "recommendations"].iter().all(|one| trace.contains(&told_by(one)));
        while !is_told(&text(&data, &["trace", "0af7651916cd43dd8448eb211c80319c"])) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    on_platform.await.expect("done");
    serving.stop().await.expect("stopped");
}

#[cfg(not(feature = "region"))]
#[test]
fn brokers_are_asked_by_a_program_that_was_built_for_them() {
    let folder = tempfile::tempdir().expect("folder");
    refused(folder.path(), &["dlq", "list", "--servers"], 1, "feature 'region'");
}

#[cfg(feature = "region")]
#[test]
fn brokers_that_do_not_answer_are_told_of() {
    let folder = tempfile::tempdir().expect("folder");
    let nobody = ["dlq", "list", "--servers", "--set", "kafka.bootstrap_servers=[\"127.0.0.1:1\"]"];
    refused(folder.path(), &nobody, 1, "the brokers did not tell the partitions");
}
