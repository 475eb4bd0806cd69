use thiserror::Error;

/// Why data cannot be a matrix of interactions.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InputError {
    /// A weight is not a number of zero or more.
    #[error("row {row}, item {item}: the weight is {weight}; weights are finite and not negative")]
    Weight {
        /// Row, from 0.
        row: usize,
        /// Item as it was given.
        item: u32,
        /// What was given.
        weight: f32,
    },
    /// An item is at or beyond the number of items.
    #[error("row {row}: item {item} is not below the {items} items of the catalogue")]
    Item {
        /// Row, from 0.
        row: usize,
        /// Item as it was given.
        item: u32,
        /// Items of the catalogue.
        items: usize,
    },
}

/// Who knows what, and how well: a sparse matrix, users × items, by rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Interactions {
    offsets: Vec<usize>,
    /// Per row ascending.
    items: Vec<u32>,
    /// Beside each item its weight, above 0; empty when every weight is 1.
    weights: Vec<f32>,
    item_count: usize,
}

impl Interactions {
    /// From the items of each user, each with weight 1. An item named twice by one user counts once; an
    /// item at or beyond `item_count` is left out.
    pub fn from_rows<R: IntoIterator<Item = u32>>(rows: impl IntoIterator<Item = R>, item_count: usize) -> Self {
        let mut offsets = vec![0];
        let mut items = Vec::new();
        let mut sorted = Vec::new();
        for row in rows {
            sorted.clear();
            sorted.extend(row.into_iter().filter(|item| (*item as usize) < item_count));
            sorted.sort_unstable();
            sorted.dedup();
            items.extend_from_slice(&sorted);
            offsets.push(items.len());
        }
        Self { offsets, items, weights: Vec::new(), item_count }
    }

    /// From the (item, weight) pairs of each user. Weights of one item are added; an item of weight 0 is
    /// as if it were not there.
    ///
    /// # Errors
    /// A weight that is negative, infinite or no number; an item at or beyond `item_count`.
    pub fn from_weighted<R: IntoIterator<Item = (u32, f32)>>(
        rows: impl IntoIterator<Item = R>,
        item_count: usize,
    ) -> Result<Self, InputError> {
        let (mut offsets, mut items, mut weights) = (vec![0], Vec::new(), Vec::new());
        let mut sorted: Vec<(u32, f32)> = Vec::new();
        for (place, row) in rows.into_iter().enumerate() {
            sorted.clear();
            for (item, weight) in row {
                if !weight.is_finite() || weight < 0.0 {
                    return Err(InputError::Weight { row: place, item, weight });
                }
                if item as usize >= item_count {
                    return Err(InputError::Item { row: place, item, items: item_count });
                }
                sorted.push((item, weight));
            }
            sorted.sort_by_key(|(item, _)| *item);
            for same in sorted.chunk_by(|a, b| a.0 == b.0) {
                let weight: f32 = same.iter().map(|(_, weight)| weight).sum();
                if weight > 0.0 {
                    items.push(same[0].0);
                    weights.push(weight.min(f32::MAX));
                }
            }
            offsets.push(items.len());
        }
        Ok(Self { offsets, items, weights, item_count })
    }

    /// Number of rows.
    pub const fn user_count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of columns.
    pub const fn item_count(&self) -> usize {
        self.item_count
    }

    /// Number of (user, item) pairs.
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nobody knows anything.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items of a user, ascending.
    pub fn row(&self, user: usize) -> &[u32] {
        &self.items[self.offsets[user]..self.offsets[user + 1]]
    }

    /// The (item, weight) pairs of a user, ascending by item.
    pub fn entries(&self, user: usize) -> impl ExactSizeIterator<Item = (u32, f32)> + Clone {
        let range = self.offsets[user]..self.offsets[user + 1];
        let weights = &self.weights;
        range.map(move |at| (self.items[at], weights.get(at).copied().unwrap_or(1.0)))
    }

    /// How many users know each item.
    pub fn item_degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0; self.item_count];
        for item in &self.items {
            degrees[*item as usize] += 1;
        }
        degrees
    }

    /// The same pairs with other weights: `weight(user, item, before)`. Time O(pairs).
    #[must_use]
    pub fn reweighted(&self, weight: impl Fn(usize, u32, f32) -> f32) -> Self {
        let weights = (0..self.user_count()).flat_map(|user| {
            let weight = &weight;
            self.entries(user).map(move |(item, before)| weight(user, item, before))
        });
        Self { weights: weights.collect(), ..self.clone() }
    }

    /// The users of each item: the transposed matrix. Time O(pairs + items).
    pub fn transposed(&self) -> Self {
        let mut offsets = vec![0; self.item_count + 1];
        for item in &self.items {
            offsets[*item as usize + 1] += 1;
        }
        for item in 0..self.item_count {
            offsets[item + 1] += offsets[item];
        }
        let mut next = offsets.clone();
        let mut users = vec![0; self.items.len()];
        let mut weights = vec![0.0; self.weights.len()];
        for user in 0..self.user_count() {
            for at in self.offsets[user]..self.offsets[user + 1] {
                let to = &mut next[self.items[at] as usize];
                users[*to] = u32::try_from(user).expect("at most 2^32 users");
                if let Some(weight) = self.weights.get(at) {
                    weights[*to] = *weight;
                }
                *to += 1;
            }
        }
        Self { offsets, items: users, weights, item_count: self.user_count() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_one_item_are_added_and_those_of_nothing_are_dropped() {
        let rows = [vec![(2, 1.5), (0, 1.0), (2, 0.5)], vec![(1, 0.0)], vec![]];
        let matrix = Interactions::from_weighted(rows, 3).expect("weights");
        assert_eq!(matrix.entries(0).collect::<Vec<_>>(), [(0, 1.0), (2, 2.0)]);
        assert_eq!((matrix.row(1), matrix.len(), matrix.user_count()), (&[][..], 2, 3));
        let transposed = matrix.transposed();
        assert_eq!(transposed.entries(2).collect::<Vec<_>>(), [(0, 2.0)]);
        assert_eq!(transposed.transposed(), matrix);
    }

    #[test]
    fn a_weight_that_is_none_is_named() {
        for weight in [f32::NAN, f32::INFINITY, -1.0] {
            let error = Interactions::from_weighted([vec![], vec![(1, weight)]], 3).expect_err("refused");
            assert!(error.to_string().starts_with("row 1, item 1: the weight is "), "{error}");
        }
        let error = Interactions::from_weighted([[(3, 1.0)]], 3).expect_err("refused");
        assert_eq!(error, InputError::Item { row: 0, item: 3, items: 3 });
    }
}
