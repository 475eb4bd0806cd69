//! The history of a data folder moves to a platform elsewhere, with its identity: accounts keep their ids, and
//! everything that hangs on them keeps its own.
//!
//! No state is kept of how far a move has come. Each account is compared with what the destination holds of it, and
//! what is missing is sent; so a move that was cut off, at whatever moment, is completed by running it again, and one
//! that is repeated writes nothing. What is there already is never overwritten. At the end of each account the rows on
//! both sides are counted and summed. The folder is opened to be read only.

mod account;
mod error;
mod report;
mod row;
mod source;
mod sum;
mod target;
mod verify;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use echotune_api::{Recommendations, Users};
use echotune_model::{Call, User, UserId, UserName};
use futures::{StreamExt as _, TryStreamExt as _, stream};

pub use self::{
    error::MigrateError,
    report::{AccountReport, LeftBehind, Mismatch, Report, TableReport},
    row::Table,
    sum::Sum,
};
use self::{row::Row, source::Source, sum::Sums, target::Target};
use crate::import::{Amount, Progress};

/// Requests under way at the most, unless it is told otherwise.
pub const PARALLEL: usize = 16;
/// The most that it may be told.
pub const MAX_PARALLEL: usize = 64;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Count what there is, and see that it can be moved; nothing is written.
    DryRun,
    /// Move, and verify.
    Move,
    /// Compare both sides; nothing is written.
    Verify,
}

impl Mode {
    /// The name in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DryRun => "dry_run",
            Self::Move => "move",
            Self::Verify => "verify",
        }
    }
}

/// What to move.
#[derive(Debug, Clone)]
pub struct Request {
    /// The data folder, on which no platform runs.
    pub folder: PathBuf,
    /// Accounts by name; all when there is none.
    pub users: Vec<String>,
    /// Names in the folder, and those that the accounts take at the destination.
    pub renames: Vec<(String, String)>,
    /// What is to be done.
    pub mode: Mode,
    /// Requests under way at the most: 1 to [`MAX_PARALLEL`].
    pub parallel: usize,
}

/// Where it goes.
#[derive(Clone)]
pub struct Destination {
    /// Accounts and histories there.
    pub users: Arc<dyn Users>,
    /// What is made of them there.
    pub recommendations: Arc<dyn Recommendations>,
}

/// An account that moves.
#[derive(Debug, Clone)]
struct Account {
    /// As it is in the folder.
    user: User,
    /// Its name at the destination.
    name: UserName,
    /// Whether it is there.
    arrived: bool,
    /// What the folder holds of it, but for friends.
    sums: Sums,
    /// The accounts in the folder of its friends.
    friends: Vec<UserId>,
}

/// Names at the destination of the accounts that are there, by id.
type Names = HashMap<UserId, UserName>;

/// A move under way.
struct Migration {
    source: Source,
    target: Target,
    progress: Progress,
    parallel: usize,
}

/// Moves, or does what is asked instead. Differences between the two sides are told in the report, and are no error.
///
/// # Errors
/// The folder cannot be read, what is asked for does not fit what is there, or the destination refuses or cannot be
/// reached. What was moved until then stays, and a second run goes on from there.
pub async fn run(
    destination: Destination,
    call: &Call,
    request: &Request,
    progress: &Progress,
) -> Result<Report, MigrateError> {
    let source = Source::open(&request.folder)?;
    let parallel = request.parallel.clamp(1, MAX_PARALLEL);
    let target = Target::new(destination, call.clone(), parallel);
    let migration = Migration { source, target, progress: progress.clone(), parallel };
    let done = migration.run(request).await;
    progress.end();
    done
}

impl Migration {
    async fn run(&self, request: &Request) -> Result<Report, MigrateError> {
        let wanted = self.wanted(request).await?;
        let counted = self.source.counts().await?;
        // Each row is read to be counted, to be sent and to be compared.
        let passes = if request.mode == Mode::DryRun { 1 } else { 2 };
        self.progress.begin(Amount::Rows(counted * passes));
        let mut accounts = self.plan(wanted).await?;
        let mut report = Report::new(request.mode, self.source.left_behind().await?);
        if request.mode == Mode::Move {
            self.make_accounts(&accounts, &mut report).await?;
        }
        let names = self.names(&accounts, request.mode).await?;
        self.befriend(&mut accounts, &names, request.mode, &mut report).await?;
        if request.mode == Mode::DryRun {
            accounts.iter().for_each(|account| report.planned(account));
            return Ok(report);
        }
        let done = stream::iter(accounts.iter()).map(|account| self.account(account, &names, request.mode));
        let mut done = done.buffer_unordered(self.parallel);
        while let Some(outcome) = done.try_next().await? {
            report.done(outcome);
        }
        drop(done);
        report.finish();
        Ok(report)
    }

    /// The accounts that are asked for, each with its name at the destination.
    async fn wanted(&self, request: &Request) -> Result<Vec<(User, Option<UserName>)>, MigrateError> {
        let mut renames = BTreeMap::new();
        for (old, new) in &request.renames {
            let (old, new) = (old.parse::<UserName>()?, new.parse::<UserName>()?);
            if renames.insert(old.folded(), (old.clone(), new)).is_some() {
                return Err(MigrateError::RenamedTwice(old));
            }
        }
        let users = if request.users.is_empty() {
            self.source.accounts().await?
        } else {
            let mut users = Vec::new();
            for name in &request.users {
                users.push(self.source.account(&name.parse()?).await?);
            }
            users.sort_unstable_by_key(|user| user.id);
            users.dedup_by_key(|user| user.id);
            users
        };
        let name = |user: User| {
            let new = renames.remove(&user.name.folded()).map(|(_, new)| new);
            (user, new)
        };
        let wanted = users.into_iter().map(name).collect();
        match renames.into_values().next() {
            Some((old, _)) => Err(MigrateError::RenamedNobody(old)),
            None => Ok(wanted),
        }
    }

    /// Counts what moves, and sees that every account can: before anything is written.
    async fn plan(&self, wanted: Vec<(User, Option<UserName>)>) -> Result<Vec<Account>, MigrateError> {
        let planned = stream::iter(wanted).map(|(user, new)| self.plan_account(user, new));
        let planned: Vec<_> = planned.buffered(self.parallel).try_collect().await?;
        let (mut accounts, mut taken) = (Vec::<Account>::new(), Vec::new());
        let mut names = HashMap::<String, UserName>::new();
        for one in planned {
            match one {
                Ok(account) => {
                    if let Some(other) = names.insert(account.name.folded(), account.user.name.clone()) {
                        let [one, other] = [other, account.user.name];
                        return Err(MigrateError::OneName { name: account.name, one, other });
                    }
                    accounts.push(account);
                }
                Err(conflict) => taken.push(conflict),
            }
        }
        if taken.is_empty() { Ok(accounts) } else { Err(MigrateError::Taken(taken)) }
    }

    /// An account as it will be moved, or the account whose name stands in its way.
    async fn plan_account(
        &self,
        user: User,
        new: Option<UserName>,
    ) -> Result<Result<Account, error::Conflict>, MigrateError> {
        let arrived = self.target.find(user.id).await?;
        let name = match (&arrived, new) {
            (Some(there), Some(new)) if there.name.folded() != new.folded() => {
                return Err(MigrateError::Renamed { old: user.name, there: there.name.clone(), new });
            }
            (Some(there), _) => there.name.clone(),
            (None, Some(new)) => new,
            (None, None) => user.name.clone(),
        };
        if arrived.is_none()
            && let Some(there) = self.target.named(&name).await?
        {
            return Ok(Err(error::Conflict { user, there }));
        }
        let (mut sums, mut friends) = (Sums::default(), Vec::new());
        {
            let mut pages = std::pin::pin!(self.source.pages(&user));
            while let Some(rows) = pages.try_next().await? {
                self.progress.advance(rows.len() as u64);
                for row in rows {
                    match row {
                        Row::Friend(name) => friends.extend(self.source.id_of(&name).await?),
                        row => sums.add(&row.named(&name)),
                    }
                }
            }
        }
        Ok(Ok(Account { user, name, arrived: arrived.is_some(), sums, friends }))
    }

    /// Makes the accounts that are not there.
    async fn make_accounts(&self, accounts: &[Account], report: &mut Report) -> Result<(), MigrateError> {
        let missing = accounts.iter().filter(|account| !account.arrived);
        let made = stream::iter(missing).map(|account| {
            let user = User { name: account.name.clone(), ..account.user.clone() };
            async move {
                let made = self.target.restore(&user).await?;
                Ok::<_, MigrateError>(u64::from(made))
            }
        });
        let made: Vec<u64> = made.buffer_unordered(self.parallel).try_collect().await?;
        report.accounts_made = made.into_iter().sum();
        Ok(())
    }

    /// Who is at the destination, or would be, of those who move and of their friends.
    async fn names(&self, accounts: &[Account], mode: Mode) -> Result<Names, MigrateError> {
        let there = accounts.iter().filter(|account| account.arrived || mode != Mode::Verify);
        let mut names: Names = there.map(|account| (account.user.id, account.name.clone())).collect();
        let moving: HashSet<_> = accounts.iter().map(|account| account.user.id).collect();
        let friends = accounts.iter().flat_map(|account| &account.friends).copied();
        let mut others: Vec<_> = friends.filter(|friend| !moving.contains(friend)).collect();
        others.sort_unstable();
        others.dedup();
        let found = stream::iter(others).map(|id| self.target.find(id)).buffer_unordered(self.parallel);
        let found: Vec<_> = found.try_collect().await?;
        names.extend(found.into_iter().flatten().map(|user| (user.id, user.name)));
        Ok(names)
    }

    /// Adds friendships with those who are there, before the rest, so that each account is whole when it is verified.
    /// A friendship between two who move is sent once.
    async fn befriend(
        &self,
        accounts: &mut [Account],
        names: &Names,
        mode: Mode,
        report: &mut Report,
    ) -> Result<(), MigrateError> {
        let moving: HashSet<_> = accounts.iter().map(|account| account.user.id).collect();
        for account in accounts.iter_mut() {
            for friend in &account.friends {
                match names.get(friend) {
                    Some(name) => account.sums.add(&Row::Friend(name.clone())),
                    None => report.friends_waiting += 1,
                }
            }
        }
        if mode != Mode::Move {
            return Ok(());
        }
        let sent = accounts.iter().map(|account| {
            let mine = |friend: &&UserId| account.user.id < **friend || !moving.contains(*friend);
            let friends: Vec<_> = account.friends.iter().filter(mine).filter_map(|id| names.get(id).cloned()).collect();
            self.target.befriend(&account.name, friends)
        });
        let added: Vec<u64> = stream::iter(sent).buffer_unordered(self.parallel).try_collect().await?;
        report.written(Table::Friends, added.into_iter().sum());
        Ok(())
    }
}
