//! Listeners: each makes an account, listens, keeps playlists and settings, and some are erased at the end. They call any
//! region, and repeat what was not acknowledged under the same key.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use echotune_api::{Users as _, UsersClient};
use echotune_model::{Call, ErrorKind, Fault, Listen, NewPlaylist, Settings, Track};
use echotune_testbed::{
    Region,
    history::{Op, Outcome},
};
use tokio::time::{sleep, timeout};

use crate::{
    draw::Draw,
    net,
    notes::{Listener, Notes, Told, listens, playlists, settings},
};

/// Listeners in each region.
const LISTENERS: u64 = 2;
/// What each does.
const OPERATIONS: u64 = 8;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(2_000);
/// How often something is tried at the most.
const TRIES: u32 = 12;
/// When the first listen began, in milliseconds since the Unix epoch.
const LISTENED: i64 = 1_600_000_000_000;

/// The number of a listen, by when it began.
pub(crate) fn number_of(listen: &Listen) -> u64 {
    u64::try_from((listen.listened_at_ms - LISTENED) / 1_000).unwrap_or(u64::MAX)
}

struct Client {
    listener: Listener,
    number: u64,
    regions: BTreeMap<Region, UsersClient>,
    notes: Rc<RefCell<Notes>>,
    draw: Draw,
    keys: u64,
}

/// Has all listeners listen; ends when all have done what they wanted.
pub(crate) async fn run(seed: u64, notes: Rc<RefCell<Notes>>) -> turmoil::Result {
    let mut tasks = Vec::new();
    let regions: BTreeMap<_, _> = Region::ALL.into_iter().map(|region| (region, net::client(region))).collect();
    for (at, home) in (0..).zip(Region::ALL) {
        for nth in 0..LISTENERS {
            let number = at * LISTENERS + nth;
            let listener = Listener { home, name: format!("{home}-{nth}") };
            let draw = Draw::new(seed, 1_000 + number);
            let (regions, notes) = (regions.clone(), Rc::clone(&notes));
            let client = Client { listener, number, regions, notes, draw, keys: 0 };
            tasks.push(tokio::task::spawn_local(client.live()));
        }
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

fn now() -> u64 {
    turmoil::sim_elapsed().map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

impl Client {
    /// Asks until there is an answer that counts.
    async fn tell<T, F: Future<Output = Result<T, Fault>>>(
        &mut self,
        ask: impl Fn(UsersClient, Call) -> F,
    ) -> (Told, Option<T>) {
        self.keys += 1;
        let idempotency_key = format!("{}/{}", self.listener.name, self.keys);
        let (began, mut outcome) = (now(), Outcome::Failed);
        for _ in 0..TRIES {
            let entry = if self.draw.happens(60) { self.listener.home } else { self.draw.of(&Region::ALL) };
            let call = Call { idempotency_key: idempotency_key.clone(), ..Call::internal() };
            match timeout(PATIENCE, ask(self.regions[&entry].clone(), call)).await {
                Ok(Ok(answer)) => return (Told { outcome: Outcome::Ok, began, ended: now() }, Some(answer)),
                // Nothing was written.
                Ok(Err(fault)) if fault.kind == ErrorKind::Unavailable => {}
                Ok(Err(fault)) if is_refused(fault.kind) => break,
                Ok(Err(_)) | Err(_) => outcome = Outcome::Unknown,
            }
            let pause = self.draw.ms(50, 500);
            sleep(pause).await;
        }
        (Told { outcome, began, ended: now() }, None)
    }

    async fn live(mut self) {
        sleep(self.draw.ms(0, 200)).await;
        if !self.make_account().await {
            return;
        }
        // Each region has a name that all of its listeners want.
        let wanted = Listener { home: self.listener.home, name: format!("{}-wanted", self.listener.home) };
        self.claim(&wanted).await;
        let (mut nth, mut version) = ([0; 2], 0);
        for _ in 0..OPERATIONS {
            match self.draw.below(10) {
                0..6 => self.listen(&mut nth[0]).await,
                6..8 => self.keep_playlist(&mut nth[1]).await,
                _ => self.set(&mut version).await,
            }
            let pause = self.draw.ms(0, 400);
            sleep(pause).await;
        }
        if self.draw.happens(30) {
            self.be_erased().await;
        }
    }

    /// Claims a name; whether it was given.
    async fn claim(&mut self, wanted: &Listener) -> bool {
        let name = wanted.name.clone();
        let (told, made) = self.tell(|users, call| create(users, call, name.clone())).await;
        let op = Op::Claim { name: wanted.name.clone(), owner: self.number };
        let mut notes = self.notes.borrow_mut();
        notes.note(wanted, told, op);
        if let Some(user) = &made {
            notes.owners.insert(user.id, self.number);
            notes.ids.insert(wanted.name.clone(), user.id);
        }
        made.is_some()
    }

    async fn make_account(&mut self) -> bool {
        let own = self.listener.clone();
        let is_made = self.claim(&own).await;
        if is_made {
            self.notes.borrow_mut().listeners.insert(own);
        }
        is_made
    }

    async fn listen(&mut self, nth: &mut u64) {
        let element = *nth;
        *nth += 1;
        let track = Track { title: format!("track {}", element % 3), artist: "Björk".into(), album: String::new() };
        let listened_at_ms = LISTENED + 1_000 * i64::try_from(element).expect("few");
        let listen = Listen { listened_at_ms, track, played_ms: 0, source: String::new(), explicit: None };
        let name = self.listener.name.clone();
        let (told, receipt) = self.tell(|users, call| record(users, call, name.clone(), listen.clone())).await;
        let mut notes = self.notes.borrow_mut();
        notes.note(&self.listener, told, Op::Add { set: listens(&name), element });
        if let Some(receipt) = receipt {
            notes.written.entry(name).or_default().insert(receipt.written_at);
        }
    }

    async fn keep_playlist(&mut self, nth: &mut u64) {
        let element = *nth;
        *nth += 1;
        let content = NewPlaylist { title: element.to_string(), description: String::new(), tracks: Vec::new() };
        let name = self.listener.name.clone();
        let (told, _) = self.tell(|users, call| keep(users, call, name.clone(), content.clone())).await;
        self.notes.borrow_mut().note(&self.listener, told, Op::Add { set: playlists(&name), element });
    }

    async fn set(&mut self, version: &mut u64) {
        let wanted = Settings { blocked_artists: vec![(*version + 1).to_string()], ..Settings::default() };
        let name = self.listener.name.clone();
        let (told, _) = self.tell(|users, call| set(users, call, name.clone(), wanted.clone())).await;
        if told.outcome != Outcome::Failed {
            *version += 1;
        }
        self.notes.borrow_mut().note(&self.listener, told, Op::Count { counter: settings(&name), by: 1 });
    }

    async fn be_erased(&mut self) {
        let name = self.listener.name.clone();
        let (told, _) = self.tell(|users, call| erase(users, call, name.clone())).await;
        let mut notes = self.notes.borrow_mut();
        if told.outcome != Outcome::Failed {
            notes.erased.insert(name.clone(), told.outcome);
        }
        notes.note(&self.listener, told, Op::Erase { of: name });
    }
}

async fn create(users: UsersClient, call: Call, name: String) -> Result<echotune_model::User, Fault> {
    users.create_user(&call, &name).await
}

async fn record(
    users: UsersClient,
    call: Call,
    name: String,
    listen: Listen,
) -> Result<echotune_model::ListenReceipt, Fault> {
    users.record_listens(&call, &name, vec![listen]).await
}

async fn keep(
    users: UsersClient,
    call: Call,
    name: String,
    content: NewPlaylist,
) -> Result<echotune_model::Playlist, Fault> {
    users.create_playlist(&call, &name, content).await
}

async fn set(users: UsersClient, call: Call, name: String, wanted: Settings) -> Result<Settings, Fault> {
    users.update_settings(&call, &name, wanted).await
}

async fn erase(users: UsersClient, call: Call, name: String) -> Result<echotune_model::ErasureReceipt, Fault> {
    users.erase_user(&call, &name).await
}

/// Whether a region that was reached will not do what was asked, however often.
const fn is_refused(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::FailedPrecondition | ErrorKind::InvalidArgument
    )
}
