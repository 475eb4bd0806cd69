//! What is held about a person, a page at a time.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use echotune_kit::embedded::{Order, StoreError, Table, View, decode};
use echotune_model::{ErrorKind, ExportRecord, ItemId, Page, PageRequest, Signal, TraceId, UserId};
use serde_json::{Value, json};

use super::{
    tables::{FEEDBACK, IMPRESSIONS, Said, Shown, UNITS, of, signal, uuid_at},
    units::Unit,
};
use crate::store::{Answer, RecommendationStoreError};

/// What an export consists of, in its order.
const SECTIONS: [(&str, Table); 3] = [("impression", IMPRESSIONS), ("feedback", FEEDBACK), ("experiment", UNITS)];
/// Bytes of records in one page, from which on the page ends early.
const PAGE_BYTES: usize = 4 << 20;
/// Longest page token, in bytes.
const MAX_TOKEN_BYTES: usize = 256;

const fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Liked => "liked",
        Signal::Disliked => "disliked",
        Signal::Skipped => "skipped",
        Signal::Played => "played",
    }
}

/// The trace as everywhere else; empty when there is none.
fn trace_text(trace: TraceId) -> String {
    if trace == TraceId::default() { String::new() } else { trace.to_string() }
}

fn impression(key: &[u8], shown: &Shown) -> Result<Value, StoreError> {
    let trace = TraceId(uuid_at(IMPRESSIONS, key, 1)?.as_u128());
    let items = shown.items.iter().enumerate().map(|(place, item)| {
        let said = shown.signals.get(place).copied().filter(|number| *number > 0).map(signal).transpose()?;
        let propensity = shown.served.as_ref().map(|served| served.propensity(place));
        Ok(json!({ "item_id": item.to_string(), "signal": said.map(signal_name), "propensity": propensity }))
    });
    Ok(json!({
        "trace_id": trace_text(trace),
        "model_version": shown.model,
        "shown_at_ms": shown.at.ms(),
        "items": items.collect::<Result<Vec<_>, StoreError>>()?,
        "experiment": shown.served.as_ref().map(|served| &served.experiment),
        "variant": shown.served.as_ref().map(|served| served.variant),
        "variant_propensity": shown.served.as_ref().map(|served| served.share),
    }))
}

fn unit(key: &[u8], unit: &Unit) -> Value {
    json!({
        "experiment": String::from_utf8_lossy(key.get(16..).unwrap_or_default()),
        "variant": unit.variant,
        "impressions": unit.impressions,
        "items": unit.items.iter().sum::<u64>(),
        "accepted": unit.accepted.iter().sum::<u64>(),
        "refused": unit.refused.iter().sum::<u64>(),
        "lists": unit.lists,
    })
}

fn feedback(key: &[u8], said: &Said) -> Result<Value, StoreError> {
    Ok(json!({
        "item_id": ItemId(uuid_at(FEEDBACK, key, 1)?).to_string(),
        "title": said.item.title,
        "artist": said.item.artist,
        "signal": signal_name(signal(said.signal)?),
        "trace_id": trace_text(TraceId(said.trace)),
        "said_at_ms": said.at.ms(),
    }))
}

fn record(table: Table, key: &[u8], value: &[u8]) -> Result<String, StoreError> {
    let told = match table {
        IMPRESSIONS => impression(key, &decode(table, value)?),
        UNITS => Ok(unit(key, &decode(table, value)?)),
        _ => feedback(key, &decode(table, value)?),
    };
    told.map(|told| told.to_string())
}

/// The section and the rest of the key after which to go on.
fn parse(token: &str) -> Answer<(usize, Vec<u8>)> {
    if token.is_empty() {
        return Ok((0, Vec::new()));
    }
    let found = token.split_once('.').filter(|_| token.len() <= MAX_TOKEN_BYTES).and_then(|(kind, rest)| {
        let section = SECTIONS.iter().position(|(one, _)| *one == kind)?;
        Some((section, URL_SAFE_NO_PAD.decode(rest).ok()?))
    });
    found.ok_or_else(|| {
        let shown: String = token.chars().take(64).flat_map(char::escape_debug).collect();
        let message = format!("'{shown}' is not a page token of an export; send that of the page before, or none");
        RecommendationStoreError { kind: ErrorKind::InvalidArgument, message }
    })
}

/// One section after the other: the token is the section and the rest of the last key, parted by a dot.
pub(super) fn export(view: &dyn View, user: UserId, request: &PageRequest) -> Answer<Page<ExportRecord>> {
    let (section, mut after) = parse(&request.token)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for (kind, table) in SECTIONS.into_iter().skip(section) {
        let prefix = of(user);
        let from = if after.is_empty() { prefix.clone() } else { prefix.clone().fixed(&after).fixed(&[0]) };
        let mut more = false;
        view.scan(table, &from, prefix.prefix_end().as_ref(), Order::Ascending, &mut |key, value| {
            more = rows.len() >= request.size as usize || bytes >= PAGE_BYTES;
            if !more {
                let json = record(table, key, value)?;
                bytes += json.len();
                rows.push(ExportRecord { kind: kind.to_owned(), json });
                after = key.get(prefix.0.len()..).unwrap_or_default().to_vec();
            }
            Ok(!more)
        })?;
        if more {
            return Ok(Page { rows, next: format!("{kind}.{}", URL_SAFE_NO_PAD.encode(after)) });
        }
        after = Vec::new();
    }
    Ok(Page { rows, next: String::new() })
}
