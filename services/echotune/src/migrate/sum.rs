//! How many rows there are, and a checksum of them that does not depend on their order.

use std::collections::BTreeMap;

use super::{Table, row::Row};

/// A number of rows and the sum of their digests. Adding tells a row that is there twice from one that is there once or
/// not at all, which an exclusive or would not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub rows: u64,
    /// The digests of the rows (the first 128 bits of SHA-256), added modulo 2¹²⁸.
    pub checksum: u128,
}

impl Sum {
    fn add(&mut self, digest: u128) {
        self.rows += 1;
        self.checksum = self.checksum.wrapping_add(digest);
    }

    /// Adds those of another part.
    pub fn join(&mut self, other: Self) {
        self.rows += other.rows;
        self.checksum = self.checksum.wrapping_add(other.checksum);
    }
}

/// Sums by table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sums(BTreeMap<Table, Sum>);

impl Sums {
    pub(super) fn add(&mut self, row: &Row) {
        self.0.entry(row.table()).or_default().add(row.digest());
    }

    pub(super) fn of(&self, table: Table) -> Sum {
        self.0.get(&table).copied().unwrap_or_default()
    }

    pub(super) fn rows(&self) -> u64 {
        self.0.values().map(|sum| sum.rows).sum()
    }

    /// The tables in which the two differ.
    pub(super) fn differing(&self, other: &Self) -> Vec<Table> {
        Table::ALL.into_iter().filter(|table| self.of(*table) != other.of(*table)).collect()
    }
}

#[cfg(test)]
mod tests {
    use echotune_model::Tagging;

    use super::*;

    fn sums(tags: &[&str]) -> Sums {
        let mut sums = Sums::default();
        for tag in tags {
            sums.add(&Row::Tagging(Tagging { artist: "Air".into(), tag: (*tag).into(), tagged_at_ms: 0 }));
        }
        sums
    }

    #[test]
    fn order_does_not_matter_and_every_lost_doubled_or_exchanged_row_does() {
        let whole = sums(&["a", "b", "c", "d"]);
        assert_eq!(whole.differing(&sums(&["d", "b", "a", "c"])), []);
        for other in [&["a", "b", "c"][..], &["a", "b", "c", "d", "d"], &["a", "b", "c", "e"], &["a", "a", "c", "c"]] {
            assert_eq!(whole.differing(&sums(other)), [Table::Taggings], "{other:?}");
        }
    }
}
