//! Dead letters: records that a consumer can never apply, set aside in a topic of that consumer, and handed to it again by
//! another, which no other consumer reads ([ADR 22](../../adr/0022-dead-letters.md)).
//!
//! A letter is named by the place of its record. So one that was written twice, because the outcome of the first write was
//! unknown, is one letter; and a record in the topic of replays is itself the mark that its letter was replayed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use echotune_kit::telemetry;
use echotune_model::{DeadLetter, DeadLetterFilter, DeadLetterState, ErrorKind, Fault, ReplayReceipt};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::Span;

use crate::{Delivered, EventLog, LogError, MAX_VALUE, Positions, Record};

/// For how long dead letters and replays are kept where a log removes what is old.
pub const RETENTION: Duration = Duration::from_secs(14 * 24 * 3_600);
/// Bytes of letters that a partition keeps where a log removes what is old: a flood of them fills no disk.
pub const RETENTION_BYTES: u64 = 4 << 30;
/// Bytes of a reason at the most.
const MAX_REASON: usize = 1_024;
/// Letters of a consumer that are looked through at the most.
const MAX_HELD: usize = 250_000;
/// Records moved at a time at the most, and their bytes.
const PIECE: (usize, usize) = (256, 8 << 20);
/// How long the next records of a topic that has more may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the dead letters of a consumer of a topic are.
pub fn letters_topic(topic: &str, consumer: &str) -> String {
    format!("{topic}.{consumer}.dlq")
}

/// Where dead letters are handed to their consumer again.
pub fn replays_topic(topic: &str, consumer: &str) -> String {
    format!("{topic}.{consumer}.replay")
}

/// Whether a topic belongs to one consumer of one region, so that copies of other regions are none of its business.
pub fn is_own(topic: &str) -> bool {
    [".dlq", ".replay"].iter().any(|end| topic.ends_with(end))
}

/// What is known of a record that was set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Topic that the consumer follows; the value is sealed for it.
    pub topic: String,
    /// Stream of the record.
    pub stream: String,
    /// Its position there.
    pub position: u64,
    /// Region whose log it was appended to.
    pub region: String,
    /// Who set it aside.
    pub consumer: String,
    /// Why; nothing of what the record says.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub failed_at_ms: u64,
    /// How often it was tried: 1 at least.
    pub tries: u32,
    /// When it was handed over again, in milliseconds since the Unix epoch; 0 in the topic of dead letters.
    pub replayed_at_ms: u64,
}

impl Letter {
    /// `STREAM@POSITION` of the record.
    pub fn id(&self) -> String {
        format!("{}@{}", self.stream, self.position)
    }
}

/// A record that can never be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The record as it was read.
    pub delivered: Delivered,
    /// Why; must tell nothing of what the record says, for it is kept in clear.
    pub reason: String,
}

/// Sets records of a topic, or of its replays, aside for a consumer. Durable when it answers: positions move after it. After
/// an error it is to be repeated; letters that are there twice are one.
///
/// # Errors
/// The log does not take them; some may be in.
pub async fn set_aside(log: &dyn EventLog, topic: &str, consumer: &str, failed: Vec<Failed>) -> Result<(), LogError> {
    let Some(first) = failed.first() else { return Ok(()) };
    let Failed { delivered: Delivered { stream, position, .. }, reason } = first;
    // One line for all: a flood of them must not become one of lines.
    tracing::error!(consumer, count = failed.len(), stream, position, reason, "records are set aside as dead letters");
    let spans: Vec<Span> = failed.iter().map(|one| span(consumer, one)).collect();
    let at_ms = now_ms();
    let letters = failed.into_iter().map(|one| letter(log, topic, consumer, one, at_ms)).collect();
    let appended = log.append(&letters_topic(topic, consumer), letters).await;
    drop(spans);
    appended
}

/// A span in the trace of the write whose record is set aside, so that the trace tells what became of it; none when the
/// record is not traced.
fn span(consumer: &str, Failed { delivered, reason }: &Failed) -> Span {
    if delivered.record.traceparent.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!(
        "dead letter",
        otel.name = format!("{consumer}.dead_letter"),
        otel.kind = "consumer",
        messaging.destination.name = delivered.stream,
        messaging.consumer.group.name = consumer,
        messaging.operation.type = "process",
        otel.status_code = "ERROR",
        otel.status_description = reason
    );
    telemetry::set_parent(&span, &delivered.record.traceparent);
    span
}

fn letter(log: &dyn EventLog, topic: &str, consumer: &str, failed: Failed, at_ms: u64) -> Record {
    let Failed { delivered: Delivered { stream, position, record }, mut reason } = failed;
    let whole = (0..=MAX_REASON.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
    reason.truncate(whole.unwrap_or(0));
    let mut letter = match record.letter {
        Some(before) => Letter { tries: before.tries.saturating_add(1), ..*before },
        None => {
            let (topic, region, consumer) = (topic.to_owned(), log.region_of(&stream), consumer.to_owned());
            Letter { topic, stream, position, region, consumer, tries: 1, ..Letter::default() }
        }
    };
    letter.failed_at_ms = at_ms;
    letter.replayed_at_ms = 0;
    letter.reason = reason;
    let mut value = record.value;
    if record.key.len() + value.len() > MAX_VALUE {
        // Others wrote it, and it must not stop what comes after it. Its stream has it for as long as it keeps it.
        value.clear();
    }
    Record { value, letter: Some(Box::new(letter)), ..record }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The dead letters of a log, for operators. It moves records and reads none: it needs no keys.
#[derive(Clone)]
pub struct Letters {
    log: Arc<dyn EventLog>,
    consumers: Vec<(String, String)>,
}

impl Letters {
    /// Of these consumers: topic and name of each.
    pub fn new(log: Arc<dyn EventLog>, consumers: &[(&str, &str)]) -> Self {
        let consumers = consumers.iter().map(|(topic, name)| ((*topic).to_owned(), (*name).to_owned())).collect();
        Self { log, consumers }
    }

    /// The newest dead letters that are asked about, at most `limit`, newest first.
    ///
    /// # Errors
    /// The filter names what there is none of, or the log cannot be read.
    pub async fn list(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
        let mut letters = Vec::new();
        for (topic, consumer) in self.asked(filter)? {
            let held = self.held(topic, consumer).await.map_err(fault)?;
            letters.extend(held.letters.into_values().filter(|letter| filter.fits(letter)));
        }
        letters.sort_by(|a, b| (b.failed_at_ms, &b.stream, b.position).cmp(&(a.failed_at_ms, &a.stream, a.position)));
        letters.truncate(limit);
        Ok(letters)
    }

    /// Hands dead letters to their consumers once more; those that were handed over before only if `again` says so. One
    /// that is cut off may be repeated.
    ///
    /// # Errors
    /// The filter names what there is none of, the log cannot be used, or there are more letters than can be looked
    /// through. After an error some may have been handed over: [`Letters::list`] tells which.
    pub async fn replay(&self, filter: &DeadLetterFilter, again: bool) -> Result<ReplayReceipt, Fault> {
        let mut receipt = ReplayReceipt::default();
        let mut found = HashSet::new();
        for (topic, consumer) in self.asked(filter)? {
            let mut held = self.held(topic, consumer).await.map_err(fault)?;
            if held.is_cut {
                let name = letters_topic(topic, consumer);
                let message =
                    format!("topic '{name}' has more than {MAX_HELD} dead letters, too many to be told apart");
                return Err(Fault::new(ErrorKind::ResourceExhausted, message));
            }
            held.letters.retain(|_, letter| filter.fits(letter));
            found.extend(held.letters.keys().cloned());
            let before = held.letters.len();
            held.letters.retain(|_, letter| again || letter.state == DeadLetterState::Dead);
            receipt.left += (before - held.letters.len()) as u64;
            receipt.replayed += self.hand(topic, consumer, held.letters).await.map_err(fault)?;
        }
        let missing: Vec<&str> = filter.ids.iter().filter(|id| !found.contains(*id)).map(String::as_str).collect();
        if !missing.is_empty() {
            let others = if receipt.replayed > 0 { "; the others were replayed" } else { "" };
            let message = format!(
                "there are no dead letters {}{others}; `echotune dlq list` tells which there are",
                missing.join(", ")
            );
            return Err(Fault::new(ErrorKind::NotFound, message));
        }
        Ok(receipt)
    }

    /// The consumers that are asked about.
    fn asked(&self, filter: &DeadLetterFilter) -> Result<Vec<(&str, &str)>, Fault> {
        let fits = |asked: &str, has: &str| asked.is_empty() || asked == has;
        let all = self.consumers.iter().map(|(topic, consumer)| (topic.as_str(), consumer.as_str()));
        let asked: Vec<_> = all
            .clone()
            .filter(|(topic, consumer)| fits(&filter.topic, topic) && fits(&filter.consumer, consumer))
            .collect();
        if asked.is_empty() {
            let all: Vec<String> = all.map(|(topic, consumer)| format!("{consumer} of {topic}")).collect();
            let message = format!(
                "there is no consumer '{}' of topic '{}'; there are {}",
                filter.consumer,
                filter.topic,
                all.join(", ")
            );
            return Err(Fault::new(ErrorKind::NotFound, message));
        }
        Ok(asked)
    }

    async fn held(&self, topic: &str, consumer: &str) -> Result<Held, LogError> {
        let mut replays: HashMap<String, (u32, u64)> = HashMap::new();
        self.each(&replays_topic(topic, consumer), |record| {
            if let Some(letter) = record.letter
                && (replays.len() < MAX_HELD || replays.contains_key(&letter.id()))
            {
                let (tries, at_ms) = replays.entry(letter.id()).or_default();
                *tries = letter.tries.max(*tries);
                *at_ms = letter.replayed_at_ms.max(*at_ms);
            }
        })
        .await?;
        let mut held = Held { is_cut: replays.len() >= MAX_HELD, ..Held::default() };
        self.each(&letters_topic(topic, consumer), |record| held.take(record)).await?;
        for (id, letter) in &mut held.letters {
            if let Some((tries, at_ms)) = replays.get(id) {
                let failed_again = letter.tries > *tries;
                letter.state = if failed_again { DeadLetterState::FailedAgain } else { DeadLetterState::Replayed };
                letter.replayed_at_ms = *at_ms;
            }
        }
        Ok(held)
    }

    /// Copies letters to the topic of replays, each as it failed last. Answers how many.
    async fn hand(
        &self,
        topic: &str,
        consumer: &str,
        mut letters: HashMap<String, DeadLetter>,
    ) -> Result<u64, LogError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let (from, to) = (letters_topic(topic, consumer), replays_topic(topic, consumer));
        let mut reading = Reading::new(&*self.log, &from).await?;
        let (mut handed, at_ms) = (0, now_ms());
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while let Some(records) = reading.next().await? {
            for mut record in records {
                let Some(letter) = &mut record.letter else { continue };
                let id = letter.id();
                if letters.get(&id).is_none_or(|wanted| wanted.tries != letter.tries) {
                    continue;
                }
                letters.remove(&id);
                letter.replayed_at_ms = at_ms;
                bytes += record.value.len();
                piece.push(record);
                if piece.len() >= PIECE.0 || bytes >= PIECE.1 {
                    handed += piece.len() as u64;
                    self.log.append_sealed(&to, std::mem::take(&mut piece)).await?;
                    bytes = 0;
                }
            }
        }
        handed += piece.len() as u64;
        self.log.append_sealed(&to, piece).await?;
        Ok(handed)
    }

    async fn each(&self, topic: &str, mut take: impl FnMut(Record) + Send) -> Result<(), LogError> {
        let mut reading = Reading::new(&*self.log, topic).await?;
        while let Some(records) = reading.next().await? {
            records.into_iter().for_each(&mut take);
        }
        Ok(())
    }
}

/// The letters of a consumer by id, each as it failed last.
#[derive(Default)]
struct Held {
    letters: HashMap<String, DeadLetter>,
    order: VecDeque<String>,
    /// Whether there are more; the oldest are left out.
    is_cut: bool,
}

impl Held {
    fn take(&mut self, record: Record) {
        let Some(letter) = record.letter else { return };
        let id = letter.id();
        let Letter { topic, stream, position, region, consumer, reason, failed_at_ms, tries, .. } = *letter;
        let (key, traceparent) = (record.key, record.traceparent);
        let told = DeadLetter {
            id: id.clone(),
            consumer,
            topic,
            region,
            stream,
            position,
            key,
            reason,
            failed_at_ms,
            tries,
            traceparent,
            ..DeadLetter::default()
        };
        if self.letters.get(&id).is_some_and(|before| before.tries >= tries) {
            // Written twice.
            return;
        }
        if self.letters.insert(id.clone(), told).is_none() {
            self.order.push_back(id);
        }
        if self.letters.len() > MAX_HELD
            && let Some(oldest) = self.order.pop_front()
        {
            self.letters.remove(&oldest);
            self.is_cut = true;
        }
    }
}

/// Everything that a topic has now, from its first record to what was last when it began.
struct Reading {
    reader: Box<dyn crate::Reader>,
    topic: String,
    read: Positions,
    ends: Positions,
}

impl Reading {
    async fn new(log: &dyn EventLog, topic: &str) -> Result<Self, LogError> {
        let (read, ends) = (log.starts(topic).await?, log.ends(topic).await?);
        let reader = log.read_sealed(topic, Positions::default()).await?;
        Ok(Self { reader, topic: topic.to_owned(), read, ends })
    }

    /// The next records; none after the last.
    async fn next(&mut self) -> Result<Option<Vec<Record>>, LogError> {
        if self.read.covers(&self.ends) {
            return Ok(None);
        }
        let records = timeout(PATIENCE, self.reader.next(PIECE.0)).await.map_err(|_| LogError::Failed {
            kind: ErrorKind::Unavailable,
            message: format!("topic '{}' gave no records within {} s", self.topic, PATIENCE.as_secs()),
        })??;
        records.iter().for_each(|one| self.read.pass(one));
        let before = |one: &Delivered| one.position < self.ends.next(&one.stream);
        Ok(Some(records.into_iter().filter(before).map(|one| one.record).collect()))
    }
}

fn fault(error: LogError) -> Fault {
    Fault::new(error.kind(), error.to_string())
}
