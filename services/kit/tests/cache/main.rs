//! The tier that processes share, on a real server: `cargo xtask e2e cache` looks whether there is one.

mod faults;
mod server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use echotune_kit::{
    cache::{Cache as _, Key},
    keys::SubjectKeys as _,
};
use echotune_model::Fault;
use futures::future::join_all;

use self::server::{Keys, LONG, Process, Server, Source, eventually};

/// A value with a version, the number of times that it was read, and how long that takes.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) version: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    pub(crate) takes: Duration,
}

#[async_trait]
impl Source for Row {
    async fn read(&self) -> Result<String, Fault> {
        self.reads.fetch_add(1, Relaxed);
        let version = self.version.load(Relaxed);
        tokio::time::sleep(self.takes).await;
        Ok(format!("about ann, version {version}"))
    }
}

impl Row {
    pub(crate) fn reads(&self) -> usize {
        self.reads.swap(0, Relaxed)
    }

    fn write(&self) -> String {
        format!("about ann, version {}", self.version.fetch_add(1, Relaxed) + 1)
    }
}

/// For how long one who makes a value is waited for by others at the most.
const LEASE: Duration = Duration::from_secs(2);

async fn has_value(server: &Server) -> bool {
    server.holds().await.iter().any(|(field, _)| field.windows(2).any(|two| two == b"v:"))
}

/// Waits until the server has a value.
async fn kept(server: &Server) {
    eventually("the server has the value", || has_value(server)).await;
}

/// Reads until the server has the value, which it is not given when its answers are late.
async fn filled(server: &Server, by: &Process, row: &Row) {
    let filled = || async {
        by.get("ann", row).await;
        has_value(server).await
    };
    eventually("the server has the value", filled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_read_once_for_all_processes_and_sealed_between_them() {
    let (server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let (one, two) = (Process::ready(server.options(), &keys).await, Process::ready(server.options(), &keys).await);
    let value = one.get("ann", &row).await;
    kept(&server).await;
    assert_eq!((two.get("ann", &row).await, row.reads()), (value, 1));
    for (field, held) in server.holds().await {
        assert!(!held.windows(7).any(|some| some == b"version"), "{}", String::from_utf8_lossy(&field));
    }
    let life = server.life_ms("ann").await;
    assert!((1..=60_000).contains(&life), "{life} ms");
    keys.held.destroy("ann").await.expect("destroyed");
    let three = Process::ready(server.options(), &keys).await;
    three.get("ann", &row).await;
    assert_eq!(row.reads(), 1, "without its key a value cannot be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_of_its_subject_nothing_is_kept() {
    let (server, keys, row) = (Server::start(), Keys::of(&[]).await, Row::default());
    let one = Process::ready(server.options(), &keys).await;
    one.get("ann", &row).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let held = server.holds().await;
    assert!(!held.iter().any(|(field, _)| field.windows(2).any(|two| two == b"v:")), "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_is_for_all_processes_that_do_not_hold_the_value() {
    let (server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let (one, two) = (Process::ready(server.options(), &keys).await, Process::ready(server.options(), &keys).await);
    one.get("ann", &row).await;
    kept(&server).await;
    let new = row.write();
    one.changed("ann").await;
    assert_eq!(server.holds().await, [], "nothing of the subject is left");
    assert_eq!(one.get("ann", &row).await, new);
    assert_eq!(two.get("ann", &row).await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_began_before_an_invalidation_elsewhere_is_not_kept() {
    let (server, keys) = (Server::start(), Keys::of(&["ann"]).await);
    let slow = Arc::new(Row { takes: Duration::from_millis(500), ..Row::default() });
    let (one, two) = (Process::ready(server.options(), &keys).await, Process::ready(server.options(), &keys).await);
    let (reader, of) = (one.cache.clone(), Arc::clone(&slow));
    let began =
        tokio::spawn(
            async move { reader.get_or_compute(Key::of("ann"), Box::pin(async move { of.read().await })).await },
        );
    eventually("the read is under way", || async { slow.reads.load(Relaxed) == 1 }).await;
    let new = slow.write();
    two.changed("ann").await;
    began.await.expect("joined").expect("read");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let quick = Row { version: 1.into(), ..Row::default() };
    assert_eq!(two.get("ann", &quick).await, new);
    let three = Process::ready(server.options(), &keys).await;
    assert_eq!(three.get("ann", &quick).await, new, "what was read before is nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_in_two_processes_make_one_value() {
    let (server, keys) = (Server::start(), Keys::of(&["ann"]).await);
    let options = server::patient(&server);
    let processes = [Process::ready(options.clone(), &keys).await, Process::ready(options, &keys).await];
    let row = Arc::new(Row { takes: Duration::from_millis(300), ..Row::default() });
    let since = Instant::now();
    let callers = (0..1_000).map(|n| {
        let (cache, row) = (processes[n % 2].cache.clone(), Arc::clone(&row));
        tokio::spawn(
            async move { cache.get_or_compute(Key::of("ann"), Box::pin(async move { row.read().await })).await },
        )
    });
    for answer in join_all(callers).await {
        answer.expect("joined").expect("read");
    }
    let reads = row.reads();
    // On a machine that stood still for longer than others wait for one, two may have made it.
    assert!(reads == 1 || (reads == 2 && since.elapsed() >= LEASE), "{reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_a_value_and_dies_is_waited_for_a_short_while() {
    let (server, keys) = (Server::start(), Keys::of(&["ann"]).await);
    let (one, two) = (Process::ready(server.options(), &keys).await, Process::ready(server.options(), &keys).await);
    let (reader, begun) = (one.cache.clone(), Arc::new(AtomicUsize::new(0)));
    let (flag, before) = (Arc::clone(&begun), Instant::now());
    let dies = tokio::spawn(async move {
        let never = async move {
            flag.store(1, Relaxed);
            std::future::pending().await
        };
        reader.get_or_compute(Key::of("ann"), Box::pin(never)).await
    });
    eventually("it has begun", || async { begun.load(Relaxed) == 1 }).await;
    dies.abort();
    let (row, since) = (Row::default(), Instant::now());
    two.get("ann", &row).await;
    let waited = since.elapsed();
    assert_eq!(row.reads(), 1);
    // Nobody is waited for any more on a machine that stood still until the lease had ended.
    let is_leased = before.elapsed() < LEASE;
    assert!((waited >= Duration::from_millis(50) || !is_leased) && waited < LONG / 2, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_anywhere_while_a_subject_is_held() {
    let (server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let (one, two) = (Process::ready(server.options(), &keys).await, Process::ready(server.options(), &keys).await);
    one.cache.invalidate("ann", LONG).await;
    one.changed("ann").await;
    // The other process holds what it reads now for itself alone.
    two.get("ann", &row).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let held = server.holds().await;
    assert!(held.len() == 1 && held[0].0.ends_with(b"held"), "{held:?}");
    one.cache.invalidate("ben", Duration::from_millis(100)).await;
    eventually("a hold ends", || async { server.holds().await.len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_another_form_are_not_read() {
    let (server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let old = Process::new(server.options(), &keys, 1);
    old.used(true).await;
    old.get("ann", &row).await;
    kept(&server).await;
    let new = Process::new(server.options(), &keys, 2);
    new.used(true).await;
    new.get("ann", &row).await;
    assert_eq!(row.reads(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_costs_nothing_else() {
    let (server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let password_file = Some(server.folder.path().join("wrong"));
    std::fs::write(server.folder.path().join("wrong"), "wrong").expect("written");
    let one = Process::new(echotune_kit::cache::RedisOptions { password_file, ..server.options() }, &keys, 1);
    assert_eq!(one.get("ann", &row).await, "about ann, version 0");
    assert!(!one.tier.is_up());
    // It is read again for each connection.
    std::fs::copy(server.password_file(), server.folder.path().join("wrong")).expect("written");
    one.used(true).await;
}
