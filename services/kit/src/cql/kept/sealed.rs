//! Rows that are about somebody, sealed before they are kept: pure, but that keys are looked up.
//!
//! Whatever its table is, such a row is stored in a table of a reserved name. Its key there says whose it is, and then
//! only what the table and the key are by an HMAC that needs the key of the subject; its value is table, key and value,
//! sealed. One row has one stored key, so that the last word on it is told from those before without opening any, and
//! what goes by stored rows (the journal, the backlog, the rows) knows nothing of this. When the key of the subject is
//! destroyed, they say no more than that there was something.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt, slice,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use echotune_model::ErrorKind;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{super::CqlError, KeptError, code};
use crate::{
    embedded::Row,
    keys::{DataKey, KeyError, NamesKey, Opened, SubjectKeys},
};

/// The table of all sealed rows.
pub(super) const SEALED: &str = "(sealed)";
/// Bytes of the HMAC in a stored key: enough that no two rows of a subject share them before it has some 2^64.
const MAC: usize = 16;
/// How a stored key tells the subject: a UUID by its bytes, anything else as it is.
const ID: u8 = 1;
const TEXT: u8 = 2;
/// Keys that are looked up at once, for each of those who look.
const KEYS_AT_ONCE: usize = 8;
/// How long a write waits for a key, for which all those after it wait too.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so many keys that only others could tell of, a start asks the own region alone: each may take as long as a
/// request does.
const MAX_AFAR: usize = 64;

/// By which keys rows of a store are sealed, and which. No table of such a store may be named `(sealed)`.
#[derive(Clone)]
pub struct Sealing {
    /// Holds the keys. Each write looks up those of its subjects: those used lately should be at hand.
    pub keys: Arc<dyn SubjectKeys>,
    /// Whom a row is about, by its table and key: the same for ever. Rows of nobody are kept in clear.
    pub subject: fn(&str, &[u8]) -> Option<String>,
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing")
    }
}

/// What seals and opens the rows of one subject.
#[derive(Debug)]
pub(super) struct Seal {
    /// As stored keys begin.
    subject: Vec<u8>,
    key: DataKey,
    names: NamesKey,
}

/// What is known of the key of a subject.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// It is there.
    Seal(Arc<Seal>),
    /// There is none any more.
    Gone,
    /// It is not near, and those who would know whether it is elsewhere cannot be reached.
    Afar,
}

impl Known {
    fn of(subject: &str, key: Option<DataKey>) -> Self {
        key.map_or(Self::Gone, |key| Self::Seal(Arc::new(Seal::new(subject, key))))
    }
}

/// By subject.
pub(super) type Seals = HashMap<String, Known>;

fn seal_of<'s>(seals: &'s Seals, subject: &str) -> Option<&'s Seal> {
    match seals.get(subject)? {
        Known::Seal(seal) => Some(seal.as_ref()),
        Known::Gone | Known::Afar => None,
    }
}

/// Of whom there are rows that were neither read nor removed at a start.
#[derive(Debug)]
struct LeftOut {
    all: HashSet<String>,
    /// Those of whom others will know.
    afar: Vec<String>,
}

/// Why a group is not sealed.
#[derive(Debug, Error)]
pub(super) enum Unsealed {
    #[error("what it says of somebody cannot be sealed: {0}")]
    Keys(#[from] KeyError),
    #[error(
        "rows were left out at the start, since the key of whom they are about could not be had then, and now it can; \
         start EchoTune again"
    )]
    LeftOut,
}

/// What is sealed along, so that no value can stand in for another.
fn about(store: &str, stored_key: &[u8]) -> Vec<u8> {
    [store.as_bytes(), &[0], stored_key].concat()
}

/// Whose a stored key is.
fn subject_of(stored_key: &[u8]) -> Option<String> {
    let (subject, _) = stored_key.split_at_checked(stored_key.len().checked_sub(MAC)?)?;
    match subject.split_first()? {
        (&ID, id) => Some(Uuid::from_slice(id).ok()?.to_string()),
        (&TEXT, text) => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    }
}

impl Seal {
    fn new(subject: &str, key: DataKey) -> Self {
        let stored = match Uuid::try_parse(subject) {
            // There are other ways to write one.
            Ok(id) if id.to_string() == subject => [&[ID][..], id.as_bytes()].concat(),
            _ => [&[TEXT][..], subject.as_bytes()].concat(),
        };
        Self { subject: stored, names: key.names(), key }
    }

    /// A row of the subject as it is stored.
    fn seal(&self, store: &str, row: &Row) -> Result<Row, KeyError> {
        let key = [&self.subject[..], &self.names.mac(&row.table, &row.key)[..MAC]].concat();
        let sealed = |_| self.key.seal(&about(store, &key), &code::encode(slice::from_ref(row)));
        let value = row.value.as_ref().map(sealed).transpose()?;
        Ok(Row { table: Cow::Borrowed(SEALED), key, value })
    }

    /// The row that is stored so; nothing when it was sealed by a key that the subject had before, which is gone.
    fn open(&self, store: &str, stored: &Row) -> Result<Option<Row>, CqlError> {
        let sealed = stored.value.as_deref().unwrap_or_default();
        let plain = match self.key.open(&about(store, &stored.key), sealed) {
            Opened::Plain(plain) => plain,
            Opened::OtherKey => return Ok(None),
            Opened::Damaged => return Err(damaged(store, "it is not what was sealed for its place")),
        };
        match <[Row; 1]>::try_from(code::decode(&plain)?) {
            Ok([row]) if row.value.is_some() => Ok(Some(row)),
            _ => Err(damaged(store, "what was sealed is not one row")),
        }
    }
}

fn damaged(store: &str, cause: &str) -> CqlError {
    CqlError::Damaged { what: "a sealed row of a store", cause: format!("store '{store}': {cause}") }
}

fn removal(row: &Row) -> Row {
    Row { table: row.table.clone(), key: row.key.clone(), value: None }
}

/// What stored rows come to.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Rows as they were written.
    pub(super) rows: Vec<Row>,
    /// Those of them that are stored in clear, and are to be sealed,
    pub(super) sealed: Vec<Row>,
    /// and their removal, once that is done.
    pub(super) cleared: Vec<Row>,
    /// The removal of what was of those who have no key.
    pub(super) gone: Vec<Row>,
}

/// How one store is sealed.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    sealing: Sealing,
    store: String,
    /// As the start has found it.
    left_out: Arc<OnceLock<LeftOut>>,
}

impl Sealed {
    pub(super) fn new(sealing: Sealing, store: String) -> Self {
        Self { sealing, store, left_out: Arc::default() }
    }

    /// Whether all rows of those who have a key were read.
    pub(super) fn is_whole(&self) -> bool {
        self.left_out.get().is_none_or(|left_out| left_out.all.is_empty())
    }

    /// Looks every so often for keys of which only others could tell at the start; whether one is there after all.
    pub(super) async fn finds_any(self, every: Duration) -> bool {
        let mut afar = self.left_out.get().map(|left_out| left_out.afar.clone()).unwrap_or_default();
        while !afar.is_empty() {
            sleep(every).await;
            while let Some(subject) = afar.last() {
                let found = self.sealing.keys.existing(subject).await;
                match found {
                    Ok(Some(_)) => return true,
                    // Erased: what is left is removed at the next start.
                    Ok(None) => drop(afar.pop()),
                    Err(_) => break,
                }
            }
        }
        false
    }

    /// Whom a row is about that is in clear and should not be stored so.
    fn clear_subject(&self, row: &Row) -> Option<String> {
        if row.table == SEALED { None } else { (self.sealing.subject)(&row.table, &row.key) }
    }

    /// Whom a row is about, as it is stored.
    fn subject(&self, row: &Row) -> Result<Option<String>, CqlError> {
        if row.table != SEALED {
            return Ok(self.clear_subject(row));
        }
        subject_of(&row.key).map(Some).ok_or_else(|| damaged(&self.store, "its key does not tell whose it is"))
    }

    /// The seals of those who have a key.
    ///
    /// None is made. Who is written about has one: the log seals an event before anybody reads it, and what calls
    /// write is about accounts, which begin with a key. So whoever has none is erased, and a key that were made now
    /// would keep what comes late of them for ever.
    async fn seals(&self, subjects: HashSet<String>) -> Result<Seals, KeyError> {
        let look = |subject: String| async move {
            let late = |_| KeyError::Failed {
                kind: ErrorKind::Unavailable,
                message: format!("a key was not told within {PATIENCE:?}; see how the CQL servers of all regions do"),
            };
            let key = timeout(PATIENCE, self.sealing.keys.existing(&subject)).await.map_err(late)??;
            let known = Known::of(&subject, key);
            Ok::<_, KeyError>((subject, known))
        };
        stream::iter(subjects).map(look).buffer_unordered(KEYS_AT_ONCE).try_collect().await
    }

    /// What a start is to know of a key, which is not to fail because others cannot be reached.
    async fn known(&self, subject: &str, asks_others: bool) -> Result<Known, KeyError> {
        let keys = &self.sealing.keys;
        if asks_others {
            match keys.existing(subject).await {
                Ok(key) => return Ok(Known::of(subject, key)),
                Err(cause) if cause.kind() != ErrorKind::Unavailable => return Err(cause),
                Err(_) => {}
            }
        }
        let near = keys.near(subject).await?;
        Ok(near.map_or(Known::Afar, |key| Known::of(subject, Some(key))))
    }

    /// What is stored of a group. Rows of those who have no key are left out: what is stored of them nobody opens, and
    /// it is removed at the next start. Nothing is written over rows that were not read.
    pub(super) async fn group(&self, rows: &[Row]) -> Result<Vec<Row>, Unsealed> {
        let subjects = rows.iter().filter_map(|row| self.clear_subject(row)).collect();
        let seals = self.seals(subjects).await?;
        let is_left_out = |subject: &String| self.left_out.get().is_some_and(|left_out| left_out.all.contains(subject));
        if seals.iter().any(|(subject, known)| matches!(known, Known::Seal(_)) && is_left_out(subject)) {
            return Err(Unsealed::LeftOut);
        }
        let stored = |row: &Row| match self.clear_subject(row) {
            None => Some(Ok(row.clone())),
            Some(subject) => Some(seal_of(&seals, &subject)?.seal(&self.store, row)),
        };
        Ok(rows.iter().filter_map(stored).collect::<Result<Vec<_>, KeyError>>()?)
    }

    /// What an entry of the journal says in stored rows. What a program wrote in clear that did not seal yet is sealed,
    /// and removed where it may stand in clear; of those who have no key it stays as it is until all is read.
    pub(super) fn renewed(&self, rows: Vec<Row>, seals: &Seals) -> Result<Vec<Row>, KeyError> {
        let mut stored = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(subject) = self.clear_subject(&row) else {
                stored.push(row);
                continue;
            };
            if let Some(seal) = seal_of(seals, &subject) {
                stored.extend([seal.seal(&self.store, &row)?, removal(&row)]);
            } else {
                stored.push(row);
            }
        }
        Ok(stored)
    }

    /// What stored rows come to, but for those on which there is a later word.
    fn read(&self, rows: Vec<Row>, seals: &Seals, has_word: impl Fn(&Row) -> bool) -> Result<Page, KeptError> {
        let mut page = Page::default();
        for row in rows {
            let Some(subject) = self.subject(&row)? else {
                if !has_word(&row) {
                    page.rows.push(row);
                }
                continue;
            };
            let seal = match seals.get(&subject) {
                Some(Known::Seal(seal)) => seal,
                Some(Known::Gone) => {
                    page.gone.push(removal(&row));
                    continue;
                }
                // It stays as it is.
                Some(Known::Afar) | None => continue,
            };
            if row.table == SEALED {
                if has_word(&row) {
                    continue;
                }
                match seal.open(&self.store, &row)? {
                    Some(row) => page.rows.push(row),
                    None => page.gone.push(removal(&row)),
                }
                continue;
            }
            let stored = seal.seal(&self.store, &row).map_err(|cause| self.not_had(cause))?;
            page.cleared.push(removal(&row));
            // As long as a row is there in clear, all that was written since is in the journal too.
            if !has_word(&stored) {
                page.sealed.push(stored);
                page.rows.push(row);
            }
        }
        Ok(page)
    }

    fn not_had(&self, cause: KeyError) -> KeptError {
        KeptError::Keys { store: self.store.clone(), cause }
    }
}

/// Reads a store with the seals that it has found: rows of one subject are everywhere.
#[derive(Debug)]
pub(super) struct Reading {
    sealed: Sealed,
    found: Mutex<Seals>,
    /// Of how many only others could tell.
    afar: AtomicUsize,
}

impl Reading {
    pub(super) fn new(sealed: Sealed) -> Self {
        Self { sealed, found: Mutex::default(), afar: AtomicUsize::default() }
    }

    /// The seals for these rows.
    async fn seals(&self, rows: &[Row]) -> Result<Seals, KeptError> {
        let (mut seals, mut missing) = (Seals::new(), HashSet::new());
        {
            let found = self.found();
            for row in rows {
                let Some(subject) = self.sealed.subject(row)? else { continue };
                if let Some(known) = found.get(&subject) {
                    seals.insert(subject, known.clone());
                } else {
                    missing.insert(subject);
                }
            }
        }
        let look = |subject: String| async move {
            let asks_others = self.afar.load(Ordering::Relaxed) < MAX_AFAR;
            let known = self.sealed.known(&subject, asks_others).await?;
            if matches!(known, Known::Afar) {
                self.afar.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, KeyError>((subject, known))
        };
        let new = stream::iter(missing).map(look).buffer_unordered(KEYS_AT_ONCE).try_collect::<Vec<_>>().await;
        let new = new.map_err(|cause| self.sealed.not_had(cause))?;
        let mut found = self.found();
        for (subject, known) in new {
            // What was found first holds for all rows: they are read as a whole or not at all.
            let first = found.entry(subject.clone()).or_insert(known).clone();
            seals.insert(subject, first);
        }
        drop(found);
        Ok(seals)
    }

    fn found(&self) -> MutexGuard<'_, Seals> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Sealed::renewed`] of an entry.
    pub(super) async fn entry(&self, rows: Vec<Row>) -> Result<Vec<Row>, KeptError> {
        let seals = self.seals(&rows).await?;
        self.sealed.renewed(rows, &seals).map_err(|cause| self.sealed.not_had(cause))
    }

    /// What stored rows come to, but for those on which there is a later word.
    pub(super) async fn page(&self, rows: Vec<Row>, has_word: impl Fn(&Row) -> bool) -> Result<Page, KeptError> {
        let seals = self.seals(&rows).await?;
        self.sealed.read(rows, &seals, has_word)
    }

    /// Whether a key of anybody was found.
    pub(super) fn has_found_any(&self) -> bool {
        self.found().values().any(|known| matches!(known, Known::Seal(_)))
    }

    /// Notes of whom there are rows that were neither read nor are to be removed, once all was read; how many these are.
    pub(super) fn leave_out(&self) -> usize {
        let removes_nothing = !self.has_found_any();
        let (mut all, mut afar) = (HashSet::new(), Vec::new());
        for (subject, known) in &*self.found() {
            let is_afar = matches!(known, Known::Afar);
            if is_afar {
                afar.push(subject.clone());
            }
            if is_afar || removes_nothing {
                all.insert(subject.clone());
            }
        }
        let count = all.len();
        self.sealed.left_out.get_or_init(|| LeftOut { all, afar });
        count
    }
}

#[cfg(test)]
mod tests;
