//! Accounts that are made, listen and are erased while parts fail, and the search for what is left of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use echotune_api::Users as _;
use echotune_model::{ErrorKind, Fault, Listen, MAX_PAGE, PageRequest, Track, UserId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    DriveError, Notes,
    clients::{Client, REST, TRIES, ask, call, make, outcome, plays},
};
use crate::history::{Op, Outcome};

/// Between two accounts.
const EVERY: Duration = Duration::from_secs(2);
/// Listens of each.
const LISTENS: i64 = 5;
/// When they listened, in milliseconds since the Unix epoch.
const LISTENED_AT: i64 = 1_600_000_000_000;

/// Whoever was erased, as far as a client was told.
#[derive(Default)]
pub(super) struct Erased(Mutex<Vec<(UserId, String)>>);

impl Erased {
    fn all(&self) -> Vec<(UserId, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes and erases one account after the other, each in the next region, until told to stop.
pub(super) async fn erase(clients: Vec<Client>, erased: Arc<Erased>, notes: Arc<Notes>, stop: CancellationToken) {
    let run = notes.began.elapsed().subsec_nanos();
    for nth in 0_usize.. {
        if stop.is_cancelled() {
            return;
        }
        let (client, other) = (&clients[nth % clients.len()], &clients[(nth + 1) % clients.len()]);
        let name = format!("gone-{nth}-{run}");
        // Not noted as a claim: whose name it was is not looked for when it is gone.
        if let (Outcome::Ok, Some(id)) = make(client, &name).await {
            record(client, &name).await;
            // Half of them are erased where their home is not.
            let at = if nth % 2 == 0 { client } else { other };
            if erase_one(at, &name, &notes).await == Outcome::Ok {
                erased.0.lock().unwrap_or_else(PoisonError::into_inner).push((id, name));
            }
        }
        sleep(EVERY).await;
    }
}

/// Has them listen, if the region takes it.
async fn record(client: &Client, name: &str) {
    let listen = |nth: i64| Listen {
        track: Track { title: nth.to_string(), artist: name.to_owned(), album: String::new() },
        listened_at_ms: LISTENED_AT + nth * 60_000,
        played_ms: 0,
        source: "drive".into(),
        explicit: None,
    };
    let key = format!("{name}-listens");
    for _ in 0..TRIES {
        let listens = (0..LISTENS).map(listen).collect();
        match client.users.record_listens(&call(key.clone()), name, listens).await {
            Err(fault) if outcome(&fault) == Outcome::Unknown => sleep(REST).await,
            _ => return,
        }
    }
}

/// Erases until it is known what became of it.
async fn erase_one(client: &Client, name: &str, notes: &Notes) -> Outcome {
    let began = notes.now();
    let (mut seen, mut tried) = (Outcome::Unknown, false);
    for _ in 0..TRIES {
        match client.users.erase_user(&call(format!("{name}-erase")), name).await {
            Ok(_) => seen = Outcome::Ok,
            // What an earlier try has erased is not there any more.
            Err(fault) if tried && fault.kind == ErrorKind::NotFound => seen = Outcome::Ok,
            Err(fault) => seen = outcome(&fault),
        }
        if seen != Outcome::Unknown {
            break;
        }
        tried = true;
        sleep(REST).await;
    }
    notes.note(client.region, began, seen, Op::Erase { of: name.to_owned() });
    seen
}

/// What a region has of each of them: the account, listens, and what recommendations know. Each question is asked again by
/// itself: there are many, and none of them may fail a search that takes minutes.
async fn left(client: &Client, erased: &[(UserId, String)], end: Instant) -> Result<Vec<u64>, DriveError> {
    let of: BTreeSet<UserId> = erased.iter().map(|(id, _)| *id).collect();
    let plays = ask(client.region, end, async || plays(client, &of).await).await?;
    let mut rows = Vec::with_capacity(erased.len());
    for (id, name) in erased {
        let there = ask(client.region, end, async || of_name(client, name).await).await?;
        rows.push(there + plays.iter().filter(|(user, ..)| user == id).count() as u64);
    }
    Ok(rows)
}

/// How much users have under a name: the account and listens.
async fn of_name(client: &Client, name: &str) -> Result<u64, Fault> {
    let page = PageRequest { size: MAX_PAGE, token: String::new() };
    let account = match client.users.get_user(&call(String::new()), name).await {
        Ok(_) => 1,
        Err(fault) if fault.kind == ErrorKind::NotFound => 0,
        Err(fault) => return Err(fault),
    };
    let listens = match client.users.list_listens(&call(String::new()), name, &page).await {
        Ok(page) => page.rows.len() as u64,
        Err(fault) if fault.kind == ErrorKind::NotFound => 0,
        Err(fault) => return Err(fault),
    };
    Ok(account + listens)
}

/// Searches every region, again while something is found and there is time, and notes what is left at last.
pub(super) async fn search(
    clients: &[Client],
    erased: &Erased,
    notes: &Notes,
    patience: Duration,
) -> Result<(), DriveError> {
    let (erased, end) = (erased.all(), Instant::now() + patience);
    for client in clients {
        let rows = loop {
            let rows = left(client, &erased, end).await?;
            if Instant::now() >= end || rows.iter().all(|rows| *rows == 0) {
                break rows;
            }
            sleep(2 * REST).await;
        };
        for ((_, name), rows) in erased.iter().zip(rows) {
            notes.note(client.region, notes.now(), Outcome::Ok, Op::Remains { of: name.clone(), rows });
        }
    }
    Ok(())
}
