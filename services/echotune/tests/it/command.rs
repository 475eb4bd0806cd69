//! The command as a person or a script meets it: its own process, its exit codes and its output.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

pub(crate) fn echotune(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echotune"));
    // A command that takes its time would fit another model on the folder, and the next one list by that. What speaks
    // to servers has no models.
    if !arguments.contains(&"--servers") {
        command.env("ECHOTUNE__RECOMMENDATIONS__REFIT_DEBOUNCE", "1h");
    }
    command.arg("--data").arg(folder).args(arguments).stdin(Stdio::null()).output().expect("started")
}

pub(crate) fn text(folder: &Path, arguments: &[&str]) -> String {
    let output = echotune(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) fn json(folder: &Path, arguments: &[&str]) -> Value {
    let text = text(folder, &[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{cause}: {text}"))
}

/// What a command prints that ends with code 1.
pub(crate) fn json_of_failed(folder: &Path, arguments: &[&str]) -> Value {
    let output = echotune(folder, &[arguments, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|cause| panic!("{cause}: {output:?}"))
}

pub(crate) fn refused(folder: &Path, arguments: &[&str], code: i32, why: &str) {
    let output = echotune(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(error.contains(why), "{arguments:?}: {error}");
}

#[test]
fn a_history_is_heard_recommended_from_exported_and_erased() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    for (user, artist) in [("ann", "Björk"), ("ann", "Autechre"), ("ben", "Björk")] {
        let receipt =
            json(data, &["listen", "--user", user, "--artist", artist, "--title", "Song", "--at", "1700000000"]);
        assert_eq!(receipt["recorded"], 1, "{receipt}");
    }
    let list = json(data, &["recommend", "--user", "ben"]);
    let item = &list["recommendations"][0];
    assert_eq!((&item["artist"], &item["rank"], &item["kind"]), (&"Autechre".into(), &1.into(), &"artist".into()));
    let reasons = item["reasons"].as_array().expect("reasons").iter();
    let sum =
        item["base"].as_f64().expect("base") + reasons.filter_map(|one| one["contribution"].as_f64()).sum::<f64>();
    assert!((sum - item["score"].as_f64().expect("score")).abs() < 1e-5, "{list}");
    for key in ["model_version", "watermark", "trace_id"] {
        assert!(!list[key].is_null(), "{key} is missing in {list}");
    }
    let table = text(data, &["recommend", "--user", "ben", "--kind", "track", "--explain"]);
    assert!(table.contains("Autechre – Song") && table.contains("base"), "{table}");
    assert_eq!(json(data, &["status"])["counts"]["listens"], 3);
    assert!(text(data, &["status"]).contains("listens"));

    let why = json(data, &["explain", "--user", "ben", "autechre"]);
    assert_eq!(why["recommendations"][0]["score"], list["recommendations"][0]["score"], "{why}");
    assert!(text(data, &["explain", "--user", "ben", "Autechre - Song", "--kind", "track"]).contains("base"));
    assert!(text(data, &["recommend", "--user", "ann"]).contains("--include-known"), "ann knows all there is");
    let near = json(data, &["similar", "Björk"]);
    assert_eq!(
        (&near["item"]["artist"], &near["similar"][0]["artist"]),
        (&"Björk".into(), &"Autechre".into()),
        "{near}"
    );
    assert!(text(data, &["similar", "Björk - Song", "--kind", "track"]).contains("Autechre"));
    refused(data, &["similar", "Nobody"], 3, "Nobody");
    refused(data, &["similar", "song", "--kind", "track"], 2, "several tracks");
    let listen = ["listen", "--user", "ben", "--artist", "Autechre", "--title", "Song", "--at", "1700000060"];
    let heard = json(data, &listen);
    assert_eq!((&heard["recorded"], &heard["recommendations"]), (&1.into(), &Value::Array(vec![])), "{heard}");
    assert!(text(data, &listen).contains("1 duplicate"));

    let export = text(data, &["user", "export", "ann"]);
    let records: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records.iter().filter(|record| record["kind"] == "listen").count(), 2, "{export}");
    let mut unconfirmed = Command::new(env!("CARGO_BIN_EXE_echotune"));
    unconfirmed.arg("--data").arg(data).args(["user", "erase", "ann"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut unconfirmed = unconfirmed.spawn().expect("started");
    unconfirmed.stdin.take().expect("stdin").write_all(b"ben\n").expect("typed");
    let output = unconfirmed.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(json(data, &["user", "erase", "ann", "--yes"])["erased"]["listen"], 2);
    refused(data, &["recommend", "--user", "ann"], 3, "ann");
    assert!(text(data, &["user", "erase", "ben", "--yes"]).contains("receipt"));
}

#[test]
fn a_name_that_is_part_of_many_others_is_found_by_itself() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    for (artist, title) in
        (0..12).map(|n| (format!("Air {n}"), "Intro".to_owned())).chain([("Air".into(), "Intro".into())])
    {
        json(data, &["listen", "--user", "ann", "--artist", &artist, "--title", &title, "--at", "1700000000"]);
    }
    assert_eq!(json(data, &["similar", "air"])["item"]["artist"], "Air");
    assert_eq!(json(data, &["similar", "Air - Intro", "--kind", "track"])["item"]["artist"], "Air");
    refused(data, &["similar", "intro", "--kind", "track"], 2, "name one by its id");
}

#[test]
fn an_export_is_imported_once_and_the_wrong_one_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let (data, export) = (folder.path().join("data"), folder.path().join("export.zip"));
    echotune::demo::write_listenbrainz(&export, 200, 3).expect("written");
    let path = export.to_str().expect("text");
    let wanted = ["import", "listenbrainz", path, "--user", "ann"];
    assert_eq!(json(&data, &wanted)["rows"]["listens"]["imported"], 200);
    assert_eq!(json(&data, &wanted)["rows"]["listens"]["duplicate"], 200);
    assert!(text(&data, &wanted).contains("200"));
    refused(&data, &["import", "lastfm-hetrec", path], 2, "looks like a ListenBrainz export");
    refused(&data, &["import", "tapes", path], 2, "possible values");
}

#[test]
fn bad_usage_and_bad_configuration_have_their_own_exit_codes() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    refused(data, &["recommend", "--user", "nobody"], 3, "holds no data");
    let mistyped = data.join("mistyped");
    refused(&mistyped, &["status"], 3, "--data");
    assert!(!mistyped.exists(), "a command that reads makes no folder");
    refused(data, &["up", "--listen", "0.0.0.0:0"], 1, "allow_plaintext");
    refused(data, &["recommend", "--user", "nobody"], 3, "user 'nobody' does not exist");
    refused(data, &["listen", "--user", "a", "--artist", "b", "--title", ""], 2, "title is empty");
    refused(data, &["recommend", "--user", "a"], 3, "user 'a' does not exist");
    refused(
        data,
        &["listen", "--user", "a", "--artist", "b", "--title", "c", "--at", "noon"],
        2,
        "2024-05-17T20:15:00Z",
    );
    json(data, &["listen", "--user", "a", "--artist", "b", "--title", "c"]);
    refused(data, &["up", "--demo", "--listen", "127.0.0.1:0"], 1, "holds accounts");
    refused(data, &["trace", "xyz"], 2, "32 hexadecimal digits");
    refused(data, &["trace", &format!("+{}", "0".repeat(31))], 2, "32 hexadecimal digits");
    refused(data, &["listen", "--user", "a", "--artist", "b", "--title", "c", "--at", "5"], 2, "not recorded");
    refused(data, &["--set", "limits.deadline_max=soon", "status"], 64, "limits.deadline_max");
    refused(data, &["--set", "limits.deadline_max=1ms", "--set", "nothing=1", "status"], 64, "nothing");
    let printed = text(data, &["--print-config"]);
    fs::write(data.join("config.toml"), &printed).expect("written");
    assert_eq!(text(data, &["--print-config"]).lines().count(), printed.lines().count());
    refused(data, &["--output", "json"], 2, "--help");
    assert!(text(data, &["man"]).contains(".TH"));
    assert!(text(data, &["completions", "bash"]).contains("echotune"));
}

#[test]
fn accounts_have_settings_tokens_and_opinions() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    for (user, artist) in [("ann", "Air"), ("ann", "Moby"), ("ann", "Zero 7"), ("ben", "Air")] {
        json(data, &["listen", "--user", user, "--artist", artist, "--title", "Song"]);
    }
    assert_eq!(json(data, &["user", "list"])["users"].as_array().expect("rows").len(), 2);
    assert!(text(data, &["user", "list", "-n", "1"]).contains("ann"));

    let artists = |list: &Value| -> Vec<String> {
        let rows = list["recommendations"].as_array().expect("rows").iter();
        let mut artists: Vec<String> = rows.filter_map(|row| row["artist"].as_str()).map(str::to_owned).collect();
        artists.sort();
        artists
    };
    assert_eq!(artists(&json(data, &["recommend", "--user", "ben"])), ["Moby", "Zero 7"]);
    assert_eq!(artists(&json(data, &["feedback", "--user", "ben", "zero 7", "disliked"])), ["Moby"]);
    let blocked = json(data, &["user", "settings", "ben", "--block", "MOBY", "--private", "true"]);
    assert_eq!(blocked, serde_json::json!({"blocked_artists": ["MOBY"], "explicit": "allow", "private": true}));
    assert!(artists(&json(data, &["recommend", "--user", "ben"])).is_empty());
    json(data, &["user", "settings", "ben", "--unblock", "moby"]);
    assert!(text(data, &["user", "settings", "ben"]).contains("true"));
    assert_eq!(artists(&json(data, &["recommend", "--user", "ben"])), ["Moby"]);

    let token = json(data, &["user", "token", "create", "ben", "--role", "writer", "--expires", "30days"]);
    let id = token["id"].as_str().expect("an id");
    assert!(token["secret"].as_str().is_some_and(|secret| secret.len() > 20), "{token}");
    let listed = text(data, &["user", "token", "list", "ben"]);
    assert!(listed.contains(id) && !listed.contains(token["secret"].as_str().expect("a secret")), "{listed}");
    assert_eq!(json(data, &["user", "token", "revoke", "ben", id])["revoked"], true);
    assert_eq!(json(data, &["user", "token", "list", "ben"])["tokens"], serde_json::json!([]));
    refused(data, &["user", "token", "create", "ben", "--expires", "soon"], 2, "length of time");

    assert_eq!(json(data, &["user", "create", "cat"])["users"][0]["name"], "cat");
    refused(data, &["user", "create", "CAT"], 1, "taken");
    assert_eq!(json(data, &["user", "list"])["users"].as_array().expect("rows").len(), 3);
}

#[test]
fn an_experiment_is_begun_looked_at_and_stopped() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    for (user, artist) in [("ann", "Air"), ("ann", "Moby"), ("ben", "Air")] {
        json(data, &["listen", "--user", user, "--artist", artist, "--title", "Song"]);
    }
    assert!(text(data, &["experiment", "list"]).contains("experiment create --help"));
    let create = |name: &'static str, more: &[&'static str]| {
        [&["experiment", "create", name, "--hypothesis", "popular is liked"], more].concat()
    };
    let popular = ["--variant", "popular:trending_weight=0.5,weight=2500"];
    assert!(text(data, &create("popular", &popular)).contains("experiment status popular"));
    let begun = json(data, &["experiment", "status", "popular"]);
    let weights: Vec<_> = begun["variants"].as_array().expect("variants").iter().map(|one| &one["weight"]).collect();
    assert_eq!(weights, [7_500, 2_500], "the control has the rest");
    assert_eq!((&begun["state"], &begun["decision"]["verdict"]), (&"running".into(), &"continue".into()));
    let list = json(data, &["recommend", "--user", "ben"]);
    assert_eq!(list["experiment"], "popular");
    assert!(text(data, &["recommend", "--user", "ben"]).contains("experiment popular ("));
    refused(data, &create("second", &popular), 1, "stop an experiment");
    let status = text(data, &["experiment", "status", "popular"]);
    assert!(status.contains("trending_weight=0.5") && status.contains("not known yet"), "{status}");
    let stopped = text(data, &["experiment", "stop", "popular", "--reason", "seen enough"]);
    assert!(stopped.contains("verdict: stopped") && stopped.contains("seen enough"), "{stopped}");
    assert!(stopped.contains("split over 100% of listeners, ran from 2"), "{stopped}");
    assert_eq!(json(data, &["recommend", "--user", "ben"])["experiment"], "");
    assert!(text(data, &["experiment", "list"]).contains("popular"));

    refused(data, &create("popular", &popular), 1, "names are not used twice");
    refused(data, &["experiment", "status", "nothing"], 3, "no experiment is named 'nothing'");
    refused(data, &create("a", &["--variant", "b:loudness=9"]), 2, "there are weight, trending_weight");
    refused(data, &create("a", &["--variant", "b:weight=heavy"]), 2, "'heavy' is no value of weight");
    refused(data, &create("a", &["--variant", "b:weight=10000"]), 2, "leave nothing to the control");
    refused(data, &create("a", &["--variant", "b", "--guardrail", "refusal"]), 2, "METRIC=MARGIN");
    refused(data, &create("a", &["--variant", "b", "--share", "101"]), 2, "percentage");
    refused(data, &create("a", &["--variant", "b:exploration_slots=11"]), 2, "at most 10");
    let both = ["--variant", "popular:trending_weight=0.5", "--interleave", "--share", "50"];
    assert_eq!(json(data, &create("both", &both))["share"], 5_000);
}

#[test]
fn the_recipe_that_serves_is_shown_and_a_training_says_what_it_lacks() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    json(data, &["listen", "--user", "ann", "--artist", "Air", "--title", "Song"]);
    let list = text(data, &["model", "list"]);
    assert!(list.contains("serving") && list.contains("built in"), "{list}");
    let shown = text(data, &["model", "show"]);
    assert!(shown.contains("blend.ease") && shown.contains(": serving"), "{shown}");
    assert!(text(data, &["model", "card"]).contains("# EchoTune lists of artists"));
    assert!(text(data, &["model", "drift"]).contains("nothing to compare"));
    refused(data, &["model", "train"], 1, "1 listeners have enough");
    refused(data, &["model", "train", "--option", "blend.eas=1"], 2, "no option is named 'blend.eas'");
    refused(data, &["model", "train", "--option", "blend.ease"], 2, "NAME=VALUE");
    refused(data, &["model", "promote", "none"], 3, "echotune model list");
    refused(data, &["model", "promote", "none", "--force"], 2, "--reason");
    refused(data, &["model", "rollback"], 1, "nothing served before");
    refused(data, &["model", "cancel"], 3, "no such job");
}

#[test]
fn times_are_given_in_seconds_or_as_people_write_them() {
    let folder = tempfile::tempdir().expect("folder");
    let heard =
        |at| json(folder.path(), &["listen", "--user", "ann", "--artist", "Air", "--title", "Talisman", "--at", at]);
    assert_eq!(heard("2024-05-17T20:15:00Z")["recorded"], 1);
    assert_eq!(heard("1715976900")["duplicates"], 1);
    assert_eq!(heard("2024-05-17T22:15:00+02:00")["duplicates"], 1);
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_without_a_word() {
    let folder = tempfile::tempdir().expect("folder");
    json(folder.path(), &["listen", "--user", "ann", "--artist", "Air", "--title", "Talisman"]);
    for arguments in [&["status"][..], &["user", "export", "ann"], &["--print-config"], &["man"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_echotune"));
        command.arg("--data").arg(folder.path()).args(arguments).stdin(Stdio::null()).stdout(writer);
        let output = command.output().expect("started");
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn names_cannot_steer_a_terminal() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    for user in ["ann", "ben"] {
        json(data, &["listen", "--user", user, "--artist", "Air", "--title", "Talisman"]);
    }
    json(data, &["listen", "--user", "ann", "--artist", "Evil\u{1b}[2J\u{7}", "--title", "Song"]);
    let shown = text(data, &["recommend", "--user", "ben"]);
    assert!(shown.contains("Evil") && !shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
}

#[test]
fn an_address_left_behind_by_a_killed_platform_gets_no_token() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    json(data, &["listen", "--user", "ann", "--artist", "Air", "--title", "Talisman"]);
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    stranger.set_nonblocking(true).expect("set");
    fs::write(data.join("address"), stranger.local_addr().expect("address").to_string()).expect("written");
    assert_eq!(json(data, &["status"])["counts"]["listens"], 1);
    assert!(stranger.accept().is_err(), "somebody connected");
    assert!(!data.join("address").exists());
}

#[test]
fn commands_that_meet_on_one_folder_wait_for_each_other() {
    let folder = tempfile::tempdir().expect("folder");
    json(folder.path(), &["listen", "--user", "ann", "--artist", "Air", "--title", "Talisman"]);
    let running: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_echotune"));
            command.arg("--data").arg(folder.path()).arg("status").stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().expect("started")
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn what_is_marked_as_explicit_is_left_out_of_the_lists_of_whoever_asks_so() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path();
    let hear = |user: &str, title: &str, marks: &[&str]| {
        let listen = ["listen", "--user", user, "--artist", "Low", "--title", title, "--at", "1700000000"];
        json(data, &[&listen, marks].concat());
    };
    hear("ann", "known", &[]);
    for (title, marks) in
        [("known", &[][..]), ("loud", &["--explicit", "true"]), ("calm", &["--explicit", "false"]), ("odd", &[])]
    {
        hear("ben", title, marks);
    }
    let listed = |wish: &str| {
        let settings = json(data, &["user", "settings", "ann", "--explicit", wish]);
        assert_eq!(settings["explicit"], wish, "{settings}");
        let list = json(data, &["recommend", "--user", "ann", "--kind", "track"]);
        let items = list["recommendations"].as_array().expect("items").iter();
        let mut titles: Vec<_> = items.map(|item| item["title"].as_str().expect("a title").to_owned()).collect();
        titles.sort_unstable();
        titles
    };
    assert_eq!(listed("hide"), ["calm", "odd"]);
    assert_eq!(listed("strict"), ["calm"]);
    assert_eq!(listed("allow"), ["calm", "loud", "odd"]);
    assert!(text(data, &["user", "settings", "ann"]).contains("explicit"));
    refused(data, &["user", "settings", "ann", "--explicit", "never"], 2, "possible values: allow, hide, strict");
}
