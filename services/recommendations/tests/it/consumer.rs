use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use echotune_api::{
    Recommendations as _,
    events::{CONSUMERS, Event, Payload, RECOMMENDATIONS, USERS_TOPIC},
};
use echotune_eventlog::{
    Delivered, EventLog, Failed, LogError, Member, Positions, Reader, Record,
    dead::{self, Letters},
};
use echotune_model::{
    DeadLetter, DeadLetterFilter, DeadLetterState, ErrorKind, EventId, Hlc, ItemKind, Settings, UserId,
};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationStore as _, consume, store::Row};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{World, call, counted, played, tagged, user};

const PATIENCE: Duration = Duration::from_secs(120);

fn letters(log: impl EventLog + 'static) -> Letters {
    Letters::new(Arc::new(log), &CONSUMERS)
}

async fn listed(world: &World) -> Vec<DeadLetter> {
    letters(world.log.clone()).list(&DeadLetterFilter::default(), 100).await.expect("listed")
}

fn garbage(key: &str, bytes: usize) -> Record {
    Record { key: key.into(), value: vec![0xff; bytes], ..Record::default() }
}

fn event(of: UserId, at_ms: u64, payload: Payload) -> Event {
    let written_at = Hlc::from_ms(at_ms);
    let id = EventId::of(&of.to_string(), written_at.0, 0);
    Event { id, user: of, region: "local".into(), written_at, traceparent: String::new(), payload }
}

#[tokio::test]
async fn events_delivered_again_change_nothing_and_those_that_cannot_be_applied_are_set_aside() {
    let world = World::new();
    world.join(1, "ann", &["Björk", "Portishead"]).await;
    let payloads = || {
        vec![
            played(&["Björk"], 7),
            counted("Blur", 3, "one"),
            tagged("Blur", "britpop"),
            Payload::FriendsAdded { friends: vec![user(2)] },
        ]
    };
    world.publish(user(1), payloads()).await;
    world.service.refit().await;
    let top = world.service.top_items(&call(), "ann", ItemKind::Artist, 10).await.expect("top");
    let item = world.service.get_item(&call(), top[0].0.id).await.expect("item");
    assert_eq!((item.artist.as_str(), top[0].1), ("Björk", 7));
    let at = world.log.ends(USERS_TOPIC).await.expect("ends").next(USERS_TOPIC);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = Record { traceparent: traceparent.into(), ..garbage("x", 9) };
    let others = Record {
        key: user(2).to_string(),
        value: event(user(1), 9, played(&["Air"], 1)).encode(),
        ..Record::default()
    };
    // A field that is not in any event of now, in an event with an id alone.
    let newer = Record { key: user(1).to_string(), value: vec![0x0a, 1, b'x', 0xfa, 1, 0], ..Record::default() };
    world.log.append(USERS_TOPIC, vec![traced, garbage("y", 100_000), others, newer]).await.expect("appended");
    world.publish(user(1), payloads()).await;
    world.service.refit().await;
    assert_eq!(world.service.top_items(&call(), "ann", ItemKind::Artist, 10).await.expect("top"), top);
    assert_eq!(
        world.service.positions().next(USERS_TOPIC),
        world.log.ends(USERS_TOPIC).await.expect("ends").next(USERS_TOPIC)
    );
    assert_eq!(world.service.counts(&call()).await.expect("counts")["unreadable_events"], 4);
    let mut kept = listed(&world).await;
    kept.reverse();
    let told: Vec<_> = kept.iter().map(|one| (one.position, one.key.as_str(), one.tries)).collect();
    let (ann, ben) = (user(1).to_string(), user(2).to_string());
    assert_eq!(told, [(at, "x", 1), (at + 1, "y", 1), (at + 2, ben.as_str(), 1), (at + 3, ann.as_str(), 1)]);
    assert_eq!(kept[0].traceparent, traceparent);
    assert!(
        kept.iter().all(|one| one.consumer == RECOMMENDATIONS && one.id == format!("{USERS_TOPIC}@{}", one.position))
    );
    for (one, why) in kept.iter().zip(["not an event", "not an event", "not its user's", "of a kind"]) {
        assert!(one.reason.contains(why), "{why}: {}", one.reason);
    }
}

/// A log that does not take dead letters, or takes them and says that it does not know.
struct Faulty {
    log: Arc<dyn EventLog>,
    /// How many appends are refused, and how many are done without being acknowledged after that.
    refused: AtomicU8,
    open: AtomicU8,
}

fn take_one(of: &AtomicU8) -> bool {
    of.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl EventLog for Faulty {
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        let failed = |kind, why: &str| Err(LogError::Failed { kind, message: why.into() });
        if take_one(&self.refused) {
            return failed(ErrorKind::Unavailable, "no broker");
        }
        self.log.append(topic, records).await?;
        if take_one(&self.open) { failed(ErrorKind::Indeterminate, "no answer") } else { Ok(()) }
    }
    async fn append_sealed(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.log.append_sealed(topic, records).await
    }
    async fn starts(&self, topic: &str) -> Result<Positions, LogError> {
        self.log.starts(topic).await
    }
    async fn ends(&self, topic: &str) -> Result<Positions, LogError> {
        self.log.ends(topic).await
    }
    async fn read_from(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.log.read_from(topic, from).await
    }
    async fn read_sealed(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.log.read_sealed(topic, from).await
    }
    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn Member>, LogError> {
        self.log.join(topic, group).await
    }
    fn region_of(&self, stream: &str) -> String {
        self.log.region_of(stream)
    }
    fn system(&self) -> &'static str {
        self.log.system()
    }
    async fn committed(&self, topic: &str, group: &str) -> Result<Positions, LogError> {
        self.log.committed(topic, group).await
    }
    async fn forget(&self, topic: &str, key: &str) -> Result<(), LogError> {
        self.log.forget(topic, key).await
    }
}

#[tokio::test]
async fn the_position_stays_before_a_record_until_its_dead_letter_is_acknowledged() {
    let world = World::stopped();
    let good = Record {
        key: user(1).to_string(),
        value: event(user(1), 5, Payload::UserCreated { name: "ann".parse().expect("a name") }).encode(),
        ..Record::default()
    };
    world.log.append(USERS_TOPIC, vec![garbage("x", 9), good]).await.expect("appended");
    let faulty = Faulty { log: Arc::new(world.log.clone()), refused: AtomicU8::new(1), open: AtomicU8::new(1) };
    for kind in [ErrorKind::Unavailable, ErrorKind::Indeterminate] {
        let ended = timeout(PATIENCE, consume(world.service.clone(), &faulty, CancellationToken::new())).await;
        let cause = ended.expect("it ends").expect_err("no dead letter");
        assert_eq!(echotune_kit::lifecycle::Passing::kind(&cause), kind, "{cause}");
        assert_eq!(world.service.positions().next(USERS_TOPIC), 0, "neither in memory nor in the store");
    }
    let stop = CancellationToken::new();
    let consuming = consume(world.service.clone(), &faulty, stop.clone());
    let caught_up = async {
        world.service.caught_up(&Positions::of(USERS_TOPIC, 2)).await;
        stop.cancel();
    };
    let (ended, ()) = timeout(PATIENCE, async { tokio::join!(consuming, caught_up) }).await.expect("in time");
    ended.expect("consumed");
    let aside = dead::letters_topic(USERS_TOPIC, RECOMMENDATIONS);
    assert_eq!(
        world.log.ends(&aside).await.expect("ends").next(&aside),
        2,
        "written again, as its outcome was unknown"
    );
    let kept = listed(&world).await;
    assert_eq!(kept.iter().map(|one| (one.position, one.tries)).collect::<Vec<_>>(), [(0, 1)], "and told of once");
    assert_eq!(world.service.counts(&call()).await.expect("counts")["unreadable_events"], 1);
}

#[tokio::test]
async fn a_dead_letter_is_applied_when_it_is_replayed_and_set_aside_again_when_it_still_cannot_be() {
    let world = World::new();
    world.join(1, "ann", &["Björk"]).await;
    // Set aside by a program that did not understand it: this one does.
    let heard = event(user(1), 9_000, played(&["Portishead"], 3));
    let understood = Record { key: user(1).to_string(), value: heard.encode(), ..Record::default() };
    world.log.append("elsewhere", vec![understood.clone()]).await.expect("appended");
    let delivered = Delivered { stream: "elsewhere".into(), position: 0, record: understood };
    let failed = Failed { delivered, reason: "an event of a kind that this program does not know".into() };
    dead::set_aside(&world.log, USERS_TOPIC, RECOMMENDATIONS, vec![failed]).await.expect("aside");
    world.log.append(USERS_TOPIC, vec![garbage("x", 9)]).await.expect("appended");
    world.service.caught_up(&world.log.ends(USERS_TOPIC).await.expect("ends")).await;
    let letters = letters(world.log.clone());
    let ours = DeadLetterFilter { consumer: RECOMMENDATIONS.into(), ..DeadLetterFilter::default() };
    assert_eq!(letters.replay(&ours, false).await.expect("replayed").replayed, 2);
    let replays = dead::replays_topic(USERS_TOPIC, RECOMMENDATIONS);
    let ends = world.log.ends(&replays).await.expect("ends");
    timeout(PATIENCE, world.service.caught_up(&ends)).await.expect("replayed");
    let top = world.service.top_items(&call(), "ann", ItemKind::Artist, 10).await.expect("top");
    assert_eq!((top.len(), top[0].1), (2, 3), "{top:?}");
    let told: Vec<_> = listed(&world).await.into_iter().map(|one| (one.key, one.tries, one.state)).collect();
    let ann = user(1).to_string();
    assert!(told.contains(&("x".into(), 2, DeadLetterState::FailedAgain)), "{told:?}");
    assert!(told.contains(&(ann, 1, DeadLetterState::Replayed)) && told.len() == 2, "{told:?}");
    let receipt = letters.replay(&ours, false).await.expect("asked");
    assert_eq!((receipt.replayed, receipt.left), (0, 2));
}

#[tokio::test]
async fn settings_that_newer_ones_came_after_are_not_brought_back_by_a_replay() {
    let world = World::new();
    let set = |private| Payload::SettingsChanged { settings: Settings { private, ..Settings::default() } };
    world.join(1, "ann", &["Björk"]).await;
    let record = |at_ms, payload| Record {
        key: user(1).to_string(),
        value: event(user(1), at_ms, payload).encode(),
        ..Record::default()
    };
    world.log.append(USERS_TOPIC, vec![record(20_000, set(true))]).await.expect("appended");
    world
        .log
        .append("elsewhere", vec![record(10_000, set(false)), record(30_000, counted("Air", 3, "x"))])
        .await
        .expect("appended");
    for (position, at_ms, payload) in [(0, 10_000, set(false)), (1, 30_000, counted("Air", 3, "x"))] {
        let delivered = Delivered { stream: "elsewhere".into(), position, record: record(at_ms, payload) };
        let failed = Failed { delivered, reason: "odd".into() };
        dead::set_aside(&world.log, USERS_TOPIC, RECOMMENDATIONS, vec![failed]).await.expect("aside");
    }
    world.service.caught_up(&world.log.ends(USERS_TOPIC).await.expect("ends")).await;
    assert_eq!(
        letters(world.log.clone()).replay(&DeadLetterFilter::default(), false).await.expect("replayed").replayed,
        2
    );
    let ends = world.log.ends(&dead::replays_topic(USERS_TOPIC, RECOMMENDATIONS)).await.expect("ends");
    timeout(PATIENCE, world.service.caught_up(&ends)).await.expect("replayed");
    let top = world.service.top_items(&call(), "ann", ItemKind::Artist, 10).await.expect("top");
    assert_eq!(top.len(), 2, "what is not overtaken took effect");
    let store = EmbeddedRecommendationStore::new(world.db.clone());
    let mut private = None;
    let mut take = |row| {
        if let Row::Settings(_, settings, at) = row {
            private = Some((settings.private, at));
        }
    };
    store.load(&mut take).await.expect("loaded");
    assert_eq!(private, Some((true, Hlc::from_ms(20_000))));
}

#[tokio::test]
async fn a_flood_of_bad_records_does_not_stop_the_good_one_after_it() {
    const FLOOD: usize = 5_000;
    let world = World::new();
    world.log.append(USERS_TOPIC, vec![garbage("x", 100); FLOOD]).await.expect("appended");
    timeout(PATIENCE, world.join(1, "ann", &["Björk"])).await.expect("it comes through");
    assert_eq!(world.service.counts(&call()).await.expect("counts")["unreadable_events"], FLOOD as u64);
    assert_eq!(listed(&world).await.len(), 100, "no more than was asked for");
}
