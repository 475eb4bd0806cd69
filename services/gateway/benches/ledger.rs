//! What an entry of the ledger costs: alone with its wait for the disk, many that share one, and handed over without
//! waiting, as the gateway does. And what proving a line costs.
#![allow(missing_docs)]

use std::time::Duration;

use divan::{Bencher, counter::ItemsCount};
use echotune_gateway::metering::{CallOutcome, Metering, MeteringConfig, Usage, verify};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

fn usage(n: u64) -> Usage {
    Usage {
        idempotency_key: format!("{n:032x}"),
        tenant: "0192d3c4-0000-7000-8000-000000000001".into(),
        caller: "user/0192d3c4-0000-7000-8000-000000000001/writer".into(),
        server: "server-filesystem".into(),
        tool: "read_text_file".into(),
        era: "2026-07-28".into(),
        outcome: CallOutcome::Ok,
        duration: Duration::from_micros(1_500),
        bytes_in: 200,
        bytes_out: 20_000,
        trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
    }
}

struct Bed {
    runtime: Runtime,
    ledger: Metering,
    folder: tempfile::TempDir,
}

fn bed() -> Bed {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Metering::open(MeteringConfig::new(folder.path())).expect("a ledger");
    Bed { runtime: Runtime::new().expect("a runtime"), ledger, folder }
}

#[divan::bench]
fn append_one(bencher: Bencher) {
    let Bed { runtime, ledger, folder: _folder } = bed();
    let mut calls = 0..;
    bencher.bench_local(|| {
        runtime.block_on(ledger.append(usage(calls.next().expect("endless")))).expect("written");
    });
}

#[divan::bench(sample_count = 20)]
fn append_a_thousand_together(bencher: Bencher) {
    let Bed { runtime, ledger, folder: _folder } = bed();
    let mut calls = 0..;
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        let thousand = (0..1_000).map(|_| ledger.append(usage(calls.next().expect("endless"))));
        runtime.block_on(futures::future::join_all(thousand.collect::<Vec<_>>()));
    });
    assert_eq!(ledger.lost(), 0);
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn record_a_thousand(bencher: Bencher) {
    let Bed { runtime, ledger, folder: _folder } = bed();
    let mut calls = 0..;
    // What the caller pays: the writing goes on beside.
    bencher.counter(ItemsCount::new(1_000_u32)).bench_local(|| {
        runtime.block_on(async {
            for _ in 0..1_000 {
                ledger.record(usage(calls.next().expect("endless"))).await;
            }
        });
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn verify_ten_thousand(bencher: Bencher) {
    let Bed { runtime, ledger, folder } = bed();
    let all = (0..10_000).map(|call| ledger.append(usage(call)));
    runtime.block_on(futures::future::join_all(all.collect::<Vec<_>>()));
    runtime.block_on(ledger.close());
    let key = ledger.public_key();
    bencher.counter(ItemsCount::new(10_000_u32)).bench_local(|| {
        assert!(verify(folder.path(), &key, None).expect("read").is_whole());
    });
}
