mod draft;
mod export;
mod mend;
mod releases;
mod shown;
mod sums;
mod tables;
mod trials;
mod units;

use async_trait::async_trait;
use echotune_api::events::Event;
use echotune_kit::embedded::{Db, Key, StoreError, Table, View, get};
use echotune_model::{
    Acceptance, Decision, Evidence, Experiment, ExportRecord, Feedback, Hlc, Impression, ItemId, Page, PageRequest,
    PlayCount, Settings, Tagging, Tally, TraceId, UserId,
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::{
    draft::Draft,
    tables::{
        Account, COUNTS, FEEDBACK, FRIENDS, NAMES, PERSONAL, PROGRESS, SETTINGS, SETTINGS_AT, Said, StoredName,
        TAGGINGS, TALLIES, each, signal, uuid_at,
    },
};
use super::{
    Answer, ArmSums, Kept, Learnt, ListNote, MAX_MODELS, Named, Progress, RecommendationStore,
    RecommendationStoreError, Row, ShownAt, Totals,
};

impl From<StoreError> for RecommendationStoreError {
    fn from(error: StoreError) -> Self {
        Self { kind: error.kind(), message: error.to_string() }
    }
}

/// The view in the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedRecommendationStore {
    db: Db,
}

impl EmbeddedRecommendationStore {
    /// The view in this file.
    pub const fn new(db: Db) -> Self {
        Self { db }
    }

    /// Whom a row of the view is about, by its table and key: by the subject of the key that seals events of the user.
    /// Nothing of sums, models, experiments and progress, which are of everybody.
    pub fn subject(table: &str, key: &[u8]) -> Option<String> {
        let user = key.first_chunk::<16>().filter(|_| PERSONAL.iter().any(|personal| personal.0 == table))?;
        Some(UserId(Uuid::from_bytes(*user)).to_string())
    }

    /// Makes what is kept beside rows of listeners agree with the rows that are there: sums of everybody, friendships,
    /// windows of experiments. For a view of which rows went with the key of a listener, before the news of the erasure
    /// that would have done so; to be called before anything else is written. Time linear in impressions, feedback and
    /// friendships.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn mend(&self) -> Answer<()> {
        let batch = self.read_aside(|view| Ok(mend::mend(view)?)).await?;
        Ok(self.db.write(move |_| Ok::<_, StoreError>(((), batch))).await?)
    }

    /// Reads what may take long beside the tasks that serve.
    async fn read_aside<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn View) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        self.db.read_aside(read).await
    }
}

fn load(view: &dyn View, take: &mut (dyn FnMut(Row) + Send)) -> Result<Progress, StoreError> {
    let user = |table, key: &[u8]| uuid_at(table, key, 0).map(UserId);
    hand_names(view, take)?;
    hand(view, TALLIES, take, |key, tally: Tally| Ok(Row::Tally(user(TALLIES, key)?, tally)))?;
    hand(view, COUNTS, take, |key, count: PlayCount| Ok(Row::Count(user(COUNTS, key)?, count)))?;
    hand(view, TAGGINGS, take, |key, one: Tagging| Ok(Row::Tagging(user(TAGGINGS, key)?, one)))?;
    hand(view, FRIENDS, take, |key, ()| Ok(Row::Friend(user(FRIENDS, key)?, UserId(uuid_at(FRIENDS, key, 1)?))))?;
    hand(view, SETTINGS, take, |key, one: Settings| {
        let at = get(view, SETTINGS_AT, &Key(key.to_vec()))?.unwrap_or_default();
        Ok(Row::Settings(user(SETTINGS, key)?, one, at))
    })?;
    hand(view, FEEDBACK, take, |key, said: Said| {
        let item = ItemId(uuid_at(FEEDBACK, key, 1)?);
        let feedback = Feedback { item, signal: signal(said.signal)?, trace: TraceId(said.trace) };
        Ok(Row::Feedback(user(FEEDBACK, key)?, feedback, said.item, said.at))
    })?;
    Ok(get(view, PROGRESS, &Key::new())?.unwrap_or_default())
}

/// Hands over names in the order in which they were taken.
fn hand_names(view: &dyn View, take: &mut (dyn FnMut(Row) + Send)) -> Result<(), StoreError> {
    let mut names = Vec::new();
    each(view, NAMES, &Key::new(), |key, stored: StoredName| {
        let account = match stored {
            StoredName::Timed(account) => account,
            StoredName::Untimed(name) => Account { name, at: Hlc::default() },
        };
        names.push((account.at, UserId(uuid_at(NAMES, key, 0)?), account.name));
        Ok(())
    })?;
    names.sort_unstable_by_key(|(at, user, _)| (*at, *user));
    names.into_iter().for_each(|(_, user, name)| take(Row::Name(user, name)));
    Ok(())
}

/// Hands over every row of a table.
fn hand<T: DeserializeOwned>(
    view: &dyn View,
    table: Table,
    take: &mut (dyn FnMut(Row) + Send),
    row: impl Fn(&[u8], T) -> Result<Row, StoreError>,
) -> Result<(), StoreError> {
    each(view, table, &Key::new(), |key, value| {
        take(row(key, value)?);
        Ok(())
    })
}

#[async_trait]
impl RecommendationStore for EmbeddedRecommendationStore {
    async fn load(&self, take: &mut (dyn FnMut(Row) + Send)) -> Answer<Progress> {
        Ok(self.db.read(|view| load(view, take))?)
    }

    async fn apply(&self, events: Vec<Event>, dead: u64, progress: Progress) -> Answer<()> {
        let written = self.db.write(move |view| {
            let mut draft = Draft::default();
            draft.dead(dead);
            for event in &events {
                draft.event(view, event)?;
            }
            Ok::<_, StoreError>(((), draft.into_batch(view, &progress)?))
        });
        Ok(written.await?)
    }

    async fn record_impression(&self, user: UserId, impression: Impression, shown: ShownAt) -> Answer<()> {
        Ok(self.db.write(move |view| shown::record_impression(view, user, impression, shown)).await?)
    }

    async fn record_feedback(
        &self,
        user: UserId,
        feedback: Feedback,
        item: Named,
        at: Hlc,
        progress: Progress,
    ) -> Answer<()> {
        Ok(self.db.write(move |view| shown::record_feedback(view, user, &feedback, item, at, progress)).await?)
    }

    async fn acceptance(&self) -> Answer<Vec<Acceptance>> {
        self.read_aside(|view| Ok(sums::acceptance(view, MAX_MODELS)?)).await
    }

    async fn export(&self, user: UserId, page: PageRequest) -> Answer<Page<ExportRecord>> {
        self.read_aside(move |view| export::export(view, user, &page)).await
    }

    async fn create_experiment(&self, experiment: Experiment) -> Answer<bool> {
        self.db.write(move |view| trials::create(view, experiment)).await
    }

    async fn stop_experiment(&self, name: &str, decision: Decision, evidence: Evidence) -> Answer<Option<Kept>> {
        let name = name.to_owned();
        Ok(self.db.write(move |view| trials::stop(view, &name, decision, evidence)).await?)
    }

    async fn experiments(&self) -> Answer<Vec<Experiment>> {
        Ok(self.db.read(trials::all)?)
    }

    async fn experiment(&self, name: &str) -> Answer<Option<(Kept, Vec<ArmSums>)>> {
        Ok(self.db.read(|view| trials::one(view, name))?)
    }

    async fn note_lists(&self, notes: Vec<ListNote>, at: Hlc) -> Answer<()> {
        Ok(self.db.write(move |view| trials::note_lists(view, &notes, at)).await?)
    }

    async fn close_windows(&self, now_ms: u64) -> Answer<usize> {
        // Nothing is written while there is nothing to close.
        if self.db.read(|view| trials::passed(view, now_ms, 1))?.is_empty() {
            return Ok(0);
        }
        Ok(self.db.write(move |view| trials::close_windows(view, now_ms)).await?)
    }

    async fn learnt(&self) -> Answer<Learnt> {
        Ok(self.db.read(trials::learnt)?)
    }

    async fn totals(&self) -> Answer<Totals> {
        Ok(self.db.read(sums::totals)?)
    }
}
