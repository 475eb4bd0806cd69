//! Pages of merged lists. A cursor names the entry after which the next page begins, so that it holds for every replica
//! and for lists that change in between.

use std::ops::Bound;

use super::{Entry, Kind, Table};
use crate::{
    caller::Digest,
    message::{Json, Object, Revision},
    token::{Keys, Purpose},
};

/// What clients are told about keeping a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hints {
    pub(crate) ttl_ms: u64,
    pub(crate) is_public: bool,
}

impl Hints {
    /// Adds what results of 2026-07-28 say.
    pub(crate) fn add(self, to: &mut Object) {
        to.set("resultType", Json::of("complete"));
        to.set("ttlMs", Json::of(&self.ttl_ms));
        to.set("cacheScope", Json::of(if self.is_public { "public" } else { "private" }));
    }
}

/// Which page of which list is asked for.
pub(crate) struct Page<'a> {
    pub(crate) keys: &'a Keys,
    /// Of the gateway.
    pub(crate) endpoint: &'a str,
    pub(crate) kind: Kind,
    pub(crate) owner: Digest,
    pub(crate) size: usize,
    /// Whether who asks may see an entry of a server, by the place of that.
    pub(crate) may_see: &'a (dyn Fn(usize, &Entry) -> bool + Sync),
    /// Whether all may see the same.
    pub(crate) is_alike: bool,
}

/// The cursor is none that was given for this list to this caller.
#[derive(Debug)]
pub(crate) struct WrongCursor;

impl Page<'_> {
    /// About what a cursor is: it is of no use to another caller, list or endpoint.
    fn about(&self) -> String {
        use std::fmt::Write as _;
        let mut about = format!("{} {} ", self.endpoint, self.kind.method());
        for byte in self.owner {
            write!(about, "{byte:02x}").expect("text takes all");
        }
        about
    }

    /// The result of a request for a list.
    pub(crate) fn result(&self, table: &Table, cursor: Option<&str>, revision: Revision) -> Result<Json, WrongCursor> {
        let after = match cursor {
            Some(cursor) => {
                let name = self.keys.open(Purpose::Cursor, &self.about(), cursor).ok_or(WrongCursor)?;
                Bound::Excluded(String::from_utf8(name).map_err(|_| WrongCursor)?)
            }
            None => Bound::Unbounded,
        };
        let may_see = |(_, (server, at)): &(&String, &(usize, usize))| {
            let list = table.lists[*server].as_ref();
            list.and_then(|list| list.entries.get(*at)).is_some_and(|entry| (self.may_see)(*server, entry))
        };
        let mut entries = table.names.range::<String, _>((after, Bound::Unbounded)).filter(may_see);
        let page: Vec<_> = entries.by_ref().take(self.size.max(1)).collect();
        let shown = page.iter().filter_map(|(name, (server, at))| {
            Some(table.lists[*server].as_ref()?.entries.get(*at)?.shown(self.kind, name))
        });
        let shown: Vec<_> = shown.collect();
        let mut result = Object::default();
        result.set(self.kind.member(), Json::array(&shown));
        if let Some((last, _)) = page.last().filter(|_| entries.next().is_some()) {
            let cursor = self.keys.seal(Purpose::Cursor, &self.about(), last.as_bytes());
            result.set("nextCursor", Json::of(&cursor));
        }
        if revision.is_modern() {
            let ttl_ms = u64::try_from(table.kept.as_millis()).unwrap_or(u64::MAX).min(3_600_000);
            Hints { ttl_ms, is_public: table.is_public && self.is_alike }.add(&mut result);
        }
        Ok(result.write())
    }
}
