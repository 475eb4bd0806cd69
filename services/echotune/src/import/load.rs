use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use echotune_api::{MAX_BATCH, Users};
use echotune_model::{Call, ErrorKind, Fault, Listen, ListenReceipt, PlayCount, Tagging};
use tokio::{
    sync::{OnceCell, mpsc},
    task::JoinSet,
};

use super::{
    Failure, ImportError, Kind, Rejected, Summary,
    progress::Progress,
    row::{Item, Place, Row, Sink, Source},
    summary::Rejects,
};

/// Chunks between the reader and the loader.
const CHUNKS: usize = 4;
/// Bytes in one batch: with [`MAX_BATCH`] ordinary rows a batch is smaller, and the longest rows stay
/// below what a gRPC message may hold.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of batches that are still being filled.
const PENDING_BYTES: usize = 12 << 20;
/// Bytes of batches under way.
const FLIGHT_BYTES: usize = 3 << 20;
/// Calls under way. Small batches of many users share one commit of the store.
const FLIGHTS: usize = 64;
/// How often a batch is sent while the platform is not available.
const ATTEMPTS: u32 = 6;
/// Wait before the second attempt; doubled before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Reads a source to its end and sends its rows to the platform.
pub(crate) async fn drive(
    users: Arc<dyn Users>,
    call: &Call,
    source: Box<dyn Source>,
    format: &str,
    rejects: Rejects,
    progress: &Progress,
) -> Result<Summary, Failure> {
    progress.begin(source.total());
    let (to, mut chunks) = mpsc::channel(CHUNKS);
    let mut sink = Sink::new(to, progress.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let read = source.read(&mut sink);
        // What was read before a fault is sent, too.
        let flushed = sink.flush();
        read.and(flushed)
    });
    let mut loader = Loader::new(users, call.clone(), format, rejects);
    let mut sent = Ok(());
    while let Some(chunk) = chunks.recv().await {
        sent = loader.take(chunk).await;
        if sent.is_err() {
            break;
        }
    }
    // A reader that finds nobody there stops.
    drop(chunks);
    let read = reading.await.unwrap_or_else(|panic| match panic.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(ImportError::Stopped),
    });
    if sent.is_ok() {
        sent = loader.dispatch_all().await;
    }
    let landed = loader.land_all().await;
    progress.end();
    let summary = loader.finish();
    match (sent.and(landed).and(read), summary) {
        (Ok(()), (summary, Ok(()))) => Ok(summary),
        (Err(cause), (summary, _)) | (Ok(()), (summary, Err(cause))) => {
            Err(Failure { cause, summary: Box::new(summary) })
        }
    }
}

/// Rows of one kind.
#[derive(Clone)]
enum Rows {
    Listens(Vec<Listen>),
    PlayCounts(Vec<PlayCount>),
    Taggings(Vec<Tagging>),
    Friends(Vec<String>),
}

impl Rows {
    fn of(row: Row) -> Self {
        match row {
            Row::Listen(listen) => Self::Listens(vec![listen]),
            Row::PlayCount(count) => Self::PlayCounts(vec![count]),
            Row::Tagging(tagging) => Self::Taggings(vec![tagging]),
            Row::Friend(name) => Self::Friends(vec![name]),
        }
    }

    /// Adds a row of the same kind.
    fn push(&mut self, row: Row) {
        match (self, row) {
            (Self::Listens(rows), Row::Listen(row)) => rows.push(row),
            (Self::PlayCounts(rows), Row::PlayCount(row)) => rows.push(row),
            (Self::Taggings(rows), Row::Tagging(row)) => rows.push(row),
            (Self::Friends(rows), Row::Friend(row)) => rows.push(row),
            _ => unreachable!("batches are kept by kind"),
        }
    }
}

/// Rows of one user and kind, and where they stand.
struct Batch {
    user: Arc<str>,
    kind: Kind,
    rows: Rows,
    places: Vec<Place>,
    weight: usize,
}

/// A batch that arrived, or did not.
struct Landed {
    user: Arc<str>,
    kind: Kind,
    places: Vec<Place>,
    weight: usize,
    answer: Result<ListenReceipt, Fault>,
}

type Account = Arc<OnceCell<()>>;

struct Loader {
    users: Arc<dyn Users>,
    call: Call,
    /// Accounts that were asked for, so that each is made once.
    accounts: HashMap<Arc<str>, Account>,
    created: Arc<AtomicU64>,
    pending: HashMap<(Arc<str>, Kind), Batch>,
    pending_weight: usize,
    flights: JoinSet<Landed>,
    flight_weight: usize,
    summary: Summary,
    rejects: Rejects,
}

impl Loader {
    fn new(users: Arc<dyn Users>, call: Call, format: &str, rejects: Rejects) -> Self {
        Self {
            users,
            call,
            accounts: HashMap::new(),
            created: Arc::default(),
            pending: HashMap::new(),
            pending_weight: 0,
            flights: JoinSet::new(),
            flight_weight: 0,
            summary: Summary { format: format.to_owned(), ..Summary::default() },
            rejects,
        }
    }

    async fn take(&mut self, chunk: Vec<Item>) -> Result<(), ImportError> {
        for item in chunk {
            match item {
                Item::Ignored => self.summary.files_ignored += 1,
                Item::Merged(kind) => self.summary.rows.entry(kind).or_default().merged += 1,
                Item::Rejected(rejected) => self.rejects.add(rejected, &mut self.summary)?,
                Item::Row { user, place, row } => self.add(user, place, row).await?,
            }
        }
        Ok(())
    }

    async fn add(&mut self, user: Arc<str>, place: Place, row: Row) -> Result<(), ImportError> {
        let (kind, weight) = (row.kind(), row.weight());
        self.pending_weight += weight;
        let key = (user, kind);
        let full = match self.pending.get_mut(&key) {
            Some(batch) => {
                batch.rows.push(row);
                batch.places.push(place);
                batch.weight += weight;
                batch.places.len() >= MAX_BATCH || batch.weight >= BATCH_BYTES
            }
            None => {
                let user = Arc::clone(&key.0);
                let batch = Batch { user, kind, rows: Rows::of(row), places: vec![place], weight };
                let full = weight >= BATCH_BYTES;
                self.pending.insert(key.clone(), batch);
                full
            }
        };
        if full && let Some(batch) = self.pending.remove(&key) {
            self.dispatch(batch).await?;
        }
        if self.pending_weight >= PENDING_BYTES { self.dispatch_all().await } else { Ok(()) }
    }

    async fn dispatch_all(&mut self) -> Result<(), ImportError> {
        for (_, batch) in std::mem::take(&mut self.pending) {
            self.dispatch(batch).await?;
        }
        Ok(())
    }

    async fn dispatch(&mut self, batch: Batch) -> Result<(), ImportError> {
        self.pending_weight -= batch.weight;
        while self.flights.len() >= FLIGHTS || self.flight_weight > FLIGHT_BYTES {
            self.land().await?;
        }
        self.flight_weight += batch.weight;
        let accounts = self.accounts_of(&batch);
        let (users, call, created) = (Arc::clone(&self.users), self.call.clone(), Arc::clone(&self.created));
        self.flights.spawn(async move {
            let answer = deliver(&*users, &call, &accounts, &created, &batch).await;
            let Batch { user, kind, places, weight, .. } = batch;
            Landed { user, kind, places, weight, answer }
        });
        Ok(())
    }

    /// The accounts that must be there before a batch can be written.
    fn accounts_of(&mut self, batch: &Batch) -> Vec<(Arc<str>, Account)> {
        let mut wanted = vec![Arc::clone(&batch.user)];
        if let Rows::Friends(friends) = &batch.rows {
            wanted.extend(friends.iter().map(|friend| Arc::from(friend.as_str())));
        }
        let known = &mut self.accounts;
        wanted.into_iter().map(|name| (Arc::clone(&name), Arc::clone(known.entry(name).or_default()))).collect()
    }

    async fn land_all(&mut self) -> Result<(), ImportError> {
        let mut outcome = Ok(());
        while !self.flights.is_empty() {
            // Batches that arrived count, whatever became of the others.
            outcome = outcome.and(self.land().await);
        }
        outcome
    }

    /// Waits for one batch and notes what became of it.
    async fn land(&mut self) -> Result<(), ImportError> {
        let Some(ended) = self.flights.join_next().await else { return Ok(()) };
        let landed = match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(landed) => landed,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => return Err(ImportError::Stopped),
        };
        let Landed { user, kind, places, weight, answer } = landed;
        self.flight_weight -= weight;
        let receipt = answer.map_err(|fault| ImportError::Service {
            user: user.to_string(),
            place: places.first().map_or_else(String::new, ToString::to_string),
            fault,
        })?;
        let counts = self.summary.rows.entry(kind).or_default();
        counts.imported += u64::from(receipt.recorded);
        counts.duplicate += u64::from(receipt.duplicates);
        for rejection in receipt.rejections {
            let place = usize::try_from(rejection.index).ok().and_then(|index| places.get(index));
            let (file, line) = place.map_or_else(Default::default, |place| (place.file.to_string(), place.line));
            self.rejects.add(Rejected { file, line, kind, reason: rejection.reason }, &mut self.summary)?;
        }
        Ok(())
    }

    fn finish(mut self) -> (Summary, Result<(), ImportError>) {
        self.summary.accounts_created = self.created.load(Ordering::Relaxed);
        let written = self.rejects.finish();
        (self.summary, written)
    }
}

/// Sends a batch, again while the platform is not available: every write can be repeated.
async fn deliver(
    users: &dyn Users,
    call: &Call,
    accounts: &[(Arc<str>, Account)],
    created: &AtomicU64,
    batch: &Batch,
) -> Result<ListenReceipt, Fault> {
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match attempt(users, call, accounts, created, batch).await {
            Err(fault) if matches!(fault.kind, ErrorKind::Unavailable | ErrorKind::Indeterminate) => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            answer => return answer,
        }
    }
    attempt(users, call, accounts, created, batch).await
}

async fn attempt(
    users: &dyn Users,
    call: &Call,
    accounts: &[(Arc<str>, Account)],
    created: &AtomicU64,
    batch: &Batch,
) -> Result<ListenReceipt, Fault> {
    for (name, account) in accounts {
        let make = || async {
            created.fetch_add(ensure(users, call, name).await?.into(), Ordering::Relaxed);
            Ok::<_, Fault>(())
        };
        account.get_or_try_init(make).await?;
    }
    match batch.rows.clone() {
        Rows::Listens(rows) => users.record_listens(call, &batch.user, rows).await,
        Rows::PlayCounts(rows) => users.set_play_counts(call, &batch.user, rows).await,
        Rows::Taggings(rows) => users.add_taggings(call, &batch.user, rows).await,
        Rows::Friends(rows) => users.add_friends(call, &batch.user, rows).await,
    }
}

/// Makes an account unless there is one; whether it did. Looking first spares a write for each known user, and lets
/// users in who may write for themselves and make no accounts.
pub(crate) async fn ensure(users: &dyn Users, call: &Call, name: &str) -> Result<bool, Fault> {
    match users.get_user(call, name).await {
        Err(fault) if fault.kind == ErrorKind::NotFound => {}
        found => return found.map(|_| false),
    }
    match users.create_user(call, name).await {
        Ok(_) => Ok(true),
        Err(fault) if fault.kind == ErrorKind::AlreadyExists => Ok(false),
        Err(fault) => Err(fault),
    }
}
