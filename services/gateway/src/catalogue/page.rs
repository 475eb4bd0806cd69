//! Questions about many entries, and pages of answers.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{CatalogueError, Listing, Status, text};

/// Entries of a page when nobody says.
pub(super) const DEFAULT_LIMIT: usize = 30;
/// Entries of a page at the most.
pub(super) const MAX_LIMIT: usize = 100;
/// Longest text that is searched for, in characters.
const MAX_SEARCH_CHARS: usize = 200;

/// Which entries are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// The `next_cursor` of the page before; none for the first.
    pub cursor: Option<String>,
    /// How many: 1 to 100; 30 when nobody says.
    pub limit: Option<usize>,
    /// A text that the name, the title or the description has, in whichever case.
    pub search: String,
    /// Only what changed at this time or later, in milliseconds since the Unix epoch; deleted entries too.
    pub updated_since_ms: Option<u64>,
    /// Only this version, or `latest`; every version when empty.
    pub version: String,
    /// Deleted entries too.
    pub include_deleted: bool,
}

/// A page of entries.
#[derive(Debug, Clone, PartialEq)]
pub struct ListPage {
    /// The entries, by name and in the order of their coming.
    pub listings: Vec<Listing>,
    /// What to ask for next; none after the last page.
    pub next_cursor: Option<String>,
}

impl ListQuery {
    pub(super) fn limit(&self) -> Result<usize, CatalogueError> {
        match self.limit {
            None => Ok(DEFAULT_LIMIT),
            Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            Some(limit) => Err(CatalogueError::Asked(format!("limit is {limit}; it is 1 to {MAX_LIMIT}"))),
        }
    }

    /// The key after which the page begins.
    pub(super) fn after(&self) -> Result<Option<Vec<u8>>, CatalogueError> {
        let wrong =
            || CatalogueError::Asked("cursor is none that this catalogue gave; leave it out to begin".to_owned());
        let cursor = self.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        cursor.map(|cursor| URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())).transpose()
    }

    pub(super) fn check(&self) -> Result<(), CatalogueError> {
        if self.search.chars().count() > MAX_SEARCH_CHARS {
            return Err(CatalogueError::Asked(format!("search has more than {MAX_SEARCH_CHARS} characters")));
        }
        Ok(())
    }

    /// Whether an entry is asked for. `search` is this query's, in lower case.
    pub(super) fn takes(&self, listing: &Listing, search: &str) -> bool {
        let is_shown = listing.status != Status::Deleted || self.include_deleted || self.updated_since_ms.is_some();
        let is_new = self.updated_since_ms.is_none_or(|since| listing.updated_at_ms >= since);
        let is_version = match self.version.as_str() {
            "" => true,
            "latest" => listing.is_latest,
            version => listing.version() == version,
        };
        let has = |name: &str| text(&listing.server, name).to_lowercase().contains(search);
        is_shown && is_new && is_version && (search.is_empty() || ["name", "title", "description"].into_iter().any(has))
    }
}

pub(super) fn cursor(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}
