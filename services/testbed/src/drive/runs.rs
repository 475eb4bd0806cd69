//! Runs of agents, each of which makes one playlist while parts fail: a step whose effect can be counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use echotune_api::{Agents as _, Users as _};
use echotune_model::{ErrorKind, Fault, MAX_PAGE, NewRun, PageRequest, RunId, RunState};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    DriveError, Notes,
    clients::{Client, REST, TRIES, ask, call, outcome},
};
use crate::{
    Region,
    history::{Op, Outcome},
};

/// Between two runs of a region.
const EVERY: Duration = Duration::from_millis(1_500);

/// A run that was asked for.
struct Asked {
    at: usize,
    title: String,
    began: u64,
    /// Unless nobody knows whether it was taken.
    id: Option<RunId>,
}

/// All runs that were asked for, and for whom in each region.
pub(super) struct Runs {
    users: Vec<String>,
    asked: Mutex<Vec<Asked>>,
}

impl Runs {
    /// For an account in each region.
    pub(super) fn new(users: Vec<String>) -> Self {
        Self { users, asked: Mutex::default() }
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts one run after the other in a region, until told to stop.
pub(super) async fn start(
    clients: Vec<Client>,
    at: usize,
    runs: Arc<Runs>,
    notes: Arc<Notes>,
    stop: CancellationToken,
) {
    let (client, user) = (&clients[at], &runs.users[at]);
    for nth in 0_u64.. {
        if stop.is_cancelled() {
            return;
        }
        let (title, began) = (format!("{user}-{nth}"), notes.now());
        let input = format!("{{\"title\": \"{title}\"}}");
        let run = NewRun { workflow: "mixtape".into(), user: user.clone(), input };
        let (mut id, mut seen) = (None, Outcome::Unknown);
        for _ in 0..TRIES {
            match client.agents.start_run(&call(title.clone()), run.clone()).await {
                Ok(run) => (id, seen) = (Some(run.id), Outcome::Ok),
                Err(fault) => seen = outcome(&fault),
            }
            if seen != Outcome::Unknown {
                break;
            }
            sleep(REST).await;
        }
        if seen == Outcome::Failed {
            notes.note(client.region, began, seen, Op::Step { run: title, step: 1 });
        } else {
            runs.asked().push(Asked { at, title, began, id });
        }
        sleep(EVERY).await;
    }
}

/// What became of a run: done, not, or nobody knows yet.
async fn state(client: &Client, id: RunId) -> Result<Option<Outcome>, Fault> {
    let run = client.agents.get_run(&call(String::new()), id).await?;
    Ok(match run.state {
        RunState::Succeeded => Some(Outcome::Ok),
        // A call of a run that failed may have been carried out.
        RunState::Failed | RunState::Cancelled => Some(Outcome::Unknown),
        RunState::Queued | RunState::Running | RunState::AwaitingApproval => None,
    })
}

/// How often each title is there in a region.
async fn playlists(client: &Client, user: &str) -> Result<BTreeMap<String, u64>, Fault> {
    let (mut found, mut page) = (BTreeMap::new(), PageRequest { size: MAX_PAGE, token: String::new() });
    loop {
        let answer = client.users.list_playlists(&call(String::new()), user, &page).await?;
        for playlist in answer.rows {
            *found.entry(playlist.content.title).or_default() += 1;
        }
        if answer.next.is_empty() {
            return Ok(found);
        }
        page.token = answer.next;
    }
}

/// Waits for the ends of all runs as long as there is time, and notes what became of them and what they did.
pub(super) async fn end(clients: &[Client], runs: &Runs, notes: &Notes, patience: Duration) -> Result<(), DriveError> {
    let until = Instant::now() + patience;
    let asked = std::mem::take(&mut *runs.asked());
    for Asked { at, title, began, id } in asked {
        let client = &clients[at];
        let seen = loop {
            let Some(id) = id else { break Outcome::Unknown };
            match state(client, id).await {
                Ok(Some(outcome)) => break outcome,
                Ok(None) if Instant::now() >= until => break Outcome::Unknown,
                // A run that was acknowledged and is not there is lost, which the check of effects tells.
                Err(fault) if fault.kind == ErrorKind::NotFound => break Outcome::Ok,
                Err(cause) if Instant::now() >= until => {
                    return Err(DriveError::Unasked { region: client.region, cause });
                }
                _ => sleep(REST).await,
            }
        };
        notes.note(client.region, began, seen, Op::Step { run: title, step: 1 });
    }
    for (client, user) in clients.iter().zip(&runs.users) {
        let found = ask(client.region, until, async || playlists(client, user).await).await?;
        for (title, times) in found {
            for _ in 0..times {
                notes.note(client.region, notes.now(), Outcome::Ok, Op::Effect { run: title.clone(), step: 1 });
            }
        }
    }
    Ok(())
}

/// The name of the account for whom runs are carried out in a region.
pub(super) fn user(region: Region, run: u32) -> String {
    format!("{region}-runs-{run}")
}
