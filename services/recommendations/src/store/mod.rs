//! The port to what holds the view: histories, tags, friends, settings, impressions and feedback.
//!
//! Every write of an adapter carries the progress after it and is one atomic write.

pub mod conformance;
mod embedded;
mod releases;
mod trials;

use async_trait::async_trait;
use echotune_api::events::{Event, USERS_TOPIC};
use echotune_eventlog::Positions;
use echotune_model::{
    Acceptance, Decision, ErrorKind, Evidence, Experiment, ExportRecord, Fault, Feedback, Hlc, Impression, ItemKind,
    Page, PageRequest, PlayCount, Settings, Tagging, Tally, UserId, UserName,
};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

pub use embedded::EmbeddedRecommendationStore;
pub use releases::{Explored, MAX_DECISIONS, MAX_EXPLORED, MAX_RELEASES, ReleaseStore};
pub use trials::{ArmSums, FEATURES, Kept, Learnt, ListNote, ONE, Served, Shares, ShownAt};

/// Impressions kept per user at the most; the oldest go first.
pub const MAX_IMPRESSIONS: usize = 1_000;

/// How many of a user's newest impressions are searched for one that feedback without a trace is about.
pub const LOOK_BACK: usize = 100;
/// Models told of by [`RecommendationStore::acceptance`] at the most; the newest.
pub const MAX_MODELS: usize = 1_000;
/// Experiments at the most, of which none is ever forgotten.
pub const MAX_EXPERIMENTS: usize = 1_000;
/// Listeners whose windows are closed in one write at the most.
pub const MAX_CLOSED: usize = 1_000;

/// How far the view has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Next positions in the log.
    #[serde(alias = "position", deserialize_with = "positions")]
    pub positions: Positions,
    /// Hybrid time of the newest event applied.
    pub watermark: Hlc,
    /// Changes of content so far: the version of a model fitted on it.
    pub revision: u64,
}

/// Positions, or the one that there was when a log was one stream, named like its topic.
fn positions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Positions, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        One(u64),
        Many(Positions),
    }
    Ok(match Stored::deserialize(deserializer)? {
        Stored::One(next) => Positions::of(USERS_TOPIC, next),
        Stored::Many(positions) => positions,
    })
}

/// An item as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Track title; empty for an artist.
    pub title: String,
    /// Artist name.
    pub artist: String,
}

impl Named {
    /// The kind that the name belongs to.
    pub const fn kind(&self) -> ItemKind {
        if self.title.is_empty() { ItemKind::Artist } else { ItemKind::Track }
    }
}

/// One thing held, as it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// An account's name.
    Name(UserId, UserName),
    /// The total of a track.
    Tally(UserId, Tally),
    /// A play count of an artist.
    Count(UserId, PlayCount),
    /// A tagging.
    Tagging(UserId, Tagging),
    /// A friendship, once in each direction.
    Friend(UserId, UserId),
    /// Settings and when they were written; zero when that is not known.
    Settings(UserId, Settings, Hlc),
    /// Feedback with the item's name and its time.
    Feedback(UserId, Feedback, Named, Hlc),
}

/// How much is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Impressions.
    pub impressions: u64,
    /// Feedback: one for each user, item and signal.
    pub feedback: u64,
    /// Records of the log that could not be read, those no longer kept too.
    pub unreadable_events: u64,
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, Error)]
#[error("the store of recommendations: {message}")]
pub struct RecommendationStoreError {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// What failed.
    pub message: String,
}

impl RecommendationStoreError {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<RecommendationStoreError> for Fault {
    fn from(error: RecommendationStoreError) -> Self {
        Self::new(error.kind, error.to_string())
    }
}

type Answer<T> = Result<T, RecommendationStoreError>;

/// Holds the view durably.
#[async_trait]
pub trait RecommendationStore: ReleaseStore + Send + Sync {
    /// Hands over everything held, and answers how far it has come. Names come first, in the order in
    /// which they were taken, and feedback last. A name belongs to the account handed over last: until
    /// an erasure is over, the account before may still be there.
    async fn load(&self, take: &mut (dyn FnMut(Row) + Send)) -> Answer<Progress>;

    /// Writes what events say, in order, together with the progress after them, and counts the records between them that
    /// were set aside. Writing the same events again changes nothing but the progress, and a total that is older than the
    /// one held lowers nothing ([`Tally::joined`]).
    async fn apply(&self, events: Vec<Event>, dead: u64, progress: Progress) -> Answer<()>;

    /// Notes an impression; one of the same user and trace is noted once. Keeps the newest
    /// [`MAX_IMPRESSIONS`] of a user. If it is part of an experiment that runs, the listener's sums and
    /// those of the variant change in the same write, and what was explored is learnt.
    async fn record_impression(&self, user: UserId, impression: Impression, shown: ShownAt) -> Answer<()>;

    /// Notes feedback given `at` a time: the latest for each user, item and signal is kept. Without a trace it belongs
    /// to the newest impression with the item among the user's last [`LOOK_BACK`], if any. Sums of experiments change in
    /// the same write, until the listener's window has passed.
    async fn record_feedback(
        &self,
        user: UserId,
        feedback: Feedback,
        item: Named,
        at: Hlc,
        progress: Progress,
    ) -> Answer<()>;

    /// What was made of what each model showed in the impressions held, newest model first, at most
    /// [`MAX_MODELS`].
    async fn acceptance(&self) -> Answer<Vec<Acceptance>>;

    /// What is held of a user: records of the kinds `impression`, `feedback` and `experiment`, each a JSON
    /// object. `page.size` is at least 1; a page may be shorter when its records are long. A token that
    /// is none is `InvalidArgument`.
    async fn export(&self, user: UserId, page: PageRequest) -> Answer<Page<ExportRecord>>;

    /// Keeps a new experiment. Answers false when the name was taken before, whatever became of it.
    /// Beyond [`MAX_EXPERIMENTS`] it is `ResourceExhausted`.
    async fn create_experiment(&self, experiment: Experiment) -> Answer<bool>;

    /// Stops an experiment that runs, with its decision and what that rests on; its sums no longer
    /// change but for erasures. The first decision stays. Answers what is kept; nothing when unknown.
    async fn stop_experiment(&self, name: &str, decision: Decision, evidence: Evidence) -> Answer<Option<Kept>>;

    /// All experiments, the newest first.
    async fn experiments(&self) -> Answer<Vec<Experiment>>;

    /// An experiment with the sums of each variant, from one view.
    async fn experiment(&self, name: &str) -> Answer<Option<(Kept, Vec<ArmSums>)>>;

    /// Adds lists made, to experiments that run and listeners who are there; one note of a listener at
    /// the most.
    async fn note_lists(&self, notes: Vec<ListNote>, at: Hlc) -> Answer<()>;

    /// Enters the values of listeners whose windows have passed into the sums of the variants, at most
    /// [`MAX_CLOSED`]; from then on they stay. Answers how many there were.
    async fn close_windows(&self, now_ms: u64) -> Answer<usize>;

    /// What was learnt from everybody of what was explored.
    async fn learnt(&self) -> Answer<Learnt>;

    /// How much is held.
    async fn totals(&self) -> Answer<Totals>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_a_log_that_was_one_stream_is_read() {
        let old = r#"{"position":7,"watermark":3,"revision":5}"#;
        let progress: Progress = serde_json::from_str(old).expect("read");
        let positions = Positions::of(USERS_TOPIC, 7);
        assert_eq!(progress, Progress { positions, watermark: Hlc(3), revision: 5 });
        let again = serde_json::to_string(&progress).expect("written");
        assert_eq!(serde_json::from_str::<Progress>(&again).expect("read"), progress);
    }
}
