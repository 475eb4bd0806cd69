//! The evaluator as a command, on files made here.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// Two groups of 40 listeners with 30 items each, of which each knows six tenths; all know item 0.
fn pairs() -> Vec<(usize, usize)> {
    let of = |user: usize| {
        let known = (1..=30).filter(move |item| (item * 7 + user / 2 * 5) % 10 < 6);
        std::iter::once((user, 0)).chain(known.map(move |item| (user, user % 2 * 30 + item)))
    };
    (0..80).flat_map(of).collect()
}

fn written(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("a file");
    path
}

fn run(words: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echotune-eval"));
    command.args(words).args(files).output().expect("the evaluator runs")
}

/// Lines of JSON by model and seed.
fn lines(output: &Output) -> BTreeMap<(String, String), Value> {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect(line);
        ((line["model"].as_str().expect("a model").to_owned(), line["seed"].to_string()), line)
    };
    text.lines().map(line).collect()
}

fn of<'l>(lines: &'l BTreeMap<(String, String), Value>, model: &str, seed: &str) -> &'l Value {
    &lines[&(model.to_owned(), seed.to_owned())]
}

fn refused(words: &[&str], files: &[&Path]) -> String {
    let output = run(words, files);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_file_of_rows_is_split_by_each_seed_and_the_graph_finds_the_groups() {
    let folder = TempDir::new().expect("a folder");
    let mut text = "listener,item,plays\n".to_owned();
    pairs().iter().for_each(|(user, item)| writeln!(text, "u{user},i{item},{}", 1 + item % 5).expect("text"));
    text.push_str("u1,i1,0\nu1,i2,NaN\nu2,i0,3\n");
    let file = written(&folder, "plays.csv", &text);
    let words = ["--output", "json", "--seeds", "2", "--at", "5,3", "--models", "popularity,item-graph"];
    let output = run(&words, &[&file]);
    let found = lines(&output);
    assert_eq!(found.len(), 6);
    for seed in ["1", "2"] {
        let (graph, popular) = (of(&found, "item-graph", seed), of(&found, "popularity", seed));
        assert_eq!((&graph["dataset"], &graph["users"]), (&"plays".into(), &80.into()));
        let gain = |line: &Value| line["ndcg@5"].as_f64().expect("a number");
        assert!(gain(graph) > gain(popular) + 0.1, "{graph} {popular}");
        assert!(graph["chosen"]["target"].is_number() && graph["precision@3"].is_number());
    }
    let mean = of(&found, "item-graph", "\"mean\"")["recall@5"]["mean"].as_f64().expect("a number");
    let each = ["1", "2"].map(|seed| of(&found, "item-graph", seed)["recall@5"].as_f64().expect("a number"));
    assert!((mean - f64::midpoint(each[0], each[1])).abs() < 1e-12);
    let notes = String::from_utf8(output.stderr).expect("text");
    assert!(notes.contains("1 of weight 0, 1 of a weight below 0, infinite or NaN"), "{notes}");
    assert!(notes.contains("1 rows of a pair that was there before"), "{notes}");
}

#[test]
fn figures_do_not_depend_on_threads() {
    let folder = TempDir::new().expect("a folder");
    let mut text = String::new();
    pairs().iter().for_each(|(user, item)| writeln!(text, "{user} {item}").expect("text"));
    let file = written(&folder, "pairs.txt", &text);
    let with = |threads: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echotune-eval"));
        command
            .args(["--output", "json", "--seeds", "1", "--models", "popularity,item-graph,blend-default"])
            .arg(&file)
            .env("RAYON_NUM_THREADS", threads);
        let mut found = lines(&command.output().expect("the evaluator runs"));
        found.values_mut().for_each(|line| line["fit_s"] = Value::Null);
        found
    };
    assert_eq!(with("1"), with("3"));
}

#[test]
fn light_gcn_lines_with_a_test_file_are_measured_and_the_table_ends_with_the_ceiling() {
    let folder = TempDir::new().expect("a folder");
    let (mut train, mut test) = (String::new(), String::new());
    let all = pairs();
    let joined =
        |items: &[(usize, usize)]| items.iter().fold(String::new(), |line, (_, item)| format!("{line} {item}"));
    for user in all.chunk_by(|a, b| a.0 == b.0) {
        writeln!(train, "{}{}", user[0].0, joined(&user[3..])).expect("text");
        writeln!(test, "{}{}", user[0].0, joined(&user[..3])).expect("text");
    }
    let (train, test) = (written(&folder, "train.txt", &train), written(&folder, "test.txt", &test));
    let words = [
        "--models",
        "popularity,item-graph,blend-default",
        "--at",
        "3",
        "--format",
        "lightgcn",
        "--train",
        train.to_str().expect("text"),
        "--test",
    ];
    let output = run(&words, &[&test]);
    let table = String::from_utf8(output.stdout).expect("text");
    let notes = String::from_utf8(output.stderr).expect("text");
    assert!(notes.contains("format lightgcn") && notes.contains("80 listeners × 61 items"), "{notes}");
    let ceiling = table.lines().find(|line| line.starts_with("(ceiling) ")).expect("a ceiling");
    // Three to be found of each listener: all can be listed.
    assert_eq!(ceiling.split_whitespace().collect::<Vec<_>>(), ["(ceiling)", "1.0000", "1.0000", "1.0000"]);
}

#[test]
fn times_make_a_split_and_trending_is_measured() {
    let folder = TempDir::new().expect("a folder");
    let mut text = "user\titem\tplays\ttimestamp\n".to_owned();
    for (user, item) in pairs() {
        writeln!(text, "{user}\t{item}\t1\t{}", item * 100 + user).expect("text");
    }
    text.push_str("late\t60\t1\t999999\n");
    let file = written(&folder, "timed.tsv", &text);
    let output = run(
        &["--split", "time", "--output", "json", "--at", "10", "--models", "popularity,trending,item-graph"],
        &[&file],
    );
    let found = lines(&output);
    assert!(of(&found, "trending", "1")["chosen"]["window"].is_number());
    let notes = String::from_utf8(output.stderr).expect("text");
    assert!(notes.contains("1 with test items and no history are left out"), "{notes}");
    let untimed = written(&folder, "untimed.tsv", "1\t2\n1\t3\n");
    assert!(refused(&["--split", "time"], &[&untimed]).contains("needs a time in every row"));
}

#[test]
fn what_cannot_be_measured_is_said_by_file_and_line() {
    let folder = TempDir::new().expect("a folder");
    let file = written(&folder, "bad.txt", "a b 1\nc d\n");
    assert!(refused(&[], &[&file]).contains("bad.txt line 2: 2 fields, expected the 3 of the first line"));
    let few = written(&folder, "few.txt", "a b\n");
    assert!(refused(&[], &[&few]).contains("there is nothing to measure"));
    let none = written(&folder, "none.txt", "\n\n");
    assert!(refused(&[], &[&none]).contains("none.txt holds no interactions"));
    assert!(refused(&[], &[&folder.path().join("absent")]).contains("absent cannot be opened"));
    let unknown = refused(&["--models", "oracle"], &[&few]);
    assert!(unknown.contains("no model is named 'oracle'; there are popularity, trending"), "{unknown}");
    let python = refused(&["--peers", "--python", "no/such/python"], &[&few]);
    assert!(python.contains("no/such/python cannot be started"), "{python}");
}

#[test]
fn new_items_are_found_by_what_others_say_of_them_and_peers_are_refused() {
    let folder = TempDir::new().expect("a folder");
    let (mut plays, mut tags) = (String::new(), String::new());
    pairs().iter().for_each(|(user, item)| writeln!(plays, "u{user} i{item} 1").expect("text"));
    // Critics play nothing.
    (1..=60).for_each(|item| writeln!(tags, "critic i{item} group{}", (item - 1) / 30).expect("text"));
    let (plays, tags) = (written(&folder, "plays.txt", &plays), written(&folder, "tags.txt", &tags));
    let words = ["--split", "new-items", "--at", "2", "--output", "json", "--models", "popularity,content"];
    let found = lines(&run(&[&words[..], &["--tags"]].concat(), &[&tags, &plays]));
    let recall = |model| of(&found, model, "1")["recall@2"].as_f64().expect("a number");
    assert!(recall("content") > recall("popularity"), "{found:?}");
    assert!(refused(&["--split", "new-items", "--peers"], &[&plays]).contains("peers rank all items"));
    assert!(refused(&["--split", "new-items", "--models", "content"], &[&plays]).contains("needs tags"));
}

#[test]
fn the_growth_of_a_refit_is_told_by_size_and_drawn() {
    let folder = TempDir::new().expect("a folder");
    let plot = folder.path().join("growth.svg");
    let words = ["scale", "--listeners", "400", "--items", "300", "--listens", "20000", "--steps", "2"];
    let output = run(&[&words[..], &["--output", "json", "--plot"]].concat(), &[&plot]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let sizes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let counts = |name: &str| sizes.iter().map(|size| size[name].as_u64().expect(name)).collect::<Vec<_>>();
    assert_eq!((counts("listeners"), counts("items")), (vec![200, 400], vec![300, 300]));
    assert!(counts("listens")[0] < counts("listens")[1] && counts("links").iter().all(|links| *links > 300));
    let drawn = fs::read_to_string(&plot).expect("a plot");
    assert!(drawn.starts_with("<svg") && drawn.matches("<polyline").count() == 2, "{drawn}");
    let nowhere = folder.path().join("absent/growth.svg");
    assert!(refused(&[&words[..], &["--plot"]].concat(), &[&nowhere]).contains("cannot be written to"));
}
