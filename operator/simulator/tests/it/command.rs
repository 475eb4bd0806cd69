//! The command as a stranger meets it: its answers and its exit codes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echotune-simulator")).args(arguments).output().expect("the command starts")
}

fn answer(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(arguments: &[&str], code: i32, told: &str) {
    let output = run(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(error.contains(told), "{arguments:?}: {error}");
}

fn trace(folder: &Path) -> String {
    let minutes: Vec<String> = (1..=90).map(|minute| minute.to_string()).collect();
    let counts = |every: usize| (0..90).map(|minute| if minute % every == 0 { "40" } else { "0" }).collect::<Vec<_>>();
    let text = format!("f,{}\na,{}\nb,{}\n", minutes.join(","), counts(11).join(","), counts(7).join(","));
    let path = folder.join("trace.csv");
    fs::write(&path, text).expect("a folder of the test's own");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn replays_are_told_as_tables_json_and_svg() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let plain = ["replay", "--trace", &trace, "--seeds", "2", "--output"];
    let table = answer(&[plain.as_slice(), &["table"]].concat());
    for told in ["2 services", "kpa-keep5", "pod-hours", "ours less"] {
        assert!(table.contains(told), "{told}: {table}");
    }
    let json: Value = serde_json::from_str(&answer(&[plain.as_slice(), &["json"]].concat())).unwrap();
    let policies = json["classes"][0]["policies"].as_array().unwrap();
    assert_eq!(policies.len(), 5);
    assert_eq!(policies[0]["by_seed"].as_array().unwrap().len(), 2);
    assert_eq!(policies[3]["policy"], "hpa");
    assert_eq!(policies[3]["cold_percent"]["mean"], 0.0);
    let svg = answer(&[plain.as_slice(), &["svg"]].concat());
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("kpa-keep5"), "{svg}");
}

#[test]
fn frontiers_are_compared_with_that_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let plain = ["frontier", "--trace", &trace, "--seeds", "2", "--policy", "ours,kpa-keep5", "--output"];
    let json: Value = serde_json::from_str(&answer(&[plain.as_slice(), &["json"]].concat())).unwrap();
    let class = &json["classes"][0];
    assert_eq!(class["compared_with"], "kpa-keep5");
    let curves = class["curves"].as_array().unwrap();
    let defaults =
        |curve: &Value| curve["points"].as_array().unwrap().iter().filter(|one| one["as_it_is"] == true).count();
    assert_eq!(curves.iter().map(defaults).collect::<Vec<_>>(), [1, 1]);
    // A frontier is no better than itself.
    for point in curves[1]["points"].as_array().unwrap().iter().filter(|point| point["on_frontier"] == true) {
        if let Some(mean) = point["pod_hours_percent_at_slow"]["mean"].as_f64() {
            assert!(mean.abs() < 20.0, "{point}");
        }
    }
    assert!(answer(&[plain.as_slice(), &["table"]].concat()).contains("against the frontier of kpa-keep5"));
    assert!(answer(&[plain.as_slice(), &["svg"]].concat()).contains("<svg"));
    refused(&["frontier", "--trace", &trace, "--policy", "ours"], 64, "names only ours");
}

#[test]
fn a_ledger_is_recorded_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, ledger) = (trace(folder.path()), folder.path().join("ledger.jsonl"));
    let ledger = ledger.to_str().unwrap();
    assert!(answer(&["ledger", "record", "--trace", &trace, "--service", "2", ledger]).contains("service b"));
    assert!(answer(&["ledger", "replay", ledger]).contains("came out the same"));
    let text = fs::read_to_string(ledger).unwrap();
    let altered = text.replacen("\"arrivals\":1,", "\"arrivals\":2,", 1);
    assert_ne!(altered, text);
    fs::write(ledger, altered).unwrap();
    refused(&["ledger", "replay", ledger], 2, "when it is decided again");
    refused(&["ledger", "record", "--trace", &trace, "--service", "3", ledger], 64, "--service 3 is beyond");
}

#[test]
fn a_trace_of_rare_services_alone_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rare.csv");
    let minutes: Vec<String> = (1..=1_440).map(|minute| minute.to_string()).collect();
    let none = ",0".repeat(1_439);
    fs::write(&path, format!("f,{}\na,3{none}\nb,0{none}\n", minutes.join(","))).unwrap();
    let trace = path.to_str().unwrap();
    let asked =
        ["replay", "--trace", trace, "--policy", "kpa, hpa", "--seeds", "1", "--start-delay", "0", "--output", "json"];
    let json: Value = serde_json::from_str(&answer(&asked)).unwrap();
    let class = &json["classes"][0];
    assert_eq!((&class["class"], &class["services"], &class["calls"]), (&"rare".into(), &2.into(), &3.into()));
    assert_eq!(class["policies"][0]["slow_percent"]["mean"], 0.0, "pods are ready at once");
    assert!(class["policies"][0]["slow_percent"]["half"].is_null(), "one seed tells no interval");
    let notes = json["notes"].to_string();
    assert!(notes.contains("rare: 2 services with 3 calls in 24.0 hours at the longest"), "{notes}");
}

#[test]
fn a_series_of_nothing_is_replayed_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nothing.csv");
    fs::write(&path, "timestamp,value\n0,0\n60,0\n120,0\n").unwrap();
    let output = run(&["replay", "--trace", path.to_str().unwrap(), "--seeds", "1", "--output", "svg"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    for expected in ["note: series has no call at all", "note: series lasts 3.0 minutes"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn what_is_wrong_is_told_by_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let bad = folder.path().join("bad.csv");
    fs::write(&bad, "f,1\nx,y\n").unwrap();
    refused(&[], 64, "Usage");
    refused(&["replay", "--trace", &trace, "--policy", "vpa"], 64, "'vpa' is no policy");
    refused(&["replay", "--trace", &trace, "--policy", "kpa,kpa"], 64, "names kpa twice");
    refused(&["replay", "--trace", &trace, "--concurrency", "0"], 64, "concurrency");
    refused(&["replay", "--trace", &trace, "--seeds", "0"], 64, "seeds");
    refused(&["replay", "--trace", &trace, "--slow", "500us"], 64, "--slow must be from 1ms to 1h");
    refused(&["replay", "--trace", &trace, "--start-delay", "1year"], 64, "--start-delay must be a day");
    refused(&["replay", "--trace", &trace, "--scale", "1000000"], 64, "--scale 0.01 makes them fewer");
    refused(&["ledger", "record", "--trace", &trace, "--service", "0", "none"], 64, "--service counts from 1");
    refused(&["replay", "--trace", &trace, "--start-delay", "soon"], 64, "start-delay");
    refused(&["replay", "--trace", &trace, "--class", "series"], 64, "no service of the trace");
    refused(&["replay", "--trace", bad.to_str().unwrap()], 2, "bad.csv, line 2: minute 1 is 'y'");
    refused(&["replay", "--trace", "/nowhere/at/all"], 3, "does not exist");
    refused(&["ledger", "replay", "/nowhere/at/all"], 3, "does not exist");
    assert!(answer(&["--help"]).contains("64 an argument"));
    assert!(answer(&["completions", "bash"]).contains("echotune-simulator"));
}
