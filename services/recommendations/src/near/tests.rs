use echotune_api::Recommendations as _;
use echotune_eventlog::Positions;
use echotune_kit::{config::Period, embedded::Db};
use echotune_model::{
    EventId, ExplicitContent, Feedback, Hlc, ItemId, ItemKind, PlayCount, Settings, Signal, Tagging, Tally, TraceId,
    Track,
};

use super::*;
use crate::EmbeddedRecommendationStore;

const USERS: u64 = 8;
const ARTISTS: u64 = 12;

struct World {
    service: RecommendationsService,
    seed: u64,
    events: u64,
    _folder: tempfile::TempDir,
}

fn user(n: u64) -> UserId {
    UserId(uuid::Uuid::from_u128(u128::from(n) + 1))
}

fn artist(n: u64) -> String {
    format!("artist {n}")
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let store = EmbeddedRecommendationStore::new(Db::open(folder.path()).expect("open"));
        let service = RecommendationsService::load(store).expect("loaded");
        // What is kept ends by what changes alone, however slow the machine is.
        let hour = Period(Duration::from_secs(3_600));
        let section = CacheSection { time_to_live: hour, time_to_idle: hour, ..CacheSection::default() };
        service.keep_lists(&section, &Meter::default());
        Self { service, seed, events: 0, _folder: folder }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    async fn tell(&mut self, of: UserId, payload: Payload) {
        self.events += 1;
        let id = EventId::of("e", self.events, 0);
        let event = Event {
            id,
            user: of,
            region: String::new(),
            written_at: Hlc(self.events),
            traceparent: String::new(),
            payload,
        };
        self.service.apply(vec![event], 0, Positions::of("s", self.events)).await.expect("applied");
    }

    async fn name(&mut self, n: u64) {
        self.tell(user(n), Payload::UserCreated { name: format!("user{n}").parse().expect("a name") }).await;
    }

    async fn count(&mut self, n: u64, of: u64, plays: u32) {
        let counts = vec![PlayCount { artist: artist(of), plays, source: "x".into() }];
        self.tell(user(n), Payload::PlayCountsSet { counts }).await;
    }

    /// Something that may change lists.
    async fn step(&mut self) {
        let (n, of) = (self.draw(USERS), self.draw(ARTISTS));
        match self.draw(12) {
            0..3 => {
                let plays = u32::try_from(self.draw(4)).expect("few");
                self.count(n, of, plays).await;
            }
            3..5 => {
                let explicit = [None, Some(false), Some(true)][usize::try_from(self.draw(3)).expect("three")];
                let track =
                    Track { title: format!("title {}", self.draw(3)), artist: artist(of), album: String::new() };
                let plays = u32::try_from(self.draw(5) + 1).expect("few");
                let tally = Tally { track, plays, last_listened_at_ms: 1_600_000_000_000, explicit };
                self.tell(user(n), Payload::HistoryChanged { tallies: vec![tally] }).await;
            }
            5 => {
                let taggings =
                    vec![Tagging { artist: artist(of), tag: format!("tag {}", self.draw(4)), tagged_at_ms: 0 }];
                self.tell(user(n), Payload::TaggingsAdded { taggings }).await;
            }
            6 => {
                let friends = vec![user((n + 1 + self.draw(USERS - 1)) % USERS)];
                self.tell(user(n), Payload::FriendsAdded { friends }).await;
            }
            7 => {
                let explicit = [ExplicitContent::Allow, ExplicitContent::Hide, ExplicitContent::Strict];
                let explicit = explicit[usize::try_from(self.draw(3)).expect("three")];
                let blocked_artists = if self.draw(2) == 0 { vec![artist(of)] } else { Vec::new() };
                let settings = Settings { blocked_artists, private: self.draw(2) == 0, explicit };
                self.tell(user(n), Payload::SettingsChanged { settings }).await;
            }
            8 => {
                let signal = if self.draw(2) == 0 { Signal::Liked } else { Signal::Disliked };
                let feedback = Feedback { item: ItemId::artist(&artist(of)), signal, ..feedback() };
                // Refused where nobody knows the item.
                drop(self.service.record_feedback(&Call::internal(), &format!("user{n}"), feedback).await);
            }
            9 => {
                self.tell(user(n), Payload::UserErased).await;
                self.name(n).await;
            }
            10 => drop(self.service.refit().await),
            _ => self.name(n).await,
        }
    }

    /// Whether each list that is kept near is the one that would be made now.
    async fn compare(&self, after: &str) {
        for n in 0..USERS {
            for kind in [ItemKind::Artist, ItemKind::Track] {
                let query = RecommendQuery { kind, limit: 5, include_known: n % 2 == 0 };
                let (call, name) = (Call { trace: TraceId(7), ..Call::internal() }, format!("user{n}"));
                let served = self.service.recommend(&call, &name, &query).await;
                let made = self.service.made(&call, &name.parse().expect("a name"), &query).map(|made| made.list);
                assert_eq!(served, made, "user{n} {kind:?} after {after}");
            }
        }
    }
}

fn feedback() -> Feedback {
    Feedback { item: ItemId::artist(""), signal: Signal::Liked, trace: TraceId::default() }
}

#[tokio::test]
async fn region_lists_kept_near_are_those_that_would_be_made_whatever_happens() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        for n in 0..USERS {
            world.name(n).await;
            for _ in 0..4 {
                let of = world.draw(ARTISTS);
                world.count(n, of, 3).await;
            }
        }
        world.service.refit().await;
        for step in 0..150 {
            world.compare(&format!("step {step} of seed {seed}")).await;
            world.step().await;
        }
    }
}

/// A listener with a list of two artists.
async fn world() -> World {
    let mut world = World::new(1);
    for (n, artists) in [(0, &[0, 1, 2][..]), (1, &[0, 1, 2]), (2, &[0])] {
        world.name(n).await;
        for of in artists {
            world.count(n, *of, 5).await;
        }
    }
    world.service.refit().await;
    world
}

async fn titles(world: &World, call: &Call, limit: u32) -> Vec<String> {
    let query = RecommendQuery { kind: ItemKind::Artist, limit, include_known: false };
    let list = world.service.recommend(call, "user2", &query).await.expect("listed");
    assert_eq!((list.trace, list.watermark), (call.trace, world.service.watermark()), "new in each answer");
    list.items.into_iter().map(|item| item.artist).collect()
}

#[tokio::test]
async fn region_lists_are_kept_until_something_changes_and_each_answer_has_its_own_trace() {
    let mut world = world().await;
    let call = |trace| Call { trace: TraceId(trace), ..Call::internal() };
    let before = titles(&world, &call(1), 5).await;
    assert_eq!(before.len(), 2);
    // Changed behind its back: whoever makes a list now sees it.
    let rename = |state: &mut State| {
        let place = state.artists.get(ItemId::artist(&artist(1))).expect("known");
        state.artists.entries[place as usize].artist = "planted".into();
    };
    world.service.update(rename);
    assert_eq!(titles(&world, &call(2), 5).await, before, "what was made is served again");
    assert!(titles(&world, &call(3), 4).await.contains(&"planted".to_owned()), "another query is another list");
    world.tell(user(1), Payload::UserCreated { name: "user1".parse().expect("a name") }).await;
    assert_eq!(titles(&world, &call(4), 5).await, before, "what is told of others changes nothing");
    world.count(2, 3, 1).await;
    assert!(titles(&world, &call(5), 5).await.contains(&"planted".to_owned()), "the listener's history changed");
}
