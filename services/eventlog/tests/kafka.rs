//! The adapter on real brokers, of which `ECHOTUNE_KAFKA` names one. Topics are made for each run and removed.

use std::{sync::Arc, time::Duration};

use echotune_eventlog::{
    EventLog as _, LogError, Positions, Reader, Record, conformance,
    kafka::{KafkaConfig, KafkaEventLog, TopicSpec},
};
use echotune_kit::{
    embedded::Db,
    keys::{EmbeddedSubjectKeys, MasterKeys},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A log with topics of its own.
struct World {
    log: KafkaEventLog,
    admin: AdminClient<DefaultClientContext>,
    topics: Vec<String>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(names: &[&str]) -> Self {
        let broker = std::env::var("ECHOTUNE_KAFKA").expect("ECHOTUNE_KAFKA names a broker, such as 127.0.0.1:9092");
        let folder = tempfile::tempdir().expect("folder");
        let db = Db::open(folder.path()).expect("open");
        let keys = Arc::new(EmbeddedSubjectKeys::new(db, MasterKeys::new(&[[7; 32]])));
        let config = KafkaConfig { bootstrap_servers: vec![broker.clone()], ..KafkaConfig::default() };
        let admin = ClientConfig::new().set("bootstrap.servers", broker).create().expect("made");
        let run = folder.path().file_name().expect("named").to_string_lossy().replace('.', "t");
        let topics: Vec<String> = names.iter().map(|name| format!("test-{run}-{name}")).collect();
        let spec = |name: &String| TopicSpec { name: name.clone(), partitions: 3, replicas: -1, settings: Vec::new() };
        let specs: Vec<TopicSpec> = topics.iter().map(spec).collect();
        assert_eq!(config.create_topics(&specs).await.expect("made"), topics);
        assert!(config.create_topics(&specs).await.expect("there").is_empty(), "none is made twice");
        let log = KafkaEventLog::new(config, keys).expect("a log");
        Self { log, admin, topics, _folder: folder }
    }

    async fn end(self) {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.admin.delete_topics(&topics, &AdminOptions::new()).await.expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_real_brokers_conforms() {
    let names = ["order", "order-other", "positions", "waiting", "forgetting", "groups"];
    let letters = ["letters", "letters.one.dlq", "letters.one.replay"];
    let world = World::new(&[&names[..], &letters].concat()).await;
    let [order, other, positions, waiting, forgetting, groups, letters, ..] = world.topics.as_slice() else {
        panic!("nine")
    };
    conformance::order(&world.log, order, other).await;
    conformance::positions(&world.log, positions).await;
    conformance::waiting(&world.log, waiting).await;
    conformance::forgetting(&world.log, forgetting).await;
    conformance::groups(&world.log, groups).await;
    conformance::letters(Arc::new(world.log.clone()), letters).await;
    world.end().await;
}

async fn next(reader: &mut (impl Reader + ?Sized), count: usize) -> usize {
    let mut read = 0;
    while read < count {
        let some = tokio::time::timeout(PATIENCE, reader.next(1_000)).await.expect("records come");
        read += some.expect("read").len();
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_removed_unread_are_missed_loudly() {
    let world = World::new(&["gone"]).await;
    let (log, topic) = (&world.log, world.topics[0].as_str());
    let record = |n: u8| Record { key: "ann".into(), value: vec![n], ..Record::default() };
    log.append(topic, (0..10).map(record).collect()).await.expect("appended");
    let mut member = log.join(topic, topic).await.expect("a member");
    let some = tokio::time::timeout(PATIENCE, member.next(3)).await.expect("records come").expect("read");
    let mut done = Positions::default();
    some.iter().for_each(|one| done.pass(one));
    member.commit(&done).await.expect("committed");
    drop(member);
    let (stream, last) = done.iter().next().map(|(stream, next)| (stream.to_owned(), next)).expect("one");
    let partition = stream.rsplit_once('/').expect("a partition").1.parse().expect("a number");
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(topic, partition, Offset::Offset(8)).expect("listed");
    world.admin.delete_records(&below, &AdminOptions::new()).await.expect("removed");
    let is_gone =
        |told: LogError| matches!(told, LogError::Gone { stream: of, position } if of == stream && position == last);
    let mut heir = log.join(topic, topic).await.expect("a member");
    assert!(is_gone(tokio::time::timeout(PATIENCE, heir.next(3)).await.expect("told").expect_err("gone")));
    let mut reader = log.read_from(topic, done).await.expect("a reader");
    assert!(is_gone(tokio::time::timeout(PATIENCE, reader.next(3)).await.expect("told").expect_err("gone")));
    // Whoever has read nothing yet begins with what there is.
    let mut fresh = log.read_from(topic, Positions::default()).await.expect("a reader");
    assert_eq!(next(&mut *fresh, 2).await, 2);
    world.end().await;
}
