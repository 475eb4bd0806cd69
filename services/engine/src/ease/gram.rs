//! The Gram matrix `XᵀX` of interactions, exact.

use rayon::prelude::*;

use crate::Interactions;

/// Weights are taken in steps of 1 / 2¹⁶, so that products are integers and sums exact in any order.
const STEPS: f32 = 65_536.0;
/// What one is in the sums.
const ONE: f64 = 65_536.0 * 65_536.0;
/// The largest weight, which leaves room for 2¹¹ users of it, or 2³¹ of weight 1.
const HEAVIEST: f32 = 1_024.0;
/// Rows summed by one thread before it asks for more.
const BLOCK: usize = 64;

/// Why interactions have no Gram matrix, or a change cannot be applied to one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GramError {
    /// A weight is not within the range of exact sums.
    #[error("row {row}, item {item}: the weight is {weight}; weights are numbers of 0 to {HEAVIEST}")]
    Weight {
        /// Row, from 0.
        row: usize,
        /// Item.
        item: u32,
        /// What was given.
        weight: f32,
    },
    /// The squared weights of an item sum to more than exact sums can hold.
    #[error("item {item}: the squared weights sum to 2^31 or more")]
    Overflow {
        /// Item.
        item: u32,
    },
    /// Rows are taken away that are not part of the matrix.
    #[error("item {item}: more is taken away than is there")]
    Absent {
        /// Item.
        item: u32,
    },
}

/// Sparse rows of weights in whole steps.
#[derive(Debug, Clone)]
struct Rows {
    offsets: Vec<usize>,
    columns: Vec<u32>,
    weights: Vec<i32>,
}

impl Rows {
    fn of(interactions: &Interactions) -> Result<Self, GramError> {
        let pairs = interactions.len();
        let mut rows =
            Self { offsets: vec![0], columns: Vec::with_capacity(pairs), weights: Vec::with_capacity(pairs) };
        for row in 0..interactions.user_count() {
            for (item, weight) in interactions.entries(row) {
                if !(0.0..=HEAVIEST).contains(&weight) {
                    return Err(GramError::Weight { row, item, weight });
                }
                #[expect(clippy::cast_possible_truncation, reason = "at most 2^26")]
                let steps = (weight * STEPS).round() as i32;
                if steps > 0 {
                    rows.columns.push(item);
                    rows.weights.push(steps);
                }
            }
            rows.offsets.push(rows.columns.len());
        }
        Ok(rows)
    }

    fn row(&self, row: usize) -> impl Iterator<Item = (u32, i32)> {
        let range = self.offsets[row]..self.offsets[row + 1];
        self.columns[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }

    /// Rows and columns exchanged, for `columns` columns.
    fn transposed(&self, columns: usize) -> Self {
        let mut offsets = vec![0; columns + 1];
        self.columns.iter().for_each(|column| offsets[*column as usize + 1] += 1);
        for column in 0..columns {
            offsets[column + 1] += offsets[column];
        }
        let mut next = offsets.clone();
        let (mut rows, mut weights) = (vec![0; self.columns.len()], vec![0; self.columns.len()]);
        for row in 0..self.offsets.len() - 1 {
            for (column, weight) in self.row(row) {
                let to = &mut next[column as usize];
                rows[*to] = u32::try_from(row).expect("at most 2^32 rows");
                weights[*to] = weight;
                *to += 1;
            }
        }
        Self { offsets, columns: rows, weights }
    }
}

/// Where the sums come from: made from interactions row by row, or kept.
#[derive(Debug)]
pub(super) enum Source<'s> {
    Made { sides: Sides, diagonal: Vec<i64> },
    Kept(&'s Gram),
}

/// Interactions by users and by items.
#[derive(Debug)]
pub(super) struct Sides {
    by_user: Rows,
    by_item: Rows,
}

/// Sums of one thread, used again for each row.
#[derive(Debug)]
pub(super) struct Sums {
    dense: Vec<i64>,
    /// Room for every item and one more.
    touched: Vec<u32>,
    row: Vec<(u32, i64)>,
}

impl Sums {
    pub(super) fn new(items: usize) -> Self {
        Self { dense: vec![0; items], touched: vec![0; items + 1], row: Vec::new() }
    }
}

impl Source<'static> {
    pub(super) fn of(interactions: &Interactions) -> Result<Self, GramError> {
        let by_user = Rows::of(interactions)?;
        let by_item = by_user.transposed(interactions.item_count());
        let mut diagonal = vec![0_i64; interactions.item_count()];
        for (item, sum) in (0..).zip(&mut diagonal) {
            // No other sum is larger than the largest here (Cauchy and Schwarz), nor is one on its way.
            for (_, weight) in by_item.row(item as usize) {
                *sum = sum.checked_add(i64::from(weight).pow(2)).ok_or(GramError::Overflow { item })?;
            }
        }
        Ok(Self::Made { sides: Sides { by_user, by_item }, diagonal })
    }
}

impl Source<'_> {
    pub(super) fn items(&self) -> usize {
        match self {
            Self::Made { diagonal, .. } => diagonal.len(),
            Self::Kept(gram) => gram.rows.len(),
        }
    }

    /// The sums of squared weights, by item.
    pub(super) fn diagonal(&self) -> Vec<f64> {
        let items = 0..self.items();
        match self {
            Self::Made { diagonal, .. } => diagonal.iter().map(|sum| number(*sum)).collect(),
            Self::Kept(gram) => items.map(|item| number(gram.diagonal(item))).collect(),
        }
    }

    /// What is not 0 of a row up to and with its diagonal, ascending.
    fn exact<'r>(&self, item: usize, sums: &'r mut Sums) -> &'r [(u32, i64)] {
        sums.row.clear();
        match self {
            Self::Kept(gram) => {
                let row = &gram.rows[item];
                sums.row.extend(row.items.iter().copied().zip(row.sums.iter().copied()));
            }
            Self::Made { sides, .. } => sides.sum(item, sums),
        }
        &sums.row
    }

    /// What is not 0 of a row before its diagonal, ascending.
    pub(super) fn below<'r>(&self, item: usize, sums: &'r mut Sums) -> impl Iterator<Item = (u32, f64)> + 'r {
        let row = self.exact(item, sums).iter();
        row.filter(move |(other, _)| (*other as usize) < item).map(|(other, sum)| (*other, number(*sum)))
    }
}

impl Sides {
    fn sum(&self, item: usize, sums: &mut Sums) {
        let mut count = 0;
        for (user, weight) in self.by_item.row(item) {
            let weight = i64::from(weight);
            for (other, its) in self.by_user.row(user as usize).take_while(|(other, _)| *other as usize <= item) {
                let sum = &mut sums.dense[other as usize];
                sums.touched[count] = other;
                count += usize::from(*sum == 0);
                *sum += weight * i64::from(its);
            }
        }
        let touched = &mut sums.touched[..count];
        touched.sort_unstable();
        sums.row.extend(touched.iter().map(|other| (*other, std::mem::take(&mut sums.dense[*other as usize]))));
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact for counts; otherwise rounded once")]
fn number(sum: i64) -> f64 {
    sum as f64 / ONE
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row {
    items: Vec<u32>,
    sums: Vec<i64>,
}

/// `XᵀX` of interactions, items × items: how often two items were listened to by the same user, or the
/// sums of the products of their weights, which are taken in steps of 2⁻¹⁶. Sums are integers of such
/// steps, so that a matrix to which users were added and from which users were removed, in any order, is
/// equal to the one of the users that remain. Memory: 12 bytes for each pair of items with a common user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gram {
    /// Each up to its diagonal.
    rows: Vec<Row>,
}

impl Gram {
    /// Of interactions. Time O(Σ |row|²).
    ///
    /// # Errors
    /// A weight that is negative, no number or above 1,024; sums beyond what can be exact.
    pub fn of(interactions: &Interactions) -> Result<Self, GramError> {
        let source = Source::of(interactions)?;
        let items = source.items();
        let blocks: Vec<Vec<Row>> = (0..items.div_ceil(BLOCK))
            .into_par_iter()
            .map_init(
                || Sums::new(items),
                |sums, block| {
                    let rows = block * BLOCK..items.min((block + 1) * BLOCK);
                    rows.map(|item| source.exact(item, sums).iter().copied().collect()).collect()
                },
            )
            .collect();
        Ok(Self { rows: blocks.into_iter().flatten().collect() })
    }

    /// Number of items.
    pub const fn item_count(&self) -> usize {
        self.rows.len()
    }

    /// Number of pairs of items that are kept, each once, an item with itself included.
    pub fn len(&self) -> usize {
        self.rows.iter().map(|row| row.items.len()).sum()
    }

    /// Whether no item was listened to.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element of the matrix; 0 for items that it does not know. Time O(log pairs of the item).
    pub fn get(&self, item: u32, other: u32) -> f64 {
        let (row, column) = (item.max(other), item.min(other));
        self.rows.get(row as usize).map_or(0.0, |row| match row.items.binary_search(&column) {
            Ok(at) => number(row.sums[at]),
            Err(_) => 0.0,
        })
    }

    fn diagonal(&self, item: usize) -> i64 {
        let row = &self.rows[item];
        row.items.last().filter(|last| **last as usize == item).map_or(0, |_| row.sums[row.items.len() - 1])
    }

    /// Adds users, or what users listened to since, when their earlier rows are removed first. Items
    /// beyond those known are added with them. Time O(pairs of the rows of their items).
    ///
    /// # Errors
    /// As for [`Gram::of`]; nothing is changed then.
    pub fn add(&mut self, users: &Interactions) -> Result<(), GramError> {
        self.apply(users, 1)
    }

    /// Removes users: their rows must be as they were added. Items stay known. Time as for [`Gram::add`].
    ///
    /// # Errors
    /// As for [`Gram::of`], and when an item would be listened to less than never; nothing is changed then.
    pub fn remove(&mut self, users: &Interactions) -> Result<(), GramError> {
        self.apply(users, -1)
    }

    fn apply(&mut self, users: &Interactions, sign: i64) -> Result<(), GramError> {
        let change = Self::of(users)?;
        for (item, row) in (0_u32..).zip(&change.rows) {
            let known = self.rows.get(item as usize).map_or(0, |_| self.diagonal(item as usize));
            let by = row.sums.last().map_or(0, |_| change.diagonal(item as usize));
            let sum = known.checked_add(sign * by).ok_or(GramError::Overflow { item })?;
            if sum < 0 {
                return Err(GramError::Absent { item });
            }
        }
        self.rows.resize(self.rows.len().max(change.rows.len()), Row::default());
        for (row, change) in self.rows.iter_mut().zip(&change.rows).filter(|(_, change)| !change.items.is_empty()) {
            *row = row.plus(change, sign);
        }
        Ok(())
    }
}

impl FromIterator<(u32, i64)> for Row {
    fn from_iter<I: IntoIterator<Item = (u32, i64)>>(pairs: I) -> Self {
        let (items, sums) = pairs.into_iter().unzip();
        Self { items, sums }
    }
}

impl Row {
    /// The sum of two rows, without what became 0.
    fn plus(&self, other: &Self, sign: i64) -> Self {
        let (mut a, mut b) = (0, 0);
        std::iter::from_fn(|| {
            let left = self.items.get(a).copied();
            let right = other.items.get(b).copied();
            let item = left.into_iter().chain(right).min()?;
            let mut sum = 0;
            if left == Some(item) {
                sum += self.sums[a];
                a += 1;
            }
            if right == Some(item) {
                sum += sign * other.sums[b];
                b += 1;
            }
            Some((item, sum))
        })
        .filter(|(_, sum)| *sum != 0)
        .collect()
    }
}

impl<'s> From<&'s Gram> for Source<'s> {
    fn from(gram: &'s Gram) -> Self {
        Self::Kept(gram)
    }
}
