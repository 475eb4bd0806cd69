//! The destination, over its services. What failed in passing is tried again; a write that is tried again has the same
//! idempotency key.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use echotune_api::MAX_BATCH;
use echotune_model::{
    ApiToken, Call, ErrorKind, Fault, LibraryEntry, Listen, ListenReceipt, MAX_PAGE, Page, PageRequest, PastFeedback,
    PlayCount, Playlist, Profile, Settings, Tagging, User, UserId, UserName,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{Destination, MigrateError, row::Row, source::rows_of};

/// How often a request is made that fails in passing.
const ATTEMPTS: u32 = 8;
/// Wait before the second attempt; doubled before each further one, so that all take 13 s and what the requests take.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long the news of an account may take to come to recommendations.
const NEWS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Rows of one table that are sent together.
#[derive(Debug, Clone)]
pub(super) enum Batch {
    Profile(Profile),
    Settings(Settings),
    Listens(Vec<Listen>),
    PlayCounts(Vec<PlayCount>),
    Taggings(Vec<Tagging>),
    Library(Vec<LibraryEntry>),
    Playlist(Playlist),
    Token(ApiToken, String),
    Feedback(PastFeedback),
}

/// Where a page of what is held of an account begins.
#[derive(Debug, Clone)]
pub(super) enum At {
    Users(String),
    Recommendations(String),
}

pub(super) struct Target {
    to: Destination,
    call: Call,
    /// Tells the keys of this run from those of others: a second run must write what was taken away since.
    run: Uuid,
    keys: AtomicU64,
    places: Semaphore,
}

fn passes(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Indeterminate | ErrorKind::DeadlineExceeded)
}

/// What a write of one row tells.
fn one(made: bool) -> ListenReceipt {
    ListenReceipt { recorded: u32::from(made), duplicates: u32::from(!made), ..ListenReceipt::default() }
}

impl Target {
    pub(super) fn new(to: Destination, call: Call, parallel: usize) -> Self {
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now_ms.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let run = echotune_model::RunId::new(now_ms).0;
        Self { to, call, run, keys: AtomicU64::new(0), places: Semaphore::new(parallel) }
    }

    /// Makes a request, again while it fails in passing.
    async fn ask<T, F>(&self, ask: impl Fn(Call) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let number = self.keys.fetch_add(1, Ordering::Relaxed);
        let idempotency_key = format!("migrate/{}/{number}", self.run);
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let place = self.places.acquire().await;
            let deadline = Some(Instant::now() + DEADLINE);
            let call = Call { deadline, idempotency_key: idempotency_key.clone(), ..self.call.clone() };
            // The far end may never say that the deadline passed.
            let late = || Fault::new(ErrorKind::Indeterminate, "there was no answer within a minute");
            let answer = timeout(DEADLINE + FIRST_WAIT, ask(call)).await.unwrap_or_else(|_| Err(late()));
            drop(place);
            match answer {
                Err(fault) if passes(fault.kind) && attempt < ATTEMPTS => sleep(wait).await,
                answer => return answer,
            }
            wait *= 2;
            attempt += 1;
        }
    }

    /// The account of an id, if it is there.
    pub(super) async fn find(&self, id: UserId) -> Result<Option<User>, MigrateError> {
        let found = self.ask(|call| async move { self.to.users.find_user(&call, id).await }).await;
        there(found, id.to_string())
    }

    /// The account of a name, if there is one.
    pub(super) async fn named(&self, name: &UserName) -> Result<Option<User>, MigrateError> {
        let found = self.ask(|call| async move { self.to.users.get_user(&call, name.as_str()).await }).await;
        there(found, name.to_string())
    }

    /// Makes an account; whether it was not there.
    pub(super) async fn restore(&self, user: &User) -> Result<bool, MigrateError> {
        let made = self.ask(|call| async move { self.to.users.restore_user(&call, user.clone()).await }).await;
        let (there, made) = made.map_err(|fault| failed(&user.name, "the account", fault))?;
        if there.name.folded() == user.name.folded() {
            return Ok(made);
        }
        Err(MigrateError::Renamed { old: user.name.clone(), there: there.name, new: user.name.clone() })
    }

    /// Adds friends; how many were new.
    pub(super) async fn befriend(&self, user: &UserName, friends: Vec<UserName>) -> Result<u64, MigrateError> {
        let mut added = 0;
        for part in friends.chunks(MAX_BATCH) {
            let names: Vec<_> = part.iter().map(ToString::to_string).collect();
            let names = &names;
            let receipt = self
                .ask(|call| async move { self.to.users.add_friends(&call, user.as_str(), names.clone()).await })
                .await
                .map_err(|fault| failed(user, "friends", fault))?;
            if let Some(refused) = receipt.rejections.first() {
                let row = part.get(refused.index as usize).cloned().map(Row::Friend);
                return Err(refusal(user, row, &refused.reason));
            }
            added += u64::from(receipt.recorded);
        }
        Ok(added)
    }

    /// Sends rows of an account.
    pub(super) async fn send(&self, user: &UserName, batch: &Batch) -> Result<ListenReceipt, MigrateError> {
        let sent = match batch {
            Batch::Feedback(past) => return self.send_feedback(user, past).await,
            batch => self.ask(|call| async move { self.write(&call, user.as_str(), batch).await }).await,
        };
        let receipt = sent.map_err(|fault| failed(user, batch.name(), fault))?;
        match receipt.rejections.first() {
            None => Ok(receipt),
            Some(refused) => Err(refusal(user, batch.row(refused.index as usize), &refused.reason)),
        }
    }

    async fn write(&self, call: &Call, user: &str, batch: &Batch) -> Result<ListenReceipt, Fault> {
        let users = &self.to.users;
        match batch.clone() {
            Batch::Profile(profile) => users.update_profile(call, user, profile).await.map(|_| one(true)),
            Batch::Settings(settings) => users.update_settings(call, user, settings).await.map(|_| one(true)),
            Batch::Listens(rows) => users.record_listens(call, user, rows).await,
            Batch::PlayCounts(rows) => users.set_play_counts(call, user, rows).await,
            Batch::Taggings(rows) => users.add_taggings(call, user, rows).await,
            Batch::Library(rows) => users.restore_library(call, user, rows).await,
            Batch::Playlist(playlist) => users.restore_playlist(call, user, playlist).await.map(one),
            Batch::Token(token, hash) => users.restore_token(call, user, token, &hash).await.map(one),
            Batch::Feedback(past) => {
                self.to.recommendations.restore_feedback(call, user, past).await.map(|()| one(true))
            }
        }
    }

    /// Sends feedback once the news of its account has come to recommendations.
    async fn send_feedback(&self, user: &UserName, past: &PastFeedback) -> Result<ListenReceipt, MigrateError> {
        let batch = Batch::Feedback(past.clone());
        let (until, batch) = (Instant::now() + NEWS_WITHIN, &batch);
        loop {
            let sent = self.ask(|call| async move { self.write(&call, user.as_str(), batch).await }).await;
            match sent {
                Err(fault) if fault.kind == ErrorKind::NotFound && Instant::now() < until => sleep(LOOK_EVERY).await,
                Err(fault) if fault.kind == ErrorKind::NotFound => {
                    let why = "recommendations have not heard of the account within two minutes; see that the relay of users and recommendations run there";
                    return Err(failed(user, "feedback", Fault::new(ErrorKind::Unavailable, why)));
                }
                sent => return sent.map_err(|fault| failed(user, "feedback", fault)),
            }
        }
    }

    /// A page of what is held of an account, and where the next one begins.
    pub(super) async fn page(&self, user: &UserName, at: At) -> Result<(Vec<Row>, Option<At>), MigrateError> {
        let page = |token: &String| PageRequest { size: MAX_PAGE, token: token.clone() };
        let (users, recommendations, at) = (&self.to.users, &self.to.recommendations, &at);
        let answer = self
            .ask(|call| async move {
                match at {
                    At::Users(token) => users.export_user(&call, user.as_str(), &page(token)).await,
                    At::Recommendations(token) => recommendations.export_user(&call, user.as_str(), &page(token)).await,
                }
            })
            .await;
        let nothing = Page { rows: Vec::new(), next: String::new() };
        let (answer, is_last) = match (answer, at) {
            // What has not heard of an account holds nothing of it.
            (Err(fault), At::Recommendations(_)) if fault.kind == ErrorKind::NotFound => (nothing, true),
            (Err(fault), _) => return Err(failed(user, "what is held", fault)),
            (Ok(answer), At::Users(_)) => (answer, false),
            (Ok(answer), At::Recommendations(_)) => {
                let is_last = answer.next.is_empty();
                (answer, is_last)
            }
        };
        let next = match (is_last, at) {
            (true, _) => None,
            (false, At::Users(_)) if answer.next.is_empty() => Some(At::Recommendations(String::new())),
            (false, At::Users(_)) => Some(At::Users(answer.next)),
            (false, At::Recommendations(_)) => Some(At::Recommendations(answer.next)),
        };
        Ok((rows_of(&answer.rows)?, next))
    }
}

impl Batch {
    const fn name(&self) -> &'static str {
        match self {
            Self::Profile(_) => "the profile",
            Self::Settings(_) => "the settings",
            Self::Listens(_) => "listens",
            Self::PlayCounts(_) => "play counts",
            Self::Taggings(_) => "taggings",
            Self::Library(_) => "the library",
            Self::Playlist(_) => "a playlist",
            Self::Token(..) => "a token",
            Self::Feedback(_) => "feedback",
        }
    }

    /// The row at a place.
    fn row(&self, at: usize) -> Option<Row> {
        match self {
            Self::Listens(rows) => rows.get(at).cloned().map(Row::Listen),
            Self::PlayCounts(rows) => rows.get(at).cloned().map(Row::PlayCount),
            Self::Taggings(rows) => rows.get(at).cloned().map(Row::Tagging),
            Self::Library(rows) => rows.get(at).cloned().map(Row::Kept),
            Self::Profile(_) | Self::Settings(_) | Self::Playlist(_) | Self::Token(..) | Self::Feedback(_) => None,
        }
    }
}

fn failed(user: &UserName, what: &'static str, fault: Fault) -> MigrateError {
    MigrateError::Service { user: user.to_string(), what, fault }
}

fn refusal(user: &UserName, row: Option<Row>, reason: &str) -> MigrateError {
    let (user, reason) = (user.clone(), reason.to_owned());
    let table = row.as_ref().map_or(super::Table::Accounts, Row::table);
    MigrateError::Refused { user, table, row: row.map_or_else(String::new, |row| row.canonical()), reason }
}

fn there(found: Result<User, Fault>, whose: String) -> Result<Option<User>, MigrateError> {
    match found {
        Ok(user) => Ok(Some(user)),
        Err(fault) if fault.kind == ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(MigrateError::Service { user: whose, what: "the account", fault }),
    }
}
