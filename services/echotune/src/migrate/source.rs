//! The data folder: its stores, opened to be read only.

use std::{path::Path, sync::Arc};

use echotune_agents::{EmbeddedRunStore, RunStore as _};
use echotune_kit::embedded::Db;
use echotune_model::{Clock, ExportRecord, MAX_PAGE, PageRequest, TokenId, User, UserId, UserName};
use echotune_recommendations::{EmbeddedRecommendationStore, RecommendationStore as _, store::ReleaseStore as _};
use echotune_users::{EmbeddedUserStore, UserStore as _};
use futures::{Stream, StreamExt as _, stream};

use super::{MigrateError, report::LeftBehind, row::Row};

/// Runs read at a time, with their inputs and outputs.
const RUNS: u32 = 100;

pub(super) struct Source {
    users: EmbeddedUserStore,
    recommendations: EmbeddedRecommendationStore,
    runs: EmbeddedRunStore,
}

/// Which of the two stores a page is of, and where it begins.
enum At {
    Users(String),
    Recommendations(String),
    End,
}

fn first(size: u32) -> PageRequest {
    PageRequest { size, token: String::new() }
}

pub(super) fn rows_of(records: &[ExportRecord]) -> Result<Vec<Row>, MigrateError> {
    let rows = records.iter().filter_map(|record| Row::of(record).transpose());
    rows.collect::<Result<_, _>>().map_err(MigrateError::Source)
}

impl Source {
    pub(super) fn open(folder: &Path) -> Result<Self, MigrateError> {
        let db = Db::open_read_only(folder)?;
        let clock = Arc::new(Clock::default());
        Ok(Self {
            users: EmbeddedUserStore::new(db.clone(), Arc::clone(&clock)),
            recommendations: EmbeddedRecommendationStore::new(db.clone()),
            runs: EmbeddedRunStore::new(db, clock),
        })
    }

    /// All accounts, by creation.
    pub(super) async fn accounts(&self) -> Result<Vec<User>, MigrateError> {
        let (mut accounts, mut page) = (Vec::new(), first(MAX_PAGE));
        loop {
            let part = self.users.users(page.clone()).await?;
            accounts.extend(part.rows);
            page.token = part.next;
            if page.token.is_empty() {
                return Ok(accounts);
            }
        }
    }

    pub(super) async fn account(&self, name: &UserName) -> Result<User, MigrateError> {
        self.users.by_name(name).await?.ok_or_else(|| MigrateError::UnknownUser(name.clone()))
    }

    /// The account of a name that a friend has; nothing when it is gone.
    pub(super) async fn id_of(&self, name: &UserName) -> Result<Option<UserId>, MigrateError> {
        Ok(self.users.by_name(name).await?.map(|user| user.id))
    }

    /// The hash of the secret of a token.
    pub(super) async fn hash(&self, id: TokenId) -> Result<Option<String>, MigrateError> {
        Ok(self.users.token(id).await?.map(|(stored, _)| stored.hash))
    }

    /// Everything of an account that moves, a page at a time.
    pub(super) fn pages(&self, user: &User) -> impl Stream<Item = Result<Vec<Row>, MigrateError>> + Send + '_ {
        let user = user.clone();
        stream::unfold(At::Users(String::new()), move |at| {
            let user = user.clone();
            async move {
                match self.page(user, at).await {
                    Ok(Some((rows, next))) => Some((Ok(rows), next)),
                    Ok(None) => None,
                    Err(cause) => Some((Err(cause), At::End)),
                }
            }
        })
        .fuse()
    }

    async fn page(&self, user: User, at: At) -> Result<Option<(Vec<Row>, At)>, MigrateError> {
        let (part, next): (_, fn(String) -> At) = match at {
            At::End => return Ok(None),
            At::Users(token) => (self.users.export(user, PageRequest { size: MAX_PAGE, token }).await?, |next| {
                if next.is_empty() { At::Recommendations(next) } else { At::Users(next) }
            }),
            At::Recommendations(token) => {
                let page = PageRequest { size: MAX_PAGE, token };
                (self.recommendations.export(user.id, page).await?, |next| {
                    if next.is_empty() { At::End } else { At::Recommendations(next) }
                })
            }
        };
        Ok(Some((rows_of(&part.rows)?, next(part.next))))
    }

    /// How many rows there are, about; for the progress bar.
    pub(super) async fn counts(&self) -> Result<u64, MigrateError> {
        let counts = self.users.counts().await?;
        let moving = counts.iter().filter(|(name, _)| *name != "events").map(|(_, count)| count).sum::<u64>();
        Ok(moving + self.recommendations.totals().await?.feedback)
    }

    /// What does not move.
    pub(super) async fn left_behind(&self) -> Result<LeftBehind, MigrateError> {
        let (mut unfinished, mut page) = (0, first(RUNS));
        loop {
            let part = self.runs.runs(None, page.clone()).await?;
            unfinished += part.rows.iter().filter(|run| !run.state.is_final()).count() as u64;
            page.token = part.next;
            if page.token.is_empty() {
                break;
            }
        }
        Ok(LeftBehind {
            impressions: self.recommendations.totals().await?.impressions,
            experiments: self.recommendations.experiments().await?.len() as u64,
            releases: self.recommendations.releases().await?.len() as u64,
            runs: self.runs.count().await?,
            unfinished_runs: unfinished,
        })
    }
}
