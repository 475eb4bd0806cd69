use std::time::{SystemTime, UNIX_EPOCH};

use echotune_model::{Call, ErrorKind, Fault, HistoryEntry, Listen, MAX_PAGE, PageRequest, Track};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    listens::{Counter, Summary},
    words::{Kind, check_limit, may_read, may_write, ten},
};
use crate::{
    Services,
    tool::{Effect, Tool},
};

/// Listens that a summary reads at the most, newest first.
const SUMMARISED: usize = 50_000;
/// What recorded listens say about where they come from.
const SOURCE: &str = "mcp";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TopItems {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Artists or tracks.
    kind: Kind,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Top {
    /// Most played first.
    items: Vec<Played>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Played {
    /// Identity: a UUID.
    id: String,
    /// Artist or track.
    kind: Kind,
    /// Track title; empty for an artist.
    title: String,
    /// Artist name.
    artist: String,
    /// How often the listener has played it.
    plays: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RecentListens {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
    /// `next` of the page before; empty or absent for the newest.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    page_token: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Recent {
    /// Newest first.
    listens: Vec<ListenOut>,
    /// Token of the next page; empty when this is the last one.
    next: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ListenOut {
    /// Identity: a UUID.
    id: String,
    /// Track title.
    title: String,
    /// Artist name.
    artist: String,
    /// Album; empty when unknown.
    album: String,
    /// Start of playback, in milliseconds since the Unix epoch.
    listened_at_ms: i64,
}

impl From<HistoryEntry> for ListenOut {
    fn from(entry: HistoryEntry) -> Self {
        let HistoryEntry { id, listen } = entry;
        let Track { title, artist, album } = listen.track;
        Self { id: id.to_string(), title, artist, album, listened_at_ms: listen.listened_at_ms }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListeningSummary {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Only listens from here on, in milliseconds since the Unix epoch.
    from_ms: Option<i64>,
    /// Only listens before this, in milliseconds since the Unix epoch.
    to_ms: Option<i64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RecordListen {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Artist name.
    #[schemars(length(min = 1, max = 1024))]
    artist: String,
    /// Track title.
    #[schemars(length(min = 1, max = 1024))]
    title: String,
    /// Album.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    album: String,
    /// Start of playback, in milliseconds since the Unix epoch. May be left out, for now, only with an idempotency
    /// key: otherwise a repeated call would be a second listen.
    listened_at_ms: Option<i64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Recorded {
    /// How many listens were new: 0 or 1.
    recorded: u32,
    /// How many were recorded before: 0 or 1.
    duplicates: u32,
}

async fn top_items(services: Services, call: Call, asked: TopItems) -> Result<Top, Fault> {
    may_read(&call, &asked.user)?;
    let limit = check_limit(asked.limit)?;
    let rows = services.recommendations.top_items(&call, &asked.user, asked.kind.into(), limit).await?;
    let items = rows.into_iter().map(|(item, plays)| Played {
        id: item.id.to_string(),
        kind: item.kind.into(),
        title: item.title,
        artist: item.artist,
        plays,
    });
    Ok(Top { items: items.collect() })
}

async fn recent_listens(services: Services, call: Call, asked: RecentListens) -> Result<Recent, Fault> {
    may_read(&call, &asked.user)?;
    let page = PageRequest { size: check_limit(asked.limit)?, token: asked.page_token };
    let page = services.users.list_listens(&call, &asked.user, &page).await?;
    Ok(Recent { listens: page.rows.into_iter().map(ListenOut::from).collect(), next: page.next })
}

async fn listening_summary(services: Services, call: Call, asked: ListeningSummary) -> Result<Summary, Fault> {
    may_read(&call, &asked.user)?;
    let (from, to) = (asked.from_ms.unwrap_or(i64::MIN), asked.to_ms.unwrap_or(i64::MAX));
    if from >= to {
        return Err(Fault::invalid(format!("from_ms {from} is not before to_ms {to}")));
    }
    let (mut counter, mut read, mut token) = (Counter::default(), 0, String::new());
    loop {
        let page = PageRequest { size: MAX_PAGE, token };
        let page = services.users.list_listens(&call, &asked.user, &page).await?;
        read += page.rows.len();
        let older = page.rows.last().is_some_and(|last| last.listen.listened_at_ms < from);
        let within = |entry: &HistoryEntry| (from..to).contains(&entry.listen.listened_at_ms);
        page.rows.into_iter().filter(within).for_each(|entry| counter.count(entry.listen));
        if older || page.next.is_empty() {
            return Ok(counter.summary(false));
        }
        if read >= SUMMARISED {
            return Ok(counter.summary(true));
        }
        token = page.next;
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

async fn record_listen(services: Services, call: Call, asked: RecordListen) -> Result<Recorded, Fault> {
    may_write(&call, &asked.user)?;
    let timed = asked.listened_at_ms.is_some();
    if !timed && call.idempotency_key.is_empty() {
        return Err(Fault::invalid(
            "listened_at_ms is absent; say when the playback began, or give an idempotency key",
        ));
    }
    let track = Track { title: asked.title, artist: asked.artist, album: asked.album };
    let listen = Listen {
        listened_at_ms: asked.listened_at_ms.unwrap_or_else(now_ms),
        track: track.clone(),
        played_ms: 0,
        source: SOURCE.to_owned(),
        explicit: None,
    };
    let receipt = match services.users.record_listens(&call, &asked.user, vec![listen]).await {
        // The repeat of a call without a time says another now under the same key.
        Err(fault) if !timed && fault.kind == ErrorKind::FailedPrecondition => {
            return repeated(&services, &call, &asked.user, &track, fault).await;
        }
        other => other?,
    };
    match receipt.rejections.into_iter().next() {
        Some(rejection) => Err(Fault::invalid(rejection.reason)),
        None => Ok(Recorded { recorded: receipt.recorded, duplicates: receipt.duplicates }),
    }
}

/// What a repeated key answers: that the listen is there, when the newest ones have it; else `fault`.
async fn repeated(
    services: &Services,
    call: &Call,
    user: &str,
    track: &Track,
    fault: Fault,
) -> Result<Recorded, Fault> {
    let page = PageRequest { size: MAX_PAGE, token: String::new() };
    let newest = services.users.list_listens(call, user, &page).await?;
    let known = newest.rows.iter().any(|entry| entry.listen.source == SOURCE && entry.listen.track.id() == track.id());
    if known { Ok(Recorded { recorded: 0, duplicates: 1 }) } else { Err(fault) }
}

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "top_items",
            "Most played",
            "The artists or tracks that a listener has played most, most played first.",
            Effect::Reads,
            top_items,
        ),
        Tool::new(
            "recent_listens",
            "Recent listens",
            "A listener's listens, newest first, page by page.",
            Effect::Reads,
            recent_listens,
        ),
        Tool::new(
            "listening_summary",
            "Summary of a time",
            "How much a listener listened within a time, to whom, and at which hours and days (UTC). Reads at most the newest 50,000 listens.",
            Effect::Reads,
            listening_summary,
        ),
        Tool::new(
            "record_listen",
            "Record a listen",
            "Notes that a listener has listened to a track. The same listen again changes nothing.",
            Effect::Adds,
            record_listen,
        ),
    ]
}
