//! Retrieval of the best items of a catalogue by inner product: [`Scan`] is exact, [`Partition`] looks at a
//! part of the items only, and [`Audit`] measures what that misses.
//!
//! The scan reads a copy of the items rounded to 8 bits, with the norm of what rounding took away. From both
//! follows an upper bound of each score; only items whose bound reaches the worst of the best so far are
//! scored in f32. Items are ordered by norm, so that whole blocks fall below that bound (LEMP: Teflioudi,
//! Gemulla, Mykytiuk, SIGMOD 2015, section 3; FEXIPRO: Li, Chan, Yiu, Mamoulis, SIGMOD 2017, section 4 bounds
//! from rounded vectors). Filters act before an item is scored, so that an excluded item takes no place.

mod audit;
mod exact;
mod kernel;
mod means;
mod panels;
mod partition;
mod pass;
#[cfg(test)]
mod tests;
mod top;

pub use audit::{Audit, Recall};
pub use exact::Scan;
pub use partition::{Partition, PartitionOptions};

/// Columns of factors at the most: the sums of bytes fit into 32 bits.
pub const LARGEST_RANK: usize = 16_384;

/// The largest addend of a score, either way.
pub const LARGEST_EXTRA: f32 = 1e36;

/// Why a scan cannot be made or asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScanError {
    /// The factors of an item cannot be scored.
    #[error("the factors of item {item} are no numbers, or longer than 1e18")]
    Factors {
        /// Which.
        item: u32,
    },
    /// The factors have too many rows or columns.
    #[error("factors of {rows} × {columns}; at most 4294967294 × 16384")]
    Shape {
        /// Items.
        rows: usize,
        /// Rank.
        columns: usize,
    },
    /// The query is not of the rank of the items.
    #[error("a query of {found} factors for items of {expected}")]
    Rank {
        /// Its length.
        found: usize,
        /// Rank of the items.
        expected: usize,
    },
    /// The query cannot be scored.
    #[error("the query holds what is no number, or is longer than 1e18")]
    Query,
    /// An addend names no item or is out of range.
    #[error("{value} is added to item {item}; addends are within ±1e36, and items below {items}")]
    Extra {
        /// Which.
        item: u32,
        /// What is added.
        value: f32,
        /// Items of the catalogue.
        items: usize,
    },
    /// Addends for all items are not as many as these.
    #[error("{found} addends for {expected} items")]
    Extras {
        /// How many.
        found: usize,
        /// Items of the catalogue.
        expected: usize,
    },
}

/// What is added to the inner product, such as the sparse part of a [`crate::LinearModel`].
#[derive(Debug, Clone, Copy, Default)]
pub enum Extra<'e> {
    /// Nothing.
    #[default]
    None,
    /// To some items; what is given for one item several times is added up first, in the order given.
    Sparse(&'e [(u32, f32)]),
    /// To each item, by number.
    Dense(&'e [f32]),
}

/// One question: the best `count` items by `extra + query · item` that are not excluded.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// Factors of the query, as many as the items have.
    pub query: &'r [f32],
    /// How many items at the most.
    pub count: usize,
    /// What is added to the inner products.
    pub extra: Extra<'r>,
    /// Items that are never answered: asked before an item is scored, at most once for each item.
    pub excluded: &'r (dyn Fn(u32) -> bool + Sync),
}

impl<'r> Request<'r> {
    /// The best items by inner product alone.
    pub fn new(query: &'r [f32], count: usize) -> Self {
        Self { query, count, extra: Extra::None, excluded: &|_| false }
    }

    /// With addends.
    #[must_use]
    pub fn extra(self, extra: Extra<'r>) -> Self {
        Self { extra, ..self }
    }

    /// Without some items.
    #[must_use]
    pub fn excluding(self, excluded: &'r (dyn Fn(u32) -> bool + Sync)) -> Self {
        Self { excluded, ..self }
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { query, count, extra, .. } = self;
        f.debug_struct("Request").field("query", query).field("count", count).field("extra", extra).finish()
    }
}

/// A set of items as one bit each: what is known, blocked, explicit or of another kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemSet(Vec<u64>);

impl ItemSet {
    /// Empty, with room for items below `items`.
    pub fn new(items: usize) -> Self {
        Self(vec![0; items.div_ceil(64)])
    }

    /// Adds an item; one beyond the room is left out.
    pub fn insert(&mut self, item: u32) {
        if let Some(word) = self.0.get_mut(item as usize / 64) {
            *word |= 1 << (item % 64);
        }
    }

    /// Takes an item out.
    pub fn remove(&mut self, item: u32) {
        if let Some(word) = self.0.get_mut(item as usize / 64) {
            *word &= !(1 << (item % 64));
        }
    }

    /// Whether it holds an item.
    pub fn contains(&self, item: u32) -> bool {
        self.0.get(item as usize / 64).is_some_and(|word| word >> (item % 64) & 1 == 1)
    }
}

impl Extend<u32> for ItemSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.insert(item));
    }
}
