//! How many events a second take effect: read from the log, decoded, checked, applied to the view, written with the
//! place in the log in one transaction, synced, and told to those who wait. Each event is one listen of one of 1,000
//! listeners to one of 20,000 tracks.
#![allow(missing_docs)]

use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};
use echotune_api::events::{Event, Payload, RECOMMENDATIONS, USERS_TOPIC};
use echotune_eventlog::{EmbeddedEventLog, EventLog as _, Record};
use echotune_kit::embedded::Db;
use echotune_model::{EventId, Hlc, Tally, Track, UserId};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationsService, consume};
use tokio_util::sync::CancellationToken;

const LISTENERS: u64 = 1_000;
const TRACKS: u64 = 20_000;
/// Records of one append.
const APPENDED: u64 = 500;

fn main() {
    divan::main();
}

/// The n-th listen.
fn listened(n: u64) -> Record {
    let (user, written_at) = (UserId::new(n % LISTENERS), Hlc::from_ms(n + 1));
    let track = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % TRACKS;
    let track =
        Track { title: format!("track {track}"), artist: format!("artist {}", track / 10), album: String::new() };
    let last_listened_at_ms = 1_700_000_000_000 + n.cast_signed();
    let tallies = vec![Tally { track, plays: 1, last_listened_at_ms, explicit: None }];
    let (id, payload) = (EventId::of(&user.to_string(), written_at.0, 0), Payload::HistoryChanged { tallies });
    let event = Event { id, user, region: "bench".into(), written_at, traceparent: String::new(), payload };
    let (key, value) = (user.to_string(), event.encode());
    Record { key, value, traceparent: String::new(), is_lasting: false, letter: None }
}

/// A log that holds so many events.
async fn log(folder: &std::path::Path, events: u64) -> Arc<EmbeddedEventLog> {
    let log = Arc::new(EmbeddedEventLog::new(Db::open(folder).expect("open")));
    for from in (0..events).step_by(usize::try_from(APPENDED).expect("few")) {
        let records = (from..events.min(from + APPENDED)).map(listened).collect();
        log.append(USERS_TOPIC, records).await.expect("appended");
    }
    log
}

#[divan::bench(args = [50_000], sample_count = 5, sample_size = 1)]
fn from_the_log_to_the_view(bencher: Bencher<'_, '_>, events: u64) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let folder = tempfile::tempdir().expect("folder");
    let log = runtime.block_on(log(folder.path(), events));
    let ends = runtime.block_on(log.ends(USERS_TOPIC)).expect("ends");
    let empty = || {
        let folder = tempfile::tempdir().expect("folder");
        let store = EmbeddedRecommendationStore::new(Db::open(folder.path()).expect("open"));
        (RecommendationsService::load(store).expect("loaded"), folder)
    };
    bencher.counter(ItemsCount::new(events)).with_inputs(empty).bench_local_values(|(service, folder)| {
        let stop = CancellationToken::new();
        runtime.block_on(async {
            let (consumed, log) = ((service.clone(), stop.clone()), Arc::clone(&log));
            let task = tokio::spawn(async move { consume(consumed.0, &*log, consumed.1).await });
            service.caught_up(&ends).await;
            stop.cancel();
            task.await.expect("ended").unwrap_or_else(|error| panic!("{RECOMMENDATIONS}: {error}"));
        });
        // Removed outside of what is measured.
        folder
    });
}
