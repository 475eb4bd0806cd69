//! How fast a kept store takes writes and starts, beside logged batches of the same rows by the same session:
//! `ECHOTUNE_CQL=us=127.0.0.1:9042 cargo run --release -p echotune-kit --features cql --example kept`.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use echotune_kit::{
    cql::{Batch as Logged, CqlSession, KeptDb, KeptTasks, Migration, Migrations, Write, WriteClock, scratch},
    embedded::{Batch, Db, Key, StoreError, Table},
};
use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

const ROWS: Table = Table("rows");
/// Rows of one write, as many as an impression has, and bytes of each.
const TOGETHER: u64 = 4;
const BYTES: usize = 200;
/// Rows that a start reads.
const STORED: u64 = 200_000;
/// For how long each is measured.
const MEASURED: Duration = Duration::from_secs(10);

const PLAIN: Migrations = Migrations {
    owner: "example",
    steps: &[Migration {
        version: 1,
        name: "rows",
        statements: &["CREATE TABLE IF NOT EXISTS plain (part bigint PRIMARY KEY, value blob)"],
    }],
};

async fn kept(db: &Db, n: u64, rows: u64) {
    let written = db.write(move |_| {
        let mut batch = Batch::default();
        for row in 0..rows {
            batch.put_bytes(ROWS, Key::new().u64((n * rows + row).wrapping_mul(0x9e37_79b9_7f4a_7c15)), vec![7; BYTES]);
        }
        Ok::<_, StoreError>(((), batch))
    });
    written.await.expect("written");
}

async fn logged(session: &CqlSession, put: &Write, times: &WriteClock, n: u64) {
    let mut batch = Logged::new("rows", times.now());
    for row in 0..TOGETHER {
        let part = (n * TOGETHER + row).wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed();
        batch.add(put, (part, vec![7_u8; BYTES]));
    }
    session.apply(batch).await.expect("written");
}

/// Writes a second by so many callers at once, each of whom waits for the answer.
async fn rate<F: Future<Output = ()>>(callers: usize, write: impl Fn(u64) -> F) -> f64 {
    let began = Instant::now();
    let numbers = stream::iter(0..).take_while(|_| std::future::ready(began.elapsed() < MEASURED));
    let done = numbers.map(write).buffer_unordered(callers).count().await;
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let done = done as f64;
    done / began.elapsed().as_secs_f64()
}

async fn open(session: &CqlSession, folder: &std::path::Path) -> (Db, KeptTasks) {
    KeptDb::open(session, "example", folder, CancellationToken::new()).await.expect("opened")
}

#[tokio::main]
async fn main() {
    let config = scratch::configs("example").remove(0);
    let session = CqlSession::connect(&config).await.expect("connected");
    session.migrate(&PLAIN).await.expect("migrated");
    KeptDb::migrate(&session).await.expect("migrated");
    let folder = std::env::temp_dir().join(&config.keyspace);
    let put = session.write("put", "INSERT INTO plain (part, value) VALUES (?, ?)").await.expect("prepared");
    let times = WriteClock::new(std::sync::Arc::default());
    let (db, tasks) = open(&session, &folder).await;
    println!("writes of {TOGETHER} rows of {BYTES} bytes, {} s each; writes a second", MEASURED.as_secs());
    println!("{:>8} {:>10} {:>10} {:>10} {:>7}", "callers", "kept", "commits", "logged", "ratio");
    for callers in [1, 16, 256, 2_048] {
        let before = *db.commits().borrow();
        let ours = rate(callers, |n| kept(&db, n, TOGETHER)).await;
        #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
        let commits = (*db.commits().borrow() - before) as f64 / MEASURED.as_secs_f64();
        let theirs = rate(callers.min(200), |n| logged(&session, &put, &times, n)).await;
        println!("{callers:>8} {ours:>10.0} {commits:>10.0} {theirs:>10.0} {:>7.2}", ours / theirs);
    }
    drop(db);
    tasks.close(Duration::from_secs(600)).await;
    let (db, tasks) = open(&session, &folder).await;
    let began = Instant::now();
    for n in 0..STORED / 1_000 {
        kept(&db, n, 1_000).await;
    }
    let taken = began.elapsed();
    drop(db);
    tasks.close(Duration::from_secs(600)).await;
    let flushed = began.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let rows = STORED as f64;
    println!("{STORED} rows by 1,000: acknowledged at {:.0} rows/s", rows / taken.as_secs_f64());
    println!("… in the rows at {:.0} rows/s", rows / flushed.as_secs_f64());
    let began = Instant::now();
    let (db, tasks) = open(&session, &folder).await;
    let mut count = 0_u64;
    let counted = db.read(|view| {
        view.scan(ROWS, &Key::new(), None, echotune_kit::embedded::Order::Ascending, &mut |_, _| {
            count += 1;
            Ok(true)
        })
    });
    counted.map_err(|cause: StoreError| cause).expect("read");
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("a start of {count} rows in {:.1} s: {rate:.0} rows/s", began.elapsed().as_secs_f64());
    drop(db);
    tasks.close(Duration::from_secs(60)).await;
    scratch::drop(&session).await.expect("dropped");
    std::fs::remove_dir(folder).expect("empty");
}
