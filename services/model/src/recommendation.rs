use crate::{Exposure, Hlc, ItemId, TraceId};

/// What can be recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// An artist.
    Artist,
    /// A track.
    Track,
}

impl ItemKind {
    /// The name in text and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Artist => "artist",
            Self::Track => "track",
        }
    }
}

/// What a reason rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReasonKind {
    /// An item in the user's history.
    Listen,
    /// All further items of the history together.
    OtherListens,
    /// A tag shared with the history; `of` names the tag.
    Tag,
    /// Recent popularity among all users.
    Trending,
    /// What a friend plays; `of` names the friend, or tells how many further friends count together.
    Friend,
    /// What a stage after scoring adds; `of` names the stage.
    Stage,
}

impl ReasonKind {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::OtherListens => "other_listens",
            Self::Tag => "tag",
            Self::Trending => "trending",
            Self::Friend => "friend",
            Self::Stage => "stage",
        }
    }
}

/// One signed part of a score.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// What it rests on.
    pub kind: ReasonKind,
    /// Whose it is, for people.
    pub of: String,
    /// The part of the score.
    pub contribution: f64,
}

/// One recommended item. `score` is `base` plus all contributions, within 1e-5.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// Position, from 1.
    pub rank: u32,
    /// Identity.
    pub id: ItemId,
    /// Kind.
    pub kind: ItemKind,
    /// Track title; empty for an artist.
    pub title: String,
    /// Artist name.
    pub artist: String,
    /// What the list is ordered by.
    pub score: f64,
    /// What the score is without any history.
    pub base: f64,
    /// Why, strongest first.
    pub reasons: Vec<Reason>,
    /// The chance of the item to take its place, given those before it: 1 but for what is explored.
    pub propensity: f64,
    /// When variants are interleaved: the one that the item was drawn from.
    pub drawn_from: String,
    /// In a list without some items: what the score is with them, in the same model and stage.
    pub score_before: Option<f64>,
}

/// What a stage after scoring changed of a list. Ranks are those of the list without what is explored, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageChange {
    /// Name of the stage.
    pub stage: String,
    /// The item.
    pub item: ItemId,
    /// Track title; empty for an artist.
    pub title: String,
    /// Artist name.
    pub artist: String,
    /// Its rank before the stage; 0 when it came in.
    pub from_rank: u32,
    /// Its rank after the stage; 0 when it went out.
    pub to_rank: u32,
}

/// A list with what it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendations {
    /// Version of the model that served it.
    pub model_version: String,
    /// Hybrid time of the newest event it has seen.
    pub watermark: Hlc,
    /// Trace of the request.
    pub trace: TraceId,
    /// True when the history says nothing yet.
    pub cold_start: bool,
    /// Best first.
    pub items: Vec<Recommendation>,
    /// The experiment that it is part of, if any.
    pub exposure: Option<Exposure>,
    /// What a stage after scoring changed, by rank, what went out last.
    pub changes: Vec<StageChange>,
}

/// An item of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Identity.
    pub id: ItemId,
    /// Kind.
    pub kind: ItemKind,
    /// Track title; empty for an artist.
    pub title: String,
    /// Artist name.
    pub artist: String,
    /// Tags given by listeners, most given first; at most ten.
    pub tags: Vec<String>,
    /// How many listeners know it.
    pub listeners: u64,
}

/// An item near another one.
#[derive(Debug, Clone, PartialEq)]
pub struct SimilarItem {
    /// The item.
    pub item: Item,
    /// Weight of the link in the model; 0 to 1.
    pub score: f64,
}

/// A list that was shown to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impression {
    /// Trace of the Recommend call that made the list.
    pub trace: TraceId,
    /// Version of the model that made it.
    pub model_version: String,
    /// What was shown, best first.
    pub items: Vec<ItemId>,
}

/// What a listener made of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Liked it: the item counts as known.
    Liked,
    /// Does not want it: it is never recommended again.
    Disliked,
    /// Skipped it.
    Skipped,
    /// Played it.
    Played,
}

/// A listener's answer to a recommendation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The item.
    pub item: ItemId,
    /// What the listener made of it.
    pub signal: Signal,
    /// Trace of the Recommend call, zero when unknown.
    pub trace: TraceId,
}

/// What a listener made of an item on another platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastFeedback {
    /// What it was; the trace is that of the other platform.
    pub feedback: Feedback,
    /// Title of the track: at most 1,024 bytes; empty for an artist.
    pub title: String,
    /// Artist name: 1 to 1,024 bytes. With the title it makes up the item's id.
    pub artist: String,
    /// When it was said, in milliseconds since the Unix epoch.
    pub said_at_ms: u64,
}

/// What listeners made of what one model showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// Version of the model.
    pub model_version: String,
    /// Lists shown.
    pub impressions: u64,
    /// Items shown.
    pub items: u64,
    /// Shown items that were liked or played afterwards.
    pub accepted: u64,
    /// Shown items that were disliked or skipped afterwards.
    pub refused: u64,
}
