//! Entries in the embedded store.

use echotune_kit::embedded::{Batch, Key, Order, StoreError, Table, View, decode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Catalogue, CatalogueError, ListPage, ListQuery, Listing, Status, page::cursor, text, validate, version::order,
};

/// Entries by name and version.
const SERVERS: Table = Table("catalogue_servers");
/// How many entries there are.
const COUNT: Table = Table("catalogue_count");
/// Versions of one server at the most.
const MAX_VERSIONS: usize = 1_000;
/// Longest message about a status in characters.
const MAX_MESSAGE_CHARS: usize = 500;

/// A listing as it is kept. The entry stays text: what it was written as is what is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    server: String,
    status: Status,
    status_message: Option<String>,
    status_changed_at_ms: u64,
    published_at_ms: u64,
    updated_at_ms: u64,
    is_latest: bool,
}

impl Kept {
    fn listing(self) -> Result<Listing, StoreError> {
        let server = serde_json::from_str(&self.server)
            .map_err(|cause| StoreError::Damaged { table: SERVERS.0, cause: cause.to_string() })?;
        Ok(Listing {
            server,
            status: self.status,
            status_message: self.status_message,
            status_changed_at_ms: self.status_changed_at_ms,
            published_at_ms: self.published_at_ms,
            updated_at_ms: self.updated_at_ms,
            is_latest: self.is_latest,
        })
    }

    fn of(listing: &Listing) -> Self {
        Self {
            server: listing.server.to_string(),
            status: listing.status,
            status_message: listing.status_message.clone(),
            status_changed_at_ms: listing.status_changed_at_ms,
            published_at_ms: listing.published_at_ms,
            updated_at_ms: listing.updated_at_ms,
            is_latest: listing.is_latest,
        }
    }
}

fn key(name: &str, version: &str) -> Key {
    Key::new().text(name).text(version)
}

/// All versions of a server, by their keys.
fn versions(view: &dyn View, name: &str) -> Result<Vec<Listing>, StoreError> {
    let (from, mut found) = (Key::new().text(name), Vec::new());
    // Keys end their parts by it: no name has one.
    if name.contains('\0') {
        return Ok(found);
    }
    view.scan(SERVERS, &from, from.prefix_end().as_ref(), Order::Ascending, &mut |_, bytes| {
        found.push(decode::<Kept>(SERVERS, bytes)?.listing()?);
        Ok(true)
    })?;
    Ok(found)
}

/// Marks the newest version that is not deleted, and writes what that changes. A change of the mark is one of the entry.
fn mark(batch: &mut Batch, versions: &mut [Listing], now_ms: u64, changed: &dyn Fn(&Listing) -> bool) {
    let alive = versions.iter().filter(|listing| listing.status != Status::Deleted);
    let latest = alive
        .max_by(|one, other| order((one.version(), one.published_at_ms), (other.version(), other.published_at_ms)));
    let latest = latest.map(|listing| listing.version().to_owned());
    for listing in versions {
        let is_latest = latest.as_deref() == Some(listing.version());
        if is_latest != listing.is_latest || changed(listing) {
            listing.is_latest = is_latest;
            listing.updated_at_ms = now_ms;
            batch.put(SERVERS, key(listing.name(), listing.version()), &Kept::of(listing));
        }
    }
}

fn count(view: &dyn View) -> Result<usize, StoreError> {
    Ok(echotune_kit::embedded::get(view, COUNT, &Key::new())?.unwrap_or(0))
}

/// What became of an entry that was brought.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Brought {
    New(Listing),
    Same(Listing),
}

impl Catalogue {
    /// Publishes a version. One that is there with the same content stays as it is.
    ///
    /// # Errors
    /// It is not valid, another has its place, the catalogue is full, or the store failed.
    pub async fn publish(&self, server: Value) -> Result<Listing, CatalogueError> {
        match self.bring(server, Status::Active, None).await? {
            Brought::New(listing) | Brought::Same(listing) => Ok(listing),
        }
    }

    pub(super) async fn bring(
        &self,
        server: Value,
        status: Status,
        message: Option<String>,
    ) -> Result<Brought, CatalogueError> {
        let faults = validate(&server);
        if !faults.is_empty() {
            return Err(CatalogueError::Invalid(faults));
        }
        let (most, now_ms) = (self.most, now_ms());
        self.db
            .write(move |view| {
                let (name, version) = (text(&server, "name").to_owned(), text(&server, "version").to_owned());
                let mut known = versions(view, &name)?;
                if let Some(there) = known.iter().find(|listing| listing.version() == version) {
                    if there.server == server {
                        return Ok((Brought::Same(there.clone()), Batch::default()));
                    }
                    return Err(CatalogueError::Conflict { name, version });
                }
                let held = count(view)?;
                if held >= most || known.len() >= MAX_VERSIONS {
                    return Err(CatalogueError::Full(if held >= most { most } else { MAX_VERSIONS }));
                }
                known.push(Listing {
                    server,
                    status,
                    status_message: message,
                    status_changed_at_ms: now_ms,
                    published_at_ms: now_ms,
                    updated_at_ms: now_ms,
                    is_latest: false,
                });
                let mut batch = Batch::default();
                mark(&mut batch, &mut known, now_ms, &|listing| listing.version() == version);
                batch.put(COUNT, Key::new(), &(held + 1));
                let new = known.pop().expect("it was just put there");
                Ok((Brought::New(new), batch))
            })
            .await
    }

    /// A page of entries.
    ///
    /// # Errors
    /// The question makes no sense, or the store failed.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, CatalogueError> {
        query.check()?;
        let (limit, after) = (query.limit()?, query.after()?);
        let search = query.search.to_lowercase();
        self.db
            .read_aside(move |view| {
                // The least key behind another is that with a zero more.
                let from = after.map_or_else(Key::new, |after| Key(after).fixed(&[0]));
                let (mut listings, mut next_cursor, mut last) = (Vec::new(), None, Vec::new());
                view.scan(SERVERS, &from, None, Order::Ascending, &mut |key, bytes| {
                    let listing = decode::<Kept>(SERVERS, bytes)?.listing()?;
                    if !query.takes(&listing, &search) {
                        return Ok(true);
                    }
                    if listings.len() == limit {
                        next_cursor = Some(cursor(&last));
                        return Ok(false);
                    }
                    listings.push(listing);
                    last = key.to_vec();
                    Ok(true)
                })?;
                Ok(ListPage { listings, next_cursor })
            })
            .await
    }

    /// All versions of a server, those that came last first.
    ///
    /// # Errors
    /// There is no such server, or the store failed.
    pub async fn versions(&self, name: &str, include_deleted: bool) -> Result<Vec<Listing>, CatalogueError> {
        let name = name.to_owned();
        self.db
            .read_aside(move |view| {
                let mut found = versions(view, &name)?;
                found.retain(|listing| include_deleted || listing.status != Status::Deleted);
                if found.is_empty() {
                    return Err(no_server(&name));
                }
                found.sort_by(|one, other| {
                    let at = |listing: &Listing| (listing.published_at_ms, listing.version().to_owned());
                    at(other).cmp(&at(one))
                });
                Ok(found)
            })
            .await
    }

    /// A version of a server, or its newest by the name `latest`.
    ///
    /// # Errors
    /// There is none, or the store failed.
    pub async fn version(&self, name: &str, version: &str, include_deleted: bool) -> Result<Listing, CatalogueError> {
        let found = self.versions(name, include_deleted).await?;
        let is_asked = |listing: &&Listing| match version {
            "latest" => listing.is_latest,
            version => listing.version() == version,
        };
        let known: Vec<_> = found.iter().take(10).map(|listing| listing.version().to_owned()).collect();
        let asked = found.iter().find(is_asked).cloned();
        asked.ok_or_else(|| {
            let shown: String = version.chars().take(80).collect();
            let known = known.join(", ");
            CatalogueError::NotFound(format!("server '{name}' has no version {}; it has {known}", shown.escape_debug()))
        })
    }

    /// Sets the status of one version, or of all of them together; those that it changed.
    ///
    /// # Errors
    /// There is no such server or version, nothing would change, the message is too long, or the store failed.
    pub async fn set_status(
        &self,
        name: &str,
        version: Option<&str>,
        status: Status,
        message: Option<String>,
    ) -> Result<Vec<Listing>, CatalogueError> {
        if message.as_ref().is_some_and(|message| message.chars().count() > MAX_MESSAGE_CHARS) {
            return Err(CatalogueError::Asked(format!("statusMessage has more than {MAX_MESSAGE_CHARS} characters")));
        }
        let (name, version) = (name.to_owned(), version.map(str::to_owned));
        let now_ms = now_ms();
        self.db
            .write(move |view| {
                let mut known = versions(view, &name)?;
                let is_meant =
                    |listing: &Listing| version.as_deref().is_none_or(|version| listing.version() == version);
                let meant: Vec<_> = known.iter().filter(|listing| is_meant(listing)).collect();
                if meant.is_empty() {
                    return Err(match &version {
                        Some(version) if !known.is_empty() => {
                            CatalogueError::NotFound(format!("server '{name}' has no version {version}"))
                        }
                        _ => no_server(&name),
                    });
                }
                let stays = |listing: &Listing| listing.status == status && listing.status_message == message;
                if meant.into_iter().all(&stays) {
                    return Err(CatalogueError::Asked("nothing would change: that is the status already".to_owned()));
                }
                let mut changed = Vec::new();
                for listing in known.iter_mut().filter(|listing| is_meant(listing) && !stays(listing)) {
                    if listing.status != status {
                        listing.status_changed_at_ms = now_ms;
                    }
                    (listing.status, listing.status_message) = (status, message.clone());
                    changed.push(listing.version().to_owned());
                }
                let mut batch = Batch::default();
                mark(&mut batch, &mut known, now_ms, &|listing| changed.iter().any(|one| one == listing.version()));
                known.retain(|listing| changed.iter().any(|one| one == listing.version()));
                Ok((known, batch))
            })
            .await
    }
}

fn no_server(name: &str) -> CatalogueError {
    let shown: String = name.chars().take(200).collect();
    CatalogueError::NotFound(format!("no server is named '{}'", shown.escape_debug()))
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
