use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use echotune_model::{Clock, ErrorKind, Hlc};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError, WriteType};

use super::{
    connect::{keyspace, stray},
    decide::settle_by,
    error::{Effect, Fate, fate, fate_of_batch, fate_of_decision, of_fate},
    migrations::compare,
    *,
};

const STEPS: Migrations = Migrations {
    owner: "tests",
    steps: &[
        Migration { version: 1, name: "one", statements: &["CREATE TABLE IF NOT EXISTS a (k int PRIMARY KEY)"] },
        Migration { version: 2, name: "two", statements: &["CREATE TABLE IF NOT EXISTS b (k int PRIMARY KEY)"] },
    ],
};

/// SHA-256 of the length and bytes of the first step's one statement.
const FIRST: &str = "2dd84b6b9569bcacaf09e25e037ba59469e3ef7b9aa29b9c02c279603f183d79";

#[test]
fn every_fault_of_a_configuration_is_told_by_its_field() {
    let good = CqlConfig::new("127.0.0.1:9042", "us", "echotune");
    assert_eq!(good.faults(), []);
    let bad = CqlConfig {
        contact_points: Vec::new(),
        datacenter: "u's".into(),
        keyspace: "Echo Tune".into(),
        request_timeout: crate::config::Period(Duration::ZERO),
        in_flight: 0,
        page_rows: 0,
        ..good
    };
    let faults = bad.faults();
    let fields: Vec<_> = faults.iter().map(|(field, _)| *field).collect();
    let expected =
        ["contact_points", "datacenter", "keyspace", "replication", "request_timeout", "in_flight", "page_rows"];
    assert_eq!(fields, expected, "{faults:?}");
}

#[test]
fn copies_where_they_may_not_be_are_found() {
    let config =
        CqlConfig { replication: [("eu".into(), 3), ("north".into(), 3)].into(), ..CqlConfig::new("a:1", "eu", "k") };
    let of = |centres: &[&str]| {
        let class = ("class".to_owned(), "org.apache.cassandra.locator.NetworkTopologyStrategy".to_owned());
        let told = centres.iter().map(|name| ((*name).to_owned(), "3".to_owned())).chain([class]).collect();
        stray(&told, &config)
    };
    assert_eq!((of(&["eu", "north"]), of(&["eu"])), (None, None), "a region may be added later");
    assert!(of(&["eu", "us"]).is_some_and(|why| why.contains("copies at us") && why.contains("eu, north")));
    assert!(of(&["north"]).is_some_and(|why| why.contains("no copies at eu")));
    assert!(of(&["replication_factor"]).is_some(), "a strategy that knows no data centres");
}

#[test]
fn a_configuration_is_read_by_name_and_knows_no_other_field() {
    let text = r#"
        contact_points = ["10.0.0.1:9042"]
        datacenter = "us"
        keyspace = "echotune"
        replication = { us = 3, eu = 3 }
        request_timeout = "3s"
    "#;
    let read: CqlConfig = toml::from_str(text).expect("a configuration");
    assert_eq!((read.request_timeout.0, read.in_flight, read.faults()), (Duration::from_secs(3), 256, Vec::new()));
    toml::from_str::<CqlConfig>(&format!("{text}\nuser = 'ann'")).expect_err("an unknown field");
}

#[test]
fn only_the_making_of_a_keyspace_differs_between_servers() {
    let mut config = CqlConfig::new("127.0.0.1:9042", "us", "echotune");
    config.replication.insert("eu".into(), 3);
    let cassandra = keyspace(&config, Server::Cassandra);
    let replication = "{'class': 'NetworkTopologyStrategy', 'eu': 3, 'us': 1}";
    assert_eq!(cassandra, format!("CREATE KEYSPACE IF NOT EXISTS echotune WITH replication = {replication}"));
    assert_eq!(keyspace(&config, Server::ScyllaDb), format!("{cassandra} AND tablets = {{'enabled': false}}"));
}

#[test]
fn a_write_whose_answer_is_lost_is_neither_done_nor_not() {
    let answered =
        |error: DbError| ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()));
    let late = DbError::WriteTimeout {
        consistency: scylla::statement::Consistency::LocalQuorum,
        received: 0,
        required: 1,
        write_type: WriteType::Simple,
    };
    let few = DbError::Unavailable { consistency: scylla::statement::Consistency::LocalQuorum, required: 2, alive: 1 };
    for (error, expected) in [
        (ExecutionError::RequestTimeout(Duration::ZERO), Fate::Unknown),
        (answered(late), Fate::Unknown),
        (answered(DbError::ServerError), Fate::Unknown),
        (answered(few), Fate::Nothing),
        (answered(DbError::Overloaded), Fate::Nothing),
        (ExecutionError::EmptyPlan, Fate::Nothing),
        (answered(DbError::Invalid), Fate::Never),
        (answered(DbError::SyntaxError), Fate::Never),
    ] {
        assert_eq!(fate(&error), expected, "{error}");
    }
    let kind = |effect, fate| of_fate("a step", effect, fate, "why".into()).kind();
    assert_eq!(kind(Effect::Writes, Fate::Unknown), ErrorKind::Indeterminate);
    assert_eq!(kind(Effect::Reads, Fate::Unknown), ErrorKind::Unavailable);
    assert_eq!(kind(Effect::Writes, Fate::Nothing), ErrorKind::Unavailable);
    assert_eq!(kind(Effect::Writes, Fate::Never), ErrorKind::Internal);
}

#[test]
fn what_may_be_decided_or_logged_already_is_not_told_as_nothing() {
    use scylla::statement::Consistency;

    let answered =
        |error: DbError| ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()));
    let few = |consistency| answered(DbError::Unavailable { consistency, required: 2, alive: 1 });
    for (error, plain, batch, decision) in [
        (few(Consistency::Serial), Fate::Nothing, Fate::Nothing, Fate::Nothing),
        (few(Consistency::LocalSerial), Fate::Nothing, Fate::Nothing, Fate::Nothing),
        (few(Consistency::LocalQuorum), Fate::Nothing, Fate::Nothing, Fate::Unknown),
        (answered(DbError::Overloaded), Fate::Nothing, Fate::Unknown, Fate::Unknown),
        (answered(DbError::Other(0x1700)), Fate::Unknown, Fate::Unknown, Fate::Unknown),
        (answered(DbError::Invalid), Fate::Never, Fate::Never, Fate::Never),
    ] {
        let told = (fate(&error), fate_of_batch(&error), fate_of_decision(&error));
        assert_eq!(told, (plain, batch, decision), "{error}");
    }
}

#[test]
fn a_write_that_follows_another_is_later_whatever_the_clock_says() {
    let times = WriteClock::new(Arc::new(Clock::over(|| 1_700_000_000_000)));
    let first = times.now();
    let ahead = first.micros + 30_000_999;
    times.follow(ahead);
    let next = times.now();
    assert!(next.micros > ahead && next.hlc.ms() >= first.hlc.ms() + 30_000, "{next:?} after {ahead}");
    times.follow(first.micros);
    assert!(times.now().micros > next.micros, "never back");
    times.follow(i64::MIN);
}

#[test]
fn times_of_writes_rise_together_in_both_forms() {
    let clock = Arc::new(Clock::default());
    let times = WriteClock::new(Arc::clone(&clock));
    let first = times.now();
    assert!(first.micros.unsigned_abs().abs_diff(times.wall_ms() * 1_000) < 60_000_000, "near the wall clock");
    clock.observe(Hlc::from_ms(first.hlc.ms() + 60_000));
    let mut last = first;
    for _ in 0..70_000 {
        let next = times.now();
        assert!(next.hlc > last.hlc && next.micros > last.micros, "{next:?} after {last:?}");
        last = next;
    }
    assert_eq!(first.ahead() - first.micros, 60_000_000);
}

#[test]
fn migrations_go_on_from_what_was_applied_and_never_change() {
    let row = |version, checksum: &str| (version, "one".to_owned(), checksum.to_owned());
    let versions = |rows: &[(i32, String, String)]| {
        compare(&STEPS, rows).map(|missing| missing.iter().map(|step| step.version).collect::<Vec<_>>())
    };
    assert_eq!(versions(&[]).expect("new"), [1, 2]);
    assert_eq!(versions(&[row(1, FIRST)]).expect("begun"), [2]);
    let changed = versions(&[row(1, "other")]).expect_err("changed");
    assert!(changed.to_string().contains("migration 1, 'one', was applied with other statements"), "{changed}");
    let newer = versions(&[row(1, FIRST), row(3, "other")]).expect_err("newer");
    assert!(newer.to_string().contains("a newer EchoTune applied migration 3"), "{newer}");
    assert_eq!(newer.kind(), ErrorKind::FailedPrecondition);
    const GAP: Migrations = Migrations { steps: &[STEPS.steps[1]], ..STEPS };
    compare(&GAP, &[]).expect_err("version 2 at place 1");
}

#[test]
fn values_tell_their_format() {
    let bytes = encode(&("Björk", 7_i64));
    assert_eq!(decode::<(String, i64)>("a row", &bytes).expect("read"), ("Björk".to_owned(), 7));
    for bad in [&[][..], &[9, 1], &bytes[..3]] {
        let refused = decode::<(String, i64)>("a row", bad).expect_err("damaged");
        assert_eq!(refused.kind(), ErrorKind::DataLoss, "{refused}");
    }
}

/// What settling makes of these answers, one after the other, each of which takes this long; and how often it tried.
async fn settled(
    answers: &[Result<bool, CqlError>],
    looks: &[Result<Seen, CqlError>],
    takes: Duration,
) -> (Result<bool, ErrorKind>, usize, usize) {
    let (tries, looked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let decide = || async {
        tokio::time::sleep(takes).await;
        let n = tries.fetch_add(1, Ordering::Relaxed);
        answers.get(n).unwrap_or(&answers[answers.len() - 1]).clone()
    };
    let look = || async {
        tokio::time::sleep(takes).await;
        let n = looked.fetch_add(1, Ordering::Relaxed);
        looks.get(n).expect("no further look").clone()
    };
    let told = settle_by("a step", decide, look).await.map_err(|cause| cause.kind());
    (told, tries.into_inner(), looked.into_inner())
}

#[tokio::test(start_paused = true)]
async fn a_conditional_write_whose_answer_is_lost_is_settled_by_a_look() {
    let soon = Duration::from_millis(1);
    let lost = || Err(CqlError::Indeterminate { step: "a step", cause: "late".into() });
    let away = || CqlError::Unavailable { step: "a step", cause: "away".into() };
    assert_eq!(settled(&[Ok(false)], &[], soon).await, (Ok(false), 1, 0));
    assert_eq!(settled(&[Err(away())], &[], soon).await, (Err(ErrorKind::Unavailable), 1, 0));
    assert_eq!(settled(&[lost()], &[Ok(Seen::Applied)], soon).await, (Ok(true), 1, 1));
    assert_eq!(settled(&[lost()], &[Ok(Seen::Refused)], soon).await, (Ok(false), 1, 1));
    assert_eq!(settled(&[lost(), Ok(true)], &[Ok(Seen::Open)], soon).await, (Ok(true), 2, 1));
    let own = settled(&[lost(), Ok(false)], &[Err(away()), Ok(Seen::Applied)], soon).await;
    assert_eq!(own, (Ok(true), 2, 2), "what stood in the way was its own");
    let began = tokio::time::Instant::now();
    let looks: Vec<_> = (0..8).map(|_| Err(away())).collect();
    let (told, tries, _) = settled(&[lost(), Err(away())], &looks, Duration::from_secs(2)).await;
    assert_eq!((told, tries), (Err(ErrorKind::Indeterminate), 3), "what is not known is told so");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
