//! Headers of records: the trace, and where a dead letter comes from. All are text, in clear.

use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
};

use super::streams::Stream;
use crate::{Letter, Record};

/// The W3C trace context.
pub(super) const TRACEPARENT: &str = "traceparent";
/// Topic that the consumer follows.
const TOPIC: &str = "dlq.topic";
/// Topic of the record as it is called here: with its region, where it is a mirrored one.
const STREAM_TOPIC: &str = "dlq.source.topic";
const PARTITION: &str = "dlq.source.partition";
const OFFSET: &str = "dlq.source.offset";
const REGION: &str = "dlq.source.region";
const CONSUMER: &str = "dlq.consumer";
const REASON: &str = "dlq.reason";
/// Milliseconds since the Unix epoch.
const FAILED_AT: &str = "dlq.failed-at";
const TRIES: &str = "dlq.tries";
/// `STREAM@POSITION` of the record, where it is handed over again.
const REPLAYED_FROM: &str = "replayed-from";
/// Milliseconds since the Unix epoch.
const REPLAYED_AT: &str = "replayed-at";

/// The headers of a record; none when it has nothing to tell.
pub(super) fn of(record: &Record) -> Option<OwnedHeaders> {
    let mut all: Vec<(&str, String)> = Vec::new();
    if !record.traceparent.is_empty() {
        all.push((TRACEPARENT, record.traceparent.clone()));
    }
    if let Some(letter) = &record.letter {
        let source = Stream::parse(&letter.stream).unwrap_or_else(|| Stream::of(&letter.stream, 0));
        all.extend([
            (TOPIC, letter.topic.clone()),
            (STREAM_TOPIC, source.topic),
            (PARTITION, source.partition.to_string()),
            (OFFSET, letter.position.to_string()),
            (REGION, letter.region.clone()),
            (CONSUMER, letter.consumer.clone()),
            (REASON, letter.reason.clone()),
            (FAILED_AT, letter.failed_at_ms.to_string()),
            (TRIES, letter.tries.to_string()),
        ]);
        if letter.replayed_at_ms > 0 {
            all.extend([(REPLAYED_FROM, letter.id()), (REPLAYED_AT, letter.replayed_at_ms.to_string())]);
        }
    }
    if all.is_empty() {
        return None;
    }
    let headers = OwnedHeaders::new_with_capacity(all.len());
    Some(all.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) })))
}

/// The trace context, and where the record comes from, if it is a dead letter.
pub(super) fn read(message: &BorrowedMessage<'_>) -> (String, Option<Box<Letter>>) {
    let Some(headers) = message.headers() else { return (String::new(), None) };
    let bytes = |key: &str| headers.iter().find(|one| one.key == key).and_then(|one| one.value);
    let text = |key: &str| bytes(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let number = |key: &str| text(key).and_then(|value| value.parse().ok());
    let letter = || {
        let partition = text(PARTITION)?.parse().ok()?;
        Some(Box::new(Letter {
            topic: text(TOPIC)?,
            stream: Stream::of(&text(STREAM_TOPIC)?, partition).to_string(),
            position: number(OFFSET)?,
            region: text(REGION)?,
            consumer: text(CONSUMER)?,
            reason: text(REASON)?,
            failed_at_ms: number(FAILED_AT)?,
            tries: text(TRIES)?.parse().ok()?,
            replayed_at_ms: number(REPLAYED_AT).unwrap_or(0),
        }))
    };
    (text(TRACEPARENT).unwrap_or_default(), letter())
}
