//! Dense matrices of f32, by rows, and their products. A product is cut into tiles of a fixed size, each
//! computed by one thread, so that its bits do not depend on the number of threads.

use rayon::prelude::*;

use crate::Array;

/// Edge of a tile of a product.
const TILE: usize = 256;

/// A matrix of f32, row after row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    data: Array<f32>,
}

impl Matrix {
    /// Of zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, data: vec![0.0; rows * columns].into() }
    }

    /// From rows laid end to end. None when the length is not `rows * columns`.
    pub fn from_vec(rows: usize, columns: usize, data: Vec<f32>) -> Option<Self> {
        Self::from_array(rows, columns, data.into())
    }

    /// From rows laid end to end, perhaps lent. None when the length is not `rows * columns`.
    pub fn from_array(rows: usize, columns: usize, data: Array<f32>) -> Option<Self> {
        (rows.checked_mul(columns) == Some(data.len())).then_some(Self { rows, columns, data })
    }

    /// Number of rows.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.columns..(row + 1) * self.columns]
    }

    /// One row, to be written.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.columns..(row + 1) * self.columns]
    }

    /// All rows end to end.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All rows end to end, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// All rows end to end, given back.
    pub fn into_vec(self) -> Vec<f32> {
        self.data.into_vec()
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut out = vec![0.0; self.rows * self.columns];
        let data = self.as_slice();
        for row in 0..self.rows {
            for (column, value) in data[row * self.columns..(row + 1) * self.columns].iter().enumerate() {
                out[column * self.rows + row] = *value;
            }
        }
        Self { rows: self.columns, columns: self.rows, data: out.into() }
    }

    /// A view of all of it.
    pub fn view(&self) -> View<'_> {
        View { data: &self.data, rows: self.rows, columns: self.columns, row_stride: self.columns, column_stride: 1 }
    }
}

/// A matrix lent, perhaps transposed or a part of a larger one.
#[derive(Debug, Clone, Copy)]
pub struct View<'m> {
    data: &'m [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'m> View<'m> {
    /// Of rows that lie `stride` apart in a slice. None when they do not fit or overlap.
    pub fn of(data: &'m [f32], rows: usize, columns: usize, stride: usize) -> Option<Self> {
        let last = rows.checked_sub(1).map_or(Some(0), |rows| rows.checked_mul(stride)?.checked_add(columns))?;
        let fits = last <= data.len() && stride >= columns;
        fits.then_some(Self { data, rows, columns, row_stride: stride, column_stride: 1 })
    }

    /// Rows and columns exchanged, without moving anything.
    #[must_use]
    pub const fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// A part: `rows × columns` from (`row`, `column`).
    ///
    /// # Panics
    /// When the part is not within.
    #[must_use]
    pub fn part(self, row: usize, column: usize, rows: usize, columns: usize) -> Self {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "a part within the matrix");
        let from = (row * self.row_stride + column * self.column_stride).min(self.data.len());
        Self { data: &self.data[from..], rows, columns, ..self }
    }

    /// Number of rows.
    pub const fn rows(self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub const fn columns(self) -> usize {
        self.columns
    }
}

/// Tells the processor that numbers are soon read. It changes nothing else.
#[inline(always)]
#[expect(unsafe_code, reason = "the instruction takes an address, which it never reads as the program does")]
pub(crate) fn prefetch(numbers: &[f32]) {
    const LINE: usize = 16;
    #[cfg(target_arch = "x86_64")]
    for line in numbers.chunks(LINE) {
        // SAFETY: a prefetch has no effect on what the program sees, whatever the address; this one is valid.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (numbers, LINE);
}

/// `alpha · A B + beta · C` into C. Time O(rows × inner × columns), over all threads.
///
/// # Panics
/// When the shapes do not fit.
pub fn multiply(alpha: f32, a: View<'_>, b: View<'_>, beta: f32, c: &mut Matrix) {
    assert!(a.columns == b.rows && c.rows == a.rows && c.columns == b.columns, "shapes that fit");
    if c.data.is_empty() {
        return;
    }
    // By the shape alone, never by the number of threads.
    let rows = c.rows.div_ceil(8).clamp(16, TILE);
    let stride = c.columns;
    c.data.par_chunks_mut(rows * stride).enumerate().for_each(|(chunk, out)| {
        let count = out.len() / stride;
        let out = Block { data: out, rows: count, columns: stride, stride };
        multiply_block(alpha, a.part(chunk * rows, 0, count, a.columns), b, beta, out);
    });
}

/// A block of a matrix to be written: `rows × columns` whose rows begin `stride` apart.
#[derive(Debug)]
pub struct Block<'m> {
    /// From its first element on.
    pub data: &'m mut [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Elements from the beginning of one row to that of the next; at least `columns`.
    pub stride: usize,
}

/// [`multiply`] into a block, on the calling thread.
///
/// # Panics
/// When the shapes do not fit.
#[expect(unsafe_code, reason = "the product of the library takes pointers; the shapes are checked here")]
pub fn multiply_block(alpha: f32, a: View<'_>, b: View<'_>, beta: f32, c: Block<'_>) {
    assert!(a.columns == b.rows && c.rows == a.rows && c.columns == b.columns, "shapes that fit");
    assert!(c.stride >= c.columns, "rows that do not overlap");
    if c.rows == 0 || c.columns == 0 {
        return;
    }
    let last = |rows: usize, columns: usize, row: usize, column: usize| match (rows, columns) {
        (0, _) | (_, 0) => 0,
        _ => (rows - 1) * row + (columns - 1) * column + 1,
    };
    assert!(last(a.rows, a.columns, a.row_stride, a.column_stride) <= a.data.len(), "A within its memory");
    assert!(last(b.rows, b.columns, b.row_stride, b.column_stride) <= b.data.len(), "B within its memory");
    assert!(last(c.rows, c.columns, c.stride, 1) <= c.data.len(), "C within its memory");
    let stride = |stride: usize| isize::try_from(stride).expect("within the address space");
    // SAFETY: each matrix was checked to lie within its slice; C is borrowed alone, so that it overlaps
    // neither A nor B. gemm reads C only when told to.
    unsafe {
        gemm::gemm(
            c.rows,
            c.columns,
            a.columns,
            c.data.as_mut_ptr(),
            1,
            stride(c.stride),
            beta != 0.0,
            a.data.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            // Its dst is alpha · dst + beta · A B.
            beta,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The sum of the products of two slices of one length, in sixteen lanes.
///
/// # Panics
/// When the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "slices of one length");
    let (a_lanes, a_rest) = a.as_chunks::<16>();
    let (b_lanes, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0_f32; 16];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn random(rows: usize, columns: usize, seed: u64) -> Matrix {
        let mut random = Random::new(seed);
        #[expect(clippy::cast_possible_truncation, reason = "a random number")]
        let data = (0..rows * columns).map(|_| random.normal() as f32).collect();
        Matrix::from_vec(rows, columns, data).expect("the length")
    }

    #[test]
    fn products_of_all_shapes_and_views_are_those_of_the_definition() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (70, 33, 41), (300, 17, 5), (2, 0, 3), (0, 4, 4), (520, 64, 1)] {
            let (a, b, c) = (random(m, k, 1), random(k, n, 2), random(m, n, 3));
            let at = a.transposed();
            for (alpha, beta) in [(1.0, 0.0), (2.0, -0.5)] {
                let mut out = c.clone();
                multiply(alpha, at.view().t(), b.view(), beta, &mut out);
                for row in 0..m {
                    for column in 0..n {
                        let sum: f32 = (0..k).map(|i| a.row(row)[i] * b.row(i)[column]).sum();
                        let expected = alpha * sum + beta * c.row(row)[column];
                        assert!((out.row(row)[column] - expected).abs() < 1e-3, "{m} {k} {n} at {row} {column}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_product_is_the_same_to_the_bit_for_any_number_of_threads() {
        let (a, b) = (random(700, 130, 1), random(130, 90, 2));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let mut out = Matrix::zeros(700, 90);
            pool.install(|| multiply(1.0, a.view(), b.view(), 0.0, &mut out));
            out
        };
        assert_eq!(with(1), with(5));
    }

    #[test]
    fn a_dot_product_is_the_sum_of_products() {
        for length in [0, 1, 15, 16, 17, 100] {
            let (a, b) = (random(1, length, 4), random(1, length, 5));
            let exact: f32 = a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| a * b).sum();
            assert!((dot(a.as_slice(), b.as_slice()) - exact).abs() < 1e-4);
        }
    }
}
