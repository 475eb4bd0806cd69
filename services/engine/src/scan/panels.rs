use rayon::prelude::*;

use super::ScanError;
use crate::dense::Matrix;

/// Items whose bounds are computed together.
pub(super) const PANEL: usize = 64;

/// The longest vector that is taken. A product of two, and all sums on the way to it, stay far below the
/// largest f32, so that no score overflows.
pub(super) const LONGEST: f64 = 1e18;

/// Below this scale (largest element / 127) a vector is rounded to zero and its error is all of it, for
/// products of scales must not lose their digits.
const SMALLEST_SCALE: f32 = 1e-30;

/// The place of no item.
pub(super) const NOBODY: u32 = u32::MAX;

/// Four elements of each of the [`PANEL`] items, as bytes with 128 for zero.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Quad(pub(super) [u8; 4 * PANEL]);

/// What bounds the scores of the items of a panel.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// What one unit of a byte is worth.
    pub(super) scale: [f32; PANEL],
    /// At least the Euclidean norm.
    pub(super) norm: [f32; PANEL],
    /// At least the norm of what rounding took away.
    pub(super) error: [f32; PANEL],
}

/// A panel lent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel<'p> {
    /// One per four columns.
    pub(super) quads: &'p [Quad],
    pub(super) bounds: &'p Bounds,
}

/// Items rounded to 8 bits each with a scale of its own, in panels of 64 in a given order.
#[derive(Debug, Clone)]
pub(super) struct Panels {
    quads: Vec<Quad>,
    bounds: Vec<Bounds>,
    /// Item at each place; [`NOBODY`] where there is none.
    items: Vec<u32>,
    /// Quads of a panel.
    depth: usize,
}

impl Panels {
    /// The rows named by `order`, which may hold gaps ([`NOBODY`]). Time O(items × rank).
    pub(super) fn new(factors: &Matrix, order: &[u32]) -> Result<Self, ScanError> {
        let depth = factors.columns().div_ceil(4);
        let count = order.len().div_ceil(PANEL);
        let mut items = order.to_vec();
        items.resize(count * PANEL, NOBODY);
        let empty = Bounds { scale: [0.0; PANEL], norm: [0.0; PANEL], error: [0.0; PANEL] };
        let mut bounds = vec![empty; count];
        let mut quads = vec![Quad([128; 4 * PANEL]); count * depth];
        if depth > 0 {
            quads.par_chunks_mut(depth).zip(bounds.par_iter_mut()).zip(items.par_chunks(PANEL)).try_for_each(
                |((quads, bounds), items)| {
                    let some = items.iter().enumerate().filter(|(_, item)| **item != NOBODY);
                    some.into_iter().try_for_each(|(lane, item)| {
                        let rounded =
                            Rounded::new(factors.row(*item as usize)).ok_or(ScanError::Factors { item: *item })?;
                        bounds.scale[lane] = rounded.scale;
                        bounds.norm[lane] = rounded.norm_of_exact;
                        bounds.error[lane] = rounded.residual;
                        for (quad, bytes) in quads.iter_mut().zip(&rounded.quads) {
                            // Exchanging the sign bit adds 128.
                            let bytes = bytes.to_le_bytes().map(|byte| byte ^ 0x80);
                            quad.0[lane * 4..lane * 4 + 4].copy_from_slice(&bytes);
                        }
                        Ok(())
                    })
                },
            )?;
        }
        Ok(Self { quads, bounds, items, depth })
    }

    /// Number of panels.
    pub(super) const fn len(&self) -> usize {
        self.bounds.len()
    }

    /// One panel.
    pub(super) fn panel(&self, panel: usize) -> Panel<'_> {
        Panel { quads: &self.quads[panel * self.depth..(panel + 1) * self.depth], bounds: &self.bounds[panel] }
    }

    /// The items at the places of a panel.
    pub(super) fn items(&self, panel: usize) -> &[u32] {
        &self.items[panel * PANEL..(panel + 1) * PANEL]
    }

    /// At least the largest norm of a panel.
    pub(super) fn largest(&self, panel: usize) -> f32 {
        self.bounds[panel].norm.iter().copied().fold(0.0, f32::max)
    }
}

/// A vector rounded to 8 bits, and what a query needs of it: the bound of a score is
/// `q·x ≤ q̂·x̂ + ‖q − q̂‖ ‖x‖ + ‖q̂‖ ‖x − x̂‖` (Cauchy and Schwarz on `q·x − q̂·x̂ = (q − q̂)·x + q̂·(x − x̂)`),
/// and what rounding to f32 may add to either side.
#[derive(Debug, Clone)]
pub(super) struct Rounded {
    /// Four signed bytes each, zeros to the end.
    pub(super) quads: Vec<i32>,
    /// What the 128 added to each byte of an item adds to a sum.
    pub(super) offset: i32,
    /// What one unit of a byte is worth.
    pub(super) scale: f32,
    /// What each unit of an item's norm may add: the norm of what rounding took away, and the rounding of
    /// the f32 product and of the bound itself.
    pub(super) error: f32,
    /// At least the norm of the rounded vector.
    pub(super) norm: f32,
    /// What products too small for f32 may add.
    pub(super) slack: f32,
    /// At least the norm of the vector itself.
    pub(super) norm_of_exact: f32,
    /// At least the norm of what rounding took away.
    pub(super) residual: f32,
}

impl Rounded {
    /// None when an element is no number or the vector is longer than [`LONGEST`].
    #[expect(clippy::cast_possible_truncation, reason = "rounded upwards, and bytes within ±127")]
    #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^24")]
    pub(super) fn new(vector: &[f32]) -> Option<Self> {
        let square = |x: f64| x * x;
        let norm = vector.iter().map(|x| square(f64::from(*x))).sum::<f64>().sqrt();
        if norm.is_nan() || norm > LONGEST {
            return None;
        }
        let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = if largest / 127.0 < SMALLEST_SCALE { 0.0 } else { largest / 127.0 };
        let inverse = if scale > 0.0 { 1.0 / f64::from(scale) } else { 0.0 };
        let byte = |x: &f32| (f64::from(*x) * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
        let mut quads = Vec::with_capacity(vector.len().div_ceil(4));
        let (mut sum, mut rounded, mut lost) = (0, 0.0, 0.0);
        for four in vector.chunks(4) {
            let mut bytes = [0_u8; 4];
            for (to, x) in bytes.iter_mut().zip(four) {
                let whole = byte(x);
                sum += i32::from(whole);
                let near = f64::from(whole) * f64::from(scale);
                rounded += square(near);
                lost += square(f64::from(*x) - near);
                *to = whole.cast_unsigned();
            }
            quads.push(i32::from_le_bytes(bytes));
        }
        // Both far above the rounding of the f64 sums and of the conversion.
        let upwards = |x: f64| if x == 0.0 { 0.0 } else { (x * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE };
        // An f32 product is off by at most rank · 2^-24 · ‖q‖ ‖x‖ (Higham 2002, section 3.1); the bound's own
        // terms are below 16 ‖q‖ ‖x‖ and pass through eight roundings. Twice that.
        let rank = vector.len() as f64;
        let rounding = (2.0 * rank + 256.0) * f64::from(f32::EPSILON) / 2.0;
        let (exact, residual) = (upwards(norm), upwards(lost.sqrt()));
        Some(Self {
            quads,
            offset: 128 * sum,
            scale,
            error: upwards(f64::from(residual) + rounding * f64::from(exact)),
            norm: upwards(rounded.sqrt()),
            slack: (rank as f32 + 64.0) * f32::MIN_POSITIVE,
            norm_of_exact: exact,
            residual,
        })
    }

    /// At least the score with any item whose norm is at most `norm`.
    pub(super) fn most(&self, norm: f32) -> f32 {
        self.norm_of_exact * norm * (1.0 + 1e-6) + self.error * norm + self.slack
    }
}
