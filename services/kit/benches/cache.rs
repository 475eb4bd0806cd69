//! What a value costs that is kept near: in process, and on a server of Redis or Valkey on this machine, where one is
//! installed.
#![allow(missing_docs)]

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../tests/cache/server.rs"]
mod server;

use std::time::Duration;

use async_trait::async_trait;
use divan::{Bencher, black_box};
use echotune_kit::{
    cache::{Cache as _, Key, LocalCache, LocalLimits},
    telemetry::metrics::Meter,
};
use echotune_model::Fault;

use self::server::{Keys, LONG, Process, Server, Source};

/// Bytes of a profile, and of a list of fifty with its reasons.
const SIZES: [usize; 2] = [200, 20_000];

fn main() {
    if server::installed().is_none() {
        println!("EXCLUDED the shared tier: install redis-server or valkey-server");
    }
    divan::main();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn limits(time_to_live: Duration) -> LocalLimits {
    LocalLimits { capacity: 64 << 20, time_to_live, time_to_idle: LONG }
}

#[divan::bench]
fn hit_in_process(bencher: Bencher) {
    let (runtime, cache) = (runtime(), LocalCache::new("bench", limits(LONG), String::len, &Meter::default()));
    let get = || {
        let key = Key::of(black_box("0192d3c4-0000-7000-8000-000000000001"));
        runtime.block_on(cache.get_or_compute(key, Box::pin(async { Ok("x".repeat(200)) }))).expect("made")
    };
    get();
    bencher.bench_local(get);
}

#[divan::bench]
fn miss_in_process(bencher: Bencher) {
    let (runtime, cache) = (runtime(), LocalCache::new("bench", limits(LONG), String::len, &Meter::default()));
    let mut keys = (0_u64..).map(|n| Key::of(format!("0192d3c4-0000-7000-8000-{n:012x}")));
    bencher.with_inputs(|| keys.next().expect("endless")).bench_local_values(|key| {
        runtime.block_on(cache.get_or_compute(key, Box::pin(async { Ok("x".repeat(200)) }))).expect("made")
    });
}

/// A value of so many bytes.
struct Text(usize);

#[async_trait]
impl Source for Text {
    async fn read(&self) -> Result<String, Fault> {
        Ok("x".repeat(self.0))
    }
}

/// Nothing is held in process: each value is looked for on the server, opened and read.
#[divan::bench(args = SIZES)]
fn hit_shared(bencher: Bencher, bytes: usize) {
    if server::installed().is_none() {
        return;
    }
    let (runtime, server) = (runtime(), Server::start());
    let (keys, source) = (runtime.block_on(Keys::of(&["ann"])), Text(bytes));
    let process = runtime.block_on(async {
        let process = Process::within(limits(Duration::ZERO), server.options(), &keys, 1);
        process.used(true).await;
        process.get("ann", &source).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        process
    });
    bencher.bench_local(|| runtime.block_on(process.get("ann", &source)));
}

/// Each value is looked for in vain, made for nothing, sealed and sent.
#[divan::bench(args = SIZES)]
fn miss_shared(bencher: Bencher, bytes: usize) {
    if server::installed().is_none() {
        return;
    }
    let (runtime, server) = (runtime(), Server::start());
    let (keys, source) = (runtime.block_on(Keys::of(&["ann"])), Text(bytes));
    let process = runtime.block_on(async {
        let process = Process::within(limits(Duration::ZERO), server.options(), &keys, 1);
        process.used(true).await;
        process
    });
    let mut details = (0_u64..).map(|n| Key { subject: "ann".into(), detail: n.to_string() });
    bencher.with_inputs(|| details.next().expect("endless")).bench_local_values(|key| {
        runtime.block_on(process.cache.get_or_compute(key, Box::pin(source.read()))).expect("made")
    });
}
