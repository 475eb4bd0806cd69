//! What clients do, and what they look for at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use echotune_api::{AgentsClient, RegionsClient, Training as _, TrainingClient, Users as _, UsersClient};
use echotune_kit::{auth::Token, edge::Credentials};
use echotune_model::{Call, ErrorKind, Fault, ItemId, ItemKind, Listen, MAX_PAGE, PageRequest, Track, UserId};
use futures::{StreamExt as _, future::join_all};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::{Drive, Notes, Program, Programs};
use crate::{
    Region, Testbed, TestbedError,
    history::{Op, Outcome},
    random::Random,
};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a client asks again, under the same key, when it does not know what became of a request.
pub(super) const TRIES: u32 = 10;
/// Times between them, and between looks at the end.
pub(super) const REST: Duration = Duration::from_millis(500);
/// Of so many listens one is sent several times at once, and so often.
const REPEATED: (u64, usize) = (8, 10);
/// Of so many requests one tells of several listens, as a player does that was without a network, and of so many.
const GATHERED: (u64, u64) = (4, 8);
/// How often names are claimed.
const CLAIM_EVERY: Duration = Duration::from_millis(700);
/// Milliseconds between two listens of a listener, as they say of themselves, and how many there may be.
const APART: (i64, i64) = (1_000, 10_000_000);

/// Why a run is no run.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A part of the testbed did not do what it was told.
    #[error(transparent)]
    Testbed(#[from] TestbedError),
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A program did not do what it was told.
    #[error("{0}")]
    Program(String),
    /// A region could not be asked at the end.
    #[error("{region} cannot be asked for what it holds: {cause}")]
    Unasked {
        /// Which.
        region: Region,
        /// Why not.
        cause: Fault,
    },
}

/// The services of a region.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) region: Region,
    pub(super) users: Arc<UsersClient>,
    pub(super) regions: Arc<RegionsClient>,
    pub(super) training: Arc<TrainingClient>,
    pub(super) agents: Arc<AgentsClient>,
}

/// Whose listens are recorded in one region.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) home: usize,
    id: UserId,
    pub(super) name: String,
    listens: Arc<AtomicU64>,
}

pub(super) fn connect(testbed: &Testbed, programs: &Programs) -> Result<Vec<Client>, DriveError> {
    let credentials = Credentials { token: Token::from(programs.token.clone()) };
    let client = |region: &Region| {
        let channel = |program| {
            let address = format!("http://{}", programs.address(*region, program));
            let endpoint = Endpoint::from_shared(address).map_err(|cause| DriveError::Program(cause.to_string()))?;
            Ok::<_, DriveError>(endpoint.connect_timeout(PATIENCE).connect_lazy())
        };
        Ok(Client {
            region: *region,
            users: Arc::new(UsersClient::new(channel(Program::Users)?, credentials.clone())),
            regions: Arc::new(RegionsClient::new(channel(Program::Users)?, credentials.clone())),
            training: Arc::new(TrainingClient::new(channel(Program::Recommendations)?, credentials.clone())),
            agents: Arc::new(AgentsClient::new(channel(Program::Agents)?, credentials.clone())),
        })
    };
    testbed.plan().regions.iter().map(client).collect()
}

pub(super) fn call(key: String) -> Call {
    Call { deadline: Some(Instant::now() + PATIENCE), idempotency_key: key, ..Call::internal() }
}

/// What a fault says of a write: refused for good, or nobody knows.
pub(super) fn outcome(fault: &Fault) -> Outcome {
    match fault.kind {
        ErrorKind::InvalidArgument
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::PermissionDenied
        | ErrorKind::Unauthenticated => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

/// A number of the owner of a name.
fn number(user: UserId) -> u64 {
    user.0.as_u64_pair().1
}

/// Makes the listeners of each region.
pub(super) async fn create(clients: &[Client], each: u64, notes: &Notes) -> Result<Vec<Listener>, DriveError> {
    let mut listeners = Vec::new();
    for (home, client) in clients.iter().enumerate() {
        for nth in 0..each {
            let name = format!("{}-{nth}-{}", client.region, notes.began.elapsed().subsec_nanos());
            let made = claim(client, &name, notes).await;
            let id = made.ok_or_else(|| DriveError::Program(format!("account '{name}' was not made")))?;
            listeners.push(Listener { home, id, name, listens: Arc::default() });
        }
    }
    Ok(listeners)
}

/// Asks for an account of a name, again until it is known what became of it; whose it then is.
pub(super) async fn make(client: &Client, name: &str) -> (Outcome, Option<UserId>) {
    let key = format!("{}-{name}", client.region);
    for _ in 0..TRIES {
        let answer = client.users.create_user(&call(key.clone()), name).await;
        match answer.map_err(|fault| outcome(&fault)) {
            Ok(user) => return (Outcome::Ok, Some(user.id)),
            Err(Outcome::Unknown) => tokio::time::sleep(REST).await,
            Err(known) => return (known, None),
        }
    }
    (Outcome::Unknown, None)
}

/// Claims a name that stays; whose it then is.
pub(super) async fn claim(client: &Client, name: &str, notes: &Notes) -> Option<UserId> {
    let began = notes.now();
    let (outcome, id) = make(client, name).await;
    let owner = id.map_or(u64::from(client.region.number()), number);
    notes.note(client.region, began, outcome, Op::Claim { name: name.to_owned(), owner });
    id
}

/// Has every listener listen and names be claimed, until told to stop.
pub(super) fn work(
    clients: &[Client],
    listeners: &[Listener],
    drive: &Drive,
    notes: &Arc<Notes>,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (nth, listener) in listeners.iter().cloned().enumerate() {
        let (client, notes, stop) = (clients[listener.home].clone(), Arc::clone(notes), stop.clone());
        let (pause, mut random) = (drive.pause, Random(drive.seed ^ nth as u64));
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                listen(&client, &listener, &mut random, &notes).await;
                tokio::time::sleep(pause).await;
            }
        });
    }
    let (clients, notes, stop) = (clients.to_vec(), Arc::clone(notes), stop.clone());
    let run = notes.began.elapsed().subsec_nanos();
    tasks.spawn(async move {
        for nth in 0_usize.. {
            if stop.is_cancelled() {
                return;
            }
            let name = format!("name-{nth}-{run}");
            let (one, other) = (&clients[nth % clients.len()], &clients[(nth + 1) % clients.len()]);
            tokio::join!(claim(one, &name, &notes), claim(other, &name, &notes));
            tokio::time::sleep(CLAIM_EVERY).await;
        }
    });
    tasks
}

fn listen_of(listener: &Listener, element: u64) -> Listen {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Whole days, so that the same listen has the same time when it is sent again.
    let from = i64::try_from(now / 86_400 * 86_400_000).unwrap_or_default() - APART.0 * APART.1;
    let listened_at_ms = from + i64::try_from(element).unwrap_or_default() * APART.0;
    Listen { track: track(listener, element), listened_at_ms, played_ms: 0, source: "drive".into(), explicit: None }
}

fn track(listener: &Listener, element: u64) -> Track {
    Track { title: element.to_string(), artist: listener.name.clone(), album: String::new() }
}

/// Records the next listen, or several, once or several times at once, and again until it is known what became of it:
/// this.
pub(super) async fn listen(client: &Client, listener: &Listener, random: &mut Random, notes: &Notes) -> Outcome {
    let gathered = if random.below(GATHERED.0) == 0 { GATHERED.1 } else { 1 };
    let element = listener.listens.fetch_add(gathered, Ordering::Relaxed);
    let elements = element..element + gathered;
    let copies = if random.below(REPEATED.0) == 0 { REPEATED.1 } else { 1 };
    let listens: Vec<_> = elements.clone().map(|element| listen_of(listener, element)).collect();
    let began = notes.now();
    let mut seen = Outcome::Unknown;
    for _ in 0..TRIES {
        let call = call(format!("{}-{element}", listener.name));
        let sent = (0..copies).map(|_| client.users.record_listens(&call, &listener.name, listens.clone()));
        let answers = join_all(sent).await;
        let outcomes: Vec<_> = answers
            .iter()
            .map(|answer| match answer {
                Ok(receipt) if receipt.rejections.is_empty() => Outcome::Ok,
                Ok(_) => Outcome::Failed,
                Err(fault) => outcome(fault),
            })
            .collect();
        if outcomes.contains(&Outcome::Ok) {
            seen = Outcome::Ok;
            break;
        }
        if !outcomes.contains(&Outcome::Unknown) {
            seen = Outcome::Failed;
            break;
        }
        tokio::time::sleep(REST).await;
    }
    for element in elements {
        notes.note(client.region, began, seen, Op::Add { set: listener.name.clone(), element });
    }
    seen
}

/// Asks a region again until it answers or time is over.
pub(super) async fn ask<T>(
    region: Region,
    end: tokio::time::Instant,
    question: impl AsyncFn() -> Result<T, Fault>,
) -> Result<T, DriveError> {
    loop {
        match question().await {
            Ok(answer) => return Ok(answer),
            Err(cause) if tokio::time::Instant::now() >= end => return Err(DriveError::Unasked { region, cause }),
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
}

/// All listens of a listener, as a region has them.
pub(super) async fn elements(client: &Client, listener: &Listener) -> Result<Vec<u64>, Fault> {
    let (mut found, mut page) = (Vec::new(), PageRequest { size: MAX_PAGE, token: String::new() });
    loop {
        let answer = client.users.list_listens(&call(String::new()), &listener.name, &page).await?;
        found.extend(answer.rows.iter().filter_map(|entry| entry.listen.track.title.parse::<u64>().ok()));
        if answer.next.is_empty() {
            return Ok(found);
        }
        page.token = answer.next;
    }
}

type Plays = BTreeSet<(UserId, ItemId, u64)>;

/// Who has played what how often, as recommendations of a region know it.
pub(super) async fn plays(client: &Client, of: &BTreeSet<UserId>) -> Result<Plays, Fault> {
    let call = Call { deadline: Some(Instant::now() + 10 * PATIENCE), ..Call::internal() };
    let mut histories = client.training.export_histories(&call, None).await?;
    let mut plays = BTreeSet::new();
    while let Some(part) = histories.parts.next().await {
        for history in part?.into_iter().filter(|one| one.kind == ItemKind::Track && of.contains(&one.user)) {
            plays.extend(history.items.iter().map(|known| (history.user, known.item, known.plays)));
        }
    }
    Ok(plays)
}

fn digest(plays: &Plays) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    let mut hasher = DefaultHasher::new();
    plays.hash(&mut hasher);
    hasher.finish()
}

/// What a region holds.
struct Held {
    listens: Vec<Vec<u64>>,
    plays: Plays,
}

async fn held(client: &Client, listeners: &[Listener]) -> Result<Held, Fault> {
    let mut listens = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let mut found = elements(client, listener).await?;
        found.sort_unstable();
        listens.push(found);
    }
    let of = listeners.iter().map(|listener| listener.id).collect();
    Ok(Held { listens, plays: plays(client, &of).await? })
}

/// What recommendations should know when these listens were recorded.
fn wanted(listeners: &[Listener], listens: &[Vec<u64>]) -> Plays {
    let one = |(listener, elements): (&Listener, &Vec<u64>)| {
        elements.iter().map(|element| (listener.id, track(listener, *element).id(), 1)).collect::<Vec<_>>()
    };
    listeners.iter().zip(listens).flat_map(one).collect()
}

/// Waits until all regions hold the same and all that was acknowledged, for as long as `patience`, and notes what
/// they hold then.
pub(super) async fn agree(
    clients: &[Client],
    listeners: &[Listener],
    notes: &Notes,
    patience: Duration,
    tell: &dyn Fn(&str),
) -> Result<(), DriveError> {
    let mut acknowledged: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for entry in notes.entries().iter().filter(|entry| entry.outcome == Outcome::Ok) {
        if let Op::Add { set, element } = &entry.op {
            acknowledged.entry(set.clone()).or_default().insert(*element);
        }
    }
    let has_all = |listens: &[Vec<u64>]| {
        listeners.iter().zip(listens).all(|(listener, found)| {
            let wanted = acknowledged.get(&listener.name);
            wanted.is_none_or(|wanted| wanted.iter().all(|element| found.binary_search(element).is_ok()))
        })
    };
    let end = Instant::now() + patience;
    loop {
        let began = notes.now();
        let all = join_all(clients.iter().map(|client| held(client, listeners))).await;
        let is_over = Instant::now() >= end;
        let (mut found, mut missing) = (Vec::new(), String::new());
        for (client, held) in clients.iter().zip(all) {
            match held {
                Ok(held) => found.push((client.region, held)),
                Err(cause) if is_over => return Err(DriveError::Unasked { region: client.region, cause }),
                Err(cause) => missing = format!("{} does not answer: {cause}", client.region),
            }
        }
        let agreed = missing.is_empty()
            && found.iter().all(|(_, held)| {
                has_all(&held.listens)
                    && held.listens == found[0].1.listens
                    && held.plays == wanted(listeners, &held.listens)
            });
        if agreed || is_over {
            note(&found, listeners, began, notes);
            owners(clients, notes).await;
            return Ok(());
        }
        let sizes: Vec<_> = found
            .iter()
            .map(|(region, held)| {
                let listens = held.listens.iter().map(Vec::len).sum::<usize>();
                format!("{region} {listens} listens, {} plays", held.plays.len())
            })
            .collect();
        tell(&format!("not yet: {}{missing}", sizes.join("; ")));
        tokio::time::sleep(4 * REST).await;
    }
}

fn note(found: &[(Region, Held)], listeners: &[Listener], began: u64, notes: &Notes) {
    for (region, held) in found {
        for (listener, elements) in listeners.iter().zip(&held.listens) {
            let (set, elements) = (listener.name.clone(), elements.clone());
            notes.note(*region, began, Outcome::Ok, Op::Read { set, elements });
        }
        // What it should be is told as by another region, so that regions that agree on something else do not pass.
        let Some((other, _)) = found.iter().find(|(other, _)| other != region) else { continue };
        let of = format!("what recommendations of {region} know and what users have");
        notes.note(*region, began, Outcome::Ok, Op::View { of: of.clone(), digest: digest(&held.plays) });
        let digest = digest(&wanted(listeners, &held.listens));
        notes.note(*other, began, Outcome::Ok, Op::View { of, digest });
    }
}

/// Looks in every region whose each name is that somebody was given.
async fn owners(clients: &[Client], notes: &Notes) {
    let given: BTreeSet<String> = notes
        .entries()
        .iter()
        .filter_map(|entry| match &entry.op {
            Op::Claim { name, .. } if entry.outcome == Outcome::Ok => Some(name.clone()),
            _ => None,
        })
        .collect();
    for client in clients {
        for name in &given {
            let began = notes.now();
            if let Ok(user) = client.users.get_user(&call(String::new()), name).await {
                let owner = number(user.id);
                resolve(notes, name, owner);
                let op = Op::Owner { name: name.clone(), owner: Some(owner) };
                notes.note(client.region, began, Outcome::Ok, op);
            }
        }
    }
}

/// Whoever did not learn whether they were given a name may be who has it.
fn resolve(notes: &Notes, name: &str, seen: u64) {
    let mut entries = notes.entries();
    let mut claims = entries.iter_mut().filter_map(|entry| match &mut entry.op {
        Op::Claim { name: claimed, owner } if claimed.as_str() == name => Some((entry.outcome, owner)),
        _ => None,
    });
    if let Some((_, owner)) = claims.find(|(outcome, _)| *outcome == Outcome::Unknown) {
        *owner = seen;
    }
}
