//! The adapter over the mock brokers of the client library, which speak the protocol over loopback and keep records in
//! memory. They prove nothing about Kafka itself.

use std::collections::BTreeSet;

use echotune_kit::{
    embedded::Db,
    keys::{EmbeddedSubjectKeys, MasterKeys},
};
use echotune_model::DeadLetterFilter;
use rdkafka::{
    consumer::StreamConsumer,
    message::Message as _,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::time::timeout;

use super::*;
use crate::{Delivered, conformance};

const PATIENCE: Duration = Duration::from_secs(60);

/// Brokers, topics on them, and the log.
struct World {
    brokers: MockCluster<'static, DefaultProducerContext>,
    log: KafkaEventLog,
    _folder: tempfile::TempDir,
}

fn world(mirrored: &[&str], topics: &[(&str, i32)]) -> World {
    world_within(KafkaConfig::default().delivery_timeout, mirrored, topics)
}

/// The same, where it is known after this time that a record was not delivered.
fn world_within(delivery_timeout: Duration, mirrored: &[&str], topics: &[(&str, i32)]) -> World {
    let brokers = MockCluster::new(1).expect("brokers");
    for (topic, partitions) in topics {
        brokers.create_topic(topic, *partitions, 1).expect("made");
    }
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open(folder.path()).expect("open");
    let keys = Arc::new(EmbeddedSubjectKeys::new(db, MasterKeys::new(&[[7; 32]])));
    let config = KafkaConfig {
        bootstrap_servers: vec![brokers.bootstrap_servers()],
        mirrored: mirrored.iter().map(|region| (*region).to_owned()).collect(),
        delivery_timeout,
        look_every: Duration::from_millis(200),
        ..KafkaConfig::default()
    };
    World { brokers, log: KafkaEventLog::new(config, keys).expect("a log"), _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_kafka_conforms() {
    let names = ["order", "order-other", "positions", "waiting", "forgetting"];
    let World { log, .. } = &world(&[], &names.map(|name| (name, 3)));
    conformance::order(log, "order", "order-other").await;
    conformance::positions(log, "positions").await;
    conformance::waiting(log, "waiting").await;
    conformance::forgetting(log, "forgetting").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_on_kafka_conform() {
    let World { log, .. } = &world(&[], &[("groups", 3)]);
    conformance::groups(log, "groups").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_on_kafka_conform() {
    let World { log, .. } = &world(&[], &[("t", 3), ("t.one.dlq", 1), ("t.one.replay", 1)]);
    conformance::letters(Arc::new(log.clone()), "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_moved_without_keys_and_say_in_clear_where_they_are_from() {
    let topics = [("t", 1), ("us.t", 1), ("t.one.dlq", 1), ("us.t.one.dlq", 1), ("t.one.replay", 1)];
    let World { log, .. } = &world(&["us"], &topics);
    let secret = Record { value: b"Army of Me".to_vec(), ..record("ann", 0) };
    let sealed = log.seals.seal("t", &secret).await.expect("sealed");
    // Two of another region, one of which nobody has sealed.
    for payload in [&sealed, &b"not one of ours".to_vec()] {
        let sent = log.producer.send(FutureRecord::to("us.t").key("ann").payload(payload), PATIENCE).await;
        sent.expect("appended");
    }
    let mut reader = log.read_from("t", Positions::default()).await.expect("a reader");
    let read = next(&mut *reader, 2).await;
    assert_eq!(read[1].record.value, b"not one of ours", "it does not look forgotten");
    let failed = read.into_iter().map(|delivered| crate::Failed { delivered, reason: "odd".into() }).collect();
    crate::dead::set_aside(log, "t", "one", failed).await.expect("aside");
    let mover: Arc<dyn EventLog> = Arc::new(KafkaEventLog::without_keys(log.config.clone()).expect("a log"));
    let letters = crate::dead::Letters::new(Arc::clone(&mover), &[("t", "one")]);
    let listed = letters.list(&DeadLetterFilter::default(), 10).await.expect("listed");
    let told: Vec<_> = listed.iter().map(|one| (one.id.as_str(), one.region.as_str())).collect();
    assert_eq!(told, [("us.t/0@1", "us"), ("us.t/0@0", "us")], "no other region's letters are taken for own ones");
    assert_eq!(letters.replay(&DeadLetterFilter::default(), false).await.expect("replayed").replayed, 2);
    let raw = mover.read_sealed("t.one.replay", Positions::default()).await;
    let raw = next(&mut *raw.expect("a reader"), 2).await;
    assert!(raw.iter().all(|one| !one.record.value.windows(4).any(|some| some == b"Army")), "sealed still");
    let mut again = log.read_from("t.one.replay", Positions::default()).await.expect("a reader");
    assert_eq!(next(&mut *again, 2).await[0].record.value, secret.value);
    let refused = mover.append("t", vec![record("ann", 1)]).await.expect_err("no keys");
    assert!(refused.to_string().contains("no keys"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_key_is_not_made_again_for_a_dead_letter() {
    let World { log, .. } = &world(&[], &[("t", 1), ("t.one.dlq", 1)]);
    log.append("t", vec![record("ann", 1)]).await.expect("appended");
    let mut reader = log.read_from("t", Positions::default()).await.expect("a reader");
    let delivered = next(&mut *reader, 1).await.remove(0);
    let failed = crate::Failed { delivered, reason: "odd".into() };
    crate::dead::set_aside(log, "t", "one", vec![failed.clone()]).await.expect("aside");
    // By another process: this one holds the key for a while yet.
    log.seals.destroy_elsewhere("ann").await;
    let mut letters = log.read_from("t.one.dlq", Positions::default()).await.expect("a reader");
    assert!(next(&mut *letters, 1).await[0].record.value.is_empty(), "what is erased does not come back by a replay");
    crate::dead::set_aside(log, "t", "one", vec![failed]).await.expect("aside");
    let letter = log.read_sealed("t.one.dlq", Positions::default()).await;
    let letter = next(&mut *letter.expect("a reader"), 2).await.remove(1);
    assert!(letter.record.value.is_empty(), "there is no key that could open it, nor a new one");
}

fn record(key: &str, n: u64) -> Record {
    Record { key: key.into(), value: n.to_be_bytes().to_vec(), ..Record::default() }
}

fn number(delivered: &Delivered) -> u64 {
    u64::from_be_bytes(delivered.record.value.as_slice().try_into().expect("eight bytes"))
}

/// The next records until there are as many.
async fn next(reader: &mut (impl Reader + ?Sized), count: usize) -> Vec<Delivered> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(timeout(PATIENCE, reader.next(100)).await.expect("records come").expect("read"));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_from_other_regions_are_read_also_those_that_come_later() {
    let World { brokers, log, .. } = &world(&["us", "ap"], &[("t", 2), ("us.t", 2)]);
    // What MirrorMaker brings was sealed over there, for the topic as it is called there.
    let mirrored = async |name: &str, n: u64| {
        let sealed = log.seals.seal("t", &record("ann", n)).await.expect("sealed");
        let sent = log.producer.send(FutureRecord::to(name).key("ann").payload(&sealed), PATIENCE).await;
        sent.expect("appended");
    };
    log.append("t", vec![record("ann", 1)]).await.expect("appended");
    mirrored("us.t", 2).await;
    let mut reader = log.read_from("t", Positions::default()).await.expect("a reader");
    let read = next(&mut *reader, 2).await;
    assert_eq!(read.iter().map(number).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
    brokers.create_topic("ap.t", 1, 1).expect("made");
    mirrored("ap.t", 3).await;
    let late = next(&mut *reader, 1).await;
    assert_eq!((number(&late[0]), late[0].stream.as_str()), (3, "ap.t/0"));
    let ends = log.ends("t").await.expect("ends");
    let mut positions = Positions::default();
    read.iter().chain(&late).for_each(|one| positions.pass(one));
    assert!(positions.covers(&ends) && Positions::default().behind(&ends) == 3, "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_gone_ends_readers_and_members_loudly() {
    let World { log, .. } = &world(&[], &[("t", 1)]);
    log.append("t", vec![record("ann", 1)]).await.expect("appended");
    let mut reader = log.read_from("t", Positions::of("t/0", 9)).await.expect("a reader");
    let gone = timeout(PATIENCE, reader.next(10)).await.expect("told").expect_err("gone");
    assert!(matches!(&gone, LogError::Gone { stream, position: 9 } if stream == "t/0"), "{gone}");
    let mut member = log.join("t", "g").await.expect("a member");
    next(&mut *member, 1).await;
    member.commit(&Positions::of("t/0", 7)).await.expect("committed");
    drop(member);
    let mut heir = log.join("t", "g").await.expect("a member");
    let gone = timeout(PATIENCE, heir.next(10)).await.expect("told").expect_err("gone");
    assert!(matches!(&gone, LogError::Gone { stream, position: 7 } if stream == "t/0"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_brokers_that_pass_lose_and_double_nothing_and_those_that_last_leave_it_open() {
    // Longer than a busy machine takes for what is repeated below.
    let World { brokers, log, .. } = &world_within(Duration::from_secs(20), &[], &[("t", 1)]);
    log.append("t", vec![record("ann", 0)]).await.expect("appended");
    use RDKafkaRespErr as Told;
    let passing = [
        Told::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Told::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Told::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    brokers.request_errors(RDKafkaApiKey::Produce, &passing);
    log.append("t", (1..20).map(|n| record("ann", n)).collect()).await.expect("appended in the end");
    let mut reader = log.read_from("t", Positions::default()).await.expect("a reader");
    assert_eq!(next(&mut *reader, 20).await.iter().map(number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    brokers.broker_down(1).expect("down");
    let open = log.append("t", vec![record("ann", 20)]).await.expect_err("nobody is there");
    assert_eq!(open.kind(), ErrorKind::Indeterminate, "{open}");
    brokers.broker_up(1).expect("up");
    log.append("t", vec![record("ann", 21)]).await.expect("appended");
    assert!(next(&mut *reader, 1).await.iter().all(|one| number(one) >= 20), "the reader goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_leave_no_gap() {
    const COUNT: u64 = 600;
    let World { log, .. } = &world(&[], &[("t", 4)]);
    log.append("t", (0..COUNT).map(|n| record(&format!("key {}", n % 16), n)).collect()).await.expect("appended");
    let mut effects: Vec<Vec<u64>> = vec![Vec::new(); 16];
    let mut crowd: Vec<Box<dyn Member>> = Vec::new();
    let mut turn = 0_usize;
    while !log.committed("t", "g").await.expect("read").covers(&log.ends("t").await.expect("ends")) {
        turn += 1;
        match turn % 5 {
            0 | 1 if crowd.len() < 3 => crowd.push(log.join("t", "g").await.expect("a member")),
            // It dies, with what it has read and not committed.
            4 if crowd.len() > 1 => drop(crowd.remove(turn % crowd.len())),
            _ => {}
        }
        for member in &mut crowd {
            let Ok(read) = timeout(Duration::from_millis(300), member.next(25)).await else { continue };
            let mut done = Positions::default();
            for one in &read.expect("read") {
                done.pass(one);
                let n = number(one);
                effects[usize::try_from(n % 16).expect("small")].push(n);
            }
            if !turn.is_multiple_of(3) {
                member.commit(&done).await.expect("committed");
            }
        }
    }
    for (key, effects) in (0..).zip(effects) {
        // In order but for what came again after a member was gone, and all of it.
        let mut first = BTreeSet::new();
        let fresh: Vec<u64> = effects.iter().copied().filter(|n| first.insert(*n)).collect();
        let wanted: Vec<u64> = (0..COUNT).filter(|n| n % 16 == key).collect();
        assert_eq!(fresh, wanted, "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_is_readable_on_the_brokers_and_the_trace_is_a_header() {
    let World { log, .. } = &world(&[], &[("t", 1)]);
    let value = b"Army of Me".to_vec();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let personal = Record { key: "ann".into(), value, traceparent: traceparent.clone(), ..Record::default() };
    let lasting = Record { is_lasting: true, ..personal.clone() };
    log.append("t", vec![personal, lasting]).await.expect("appended");
    let mut config = log.config.consumer();
    let raw: StreamConsumer =
        config.set("group.id", "spy").set("auto.offset.reset", "earliest").create().expect("made");
    raw.subscribe(&["t"]).expect("subscribed");
    for is_clear in [false, true] {
        let message = timeout(PATIENCE, raw.recv()).await.expect("comes").expect("read");
        let value = message.payload().expect("a value");
        assert_eq!(value.windows(4).any(|some| some == b"Army"), is_clear);
        let header = rdkafka::message::Headers::iter(message.headers().expect("headers")).next().expect("one");
        assert_eq!((header.key, header.value), (headers::TRACEPARENT, Some(traceparent.as_bytes())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_named() {
    let World { log, .. } = &world(&[], &[]);
    let unknown = log.streams("nowhere/else").await.expect_err("no such topic");
    assert!(unknown.to_string().contains("nowhere/else"), "{unknown}");
}
