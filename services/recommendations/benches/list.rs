//! What a list and a fit cost, on a generated world of the shape of HetRec 2011 Last.fm: 1,892 listeners
//! with 49 play counts each, of 17,588 artists.
#![allow(missing_docs)]

use divan::{Bencher, black_box};
use echotune_api::{
    Experiments as _, RecommendQuery, Recommendations as _,
    events::{Event, Payload},
};
use echotune_kit::embedded::Db;
use echotune_model::{
    Call, EventId, ExperimentKind, ExperimentSpec, Hlc, ItemKind, Metric, PARTS, PlayCount, PolicyChange, TraceId,
    UserId, Variant,
};
use echotune_recommendations::{
    EmbeddedRecommendationStore, RecommendationStore as _, RecommendationsService, store::Progress,
};

const USERS: u32 = 1_892;
const ARTISTS: u32 = 17_588;
const COUNTS: u32 = 49;

fn main() {
    divan::main();
}

struct World {
    service: RecommendationsService,
    store: EmbeddedRecommendationStore,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

/// The events of one listener: popular artists more often.
fn listener(n: u32, draw: &mut impl FnMut() -> u32) -> [Event; 2] {
    let artist =
        |draw: &mut dyn FnMut() -> u32| u64::from(draw() % ARTISTS) * u64::from(draw() % ARTISTS) / u64::from(ARTISTS);
    let count =
        |_| PlayCount { artist: format!("artist {}", artist(draw)), plays: draw() % 2_000 + 1, source: "x".into() };
    let counts = (0..COUNTS).map(count).collect();
    let name = format!("user{n}").parse().expect("a name");
    let user = UserId::new(u64::from(n));
    [Payload::UserCreated { name }, Payload::PlayCountsSet { counts }].map(|payload| {
        let written_at = Hlc::from_ms(u64::from(n) + 1);
        let id = EventId::of(&user.to_string(), written_at.0, 0);
        Event { id, user, region: "bench".into(), written_at, traceparent: String::new(), payload }
    })
}

/// Each is a friend of the next ones in a circle, and so of as many before.
fn befriended(n: u32, friends: u32) -> Event {
    let friends = (1..=friends / 2).map(|step| UserId::new(u64::from((n + step) % USERS))).collect();
    let (user, written_at) = (UserId::new(u64::from(n)), Hlc::from_ms(u64::from(USERS + n) + 1));
    let (id, payload) = (EventId::of(&user.to_string(), written_at.0, 0), Payload::FriendsAdded { friends });
    Event { id, user, region: "bench".into(), written_at, traceparent: String::new(), payload }
}

fn world() -> World {
    world_of(0)
}

/// Listeners with so many friends each.
fn world_of(friends: u32) -> World {
    let mut seed = 1_u64;
    let mut draw = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    let folder = tempfile::tempdir().expect("folder");
    let store = EmbeddedRecommendationStore::new(Db::open(folder.path()).expect("open"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let mut events: Vec<Event> = (0..USERS).flat_map(|n| listener(n, &mut draw)).collect();
    events.extend((0..USERS).filter(|_| friends > 0).map(|n| befriended(n, friends)));
    let progress =
        Progress { positions: echotune_eventlog::Positions::of("topic", 1), watermark: Hlc::from_ms(1), revision: 1 };
    runtime.block_on(store.apply(events, 0, progress)).expect("applied");
    let service = RecommendationsService::load(store.clone()).expect("loaded");
    runtime.block_on(service.refit());
    World { service, store, runtime, _folder: folder }
}

#[divan::bench(args = [10, 50, 500])]
fn list(bencher: Bencher, limit: u32) {
    let World { service, runtime, .. } = &world();
    let query = RecommendQuery { kind: ItemKind::Artist, limit, include_known: false };
    let mut users = (0..USERS).cycle().map(|n| format!("user{n}"));
    bencher.with_inputs(|| users.next().expect("endless")).bench_local_values(|user| {
        runtime.block_on(service.recommend(&Call::internal(), black_box(&user), &query)).expect("listed")
    });
}

/// The same where lists are kept near, each asked for again: what is left of making one.
#[cfg(feature = "cache")]
#[divan::bench(args = [10, 50, 500])]
fn list_kept_near(bencher: Bencher, limit: u32) {
    kept(bencher, limit, USERS, u32::MAX);
}

/// Where each list is asked for once: what keeping costs beside making.
#[cfg(feature = "cache")]
#[divan::bench(args = [10, 50, 500], sample_count = 18, sample_size = 100)]
fn list_kept_in_vain(bencher: Bencher, limit: u32) {
    kept(bencher, limit, USERS, 0);
}

/// Lists of listeners in turn, asked for once before when they are among the first `warm`.
#[cfg(feature = "cache")]
fn kept(bencher: Bencher, limit: u32, users: u32, warm: u32) {
    use echotune_kit::{cache::CacheSection, config::Period, telemetry::metrics::Meter};

    let World { service, runtime, .. } = &world();
    let hour = Period(std::time::Duration::from_secs(3_600));
    let section = CacheSection { time_to_live: hour, time_to_idle: hour, ..CacheSection::default() };
    let capacity = "1GiB".parse().expect("a size");
    service.keep_lists(&CacheSection { capacity, ..section }, &Meter::default());
    let query = RecommendQuery { kind: ItemKind::Artist, limit, include_known: false };
    let ask = |user: String| {
        runtime.block_on(service.recommend(&Call::internal(), black_box(&user), &query)).expect("listed")
    };
    (0..users.min(warm)).for_each(|n| drop(ask(format!("user{n}"))));
    let mut asked = (0..users).cycle().map(|n| format!("user{n}"));
    bencher.with_inputs(|| asked.next().expect("endless")).bench_local_values(ask);
}

#[divan::bench(args = [0, 20, 256])]
fn list_of_50_with_friends(bencher: Bencher, friends: u32) {
    let World { service, runtime, .. } = &world_of(friends);
    let query = RecommendQuery { kind: ItemKind::Artist, limit: 50, include_known: false };
    let mut users = (0..USERS).cycle().map(|n| format!("user{n}"));
    bencher.with_inputs(|| users.next().expect("endless")).bench_local_values(|user| {
        runtime.block_on(service.recommend(&Call::internal(), black_box(&user), &query)).expect("listed")
    });
}

/// An experiment in which half of the listeners have another policy.
fn experiment(kind: ExperimentKind, change: PolicyChange) -> ExperimentSpec {
    let variant = |name: &str, change| Variant { name: name.into(), weight: PARTS / 2, change };
    ExperimentSpec {
        name: "bench".into(),
        hypothesis: "it costs little".into(),
        kind,
        variants: vec![variant("control", PolicyChange::default()), variant("other", change)],
        share: PARTS,
        primary: Metric::Acceptance,
        guardrails: Vec::new(),
        alpha: 0.05,
        min_listeners: 0,
        max_listeners: 0,
        min_duration_ms: 0,
        max_duration_ms: 0,
        slow_list_ms: 100,
        window_ms: 0,
        auto_stop: false,
    }
}

/// A list of ten within an experiment: what is done to make it, and to remember it.
#[divan::bench(args = ["popularity", "exploration", "interleaving"])]
fn list_in_an_experiment(bencher: Bencher, of: &str) {
    let World { service, runtime, .. } = &world();
    let popular = PolicyChange { trending_weight: Some(0.1), ..PolicyChange::default() };
    let explore = PolicyChange { exploration_slots: Some(2), ..PolicyChange::default() };
    let (kind, change) = match of {
        "exploration" => (ExperimentKind::Split, explore),
        "interleaving" => (ExperimentKind::Interleaving, popular),
        _ => (ExperimentKind::Split, popular),
    };
    runtime.block_on(service.create_experiment(&Call::internal(), experiment(kind, change))).expect("begun");
    let query = RecommendQuery { kind: ItemKind::Artist, limit: 10, include_known: false };
    let mut calls = (0..USERS).cycle().zip(1_u128..).map(|(n, trace)| (format!("user{n}"), trace));
    bencher.with_inputs(|| calls.next().expect("endless")).bench_local_values(|(user, trace)| {
        let call = Call { trace: TraceId(trace), ..Call::internal() };
        runtime.block_on(service.recommend(&call, black_box(&user), &query)).expect("listed")
    });
}

#[divan::bench(sample_count = 10)]
fn first_fit(bencher: Bencher) {
    let World { store, runtime, .. } = &world();
    bencher
        .with_inputs(|| RecommendationsService::load(store.clone()).expect("loaded"))
        .bench_local_values(|service| runtime.block_on(service.refit()));
}
