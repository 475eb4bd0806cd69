//! What is kept of a run is sealed, and copies of it say nothing once the run is gone.

use std::sync::Arc;

use echotune_agents::{Advance, CqlRunStore, End, Idempotency, NewEntry, RunDraft, RunStore as _};
use echotune_kit::cql::{CqlSession, WriteClock};
use echotune_model::{Clock, PageRequest, RunEventKind, RunId, RunState};

use crate::{Stores, crowd::draft, store};

/// What a run was told, did and gave.
const TEXTS: [&str; 4] = ["Reykjavik", "on the roof", "Army of Me", "kitchen"];
/// Tables in which a run has rows that a copy from before its removal holds.
const COPIED: [&str; 2] = ["runs", "runs_listed"];

/// All rows of all tables, or of some.
async fn rows(session: &CqlSession, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let tables = session.read("tables", tables).await.expect("prepared");
    let tables: Vec<(String,)> = session.rows(&tables, (&session.config().keyspace,), usize::MAX).await.expect("read");
    let mut found = Vec::new();
    for (table,) in tables.into_iter().filter(|(table,)| wanted(table)) {
        let read = session.read("all", &format!("SELECT JSON * FROM {table}")).await.expect("prepared");
        let read: Vec<(String,)> = session.rows(&read, (), usize::MAX).await.expect("read");
        found.extend(read.into_iter().map(|(row,)| (table.clone(), row)));
    }
    found
}

/// Puts copies back, later than all deletions.
async fn put_back(session: &CqlSession, copies: &[(String, String)]) {
    let times = WriteClock::new(Arc::new(Clock::default()));
    let later = times.now().ahead() + 60_000_000;
    for (table, row) in copies {
        let put = session.write("put back", &format!("INSERT INTO {table} JSON ?")).await.expect("prepared");
        session.put_at(&put, (row,), later).await.expect("put back");
    }
}

/// A run that was told something, did something and gave something.
async fn ended(store: &CqlRunStore) -> RunId {
    let told = format!(r#"{{"where":"{}"}}"#, TEXTS[0]);
    let draft = RunDraft { workflow: TEXTS[1].into(), input: told, ..draft(store, "ann") };
    let key = Idempotency { key: "once".into(), request: [7; 32] };
    store.start(draft, Some(key)).await.expect("started");
    let claimed = store.claim(60_000).await.expect("claimed").expect("due");
    let step = NewEntry { kind: RunEventKind::StepSucceeded, step: "a".into(), detail: TEXTS[2].into() };
    let advance = Advance { entries: vec![step], ..Advance::default() };
    store.append(claimed.id, claimed.epoch, advance).await.expect("appended");
    let end = End { state: RunState::Succeeded, message: String::new(), output: TEXTS[3].into() };
    let advance = Advance { end: Some(end), ..Advance::default() };
    store.append(claimed.id, claimed.epoch, advance).await.expect("ended");
    claimed.id
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_run_that_was_erased_say_nothing() {
    let all = Stores::open("sealed").await;
    let (home, session) = (&all.stores[0], &all.sessions[0]);
    let id = ended(home).await;
    let run = home.run(id).await.expect("read").expect("there");
    assert!(run.input.contains(TEXTS[0]) && run.workflow == TEXTS[1] && run.output == TEXTS[3], "{run:?}");
    let journal = home.journal(id, 0).await.expect("read");
    assert!(journal.len() == 2 && journal[1].detail == TEXTS[2], "{journal:?}");
    // Another process has none of the keys at hand.
    let other = store(session).await;
    assert_eq!(other.run(id).await.expect("read"), Some(run));
    assert_eq!(other.journal(id, 0).await.expect("read"), journal);

    for (table, row) in rows(session, |_| true).await {
        for text in TEXTS {
            assert!(!row.contains(text) && !row.contains(&hex(text)), "'{text}' is in clear in {table}: {row}");
        }
    }
    let copies = rows(session, |table| COPIED.contains(&table)).await;
    let places = copies.iter().filter(|(table, _)| table == "runs").count();
    assert_eq!(places, 2, "head and texts are told with each entry");
    assert_eq!(rows(session, |table| table == "run_seals").await.len(), 1);

    assert_eq!(home.erase("ann".parse().expect("a name"), u64::MAX).await.expect("erased"), 1);
    assert_eq!(rows(session, |table| table == "run_seals").await, [], "its key went with it");
    put_back(session, &copies).await;
    let fresh = store(session).await;
    assert_eq!(fresh.run(id).await.expect("read"), None);
    assert_eq!(fresh.journal(id, 0).await.expect("read"), []);
    let listed = fresh.runs(None, PageRequest::default()).await.expect("listed");
    assert!(listed.rows.is_empty(), "{listed:?}");
    assert!(fresh.claim(1_000).await.expect("claimed").is_none());
    drop((other, fresh));
    all.close().await;
}
