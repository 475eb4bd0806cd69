//! Agents on the real platform: its own tools, over MCP.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use echotune::{demo, import::Progress};
use echotune_model::{Call, ErrorKind, NewRun, PageRequest, Run, RunState};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    command::{json, refused, text},
    direct,
    faults::{platform, signal},
};

/// A generated world; the name of its first listener.
async fn world(data: &Path) -> String {
    let mut to = direct(data).await;
    let shape = demo::Shape { listeners: 40, artists: 60, tracks: 600, listens: 4_000 };
    demo::load(to.users.clone(), &Call::internal(), data, &shape, 7, 1_760_000_000_000, &Progress::hidden())
        .await
        .expect("loaded");
    to.settle().await.expect("settled");
    let page = PageRequest { size: 1, ..PageRequest::default() };
    let name = to.users.list_users(&Call::internal(), &page).await.expect("listed").rows[0].name.to_string();
    to.close().await.expect("closed");
    name
}

const WORKFLOW: &str = "weekly-discovery";

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_is_made_exported_told_and_erased() {
    let folder = tempfile::tempdir().expect("folder");
    let (data, files) = (folder.path().join("data"), folder.path().join("files"));
    let user = world(&data).await;
    let wanted = ["run", WORKFLOW, "--user", &user, "-i", "count=5", "-i", "min_new_share=0.2", "-i", "title=Five"];
    let run = json(&data, &[&wanted[..], &["--export", files.to_str().expect("text")]].concat());
    assert_eq!((&run["state"], &run["output"]["title"]), (&json!("succeeded"), &json!("Five")), "{run}");
    let picks = run["output"]["picks"].as_array().expect("picks");
    assert_eq!(picks.len(), 5);
    assert!(picks.iter().all(|pick| pick["because"].as_str().is_some_and(|why| !why.is_empty())), "{run}");
    let id = run["id"].as_str().expect("an id");
    let file = |format: &str| fs::read_to_string(files.join(format!("{WORKFLOW}-{id}.{format}"))).expect("written");
    let title = picks[0]["title"].as_str().expect("a title");
    assert!(file("xspf").contains("<playlist") && file("m3u8").starts_with("#EXTM3U") && file("m3u8").contains(title));
    let jspf: Value = serde_json::from_str(&file("jspf")).expect("JSON");
    assert_eq!(jspf["playlist"]["track"].as_array().expect("tracks").len(), 5);

    let report = json(&data, &["run", "listening-report", "--user", &user]);
    assert_eq!(report["state"], "succeeded", "{report}");
    assert!(text(&data, &["runs"]).contains("listening-report"));
    let shown = json(&data, &["runs", "show", id]);
    let kinds: Vec<_> = shown["journal"].as_array().expect("a journal").iter().map(|entry| &entry["kind"]).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), (&json!("run_started"), &json!("run_ended")), "{shown}");
    assert!(text(&data, &["runs", "workflows"]).contains(WORKFLOW));
    refused(&data, &["run", "no-such", "--user", &user], 3, WORKFLOW);
    refused(&data, &["run", WORKFLOW, "--user", "nobody"], 3, "nobody");
    refused(&data, &["run", WORKFLOW, "--user", &user, "-i", "count=0"], 2, "count");
    refused(&data, &["runs", "cancel", id], 1, "has succeeded already");

    let export = text(&data, &["user", "export", &user]);
    let records: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let runs: BTreeSet<_> =
        records.iter().filter(|one| one["kind"] == "run").map(|one| one["record"]["id"].to_string()).collect();
    assert_eq!(runs, [&run["id"], &report["id"]].map(Value::to_string).into());
    assert_eq!(json(&data, &["user", "erase", &user, "--yes"])["erased"]["playlist"], 1);
    assert_eq!(json(&data, &["runs"])["runs"], json!([]));
}

#[test]
fn workflows_of_the_folder_are_taken_or_refused_by_line() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    json(data, &["listen", "--user", "ann", "--artist", "Air", "--title", "Talisman"]);
    fs::create_dir(data.join("workflows")).expect("made");
    let path = data.join("workflows/count.yaml");
    let workflow = "name: count\ndescription: Counts listens.\nversion: 1\nbudget: {steps: 5, tool_calls: 5, wall_ms: 60000}\nsteps:\n  - id: all\n    type: tool\n    tool: listening_summary\n    args: {user: \"${ user }\"}\noutput:\n  value: {listens: \"${ steps.all.listens }\"}\n";
    fs::write(&path, workflow).expect("written");
    assert_eq!(json(data, &["run", "count", "--user", "ann"])["output"], json!({"listens": 1}));
    fs::write(&path, workflow.replace("listening_summary", "no_such_tool")).expect("written");
    refused(data, &["runs", "workflows"], 1, "count.yaml:8:");
    refused(data, &["runs", "workflows"], 1, "no_such_tool");
}

#[test]
fn a_run_waits_for_a_person_and_goes_on_when_told() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    json(data, &["listen", "--user", "ann", "--artist", "Air", "--title", "Talisman"]);
    fs::create_dir(data.join("workflows")).expect("made");
    let workflow = "name: ask\ndescription: Asks first.\nversion: 1\nbudget: {steps: 5, tool_calls: 5, wall_ms: 60000}\nsteps:\n  - {id: sure, type: approval, message: Really?}\n  - id: all\n    type: tool\n    tool: listening_summary\n    args: {user: \"${ user }\"}\noutput:\n  value: {listens: \"${ steps.all.listens }\"}\n";
    fs::write(data.join("workflows/ask.yaml"), workflow).expect("written");
    // Many times, since what is journalled and what the state says come one after the other.
    for _ in 0..5 {
        let run = json(data, &["run", "ask", "--user", "ann"]);
        let id = run["id"].as_str().expect("an id");
        assert_eq!(run["state"], "awaiting_approval", "{run}");
        json(data, &["runs", "approve", id, "--comment", "Yes."]);
        let run = json(data, &["runs", "watch", id]);
        assert_eq!((&run["state"], &run["output"]["listens"]), (&json!("succeeded"), &json!(1)), "{run}");
        refused(data, &["runs", "approve", id], 1, "no step of run");
    }
    let run = text(data, &["run", "ask", "--user", "ann"]);
    assert!(run.contains("echotune runs approve"), "{run}");
    let run = json(data, &["run", "ask", "--user", "ann"]);
    let cancelled = json(data, &["runs", "cancel", run["id"].as_str().expect("an id")]);
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_killed_in_the_middle_of_runs_ends_each_with_one_playlist() {
    const RUNS: usize = 6;
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    let user = world(data).await;
    let (mut child, to) = platform(data).await;
    let agents = to.agents.clone().expect("agents");
    let mut ids = Vec::new();
    for number in 0..RUNS {
        let input = json!({"count": 3, "min_new_share": 0.0, "title": format!("Playlist {number}")}).to_string();
        let new = NewRun { workflow: WORKFLOW.into(), user: user.clone(), input };
        ids.push(agents.start_run(&Call::internal(), new).await.expect("started").id);
    }
    drop((agents, to));
    // Later and later, so that each kill finds other steps under way.
    for round in 0.. {
        sleep(Duration::from_millis(15 * round)).await;
        signal(&child, "-KILL").await;
        child.wait().await.expect("ended");
        let again = platform(data).await;
        child = again.0;
        let page = PageRequest::default();
        let agents = again.1.agents.clone().expect("agents");
        let runs: Vec<Run> = agents.list_runs(&Call::internal(), &user, &page).await.expect("listed").rows;
        assert_eq!(runs.len(), RUNS, "every acknowledged run is there");
        if runs.iter().all(|run| run.state.is_final()) || round > 20 {
            let ended = async {
                for id in &ids {
                    let mut seen = 0;
                    loop {
                        match agents.watch_run(&Call::internal(), *id, seen).await {
                            Ok(events) if events.is_empty() => break,
                            Ok(events) => seen = events.last().map_or(seen, |event| event.sequence),
                            Err(fault) => assert_eq!(fault.kind, ErrorKind::DeadlineExceeded, "{fault:?}"),
                        }
                    }
                }
            };
            timeout(Duration::from_secs(120), ended).await.expect("a run never ended");
            for id in &ids {
                let run = agents.get_run(&Call::internal(), *id).await.expect("read");
                assert_eq!(run.state, RunState::Succeeded, "{run:?}");
            }
            let playlists = again.1.users.list_playlists(&Call::internal(), &user, &page).await.expect("listed").rows;
            let mut titles: Vec<_> = playlists.into_iter().map(|playlist| playlist.content.title).collect();
            titles.sort();
            let expected: Vec<_> = (0..RUNS).map(|number| format!("Playlist {number}")).collect();
            assert_eq!(titles, expected, "one playlist for each run");
            break;
        }
    }
    signal(&child, "-TERM").await;
    assert!(child.wait().await.expect("ended").success());
}
