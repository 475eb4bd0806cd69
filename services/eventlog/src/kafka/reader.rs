//! Readers of all streams, and members of groups.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use echotune_model::ErrorKind;
use futures::{FutureExt as _, StreamExt as _};
use rdkafka::{
    ClientContext, Message as _,
    client::Client,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    topic_partition_list::{Offset, TopicPartitionList},
    types::RDKafkaRespErr,
};

use super::{
    ASK, KafkaConfig, bounds, failed, headers, kind_of, kind_of_code, sealed::Seals, streams::Stream, told, wait,
};
use crate::{Delivered, Letter, LogError, Member, Positions, Reader, Record, dead};

/// Bytes of values read at once, from which on no more are added.
const MAX_BYTES: usize = 16 << 20;
/// How long to wait after the brokers could not be reached.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// How often it is told that they cannot be.
const WARN_EVERY: std::time::Duration = std::time::Duration::from_secs(30);

/// A topic with its copies from other regions.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) config: KafkaConfig,
    pub(super) topic: String,
}

impl Source {
    /// The topic here and as it is called when it is mirrored.
    fn topics(&self) -> impl Iterator<Item = String> {
        let regions = if dead::is_own(&self.topic) { &[][..] } else { &self.config.mirrored };
        let mirrored = regions.iter().map(|region| format!("{region}.{}", self.topic));
        std::iter::once(self.topic.clone()).chain(mirrored)
    }

    /// The streams that are there now. Blocks.
    pub(super) fn streams<C: ClientContext>(&self, client: &Client<C>) -> Result<Vec<Stream>, KafkaError> {
        let mut streams = Vec::new();
        for topic in self.topics() {
            let told = client.fetch_metadata(Some(&topic), ASK)?;
            let found = told.topics().iter().filter(|one| one.name() == topic && one.error().is_none());
            let partitions = found.flat_map(|one| one.partitions().iter().map(|partition| partition.id()));
            streams.extend(partitions.map(|partition| Stream::of(&topic, partition)));
        }
        streams.sort_unstable();
        Ok(streams)
    }
}

/// Records as they came, until they are given out whole.
struct Raw {
    stream: Stream,
    position: u64,
    key: String,
    value: Vec<u8>,
    traceparent: String,
    letter: Option<Box<Letter>>,
}

impl Raw {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let (traceparent, letter) = headers::read(message);
        Self {
            stream: Stream::of(message.topic(), message.partition()),
            position: u64::try_from(message.offset()).unwrap_or(0),
            key: text(message.key()),
            value: message.payload().unwrap_or_default().to_vec(),
            traceparent,
            letter,
        }
    }
}

/// How a member takes the streams it is given: where the group has committed nothing, from the first record. This cannot be
/// left to `auto.offset.reset`, which would do the same where what was committed is gone.
struct Taking;

impl ClientContext for Taking {
    /// Readers tell of it when it keeps them from reading.
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(cause = super::told(&error), reason, "the client of the brokers tells of an error");
    }
}

impl ConsumerContext for Taking {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, told: RDKafkaRespErr, streams: &mut TopicPartitionList) {
        let done = if told == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            committed_or_first(consumer, streams).and_then(|from| consumer.incremental_assign(&from))
        } else {
            consumer.incremental_unassign(streams)
        };
        if let Err(cause) = done {
            tracing::error!(cause = super::told(&cause), "streams cannot be taken or given back");
        }
    }
}

fn committed_or_first(
    consumer: &BaseConsumer<Taking>,
    streams: &TopicPartitionList,
) -> Result<TopicPartitionList, KafkaError> {
    let committed = consumer.committed_offsets(streams.clone(), ASK)?;
    let mut from = TopicPartitionList::with_capacity(streams.count());
    for one in committed.elements() {
        let offset = if one.offset() == Offset::Invalid { Offset::Beginning } else { one.offset() };
        from.add_partition_offset(one.topic(), one.partition(), offset)?;
    }
    Ok(from)
}

/// What readers and members share.
struct Reading {
    consumer: Arc<StreamConsumer<Taking>>,
    source: Source,
    /// None where values are given out as they are.
    seals: Option<Seals>,
    /// Read and not given out yet: a reader that is cut off has read nothing.
    pending: Vec<Raw>,
    /// When it was last told that the brokers cannot be reached.
    warned: Option<Instant>,
}

impl Reading {
    fn new(source: Source, seals: Option<Seals>, group: Option<&str>) -> Result<Self, LogError> {
        let mut config = source.config.consumer();
        match group {
            // Members lists, heartbeats and assignments are the brokers' part in this protocol.
            Some(group) => config.set("group.id", group).set("group.protocol", "consumer"),
            // Positions are the reader's own: nothing is ever looked up or committed under this name.
            None => config.set("group.id", format!("{}-reader", source.config.client_id)),
        };
        // Where a position is gone nothing may be passed over in silence.
        config.set("auto.offset.reset", "error");
        let consumer =
            config.create_with_context(Taking).map_err(|cause| failed(ErrorKind::InvalidArgument, "start", &cause))?;
        Ok(Self { consumer: Arc::new(consumer), source, seals, pending: Vec::new(), warned: None })
    }

    /// Waits for records and takes those that are there, at most `limit`.
    async fn fetch(&mut self, limit: usize) -> Result<(), KafkaError> {
        let mut messages = self.consumer.stream();
        let mut bytes = 0;
        while self.pending.len() < limit && bytes < MAX_BYTES {
            let next =
                if self.pending.is_empty() { messages.next().await } else { messages.next().now_or_never().flatten() };
            match next {
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    self.pending.push(Raw::of(&message));
                }
                // What came before is given out first; a fault that lasts comes again.
                Some(Err(cause)) if self.pending.is_empty() => return Err(cause),
                Some(Err(_)) | None => break,
            }
        }
        Ok(())
    }

    /// Opens what is pending and gives it out.
    async fn give(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        let count = self.pending.len().min(limit);
        let mut opened = Vec::with_capacity(count);
        for raw in &self.pending[..count] {
            let value = raw.value.clone();
            opened.push(match (&self.seals, &raw.letter) {
                (None, _) => (value, false),
                (Some(seals), Some(letter)) => seals.open_letter(letter, &raw.key, value).await?,
                (Some(seals), None) => seals.open(&self.source.topic, &raw.key, value).await?,
            });
        }
        let delivered = self.pending.drain(..count).zip(opened).map(|(raw, (value, is_lasting))| {
            let Raw { stream, position, key, traceparent, letter, .. } = raw;
            let record = Record { key, value, traceparent, is_lasting, letter };
            Delivered { stream: stream.to_string(), position, record }
        });
        Ok(delivered.collect())
    }

    /// Ends reading, or waits a little: for brokers that were away for long it is told once in a while alone.
    async fn bear(&mut self, cause: KafkaError) -> Result<(), LogError> {
        if lasts(&cause) {
            return Err(failed(kind_of(&cause), "give records", &cause));
        }
        if self.warned.is_none_or(|told| told.elapsed() > WARN_EVERY) {
            let (cause, topic) = (told(&cause), &self.source.topic);
            tracing::warn!(cause, topic, "the event log cannot be read now; it is tried again");
            self.warned = Some(Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Which of the positions is gone.
    async fn gone(&self, positions: Positions) -> LogError {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.source.topic.clone());
        let missing = wait("tell the first positions", move || {
            for (name, next) in positions.iter() {
                let Some(stream) = Stream::parse(name) else { continue };
                let (low, high) = bounds(consumer.client(), &stream)?;
                if !(low..=high).contains(&i64::try_from(next).unwrap_or(i64::MAX)) {
                    return Ok((name.to_owned(), next));
                }
            }
            // It was there again, such as the end of a stream that had lost its last records.
            Ok((topic, 0))
        });
        missing.await.map_or_else(|cause| cause, |(stream, position)| LogError::Gone { stream, position })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let consumer = Arc::clone(&self.consumer);
        // Leaving waits for the brokers.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(consumer)));
        }
    }
}

/// The offsets that are numbers, as positions.
pub(super) fn positions(offsets: &TopicPartitionList) -> Positions {
    let next = |offset| match offset {
        Offset::Offset(next) => u64::try_from(next).ok(),
        _ => None,
    };
    let all = offsets.elements();
    let all =
        all.iter().filter_map(|one| Some((Stream::of(one.topic(), one.partition()).to_string(), next(one.offset())?)));
    all.collect()
}

/// Whether records that were to be read are no longer there.
fn is_gone(cause: &KafkaError) -> bool {
    cause.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}

/// Whether a fault ends reading; what comes from brokers that cannot be reached passes.
fn lasts(cause: &KafkaError) -> bool {
    matches!(cause, KafkaError::MessageConsumptionFatal(_))
        || cause.rdkafka_error_code().is_none_or(|code| {
            let passes = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic];
            kind_of_code(code) != ErrorKind::Unavailable && !passes.contains(&code)
        })
}

/// Reads all streams from positions of its own.
pub(super) struct KafkaReader {
    reading: Reading,
    positions: Positions,
    assigned: Vec<Stream>,
    looked: Option<Instant>,
}

impl KafkaReader {
    /// Without seals values are given out as they are.
    pub(super) fn new(source: Source, seals: Option<Seals>, from: Positions) -> Result<Self, LogError> {
        // Whoever reads several topics may keep the positions of all together.
        let topics: Vec<String> = source.topics().collect();
        let is_of_these = |name: &str| Stream::parse(name).is_some_and(|stream| topics.contains(&stream.topic));
        let from =
            from.iter().filter(|(name, _)| is_of_these(name)).map(|(name, next)| (name.to_owned(), next)).collect();
        Ok(Self { reading: Reading::new(source, seals, None)?, positions: from, assigned: Vec::new(), looked: None })
    }

    /// Reads streams that have come since as well.
    async fn look(&mut self) -> Result<(), LogError> {
        let every = self.reading.source.config.look_every;
        if self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Ok(());
        }
        let (source, consumer) = (self.reading.source.clone(), Arc::clone(&self.reading.consumer));
        let found = wait("tell the partitions", move || source.streams(consumer.client())).await;
        self.looked = Some(Instant::now());
        match found {
            // A topic that is not told this time is not gone.
            Ok(found) if found.iter().any(|stream| !self.assigned.contains(stream)) => {
                self.assigned.extend(found.into_iter().filter(|one| !self.assigned.contains(one)).collect::<Vec<_>>());
                self.assign().map_err(|cause| failed(kind_of(&cause), "take the positions", &cause))
            }
            Ok(_) => Ok(()),
            Err(cause) if cause.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%cause, "new partitions cannot be looked for now");
                Ok(())
            }
            Err(cause) => Err(cause),
        }
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.assigned.len());
        for stream in &self.assigned {
            let name = stream.to_string();
            let from = if self.positions.has(&name) {
                Offset::Offset(i64::try_from(self.positions.next(&name)).unwrap_or(i64::MAX))
            } else {
                Offset::Beginning
            };
            list.add_partition_offset(&stream.topic, stream.partition, from)?;
        }
        self.reading.consumer.assign(&list)
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        loop {
            self.look().await?;
            let every = self.reading.source.config.look_every;
            if self.reading.pending.is_empty() {
                match tokio::time::timeout(every, self.reading.fetch(limit)).await {
                    Err(_) => continue,
                    Ok(Ok(())) => {}
                    Ok(Err(cause)) if is_gone(&cause) => return Err(self.reading.gone(self.positions.clone()).await),
                    Ok(Err(cause)) => {
                        self.reading.bear(cause).await?;
                        continue;
                    }
                }
            }
            let delivered = self.reading.give(limit).await?;
            delivered.iter().for_each(|one| self.positions.pass(one));
            return Ok(delivered);
        }
    }
}

/// One of a group.
pub(super) struct KafkaMember {
    reading: Reading,
}

impl KafkaMember {
    pub(super) fn new(source: Source, seals: Seals, group: &str) -> Result<Self, LogError> {
        let topics: Vec<String> = source.topics().collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let reading = Reading::new(source.clone(), Some(seals), Some(group))?;
        reading.consumer.subscribe(&topics).map_err(|cause| failed(kind_of(&cause), "take a new member", &cause))?;
        Ok(Self { reading })
    }

    /// What the group has committed of the streams of this member.
    async fn committed(&self) -> Result<Positions, LogError> {
        let consumer = Arc::clone(&self.reading.consumer);
        let asked = move || consumer.committed_offsets(consumer.assignment()?, ASK);
        Ok(positions(&wait("tell what a group has committed", asked).await?))
    }
}

#[async_trait]
impl Reader for KafkaMember {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>, LogError> {
        loop {
            if self.reading.pending.is_empty() {
                match self.reading.fetch(limit).await {
                    Ok(()) => {}
                    Err(cause) if is_gone(&cause) => return Err(self.reading.gone(self.committed().await?).await),
                    Err(cause) => {
                        self.reading.bear(cause).await?;
                        continue;
                    }
                }
            }
            return self.reading.give(limit).await;
        }
    }
}

#[async_trait]
impl Member for KafkaMember {
    async fn commit(&mut self, done: &Positions) -> Result<(), LogError> {
        let consumer = Arc::clone(&self.reading.consumer);
        let done = done.clone();
        let committed = wait("commit", move || {
            let mine = consumer.assignment()?;
            let mut offsets = TopicPartitionList::new();
            for (name, next) in done.iter() {
                let stream = Stream::parse(name).filter(|one| mine.find_partition(&one.topic, one.partition).is_some());
                if let Some(stream) = stream {
                    let next = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
                    offsets.add_partition_offset(&stream.topic, stream.partition, next)?;
                }
            }
            if offsets.count() == 0 {
                return Ok(());
            }
            match consumer.commit(&offsets, CommitMode::Sync) {
                // Others read these streams by now, and do again what was not committed.
                Err(KafkaError::ConsumerCommit(code)) if is_parted(code) => {
                    tracing::info!(cause = %code, "what was read was given to another member before it was committed");
                    Ok(())
                }
                committed => committed,
            }
        });
        committed.await
    }
}

const fn is_parted(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::FencedMemberEpoch
            | Code::StaleMemberEpoch
            | Code::RebalanceInProgress
            | Code::NoOffset
    )
}
