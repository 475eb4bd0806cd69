//! What a server that is gone or frozen costs, and what is served meanwhile.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use echotune_kit::cache::{Cache as _, Key, LocalLimits, RedisOptions};
use futures::future::join_all;
use tokio::time::timeout;

use crate::{
    Row,
    server::{Keys, LONG, Process, Server, Source as _},
};

/// Nothing is held in process, so that each read asks the server.
const NOTHING: LocalLimits = LocalLimits { capacity: 1 << 20, time_to_live: Duration::ZERO, time_to_idle: LONG };
const QUICK: Duration = Duration::from_millis(25);
/// How long an answer may take where one waits for those of a frozen server, and not for all of them.
const ANSWER: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_costs_nothing_and_comes_back() {
    let (mut server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let one = Process::within(NOTHING, RedisOptions { timeout: LONG, ..server.options() }, &keys, 1);
    one.used(true).await;
    one.get("ann", &row).await;
    server.kill();
    for _ in 0..1_000 {
        // A connection that is gone is seen at once: no read waits for as long as an answer may take.
        timeout(LONG / 2, one.get("ann", &row)).await.expect("nobody waits for an answer");
    }
    one.used(false).await;
    server.again();
    one.used(true).await;
    one.get("ann", &row).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_frozen_costs_a_few_reads_the_time_of_an_answer_and_others_nothing() {
    let (server, keys) = (Server::start(), Keys::of(&["ann"]).await);
    let one = Process::within(NOTHING, RedisOptions { timeout: ANSWER, ..server.options() }, &keys, 1);
    one.used(true).await;
    server.signal("STOP");
    let row = Arc::new(Row::default());
    // All at once first: each waits for one answer at the most.
    let since = Instant::now();
    let callers = (0..200).map(|_| {
        let (cache, row) = (one.cache.clone(), Arc::clone(&row));
        tokio::spawn(
            async move { cache.get_or_compute(Key::of("ann"), Box::pin(async move { row.read().await })).await },
        )
    });
    for answer in join_all(callers).await {
        answer.expect("joined").expect("read");
    }
    let all = since.elapsed();
    let mut slow = 0;
    for _ in 0..500 {
        let since = Instant::now();
        one.get("ann", &*row).await;
        slow += usize::from(since.elapsed() >= ANSWER);
    }
    println!(
        "200 reads at once on a frozen server took {all:?}, and {slow} of 500 that came after as long as an answer"
    );
    assert!(all < ANSWER * 60, "{all:?}: they did not wait at one time");
    assert!(slow < 50, "{slow} of 500 reads waited though the server was to be left alone");
    assert!(!one.tier.is_up());
    server.signal("CONT");
    one.used(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_server_has_is_not_believed_after_a_change_it_was_not_told_of() {
    let (server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let one = Process::within(NOTHING, RedisOptions { timeout: ANSWER * 4, ..server.options() }, &keys, 1);
    one.used(true).await;
    crate::filled(&server, &one, &row).await;
    server.signal("STOP");
    let new = row.write();
    one.changed("ann").await;
    server.signal("CONT");
    // Up again or not: the old value is served to nobody who asks after the change.
    for _ in 0..50 {
        assert_eq!(one.get("ann", &row).await, new);
    }
    one.used(true).await;
    assert_eq!(one.get("ann", &row).await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_is_told_of_changes_before_it_is_used_again() {
    let (server, keys, row) = (Server::start(), Keys::of(&["ann"]).await, Row::default());
    let quick = RedisOptions { timeout: QUICK * 20, ..server.options() };
    let one = Process::within(NOTHING, quick, &keys, 1);
    one.used(true).await;
    crate::filled(&server, &one, &row).await;
    server.signal("STOP");
    while one.tier.is_up() {
        one.get("ann", &row).await;
    }
    // It is left alone now: this is sent to nobody.
    let new = row.write();
    one.changed("ann").await;
    server.signal("CONT");
    one.used(true).await;
    let two = Process::ready(server.options(), &keys).await;
    assert_eq!(two.get("ann", &row).await, new, "another process finds nothing from before the change");
}

/// Two processes write and read in turn, each telling of its writes, while the server is frozen and killed: what a process
/// serves is never older than the last change that it told of itself, nor than what it had served before.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_server_nobody_is_served_what_was_before_their_own_change() {
    let (mut server, keys) = (Server::start(), Keys::of(&["ann"]).await);
    let options = RedisOptions { timeout: QUICK, connect_timeout: QUICK * 8, ..server.options() };
    let row = Arc::new(Row::default());
    let life = LocalLimits { time_to_live: Duration::from_millis(20), capacity: 1 << 20, time_to_idle: LONG };
    let processes = [0, 1].map(|_| Arc::new(Process::within(life, options.clone(), &keys, 1)));
    let until = Instant::now() + Duration::from_secs(6);
    let workers = processes.iter().map(|process| {
        let (process, row) = (Arc::clone(process), Arc::clone(&row));
        tokio::spawn(async move {
            let (mut told, mut reads, mut writes) = (0, 0_u64, 0_u64);
            // However slow the machine is, enough is read and written.
            while Instant::now() < until || reads <= 100 {
                if reads % 7 == 0 {
                    let version = row.version.fetch_add(1, Relaxed) + 1;
                    process.changed("ann").await;
                    (told, writes) = (version, writes + 1);
                }
                let served = process.get("ann", &*row).await;
                let version: usize = served.rsplit(' ').next().expect("a word").parse().expect("a number");
                assert!(version >= told, "{version} is served, and {told} was told of");
                reads += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (reads, writes)
        })
    });
    let workers: Vec<_> = workers.collect();
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.signal("STOP");
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.signal("CONT");
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.kill();
        server.again();
    }
    for worker in workers {
        let (reads, writes) = worker.await.expect("nothing old was served");
        println!("{reads} reads and {writes} writes of a process");
    }
}
