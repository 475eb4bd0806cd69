//! The event log on Kafka, or what speaks its protocol.
//!
//! A stream is a partition of the topic here, or of a copy of it that MirrorMaker 2 brings from another region under the
//! name `REGION.TOPIC`. Values are sealed by the key of the record's key ([`echotune_kit::keys`]) unless they are lasting:
//! forgetting destroys that key, which reaches mirrored copies and backups too.
//!
//! Set on purpose, against the defaults of the client: idempotent producing with all acknowledgements, Java's murmur2
//! as partitioner so that other clients agree on it, no start of new groups at the end, no commit that was not asked
//! for, no topics made by using them, groups by the protocol of KIP-848, a second at the most between two tries to connect.

mod headers;
mod reader;
mod sealed;
mod streams;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use echotune_kit::keys::{DataKey, KeyError, SubjectKeys};
use echotune_model::ErrorKind;
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::{Client, DefaultClientContext},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer as _},
    topic_partition_list::TopicPartitionList,
};

use self::{
    reader::{KafkaMember, KafkaReader, Source},
    sealed::Seals,
    streams::Stream,
};
use crate::{EventLog, LogError, MAX_VALUE, Member, Positions, Reader, Record, check_lengths};

/// How long the brokers are asked for what they know.
const ASK: Duration = Duration::from_secs(10);
/// How often a partition without a leader is asked for again.
const LEADERLESS: Duration = Duration::from_millis(100);
/// Bytes of a record beside its value at the most.
const AROUND: usize = 64 << 10;
/// How long the producer waits for more records to send along.
const LINGER_MS: &str = "1";
/// How long to wait when the producer's queue is full.
const FULL: Duration = Duration::from_millis(5);

/// Where a log is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `HOST:PORT` of some brokers.
    pub bootstrap_servers: Vec<String>,
    /// Name of the own region.
    pub region: String,
    /// Other regions, whose topics are mirrored here as `REGION.TOPIC`.
    pub mirrored: Vec<String>,
    /// Name of this program among clients.
    pub client_id: String,
    /// How long a record is tried to be delivered; after that its outcome is unknown.
    pub delivery_timeout: Duration,
    /// For how long a key may still be used here after it was destroyed elsewhere.
    pub key_life: Duration,
    /// How often new partitions and mirrored topics are looked for.
    pub look_every: Duration,
}

impl Default for KafkaConfig {
    /// A broker on this machine, no other regions.
    fn default() -> Self {
        Self {
            bootstrap_servers: vec!["127.0.0.1:9092".into()],
            region: "local".into(),
            mirrored: Vec::new(),
            client_id: "echotune".into(),
            delivery_timeout: Duration::from_secs(30),
            key_life: Duration::from_secs(60),
            look_every: Duration::from_secs(30),
        }
    }
}

impl KafkaConfig {
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.bootstrap_servers.join(","))
            .set("client.id", &self.client_id)
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "1000")
            .set("allow.auto.create.topics", "false");
        client
    }

    /// Makes topics that are not there yet; answers the names of those made.
    ///
    /// # Errors
    /// The brokers cannot be reached or refuse one.
    pub async fn create_topics(&self, specs: &[TopicSpec]) -> Result<Vec<String>, LogError> {
        let admin: AdminClient<DefaultClientContext> =
            self.client().create().map_err(|cause| failed(ErrorKind::InvalidArgument, "start", &cause))?;
        let largest = (MAX_VALUE + AROUND).to_string();
        let topics = specs.iter().map(|spec| {
            let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replicas));
            let topic = topic.set("max.message.bytes", &largest);
            spec.settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
        });
        let topics: Vec<NewTopic<'_>> = topics.collect();
        let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK));
        let made = admin.create_topics(&topics, &options).await;
        let made = made.map_err(|cause| failed(kind_of(&cause), "make topics", &cause))?;
        let mut names = Vec::new();
        for one in made {
            match one {
                Ok(name) => names.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let message = format!("topic '{name}' cannot be made: {code}");
                    return Err(LogError::Failed { kind: kind_of_code(code), message });
                }
            }
        }
        Ok(names)
    }

    fn producer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", LINGER_MS)
            .set("message.max.bytes", (MAX_VALUE + AROUND).to_string())
            .set("delivery.timeout.ms", self.delivery_timeout.as_millis().to_string());
        client
    }

    fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.message.max.bytes", (MAX_VALUE + AROUND).to_string());
        client
    }
}

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions: 1 at least. Never changed later, for it would part the records of a key.
    pub partitions: i32,
    /// Copies of each partition; -1 for what the brokers are set to.
    pub replicas: i32,
    /// Settings of the topic beside its largest record, such as `retention.ms`.
    pub settings: Vec<(String, String)>,
}

/// The event log on Kafka. Clones share the producer.
#[derive(Clone)]
pub struct KafkaEventLog {
    config: KafkaConfig,
    producer: FutureProducer,
    seals: Seals,
}

impl std::fmt::Debug for KafkaEventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaEventLog").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The first position of a stream and the next. A partition that was just made, or whose broker has ended, has no leader
/// for a moment, which is waited for.
fn bounds<C: ClientContext>(client: &Client<C>, stream: &Stream) -> Result<(i64, i64), KafkaError> {
    let end = Instant::now() + ASK;
    loop {
        match client.fetch_watermarks(&stream.topic, stream.partition, ASK) {
            Err(cause) if has_no_leader(&cause) && Instant::now() < end => thread::sleep(LEADERLESS),
            answer => return answer,
        }
    }
}

fn has_no_leader(cause: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition};

    matches!(cause.rdkafka_error_code(), Some(LeaderNotAvailable | NotLeaderForPartition))
}

impl KafkaEventLog {
    /// A log on these brokers, with these keys. Connects when it is used.
    ///
    /// # Errors
    /// The configuration says what cannot be.
    pub fn new(config: KafkaConfig, keys: Arc<dyn SubjectKeys>) -> Result<Self, LogError> {
        let producer =
            config.producer().create().map_err(|cause| failed(ErrorKind::InvalidArgument, "start", &cause))?;
        let seals = Seals::new(keys, config.key_life);
        Ok(Self { config, producer, seals })
    }

    /// A log that moves records and reads none.
    ///
    /// # Errors
    /// The configuration says what cannot be.
    pub fn without_keys(config: KafkaConfig) -> Result<Self, LogError> {
        Self::new(config, Arc::new(NoKeys))
    }

    fn source(&self, topic: &str) -> Source {
        Source { config: self.config.clone(), topic: topic.to_owned() }
    }

    /// The first position and the next of each stream.
    async fn watermarks(&self, topic: &str) -> Result<Vec<(String, i64, i64)>, LogError> {
        let streams = self.streams(topic).await?;
        self.ask("tell the ends", move |producer| {
            let ends = |stream: Stream| {
                let (low, high) = bounds(producer.client(), &stream)?;
                Ok((stream.to_string(), low, high))
            };
            streams.into_iter().map(ends).collect()
        })
        .await
    }

    /// Sends records with these values, and waits until all are in.
    async fn send(&self, topic: &str, records: &[Record], values: &[Vec<u8>]) -> Result<(), LogError> {
        let count = records.len();
        let mut sent = Vec::with_capacity(count);
        for (record, value) in records.iter().zip(values) {
            let mut produced = FutureRecord::to(topic).key(&record.key).payload(value);
            produced.headers = headers::of(record);
            sent.push(loop {
                match self.producer.send_result(produced) {
                    Ok(sent) => break sent,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                        produced = again;
                        tokio::time::sleep(FULL).await;
                    }
                    Err((cause, _)) => {
                        // What was sent before may well arrive.
                        let kind = if sent.is_empty() { kind_of(&cause) } else { ErrorKind::Indeterminate };
                        return Err(failed(kind, "append", &cause));
                    }
                }
            });
        }
        let mut first = None;
        let mut delivered = 0;
        for one in sent {
            match one.await {
                Ok(Ok(_)) => delivered += 1,
                Ok(Err((cause, _))) => first = first.or(Some(cause)),
                Err(_) => first = first.or(Some(KafkaError::Canceled)),
            }
        }
        let Some(cause) = first else { return Ok(()) };
        let kind = if delivered > 0 { ErrorKind::Indeterminate } else { kind_of(&cause) };
        let message = format!("{delivered} of {count} records were appended to '{topic}': {}", told(&cause));
        Err(LogError::Failed { kind, message })
    }

    /// Asks the brokers, on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        step: &'static str,
        question: impl FnOnce(&FutureProducer) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let producer = self.producer.clone();
        wait(step, move || question(&producer)).await
    }

    async fn streams(&self, topic: &str) -> Result<Vec<Stream>, LogError> {
        let source = self.source(topic);
        let found = self.ask("tell the partitions", move |producer| source.streams(producer.client())).await?;
        if found.iter().any(|stream| stream.topic == topic) {
            return Ok(found);
        }
        let message = format!("topic '{topic}' does not exist; make the topics first");
        Err(LogError::Failed { kind: ErrorKind::FailedPrecondition, message })
    }
}

#[async_trait]
impl EventLog for KafkaEventLog {
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        check_lengths(&records)?;
        // All before any is sent: where a key cannot be had, nothing was appended.
        let mut values = Vec::with_capacity(records.len());
        for record in &records {
            values.push(self.seals.seal(topic, record).await?);
        }
        self.send(topic, &records, &values).await
    }

    async fn append_sealed(&self, topic: &str, mut records: Vec<Record>) -> Result<(), LogError> {
        let values: Vec<Vec<u8>> = records.iter_mut().map(|record| std::mem::take(&mut record.value)).collect();
        self.send(topic, &records, &values).await
    }

    async fn starts(&self, topic: &str) -> Result<Positions, LogError> {
        let all = self.watermarks(topic).await?.into_iter();
        Ok(all.map(|(stream, low, _)| (stream, u64::try_from(low).unwrap_or(0))).collect())
    }

    async fn ends(&self, topic: &str) -> Result<Positions, LogError> {
        let all = self.watermarks(topic).await?.into_iter();
        Ok(all.map(|(stream, _, high)| (stream, u64::try_from(high).unwrap_or(0))).collect())
    }

    async fn read_from(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.streams(topic).await?;
        Ok(Box::new(KafkaReader::new(self.source(topic), Some(self.seals.clone()), from)?))
    }

    async fn read_sealed(&self, topic: &str, from: Positions) -> Result<Box<dyn Reader>, LogError> {
        self.streams(topic).await?;
        Ok(Box::new(KafkaReader::new(self.source(topic), None, from)?))
    }

    fn region_of(&self, stream: &str) -> String {
        let mirrored = self
            .config
            .mirrored
            .iter()
            .find(|region| stream.strip_prefix(region.as_str()).is_some_and(|rest| rest.starts_with('.')));
        mirrored.unwrap_or(&self.config.region).clone()
    }

    fn system(&self) -> &'static str {
        "kafka"
    }

    async fn join(&self, topic: &str, group: &str) -> Result<Box<dyn Member>, LogError> {
        self.streams(topic).await?;
        Ok(Box::new(KafkaMember::new(self.source(topic), self.seals.clone(), group)?))
    }

    async fn committed(&self, topic: &str, group: &str) -> Result<Positions, LogError> {
        let streams = self.streams(topic).await?;
        let mut config = self.config.consumer();
        config.set("group.id", group);
        let offsets = wait("tell what a group has committed", move || {
            let consumer: BaseConsumer = config.create()?;
            let mut wanted = TopicPartitionList::new();
            for stream in &streams {
                wanted.add_partition(&stream.topic, stream.partition);
            }
            consumer.committed_offsets(wanted, ASK)
        });
        Ok(reader::positions(&offsets.await?))
    }

    async fn forget(&self, _topic: &str, key: &str) -> Result<(), LogError> {
        self.seals.forget(key).await
    }
}

/// Keys of a program that moves records and reads none.
struct NoKeys;

impl NoKeys {
    fn refuse<T>() -> Result<T, KeyError> {
        let message = "this program moves records and has no keys to read or write them".into();
        Err(KeyError::Failed { kind: ErrorKind::FailedPrecondition, message })
    }
}

#[async_trait]
impl SubjectKeys for NoKeys {
    async fn key(&self, _subject: &str) -> Result<DataKey, KeyError> {
        Self::refuse()
    }

    async fn existing(&self, _subject: &str) -> Result<Option<DataKey>, KeyError> {
        Self::refuse()
    }

    async fn destroy(&self, _subject: &str) -> Result<(), KeyError> {
        Self::refuse()
    }
}

/// Does what blocks on a thread that may wait.
async fn wait<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|cause| failed(kind_of(&cause), step, &cause)),
        Err(cause) => Err(LogError::Failed { kind: ErrorKind::Internal, message: format!("{step}: {cause}") }),
    }
}

fn failed(kind: ErrorKind, step: &str, cause: &KafkaError) -> LogError {
    LogError::Failed { kind, message: format!("the brokers did not {step}: {}", told(cause)) }
}

/// What the brokers said, without the name of the library.
fn told(cause: &KafkaError) -> String {
    match (cause, cause.rdkafka_error_code()) {
        (KafkaError::ClientConfig(_, what, name, value), _) => format!("{name} = '{value}': {what}"),
        (KafkaError::Canceled, _) => "it was given up".into(),
        (_, Some(code)) => code.to_string(),
        (other, None) => other.to_string(),
    }
}

fn kind_of(cause: &KafkaError) -> ErrorKind {
    match cause {
        KafkaError::ClientConfig(..) => ErrorKind::InvalidArgument,
        // A record that was sent may arrive after all.
        KafkaError::Canceled => ErrorKind::Indeterminate,
        KafkaError::MessageProduction(code) => match kind_of_code(*code) {
            ErrorKind::Unavailable => ErrorKind::Indeterminate,
            kind => kind,
        },
        other => other.rdkafka_error_code().map_or(ErrorKind::Internal, kind_of_code),
    }
}

const fn kind_of_code(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => ErrorKind::FailedPrecondition,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::InvalidTopic | Code::InvalidPartitions | Code::InvalidConfig => ErrorKind::InvalidArgument,
        Code::InvalidReplicationFactor => ErrorKind::FailedPrecondition,
        Code::Authentication | Code::SaslAuthenticationFailed => ErrorKind::Unauthenticated,
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => ErrorKind::PermissionDenied,
        Code::ClusterAuthorizationFailed => ErrorKind::PermissionDenied,
        Code::QueueFull | Code::PolicyViolation => ErrorKind::ResourceExhausted,
        Code::AutoOffsetReset | Code::OffsetOutOfRange => ErrorKind::DataLoss,
        Code::Fatal | Code::Fail => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests;
