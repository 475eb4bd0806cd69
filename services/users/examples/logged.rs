//! How many durable listens a second the store of users takes, beside logged batches of the same rows by the same
//! session, without anything that a store does before and after, with their values in clear and sealed as the store's are
//! (the store writes the row of a period once in ten minutes, the batches each time):
//! `ECHOTUNE_CQL=us=127.0.0.1:9042 cargo run --release -p echotune-users --features cql --example logged [CALLERS…]`.

use std::{
    env,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use echotune_api::Users as _;
use echotune_kit::{
    cql::{Batch, CqlSession, Write, WriteClock, scratch},
    keys::{CqlSubjectKeys, DataKey, HeldKeys, MasterKeys},
};
use echotune_model::{Call, Clock, Listen, Track};
use echotune_users::{CqlUserStore, UsersService};
use futures::{StreamExt as _, stream};
use uuid::Uuid;

/// For how long each is measured.
const MEASURED: Duration = Duration::from_secs(10);
/// How often both are measured, in turns.
const ROUNDS: usize = 3;
/// Listeners of the store.
const LISTENERS: u64 = 256;
/// Bytes of a listen.
const LISTEN: usize = 110;
/// Bytes of an outbox event and of what it needs, as one listen has them.
const EVENT: (usize, usize) = (180, 40);

/// The rows that one listen makes.
struct Rows {
    listen: Write,
    period: Write,
    by_track: Write,
    outbox: Write,
    count: Write,
}

impl Rows {
    async fn prepare(session: &CqlSession) -> Self {
        let write = async |name, cql| session.write(name, cql).await.expect("prepared");
        Self {
            listen: write(
                "listen",
                "INSERT INTO users_listens (user_id, period, listened_at, listen_id, value) VALUES (?, ?, ?, ?, ?)",
            )
            .await,
            period: write("period", "INSERT INTO users_periods (user_id, period) VALUES (?, ?)").await,
            by_track: write(
                "by track",
                "INSERT INTO users_listens_by_track (user_id, bucket, track_id, listened_at, listen_id, mark) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .await,
            outbox: write(
                "outbox",
                "INSERT INTO users_outbox (region, shard, minute, at, event_id, user_id, event, needs) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .await,
            count: write("count", "INSERT INTO users_counts (region, writer, name, value) VALUES (?, ?, ?, ?)").await,
        }
    }

    /// One logged batch of them, sealed when there is a key.
    async fn put(&self, session: &CqlSession, times: &WriteClock, key: Option<&DataKey>, n: u64) {
        let value = |bytes: usize| {
            let plain = vec![7_u8; bytes];
            let about = [7_u8; 60];
            key.map_or_else(|| plain.clone(), |key| key.seal(&about, &plain).expect("sealed"))
        };
        let time = times.now();
        let (user, n) = (Uuid::from_u128(u128::from(n % LISTENERS) << 64 | 7), n.cast_signed());
        let (listen, track) = (Uuid::new_v4(), Uuid::new_v4());
        let mut batch = Batch::new("raw", time);
        batch.add(&self.period, (user, 1_i64));
        batch.add(&self.listen, (user, 1_i64, n, listen, value(LISTEN)));
        batch.add(&self.by_track, (user, 1_i32, track, n, listen, 0_i8));
        let place = ("raw".to_owned(), 0_i32, time.micros / 60_000_000, time.micros, listen);
        let event = (value(EVENT.0), value(EVENT.1));
        batch.add(&self.outbox, (place.0, place.1, place.2, place.3, place.4, user, event.0, event.1));
        batch.add(&self.count, ("raw".to_owned(), "raw".to_owned(), "listens".to_owned(), n));
        session.apply(batch).await.expect("written");
    }
}

/// What so many callers at once did in a second, each waiting for the answer, and the 99th of a hundred answers.
async fn rate<F: Future<Output = ()>>(callers: usize, write: impl Fn(u64) -> F) -> (f64, Duration) {
    let began = Instant::now();
    let numbers = stream::iter(0..).take_while(|_| std::future::ready(began.elapsed() < MEASURED));
    let timed = numbers.map(|n| {
        let write = write(n);
        async {
            let began = Instant::now();
            write.await;
            began.elapsed()
        }
    });
    let mut took: Vec<_> = timed.buffer_unordered(callers).collect().await;
    took.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
    let done = took.len() as f64 / began.elapsed().as_secs_f64();
    (done, took[took.len() * 99 / 100])
}

#[tokio::main]
async fn main() {
    let told: Result<Vec<usize>, _> = env::args().skip(1).map(|word| word.parse()).collect();
    let told = told.expect("numbers of callers");
    let numbers = if told.is_empty() { vec![16, 64, 256] } else { told };
    let config = scratch::configs("logged").remove(0);
    let session = CqlSession::connect(&config).await.expect("connected");
    CqlSubjectKeys::migrate(&session).await.expect("migrated");
    CqlUserStore::migrate(&session).await.expect("migrated");
    let clock = Arc::new(Clock::default());
    let (master, times) = (MasterKeys::new(&[[7; 32]]), WriteClock::new(Arc::clone(&clock)));
    let keys = CqlSubjectKeys::connect(session.clone(), master, times).await.expect("connected");
    let keys = HeldKeys::new(Arc::new(keys), Duration::from_secs(60));
    let store = CqlUserStore::connect(session.clone(), keys, "example", Arc::clone(&clock)).await.expect("connected");
    let service = UsersService::new(store);
    for listener in 0..LISTENERS {
        service.create_user(&Call::internal(), &format!("listener-{listener}")).await.expect("made");
    }
    let (rows, times) = (Rows::prepare(&session).await, WriteClock::new(clock));
    println!("single listens, {} s each; a second, and the slowest of 99 in a hundred", MEASURED.as_secs());
    println!("{:>8} {:>16} {:>16} {:>16} {:>6}", "callers", "users", "sealed batches", "clear batches", "ratio");
    let key = DataKey::random().expect("random");
    let mut from = 0;
    for callers in numbers {
        for _ in 0..ROUNDS {
            let clear = rate(callers, |n| rows.put(&session, &times, None, n)).await;
            let sealed = rate(callers, |n| rows.put(&session, &times, Some(&key), n)).await;
            let ours = rate(callers, |n| {
                let name = format!("listener-{}", n % LISTENERS);
                let (service, at) = (&service, 1_700_000_000_000 + (from + n).cast_signed() * 1_000);
                let track = Track { title: n.to_string(), artist: "somebody".into(), album: String::new() };
                let listen =
                    Listen { track, listened_at_ms: at, played_ms: 0, source: "example".into(), explicit: None };
                async move {
                    let receipt = service.record_listens(&Call::internal(), &name, vec![listen]).await;
                    assert_eq!(receipt.expect("recorded").recorded, 1, "a listen that was there measures nothing");
                }
            })
            .await;
            from += 10_000_000;
            let show = |(rate, slow): (f64, Duration)| format!("{rate:.0}/s {:.0} ms", slow.as_secs_f64() * 1e3);
            let (ours, ratio) = (show(ours), ours.0 / clear.0);
            println!("{callers:>8} {ours:>16} {:>16} {:>16} {ratio:>6.2}", show(sealed), show(clear));
        }
    }
    scratch::drop(&session).await.expect("dropped");
}
