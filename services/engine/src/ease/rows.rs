//! Sparse matrices of f32 by rows, and sums over them.

use rayon::prelude::*;

use super::strongest;

/// Rows made by one thread before it asks for more.
const BLOCK: usize = 32;

/// A square sparse matrix by rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparse {
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Sparse {
    pub(super) fn with_capacity(rows: usize, values: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, columns: Vec::with_capacity(values), values: Vec::with_capacity(values) }
    }

    /// Of rows that are made each by one thread from its sums, in parallel. `make` leaves a row in `kept`.
    pub(super) fn make(rows: usize, make: impl Fn(usize, &mut Work) + Sync) -> Self {
        let blocks: Vec<Self> = (0..rows.div_ceil(BLOCK))
            .into_par_iter()
            .map_init(
                || Work::new(rows),
                |work, block| {
                    let mut part = Self::with_capacity(BLOCK, 0);
                    for row in block * BLOCK..rows.min((block + 1) * BLOCK) {
                        make(row, work);
                        part.push(work.kept.iter().copied());
                    }
                    part
                },
            )
            .collect();
        let mut whole = Self::with_capacity(rows, blocks.iter().map(|part| part.values.len()).sum());
        for part in blocks {
            let before = whole.values.len();
            whole.offsets.extend(part.offsets[1..].iter().map(|offset| before + offset));
            whole.columns.extend(part.columns);
            whole.values.extend(part.values);
        }
        whole
    }

    /// Of (row, column, value) in any order; a row has its values in that order.
    pub(super) fn of(rows: usize, entries: impl Iterator<Item = (u32, u32, f32)> + Clone) -> Self {
        let mut offsets = vec![0; rows + 1];
        entries.clone().for_each(|(row, _, _)| offsets[row as usize + 1] += 1);
        for row in 0..rows {
            offsets[row + 1] += offsets[row];
        }
        let mut next = offsets.clone();
        let (mut columns, mut values) = (vec![0; offsets[rows]], vec![0.0; offsets[rows]]);
        for (row, column, value) in entries {
            let to = &mut next[row as usize];
            (columns[*to], values[*to]) = (column, value);
            *to += 1;
        }
        Self { offsets, columns, values }
    }

    pub(super) fn push(&mut self, row: impl Iterator<Item = (u32, f32)>) {
        for (column, value) in row {
            self.columns.push(column);
            self.values.push(value);
        }
        self.offsets.push(self.columns.len());
    }

    pub(super) const fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Where a row is among all values.
    pub(super) fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row]..self.offsets[row + 1]
    }

    /// Number of values.
    pub(super) const fn end(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn at(&self, at: usize) -> (u32, f32) {
        (self.columns[at], self.values[at])
    }

    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (u32, f32)> + Clone {
        self.columns[range.clone()].iter().copied().zip(self.values[range].iter().copied())
    }

    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (u32, f32)> + Clone {
        self.slice(self.range(row))
    }

    /// Rows and columns exchanged; each row ascending.
    pub(super) fn transposed(&self) -> Self {
        let entries = (0_u32..).zip(0..self.rows()).flat_map(|(row, at)| self.row(at).map(move |(c, v)| (c, row, v)));
        Self::of(self.rows(), entries)
    }
}

/// Sums by column, and which are not 0.
#[derive(Debug)]
pub(super) struct Accumulator {
    dense: Vec<f32>,
    /// May name a column twice, whose sum was 0 in between.
    touched: Vec<u32>,
}

impl Accumulator {
    pub(super) fn new(columns: usize) -> Self {
        Self { dense: vec![0.0; columns], touched: Vec::new() }
    }

    pub(super) fn add(&mut self, factor: f32, row: impl Iterator<Item = (u32, f32)>) {
        for (column, value) in row {
            let sum = &mut self.dense[column as usize];
            if *sum == 0.0 {
                self.touched.push(column);
            }
            *sum += factor * value;
        }
    }

    /// Sets a sum to 0.
    pub(super) fn forget(&mut self, column: u32) {
        self.dense[column as usize] = 0.0;
    }

    /// Multiplies all sums, each by its own number too.
    pub(super) fn scale(&mut self, factor: f32, each: &[f32]) {
        let Self { dense, touched } = self;
        touched.sort_unstable();
        touched.dedup();
        touched.iter().for_each(|column| dense[*column as usize] *= factor * each[*column as usize]);
    }

    /// The `count` strongest sums, ascending by column; all are 0 afterwards.
    pub(super) fn take(&mut self, count: usize, kept: &mut Vec<(u32, f32)>) {
        let Self { dense, touched } = self;
        // A column named twice has nothing left the second time.
        strongest(touched.drain(..).map(|column| (column, std::mem::take(&mut dense[column as usize]))), count, kept);
    }
}

/// What one thread works with, used again for each row.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) sums: Accumulator,
    pub(super) kept: Vec<(u32, f32)>,
    pub(super) spare: Vec<(u32, f32)>,
    /// A bit for each column that is still to be looked at; all 0 between uses.
    open: Vec<u64>,
}

impl Work {
    fn new(columns: usize) -> Self {
        Self {
            sums: Accumulator::new(columns),
            kept: Vec::new(),
            spare: Vec::new(),
            open: vec![0; columns.div_ceil(64)],
        }
    }

    /// Sums up a column of the inverse of a lower triangular matrix with diagonal 1, both without their
    /// diagonals and the matrix by columns. Sums of at most `drop` stay, but add nothing further down.
    pub(super) fn substitute(&mut self, factor: &Sparse, column: usize, drop: f32) {
        self.follow(factor, column, 1.0);
        let mut word = column / 64;
        while word < self.open.len() {
            let bits = self.open[word];
            if bits == 0 {
                word += 1;
                continue;
            }
            self.open[word] &= bits - 1;
            let row = word * 64 + bits.trailing_zeros() as usize;
            let value = self.sums.dense[row];
            if value.abs() > drop {
                self.follow(factor, row, value);
            }
        }
    }

    fn follow(&mut self, factor: &Sparse, column: usize, value: f32) {
        let open = &mut self.open;
        let opened = factor.row(column).inspect(|(row, _)| open[*row as usize / 64] |= 1 << (row % 64));
        self.sums.add(-value, opened);
    }
}
