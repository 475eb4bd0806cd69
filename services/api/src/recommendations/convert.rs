use echotune_model::{
    Acceptance, ErrorKind, Exposure, Fault, Feedback, Hlc, Impression, Item, ItemId, ItemKind, PastFeedback, Reason,
    ReasonKind, Recommendation, Recommendations as List, Signal, SimilarItem, StageChange, TraceId,
};
use echotune_proto::recommendations::v1 as pb;

fn lacks(field: &str) -> Fault {
    Fault::new(ErrorKind::Internal, format!("the server's answer lacks '{field}'"))
}

pub(crate) fn kind_to_pb(kind: ItemKind) -> i32 {
    match kind {
        ItemKind::Artist => pb::ItemKind::Artist,
        ItemKind::Track => pb::ItemKind::Track,
    }
    .into()
}

pub(crate) fn kind_from_pb(kind: i32) -> Result<ItemKind, Fault> {
    match pb::ItemKind::try_from(kind) {
        Ok(pb::ItemKind::Artist | pb::ItemKind::Unspecified) => Ok(ItemKind::Artist),
        Ok(pb::ItemKind::Track) => Ok(ItemKind::Track),
        Err(_) => {
            Err(Fault::invalid(format!("kind {kind} is not an ItemKind; use ITEM_KIND_ARTIST or ITEM_KIND_TRACK")))
        }
    }
}

/// The trace of a message; zero when the field is empty.
pub(super) fn trace_from_pb(text: &str) -> Result<TraceId, Fault> {
    if text.is_empty() { Ok(TraceId::default()) } else { text.parse() }
}

pub(super) fn ids_from_pb(ids: &[String]) -> Result<Vec<ItemId>, Fault> {
    ids.iter().map(|id| id.parse()).collect()
}

pub(super) fn ids_to_pb(ids: &[ItemId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn reason_to_pb(reason: Reason) -> pb::Reason {
    let kind = match reason.kind {
        ReasonKind::Listen => pb::ReasonKind::Listen,
        ReasonKind::OtherListens => pb::ReasonKind::OtherListens,
        ReasonKind::Tag => pb::ReasonKind::Tag,
        ReasonKind::Trending => pb::ReasonKind::Trending,
        ReasonKind::Friend => pb::ReasonKind::Friend,
        ReasonKind::Stage => pb::ReasonKind::Stage,
    };
    pb::Reason { kind: kind.into(), of: reason.of, contribution: reason.contribution }
}

fn reason_from_pb(reason: pb::Reason) -> Result<Reason, Fault> {
    let kind = match reason.kind() {
        pb::ReasonKind::Listen => ReasonKind::Listen,
        pb::ReasonKind::OtherListens => ReasonKind::OtherListens,
        pb::ReasonKind::Tag => ReasonKind::Tag,
        pb::ReasonKind::Trending => ReasonKind::Trending,
        pb::ReasonKind::Friend => ReasonKind::Friend,
        pb::ReasonKind::Stage => ReasonKind::Stage,
        pb::ReasonKind::Unspecified => return Err(lacks("reasons.kind")),
    };
    Ok(Reason { kind, of: reason.of, contribution: reason.contribution })
}

pub(super) fn recommendation_to_pb(one: Recommendation) -> pb::Recommendation {
    let Recommendation { rank, id, kind, title, artist, score, base, reasons, propensity, drawn_from, score_before } =
        one;
    let reasons = reasons.into_iter().map(reason_to_pb).collect();
    let (id, kind) = (id.to_string(), kind_to_pb(kind));
    pb::Recommendation { rank, id, kind, title, artist, score, base, reasons, propensity, drawn_from, score_before }
}

fn recommendation_from_pb(one: pb::Recommendation) -> Result<Recommendation, Fault> {
    let pb::Recommendation {
        rank,
        id,
        kind,
        title,
        artist,
        score,
        base,
        reasons,
        propensity,
        drawn_from,
        score_before,
    } = one;
    let reasons = reasons.into_iter().map(reason_from_pb).collect::<Result<_, _>>()?;
    let (id, kind) = (id.parse()?, kind_from_pb(kind)?);
    Ok(Recommendation { rank, id, kind, title, artist, score, base, reasons, propensity, drawn_from, score_before })
}

fn change_to_pb(change: StageChange) -> pb::StageChange {
    let StageChange { stage, item, title, artist, from_rank, to_rank } = change;
    pb::StageChange { stage, item_id: item.to_string(), title, artist, from_rank, to_rank }
}

fn change_from_pb(change: pb::StageChange) -> Result<StageChange, Fault> {
    let pb::StageChange { stage, item_id, title, artist, from_rank, to_rank } = change;
    Ok(StageChange { stage, item: item_id.parse()?, title, artist, from_rank, to_rank })
}

pub(super) fn list_to_pb(list: List) -> pb::RecommendationList {
    pb::RecommendationList {
        model_version: list.model_version,
        watermark: list.watermark.0,
        trace_id: list.trace.to_string(),
        cold_start: list.cold_start,
        recommendations: list.items.into_iter().map(recommendation_to_pb).collect(),
        exposure: list.exposure.map(|one| pb::Exposure {
            experiment: one.experiment,
            variant: one.variant,
            propensity: one.propensity,
        }),
        changes: list.changes.into_iter().map(change_to_pb).collect(),
    }
}

pub(super) fn list_from_pb(list: Option<pb::RecommendationList>) -> Result<List, Fault> {
    let list = list.ok_or_else(|| lacks("list"))?;
    Ok(List {
        model_version: list.model_version,
        watermark: Hlc(list.watermark),
        trace: trace_from_pb(&list.trace_id)?,
        cold_start: list.cold_start,
        items: list.recommendations.into_iter().map(recommendation_from_pb).collect::<Result<_, _>>()?,
        exposure: list.exposure.map(|one| Exposure {
            experiment: one.experiment,
            variant: one.variant,
            propensity: one.propensity,
        }),
        changes: list.changes.into_iter().map(change_from_pb).collect::<Result<_, _>>()?,
    })
}

pub(super) fn item_to_pb(item: Item) -> pb::Item {
    let Item { id, kind, title, artist, tags, listeners } = item;
    pb::Item { id: id.to_string(), kind: kind_to_pb(kind), title, artist, tags, listeners }
}

pub(super) fn item_from_pb(item: Option<pb::Item>) -> Result<Item, Fault> {
    let pb::Item { id, kind, title, artist, tags, listeners } = item.ok_or_else(|| lacks("item"))?;
    Ok(Item { id: id.parse()?, kind: kind_from_pb(kind)?, title, artist, tags, listeners })
}

pub(super) fn scored_to_pb(one: SimilarItem) -> pb::ScoredItem {
    pb::ScoredItem { item: Some(item_to_pb(one.item)), score: one.score }
}

pub(super) fn scored_from_pb(one: pb::ScoredItem) -> Result<SimilarItem, Fault> {
    Ok(SimilarItem { item: item_from_pb(one.item)?, score: one.score })
}

pub(super) fn impression_from_pb(message: &pb::RecordImpressionRequest) -> Result<Impression, Fault> {
    Ok(Impression {
        trace: trace_from_pb(&message.trace_id)?,
        model_version: message.model_version.clone(),
        items: ids_from_pb(&message.item_ids)?,
    })
}

pub(super) fn signal_to_pb(signal: Signal) -> i32 {
    match signal {
        Signal::Liked => pb::Signal::Liked,
        Signal::Disliked => pb::Signal::Disliked,
        Signal::Skipped => pb::Signal::Skipped,
        Signal::Played => pb::Signal::Played,
    }
    .into()
}

fn signal_from_pb(given: i32) -> Result<Signal, Fault> {
    match pb::Signal::try_from(given) {
        Ok(pb::Signal::Liked) => Ok(Signal::Liked),
        Ok(pb::Signal::Disliked) => Ok(Signal::Disliked),
        Ok(pb::Signal::Skipped) => Ok(Signal::Skipped),
        Ok(pb::Signal::Played) => Ok(Signal::Played),
        Ok(pb::Signal::Unspecified) | Err(_) => {
            Err(Fault::invalid(format!("signal {given} says nothing; send liked, disliked, skipped or played")))
        }
    }
}

pub(super) fn feedback_from_pb(message: &pb::RecordFeedbackRequest) -> Result<Feedback, Fault> {
    let signal = signal_from_pb(message.signal)?;
    Ok(Feedback { item: message.item_id.parse()?, signal, trace: trace_from_pb(&message.trace_id)? })
}

pub(super) fn past_from_pb(message: pb::RestoreFeedbackRequest) -> Result<PastFeedback, Fault> {
    let pb::RestoreFeedbackRequest { signal, trace_id, title, artist, said_at_ms, .. } = message;
    let said_at_ms = u64::try_from(said_at_ms)
        .map_err(|_| Fault::invalid(format!("said_at_ms {said_at_ms} is negative; send when it was said")))?;
    let item = if title.is_empty() { ItemId::artist(&artist) } else { ItemId::track(&artist, &title) };
    let feedback = Feedback { item, signal: signal_from_pb(signal)?, trace: trace_from_pb(&trace_id)? };
    Ok(PastFeedback { feedback, title, artist, said_at_ms })
}

pub(super) fn acceptance_to_pb(one: Acceptance) -> pb::Acceptance {
    let Acceptance { model_version, impressions, items, accepted, refused } = one;
    pb::Acceptance { model_version, impressions, items, accepted, refused }
}

pub(super) fn acceptance_from_pb(one: pb::Acceptance) -> Acceptance {
    let pb::Acceptance { model_version, impressions, items, accepted, refused } = one;
    Acceptance { model_version, impressions, items, accepted, refused }
}
