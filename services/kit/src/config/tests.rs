use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::*;

const DEFAULTS: &str = r#"# Where to listen.
listen = "127.0.0.1:1"

[limits]
# The largest message.
message_size = "4MiB"
deadline = "30s" # per request
callers = 64
tags = ["a", "b"]

[collector]
secret = ""
"#;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Example {
    listen: std::net::SocketAddr,
    limits: Limits,
    collector: Collector,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Limits {
    message_size: Size,
    deadline: Period,
    callers: u32,
    tags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Collector {
    secret: Secret,
}

impl Config for Example {
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.limits.callers == 0 {
            faults.push(("limits.callers", "at least 1".to_owned()));
        }
        faults
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.into(), key: key.into(), value: value.into() }
}

fn written(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("config.toml");
    fs::write(&path, text).unwrap();
    path
}

fn faults(sources: &Sources<'_>) -> Vec<String> {
    load::<Example>(sources).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn later_layers_win_and_the_origin_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "[limits]\nmessage_size = \"1KiB\"\ncallers = 2\ndeadline = \"1m\"\n");
    let sources = Sources {
        defaults: DEFAULTS,
        file: Some(&file),
        env: env(&[("ECHOTUNE__LIMITS__CALLERS", "3"), ("ECHOTUNE__LIMITS__DEADLINE", "250ms"), ("PATH", "x")]),
        flags: vec![flag("--callers", "limits.callers", "4")],
        ..Sources::default()
    };
    let loaded = load::<Example>(&sources).unwrap();
    assert_eq!(loaded.config.limits.message_size, Size(1024));
    assert_eq!(loaded.config.limits.deadline, Period(Duration::from_millis(250)));
    assert_eq!(loaded.config.limits.callers, 4);
    assert_eq!(loaded.origin("limits.message_size"), Origin::File(file, 2));
    assert_eq!(loaded.origin("limits.callers"), Origin::Flag("--callers".into()));
    assert_eq!(loaded.origin("listen"), Origin::Default);
}

#[test]
fn a_list_that_is_written_as_tables_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "[[limits.tags]]\nname = \"a\"\n[[listen]]\nat = 1\n");
    let found = faults(&Sources { defaults: DEFAULTS, file: Some(&file), ..Sources::default() });
    for part in ["limits.tags", "listen"] {
        assert!(found.iter().any(|fault| fault.contains(part)), "{part} is not in {found:#?}");
    }
}

#[test]
fn all_faults_are_reported_at_once_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(
        folder.path(),
        "listen = \"nowhere\"\nlimit = 1\n[limits]\ncallers = \"many\"\nmessage_size = \"4\"\n[extra]\nx = 1\n",
    );
    let sources = Sources {
        defaults: DEFAULTS,
        file: Some(&file),
        env: env(&[
            ("ECHOTUNE__LIMITS__DEADLINE", "5"),
            ("ECHOTUNE__LIMITS__NOTHING", "5"),
            ("ECHOTUNE__LIMITS", "5"),
            ("ECHOTUNE__limits__callers", "5"),
        ]),
        flags: vec![flag("--callers", "limits.callers", "x")],
        ..Sources::default()
    };
    let found = faults(&sources);
    let place = file.display();
    for (place, part) in [
        (format!("{place}:1:"), "listen"),
        (format!("{place}:2:"), "unknown key 'limit'; the configuration has"),
        (format!("{place}:4:"), "limits.callers"),
        (format!("{place}:5:"), "such as \"64MiB\""),
        (format!("{place}:6:"), "unknown key 'extra'"),
        ("variable ECHOTUNE__LIMITS__DEADLINE:".into(), "such as \"250ms\""),
        ("variable ECHOTUNE__LIMITS__NOTHING:".into(), "section 'limits' has"),
        ("variable ECHOTUNE__LIMITS:".into(), "is a section"),
        ("variable ECHOTUNE__limits__callers:".into(), "ECHOTUNE__LIMITS__CALLERS"),
        ("flag --callers:".into(), "'x' is not of type integer"),
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(&place) && fault.contains(part)), "{place} {found:#?}");
    }
    assert_eq!(found.len(), 10, "{found:#?}");
}

#[test]
fn sections_of_other_programs_are_passed_over_in_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "extra = 1\n[others]\nx = 1\n[others.deep]\ny = 2\n[limits]\ncallers = 7\n");
    let read = |others: &[&str], variables: &[(&str, &str)]| {
        let sources =
            Sources { defaults: DEFAULTS, file: Some(&file), others, env: env(variables), ..Sources::default() };
        faults(&sources)
    };
    let found = read(&["others", "extra", "limits"], &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("unknown key 'extra'"), "a value is no section: {found:#?}");
    let found = read(&["others"], &[("ECHOTUNE__OTHERS__X", "1")]);
    assert!(found.iter().any(|fault| fault.contains("unknown key 'others.x'")), "{found:#?}");
    assert_eq!(read(&[], &[]).len(), 2);
}

#[test]
fn broken_syntax_is_reported_with_what_else_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "listen = \n[limits]\ncallers = \"many\"\n");
    let found = faults(&Sources { defaults: DEFAULTS, file: Some(&file), ..Sources::default() });
    assert!(found.iter().any(|fault| fault.contains("config.toml:1:")), "{found:?}");
    assert!(found.iter().any(|fault| fault.contains("config.toml:3: limits.callers")), "{found:?}");
    let absent = folder.path().join("absent.toml");
    let found = faults(&Sources { defaults: DEFAULTS, file: Some(&absent), ..Sources::default() });
    assert!(found[0].contains("absent.toml: cannot be read"), "{found:?}");
}

#[test]
fn what_no_single_value_shows_is_reported_with_its_origin() {
    let sources = Sources { defaults: DEFAULTS, env: env(&[("ECHOTUNE__LIMITS__CALLERS", "0")]), ..Sources::default() };
    assert_eq!(faults(&sources), ["variable ECHOTUNE__LIMITS__CALLERS: limits.callers: at least 1"]);
}

/// Of which some settings have to be given.
#[derive(Debug, Serialize, Deserialize)]
struct Needy {
    token_file: String,
    peers: Vec<String>,
    least: u32,
    most: u32,
}

impl Config for Needy {
    fn check(&self) -> Vec<(&'static str, String)> {
        let checks = [
            (!self.token_file.is_empty(), "token_file"),
            (!self.peers.is_empty(), "peers"),
            (self.least <= self.most, "most"),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, key)| (key, "does not hold".to_owned())).collect()
    }
}

#[test]
fn what_is_missing_hinders_those_who_load_and_not_those_who_look() {
    let defaults = "token_file = \"\"\npeers = []\nleast = 1\nmost = 2\n";
    let flagged = |key: &str, value: &str| flag(&format!("--{key}"), key, value);
    let with = |flags: Vec<Flag>| Sources { defaults, flags, ..Sources::default() };
    let told = |faults: &[ConfigFault]| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let needed = ["built-in defaults: token_file: does not hold", "built-in defaults: peers: does not hold"];
    assert_eq!(told(&load::<Needy>(&with(Vec::new())).unwrap_err().0), needed);
    let (loaded, missing) = look::<Needy>(&with(Vec::new())).unwrap();
    assert_eq!((loaded.to_toml().unwrap().as_str(), told(&missing)), (defaults, needed.map(str::to_owned).to_vec()));

    let given = vec![flagged("token_file", "token"), flagged("peers", "[\"eu\"]")];
    assert_eq!(told(&look::<Needy>(&with(given)).unwrap().1), Vec::<String>::new());
    // What was given and is wrong, also where the default beside it is what no longer holds.
    for (key, value, why) in [
        ("token_file", "", "flag --token_file: token_file: does not hold"),
        ("peers", "eu", "flag --peers: peers: 'eu' is not of type array"),
        ("least", "3", "built-in defaults: most: does not hold"),
        ("nothing", "3", "flag --nothing: unknown key 'nothing'"),
    ] {
        let faults = told(&look::<Needy>(&with(vec![flagged(key, value)])).unwrap_err().0);
        assert!(faults.len() == 1 && faults[0].starts_with(why), "{key}: {faults:?}");
    }
}

#[test]
fn the_printed_configuration_loads_to_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let untouched = load::<Example>(&Sources { defaults: DEFAULTS, ..Sources::default() }).unwrap();
    assert_eq!(untouched.to_toml().unwrap(), DEFAULTS);
    let sources = Sources {
        defaults: DEFAULTS,
        env: env(&[
            ("ECHOTUNE__LIMITS__MESSAGE_SIZE", "1536KiB"),
            ("ECHOTUNE__LIMITS__DEADLINE", "90s"),
            ("ECHOTUNE__LIMITS__TAGS", "[\"x\"]"),
            ("ECHOTUNE__LISTEN", "[::1]:2"),
        ]),
        ..Sources::default()
    };
    let loaded = load::<Example>(&sources).unwrap();
    let printed = loaded.to_toml().unwrap();
    assert!(printed.contains("# The largest message.\nmessage_size = \"1536KiB\"  # variable ECHOTUNE__LIMITS__"));
    let file = written(folder.path(), &printed);
    let again = load::<Example>(&Sources { defaults: DEFAULTS, file: Some(&file), ..Sources::default() }).unwrap();
    assert_eq!(again.config, loaded.config);
}

#[test]
fn secrets_are_used_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let variable = env(&[("ECHOTUNE__COLLECTOR__SECRET", "hunter2")]);
    let loaded = load::<Example>(&Sources { defaults: DEFAULTS, env: variable, ..Sources::default() }).unwrap();
    assert_eq!(loaded.config.collector.secret.reveal(), Some("hunter2"));
    let printed = loaded.to_toml().unwrap();
    assert!(!printed.contains("hunter2") && !format!("{loaded:?}").contains("hunter2"), "{printed}");
    assert!(printed.contains("# secret is set by variable ECHOTUNE__COLLECTOR__SECRET"), "{printed}");
    let file = written(folder.path(), &printed);
    let again = load::<Example>(&Sources { defaults: DEFAULTS, file: Some(&file), ..Sources::default() }).unwrap();
    assert_eq!(again.config.collector.secret.reveal(), None);
    let file = written(folder.path(), "[collector]\nsecret = 48151623\n");
    let found = faults(&Sources { defaults: DEFAULTS, file: Some(&file), ..Sources::default() });
    assert!(found.len() == 1 && !found[0].contains("48151623"), "{found:?}");
}

#[test]
fn sizes_and_periods_print_as_they_are_read() {
    for text in ["1B", "1000B", "1KiB", "1536KiB", "64MiB", "3GiB", "0B"] {
        assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
    }
    for text in ["", "1", "MiB", "-1B", "1.5MiB", "1MB", "99999999999GiB"] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
    for text in ["0s", "250ms", "1m 30s", "7days"] {
        assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
    }
    assert!("5".parse::<Period>().is_err());
}
