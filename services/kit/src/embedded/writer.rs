//! The one writer: takes the requests that wait, runs them in one transaction, commits it, and tells
//! each of them what became of it.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    sync::Weak,
};

use redb::{Database, ReadableTable as _};
use tokio::sync::{mpsc, watch};

use super::{
    Batch, Breaker, Group, Held, Key, Order, Row, StoreError, Table, Unkept, View, Visit, error::failed, kept::keep,
    scan_table, writer_gone,
};

/// Requests that share one commit at the most.
const GROUP: usize = 512;
/// Bytes that are to be kept elsewhere after which no further request joins a group.
const GROUP_BYTES: usize = 1 << 20;

/// Told what became of the group that a request was part of.
pub(super) type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A queued request: runs in the transaction of its group, or is told why there is none; hands back
/// whom to tell.
pub(super) type Request = Box<dyn FnOnce(Result<&WriteView<'_>, StoreError>) -> Acknowledge + Send>;

type Tables<'t> = RefCell<HashMap<Table, redb::Table<'t, &'static [u8], &'static [u8]>>>;

/// The last word on each key, and how many bytes that is.
#[derive(Default)]
struct Words {
    rows: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    bytes: usize,
}

impl Words {
    fn note(&mut self, table: Table, key: Key, value: Option<Vec<u8>>) {
        self.bytes += key.0.len() + value.as_ref().map_or(0, Vec::len);
        self.rows.insert((table, key.0), value);
    }

    fn into_rows(self) -> Vec<Row> {
        let row = |((table, key), value): ((Table, Vec<u8>), _)| Row { table: Cow::Borrowed(table.0), key, value };
        self.rows.into_iter().map(row).collect()
    }
}

pub(super) struct WriteView<'t> {
    transaction: &'t redb::WriteTransaction,
    tables: Tables<'t>,
    /// What was written, when it is to be kept elsewhere.
    words: Option<RefCell<Words>>,
    /// The first step that failed, whatever the request made of it.
    failure: RefCell<Option<StoreError>>,
}

impl<'t> WriteView<'t> {
    pub(super) fn new(transaction: &'t redb::WriteTransaction, kept_elsewhere: bool) -> Self {
        let words = kept_elsewhere.then(RefCell::default);
        Self { transaction, tables: Tables::default(), words, failure: RefCell::default() }
    }

    /// Whether no further request should join the group.
    fn is_full(&self) -> bool {
        self.words.as_ref().is_some_and(|words| words.borrow().bytes >= GROUP_BYTES)
    }

    fn with<R>(
        &self,
        table: Table,
        use_it: impl FnOnce(&mut redb::Table<'t, &'static [u8], &'static [u8]>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.open_with(table, use_it).inspect_err(|error| {
            if matches!(error, StoreError::Failed { .. } | StoreError::Full { .. }) {
                self.failure.borrow_mut().get_or_insert_with(|| error.clone());
            }
        })
    }

    fn open_with<R>(
        &self,
        table: Table,
        use_it: impl FnOnce(&mut redb::Table<'t, &'static [u8], &'static [u8]>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut tables = self.tables.borrow_mut();
        let table = match tables.entry(table) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let opened = self.transaction.open_table(table.definition());
                place.insert(opened.map_err(|cause| failed("open a table")(cause.into()))?)
            }
        };
        use_it(table)
    }

    pub(super) fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        for (table, key, value) in batch.writes {
            self.with(table, |table| {
                match &value {
                    Some(bytes) => table.insert(key.0.as_slice(), bytes.as_slice()).map(drop),
                    None => table.remove(key.0.as_slice()).map(drop),
                }
                .map_err(|cause| failed("write")(cause.into()))
            })?;
            if let Some(words) = &self.words {
                words.borrow_mut().note(table, key, value);
            }
        }
        Ok(())
    }
}

impl View for WriteView<'_> {
    fn get(&self, table: Table, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(table, |table| {
            let found = table.get(key.0.as_slice()).map_err(|cause| failed("read")(cause.into()))?;
            Ok(found.map(|value| value.value().to_vec()))
        })
    }

    fn scan(
        &self,
        table: Table,
        from: &Key,
        to: Option<&Key>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.with(table, |table| scan_table(table, from, to, order, visit))
    }
}

/// The queue of a writer, which tells of one that ends by a fault of the program.
struct Queue<'b> {
    requests: mpsc::Receiver<Request>,
    breaker: &'b Breaker,
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Before anybody knows: a write that comes after it was not made, and is not one of unknown outcome.
            self.requests.close();
            while let Ok(request) = self.requests.try_recv() {
                refuse(&mut vec![request], &writer_gone());
            }
            self.breaker.fail(writer_gone());
        }
    }
}

/// Writes until the store is closed. What breaks the store for good is put into `breaker`.
pub(super) fn write_groups(
    database: &Weak<Held>,
    requests: mpsc::Receiver<Request>,
    keeper: Option<&mpsc::Sender<Group>>,
    committed: &watch::Sender<u64>,
    breaker: &Breaker,
) {
    let mut queue = Queue { requests, breaker };
    let mut group = Vec::with_capacity(GROUP);
    // A request that cannot be kept has all refused that share its group, and may come again: for a while after it each
    // has a group of its own.
    let mut alone = 0_usize;
    while queue.requests.blocking_recv_many(&mut group, if alone > 0 { 1 } else { GROUP }) > 0 {
        alone = alone.saturating_sub(1);
        while !group.is_empty() {
            let Some(held) = database.upgrade() else { return };
            let Some(database) = held.database.to_write() else { return };
            // All that redb says of later writes is that one failed before.
            let before = breaker.0.borrow().clone();
            if let Some(cause) = before {
                refuse(&mut group, &cause);
                continue;
            }
            match write_group(database, keeper, &mut group) {
                Ok(()) => committed.send_modify(|count| *count += 1),
                Err(Unkept { cause, for_good }) => {
                    tracing::error!(%cause, "a group of writes has failed");
                    refuse(&mut group, &cause);
                    alone = GROUP;
                    // After an I/O error redb takes no write until the file is opened again.
                    if for_good || database.begin_write().is_err() {
                        breaker.fail(cause);
                    }
                }
            }
        }
    }
}

/// Tells every request that is left in a group why it was not run.
fn refuse(group: &mut Vec<Request>, cause: &StoreError) {
    for request in group.drain(..) {
        request(Err(cause.clone()))(Err(cause.clone()));
    }
}

/// Writes a group, or the first part of a large one. An error is for the requests that are left in it.
pub(super) fn write_group(
    database: &Database,
    keeper: Option<&mpsc::Sender<Group>>,
    group: &mut Vec<Request>,
) -> Result<(), Unkept> {
    let transaction = database.begin_write().map_err(|cause| passing(failed("begin a write")(cause.into())))?;
    let (acknowledge, applied) = run(&transaction, keeper.is_some(), group);
    let (told, outcome) = match applied.map_err(passing).and_then(|rows| kept(keeper, rows)) {
        // A batch may be half applied, or is not kept: the transaction is given up as a whole.
        Err(unkept) => (Err(unkept.cause.clone()), Err(unkept)),
        Ok(()) => match transaction.commit().map_err(|cause| failed("write")(cause.into())) {
            // redb may have written everything before it failed; and what is kept elsewhere is missing here.
            Err(cause) => {
                let told = StoreError::Indeterminate(cause.to_string());
                (Err(told), Err(Unkept { cause, for_good: keeper.is_some() }))
            }
            Ok(()) => (Ok(()), Ok(())),
        },
    };
    for acknowledge in acknowledge {
        acknowledge(told.clone());
    }
    outcome
}

const fn passing(cause: StoreError) -> Unkept {
    Unkept { cause, for_good: false }
}

fn kept(keeper: Option<&mpsc::Sender<Group>>, rows: Vec<Row>) -> Result<(), Unkept> {
    match keeper {
        Some(keeper) if !rows.is_empty() => keep(keeper, rows),
        _ => Ok(()),
    }
}

/// Runs requests until a step fails or the group is large enough; those after it stay in the group. What is to be
/// kept elsewhere.
fn run(
    transaction: &redb::WriteTransaction,
    kept_elsewhere: bool,
    group: &mut Vec<Request>,
) -> (Vec<Acknowledge>, Result<Vec<Row>, StoreError>) {
    let view = WriteView::new(transaction, kept_elsewhere);
    let mut acknowledge = Vec::with_capacity(group.len());
    group.reverse();
    while !view.is_full()
        && let Some(request) = group.pop()
    {
        acknowledge.push(request(Ok(&view)));
        if let Some(cause) = view.failure.take() {
            return (acknowledge, Err(cause));
        }
    }
    group.reverse();
    (acknowledge, Ok(view.words.map_or_else(Vec::new, |words| words.into_inner().into_rows())))
}
