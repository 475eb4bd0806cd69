use std::collections::{HashMap, HashSet};

use echotune_api::{MAX_LIMIT, RecommendQuery};
use echotune_model::{Call, Fault, ItemId, ReasonKind, Recommendation, Recommendations as List, StageChange, fold};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{Kind, ScoredItems, check_limit, may_read, ten};
use crate::{
    Services,
    tool::{Effect, Tool},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Recommend {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Artists or tracks.
    kind: Kind,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
    /// Whether items that the listener already knows may appear.
    #[serde(default)]
    include_known: bool,
    /// Items of one artist at the most. The best 500 items are looked at.
    #[schemars(range(min = 1, max = 500))]
    max_per_artist: Option<u32>,
    /// Names of artists that must not appear, compared without case and accents.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 1024)))]
    exclude_artists: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Explain {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Id of the artist or track: a UUID.
    #[schemars(length(max = 64))]
    item: String,
    /// Reasons at the most, the last of them for all others together; every single one when absent.
    #[schemars(range(min = 1, max = 100_000))]
    max_reasons: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhatIf {
    /// Account name of the listener.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Ids of artists or tracks to leave out of the history: UUIDs.
    #[schemars(length(min = 1, max = 1000), inner(length(max = 64)))]
    without: Vec<String>,
    /// Artists or tracks.
    kind: Kind,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Similar {
    /// Id of the artist or track: a UUID.
    #[schemars(length(max = 64))]
    item: String,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Trending {
    /// Artists or tracks.
    kind: Kind,
    /// How many at the most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
}

/// A list with what it was made from.
#[derive(Debug, Serialize, JsonSchema)]
struct Recommended {
    /// Version of the model that made it.
    model_version: String,
    /// Hybrid time of the newest event it has seen: milliseconds since the Unix epoch times 65,536, and a counter.
    watermark: u64,
    /// Trace of the request: 32 hexadecimal digits.
    trace_id: String,
    /// Whether the history says nothing yet.
    cold_start: bool,
    /// Best first.
    recommendations: Vec<Ranked>,
    /// What a stage after scoring changed, before limits by artist.
    changes: Vec<Change>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Change {
    /// Name of the stage.
    stage: String,
    /// Identity: a UUID.
    item: String,
    /// Track title; empty for an artist.
    title: String,
    /// Artist name.
    artist: String,
    /// Its rank before the stage, from 1; 0 when it came in.
    from_rank: u32,
    /// Its rank after the stage; 0 when it went out.
    to_rank: u32,
}

impl From<StageChange> for Change {
    fn from(StageChange { stage, item, title, artist, from_rank, to_rank }: StageChange) -> Self {
        Self { stage, item: item.to_string(), title, artist, from_rank, to_rank }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct Ranked {
    /// Position, from 1.
    rank: u32,
    /// Identity: a UUID.
    id: String,
    /// Artist or track.
    kind: Kind,
    /// Track title; empty for an artist.
    title: String,
    /// Artist name.
    artist: String,
    /// What the list is ordered by: base plus all contributions, within 0.00001.
    score: f64,
    /// What the score is without any history.
    base: f64,
    /// In a list of what_if: what the score is with the items that were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    score_before: Option<f64>,
    /// Why, strongest first.
    reasons: Vec<Reason>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Reason {
    /// What it rests on: listen, other_listens, tag, trending, friend or stage.
    kind: String,
    /// Whose it is, for people.
    of: String,
    /// The part of the score.
    contribution: f64,
}

impl From<Recommendation> for Ranked {
    fn from(item: Recommendation) -> Self {
        let reason = |reason: echotune_model::Reason| Reason {
            kind: reason.kind.name().to_owned(),
            of: reason.of,
            contribution: reason.contribution,
        };
        Self {
            rank: item.rank,
            id: item.id.to_string(),
            kind: item.kind.into(),
            title: item.title,
            artist: item.artist,
            score: item.score,
            base: item.base,
            score_before: item.score_before,
            reasons: item.reasons.into_iter().map(reason).collect(),
        }
    }
}

impl From<List> for Recommended {
    fn from(list: List) -> Self {
        Self {
            model_version: list.model_version,
            watermark: list.watermark.0,
            trace_id: list.trace.to_string(),
            cold_start: list.cold_start,
            recommendations: list.items.into_iter().map(Ranked::from).collect(),
            changes: list.changes.into_iter().map(Change::from).collect(),
        }
    }
}

/// The first `limit` items of a ranked list of which none is by an excluded artist and at most
/// `per_artist` are by one, ranked anew.
fn choose(items: Vec<Recommendation>, limit: u32, per_artist: Option<u32>, excluded: &[String]) -> Vec<Recommendation> {
    let excluded: HashSet<String> = excluded.iter().map(|name| fold(name)).collect();
    let mut taken: HashMap<String, u32> = HashMap::new();
    let allowed = |item: &Recommendation| {
        let artist = fold(&item.artist);
        if excluded.contains(&artist) {
            return false;
        }
        let count = taken.entry(artist).or_default();
        *count += 1;
        per_artist.is_none_or(|most| *count <= most)
    };
    let kept = items.into_iter().filter(allowed).take(limit as usize);
    (1..).zip(kept).map(|(rank, item)| Recommendation { rank, ..item }).collect()
}

/// Keeps the strongest reasons and puts all others into one, so that the sum stays.
fn shorten(reasons: &mut Vec<echotune_model::Reason>, most: usize) {
    if reasons.len() <= most {
        return;
    }
    let others = reasons.split_off(most.saturating_sub(1));
    reasons.push(echotune_model::Reason {
        kind: ReasonKind::OtherListens,
        of: format!("{} other reasons", others.len()),
        contribution: others.iter().map(|reason| reason.contribution).sum(),
    });
}

async fn recommend(services: Services, call: Call, asked: Recommend) -> Result<Recommended, Fault> {
    may_read(&call, &asked.user)?;
    let limit = check_limit(asked.limit)?;
    let chosen = asked.max_per_artist.is_some() || !asked.exclude_artists.is_empty();
    let query = RecommendQuery {
        kind: asked.kind.into(),
        limit: if chosen { MAX_LIMIT } else { limit },
        include_known: asked.include_known,
    };
    let mut list = services.recommendations.recommend(&call, &asked.user, &query).await?;
    if chosen {
        list.items = choose(list.items, limit, asked.max_per_artist, &asked.exclude_artists);
    }
    Ok(list.into())
}

async fn explain(services: Services, call: Call, asked: Explain) -> Result<Recommended, Fault> {
    may_read(&call, &asked.user)?;
    let mut list = services.recommendations.explain(&call, &asked.user, asked.item.parse()?).await?;
    if let Some(most) = asked.max_reasons {
        list.items.iter_mut().for_each(|item| shorten(&mut item.reasons, most as usize));
    }
    Ok(list.into())
}

async fn what_if(services: Services, call: Call, asked: WhatIf) -> Result<Recommended, Fault> {
    may_read(&call, &asked.user)?;
    let without: Vec<ItemId> = asked.without.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let query = RecommendQuery { kind: asked.kind.into(), limit: check_limit(asked.limit)?, include_known: false };
    Ok(services.recommendations.what_if(&call, &asked.user, &without, &query).await?.into())
}

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "recommend",
            "Recommend",
            "The best artists or tracks for a listener, best first, each with reasons that sum to its score. Limits by artist are applied after ranking.",
            Effect::Reads,
            recommend,
        ),
        Tool::new(
            "explain",
            "Explain a score",
            "One artist's or track's score for a listener with every single reason or the strongest, whether or not it would be recommended; a list of one.",
            Effect::Reads,
            explain,
        ),
        Tool::new(
            "what_if",
            "What if",
            "The list as it were if the listener had not played some artists or tracks. Changes nothing.",
            Effect::Reads,
            what_if,
        ),
        Tool::new(
            "similar",
            "Similar items",
            "The artists or tracks nearest to one in the model, nearest first.",
            Effect::Reads,
            async |services: Services, call: Call, asked: Similar| {
                let limit = check_limit(asked.limit)?;
                Ok(ScoredItems::from(services.recommendations.similar(&call, asked.item.parse()?, limit).await?))
            },
        ),
        Tool::new(
            "trending",
            "Played most now",
            "The artists or tracks that are played most now, recent plays counting more.",
            Effect::Reads,
            async |services: Services, call: Call, asked: Trending| {
                let limit = check_limit(asked.limit)?;
                Ok(ScoredItems::from(services.recommendations.trending(&call, asked.kind.into(), limit).await?))
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use echotune_model::ItemKind;

    use super::*;

    fn track(rank: u32, artist: &str) -> Recommendation {
        let title = format!("Song {rank}");
        Recommendation {
            rank,
            id: ItemId::track(artist, &title),
            kind: ItemKind::Track,
            title,
            artist: artist.into(),
            score: 1.0 / f64::from(rank),
            base: 1.0 / f64::from(rank),
            reasons: Vec::new(),
            propensity: 1.0,
            drawn_from: String::new(),
            score_before: None,
        }
    }

    #[test]
    fn artists_are_limited_and_excluded_in_any_spelling_and_ranks_are_new() {
        let ranked = ["Björk", "Bjork", "Low", "BJÖRK", "Low", "Can"];
        let list: Vec<_> = (1..).zip(ranked).map(|(rank, artist)| track(rank, artist)).collect();
        let chosen = choose(list, 3, Some(2), &["low ".into()]);
        let told: Vec<_> = chosen.iter().map(|item| (item.rank, item.title.as_str())).collect();
        assert_eq!(told, [(1, "Song 1"), (2, "Song 2"), (3, "Song 6")]);
    }
}
