//! The one writer: takes the requests that wait, runs them in one transaction, commits it, and tells
//! each of them what became of it.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    sync::Weak,
};

use redb::{Database, ReadableTable as _};
use tokio::sync::{mpsc, watch};

use super::{Batch, Held, Key, Order, StoreError, Table, View, Visit, error::failed, scan_table};

/// Requests that share one commit at the most.
const GROUP: usize = 512;

/// Told what became of the group that a request was part of.
pub(super) type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A queued request: runs in the transaction of its group, or is told why there is none; hands back
/// whom to tell.
pub(super) type Request = Box<dyn FnOnce(Result<&WriteView<'_>, StoreError>) -> Acknowledge + Send>;

type Tables<'t> = RefCell<HashMap<Table, redb::Table<'t, &'static [u8], &'static [u8]>>>;

pub(super) struct WriteView<'t> {
    transaction: &'t redb::WriteTransaction,
    tables: Tables<'t>,
    /// The first step that failed, whatever the request made of it.
    failure: RefCell<Option<StoreError>>,
}

impl<'t> WriteView<'t> {
    pub(super) fn new(transaction: &'t redb::WriteTransaction) -> Self {
        Self { transaction, tables: Tables::default(), failure: RefCell::default() }
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
                match value {
                    Some(bytes) => table.insert(key.0.as_slice(), bytes.as_slice()).map(drop),
                    None => table.remove(key.0.as_slice()).map(drop),
                }
                .map_err(|cause| failed("write")(cause.into()))
            })?;
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

/// Writes until the store is closed. What breaks the store for good is put into `broken`.
pub(super) fn write_groups(
    database: &Weak<Held>,
    mut queue: mpsc::Receiver<Request>,
    committed: &watch::Sender<u64>,
    broken: &watch::Sender<Option<StoreError>>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let Some(held) = database.upgrade() else { return };
        // All that redb says of later writes is that one failed before.
        let before = broken.borrow().clone();
        if let Some(cause) = before {
            refuse(&mut group, &cause);
            continue;
        }
        match write_group(&held.database, &mut group) {
            Ok(()) => committed.send_modify(|count| *count += 1),
            Err(cause) => {
                tracing::error!(%cause, "a group of writes has failed");
                refuse(&mut group, &cause);
                // After an I/O error redb takes no write until the file is opened again.
                if held.database.begin_write().is_err() {
                    broken.send_replace(Some(cause));
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

/// Writes a group; an error is for the requests that are left in it.
fn write_group(database: &Database, group: &mut Vec<Request>) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(|cause| failed("begin a write")(cause.into()))?;
    let (acknowledge, applied) = run(&transaction, group);
    let (told, outcome) = match applied {
        // A batch may be half applied: the transaction is given up as a whole.
        Err(cause) => (Err(cause.clone()), Err(cause)),
        Ok(()) => match transaction.commit().map_err(|cause| failed("write")(cause.into())) {
            // redb may have written everything before it failed.
            Err(cause) => (Err(StoreError::Indeterminate(cause.to_string())), Err(cause)),
            Ok(()) => (Ok(()), Ok(())),
        },
    };
    for acknowledge in acknowledge {
        acknowledge(told.clone());
    }
    outcome
}

/// Runs requests until a step fails; those after it stay in the group.
fn run(transaction: &redb::WriteTransaction, group: &mut Vec<Request>) -> (Vec<Acknowledge>, Result<(), StoreError>) {
    let view = WriteView::new(transaction);
    let mut acknowledge = Vec::with_capacity(group.len());
    group.reverse();
    while let Some(request) = group.pop() {
        acknowledge.push(request(Ok(&view)));
        if let Some(cause) = view.failure.take() {
            return (acknowledge, Err(cause));
        }
    }
    (acknowledge, Ok(()))
}
