//! The workflows that come along, against a server that speaks the contract.

use std::collections::BTreeMap;

use echotune_api::Agents as _;
use echotune_model::{Call, NewRun, RunEventKind, RunState};
use serde_json::{Value, json};

use crate::{
    contract::contract,
    faces::{Faces, follow, output, quick},
};

async fn faces() -> Faces {
    let all = echotune_agents::bundled();
    let texts: Vec<&str> = all.iter().map(|(_, text)| text.as_str()).collect();
    Faces::over(contract(), &texts, quick()).await
}

#[tokio::test]
async fn a_discovery_is_mostly_new_varied_explained_and_exported() {
    let faces = faces().await;
    let (run, events) = faces.run("weekly-discovery", "").await;
    let made = output(&run);
    let picks = made["picks"].as_array().expect("picks");
    assert_eq!(picks.len(), 20);
    let mut by_artist: BTreeMap<&str, usize> = BTreeMap::new();
    for pick in picks {
        *by_artist.entry(pick["artist"].as_str().expect("an artist")).or_default() += 1;
        assert_eq!(pick["because"], "Known 0; other_listens");
        assert!(pick["score"].as_f64().is_some_and(|score| score > 1.0));
    }
    assert!(by_artist.values().all(|count| *count <= 3), "{by_artist:?}");
    let new =
        picks.iter().filter(|pick| pick["artist"].as_str().is_some_and(|artist| artist.starts_with("New"))).count();
    assert!(new >= 10, "{new} of 20 are new");
    assert_eq!(made["title"], "Weekly discovery");
    for format in ["xspf", "m3u8", "jspf"] {
        assert_eq!(made[format], format!("{format} of {}", made["playlist_id"].as_str().expect("an id")));
    }
    let asked = faces.toolbox.seen("recommend");
    let excluded: Vec<usize> = asked
        .iter()
        .map(|call| call.arguments.get("exclude_artists").and_then(Value::as_array).map_or(0, Vec::len))
        .collect();
    assert_eq!(excluded, [0, 15, 30], "each closed gate leaves out more known artists");
    assert_eq!(faces.toolbox.effects.lock().expect("lock").len(), 1, "one playlist is made");
    let playlist = &faces.toolbox.seen("create_playlist")[0].arguments;
    assert_eq!(playlist["tracks"].as_array().expect("tracks").len(), 20);
    assert_eq!(playlist["description"], "20 tracks chosen by model m-7.");
    assert!(
        events
            .iter()
            .filter(|event| event.kind == RunEventKind::StepRetried)
            .all(|event| event.step.starts_with("fit"))
    );
}

#[tokio::test]
async fn a_discovery_that_cannot_be_says_which_condition_does_not_hold() {
    let faces = faces().await;
    let (run, _) = faces.run("weekly-discovery", r#"{"count": 100, "max_per_artist": 1, "min_new_share": 1}"#).await;
    assert_eq!(run.state, RunState::Failed);
    assert!(
        run.message.contains("gate 'fit#4' stays closed after 4 attempts; these do not hold: there are enough tracks"),
        "{run:?}"
    );
    assert!(faces.toolbox.seen("create_playlist").is_empty());
}

#[tokio::test]
async fn an_unknown_listener_is_named() {
    let faces = faces().await;
    let new = NewRun { workflow: "weekly-discovery".into(), user: "eve".into(), input: String::new() };
    let id = faces.object.start_run(&Call::internal(), new).await.expect("started").id;
    let (run, _) = follow(&faces.object, id).await;
    assert!(run.state == RunState::Failed && run.message.contains("NOT_FOUND: user 'eve'"), "{run:?}");
}

#[tokio::test]
async fn a_report_is_data_and_text() {
    let faces = faces().await;
    let (run, _) = faces.run("listening-report", r#"{"top": 2, "recent": 1}"#).await;
    let made = output(&run);
    assert_eq!(made["report"]["listens"], 1234);
    assert_eq!(made["report"]["by_hour"].as_array().map(Vec::len), Some(24));
    assert_eq!(made["report"]["top_artists"][1]["artist"], "Known 1");
    assert_eq!(
        made["report"]["recent"],
        json!([{"id": "0", "title": "Song 0", "artist": "Known 0", "album": "", "listened_at_ms": 1_600_000_000_000_u64}])
    );
    let text = made["text"].as_str().expect("text");
    assert_eq!(
        text,
        "ann has 1234 listens of 200 tracks by 40 artists.\n\
         Most played artists: Known 0 (100), Known 1 (99).\n\
         Most played tracks: Hit 0 by Known 0, Hit 1 by Known 1.\n\
         Heard last: Song 0 by Known 0.\n"
    );
}
