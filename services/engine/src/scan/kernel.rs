#![allow(unsafe_code)]
//! Upper bounds of many scores from i8 products: the innermost loop of every scan, in three forms that give
//! the same sums. It is the one place with instructions of a processor: `vpdpbusd` (AVX-512 VNNI) is not
//! reached by portable code.

use super::panels::{PANEL, Panel, Rounded};

/// One form of the loop. Each is made only where the processor has what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Runs everywhere.
    Portable,
    /// 256 bits: products of 16 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512 bits: four products of 8 bits and their sum in one instruction.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    /// All that this processor can run, the fastest last.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Self::Vnni);
            }
        }
        kernels
    }

    /// The fastest that this processor can run.
    pub(super) fn detected() -> Self {
        Self::available().pop().expect("the portable one at least")
    }

    /// For each query an upper bound of its score with each item of the panel.
    ///
    /// # Panics
    /// When a query was not rounded for the rank of the panel.
    pub(super) fn bounds<const Q: usize>(self, panel: Panel<'_>, queries: [&Rounded; Q], out: [&mut [f32; PANEL]; Q]) {
        assert!(queries.iter().all(|query| query.quads.len() == panel.quads.len()), "queries of the rank");
        match self {
            Self::Portable => finish(panel, queries, portable(panel, queries), out),
            // SAFETY: the value exists only where the processor was found to have the features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::avx2(panel, queries, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { x86::vnni(panel, queries, out) },
        }
    }
}

/// Sums of the products of bytes: for each query one per item.
fn portable<const Q: usize>(panel: Panel<'_>, queries: [&Rounded; Q]) -> [[i32; PANEL]; Q] {
    let mut sums = [[0; PANEL]; Q];
    for (at, quad) in panel.quads.iter().enumerate() {
        for (sums, query) in sums.iter_mut().zip(queries) {
            let [a, b, c, d] = query.quads[at].to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
            for (sum, item) in sums.iter_mut().zip(quad.0.as_chunks::<4>().0) {
                let item = item.map(i32::from);
                *sum += item[0] * a + item[1] * b + item[2] * c + item[3] * d;
            }
        }
    }
    sums
}

/// From the sums to the bounds. Rust never contracts these products and sums, so that every form has the
/// same bits.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "the rounding is part of the bound")]
#[expect(clippy::inline_always, reason = "to be compiled with the features of its caller")]
fn finish<const Q: usize>(
    panel: Panel<'_>,
    queries: [&Rounded; Q],
    sums: [[i32; PANEL]; Q],
    out: [&mut [f32; PANEL]; Q],
) {
    let bounds = panel.bounds;
    for ((query, sums), out) in queries.into_iter().zip(&sums).zip(out) {
        let Rounded { offset, scale, error, norm, slack, .. } = *query;
        for lane in 0..PANEL {
            let estimate = (sums[lane] - offset) as f32 * bounds.scale[lane] * scale;
            out[lane] = estimate + (error * bounds.norm[lane] + (norm * bounds.error[lane] + slack));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{PANEL, Panel, Rounded, finish};

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2<const Q: usize>(panel: Panel<'_>, queries: [&Rounded; Q], out: [&mut [f32; PANEL]; Q]) {
        let mut sums = [[0; PANEL]; Q];
        let low = _mm256_set1_epi16(0xff);
        for (sums, query) in sums.iter_mut().zip(queries) {
            let mut lanes = [_mm256_setzero_si256(); PANEL / 8];
            for (quad, query) in panel.quads.iter().zip(&query.quads) {
                let query = _mm256_set1_epi32(*query);
                // Bytes 0 and 2, then 1 and 3, of each four, as numbers of 16 bits.
                let (even, odd) =
                    (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(query)), _mm256_srai_epi16::<8>(query));
                for (lane, items) in lanes.iter_mut().zip(quad.0.as_chunks::<32>().0) {
                    // SAFETY: 32 bytes are read from an array of 32.
                    let items = unsafe { _mm256_loadu_si256(items.as_ptr().cast()) };
                    let first = _mm256_madd_epi16(_mm256_and_si256(items, low), even);
                    let second = _mm256_madd_epi16(_mm256_srli_epi16::<8>(items), odd);
                    *lane = _mm256_add_epi32(*lane, _mm256_add_epi32(first, second));
                }
            }
            for (out, lane) in sums.as_chunks_mut::<8>().0.iter_mut().zip(lanes) {
                // SAFETY: 32 bytes are written to an array of 8 numbers of 4 bytes.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), lane) };
            }
        }
        finish(panel, queries, sums, out);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn vnni<const Q: usize>(panel: Panel<'_>, queries: [&Rounded; Q], out: [&mut [f32; PANEL]; Q]) {
        let mut lanes = [[_mm512_setzero_si512(); PANEL / 16]; Q];
        let count = panel.quads.len();
        let rows = queries.map(|query| &query.quads[..count]);
        for at in 0..count {
            let mut items = [_mm512_setzero_si512(); PANEL / 16];
            for (vector, bytes) in items.iter_mut().zip(panel.quads[at].0.as_chunks::<64>().0) {
                // SAFETY: 64 bytes are read from an array of 64.
                *vector = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            }
            for (lanes, row) in lanes.iter_mut().zip(rows) {
                let query = _mm512_set1_epi32(row[at]);
                for (lane, items) in lanes.iter_mut().zip(items) {
                    *lane = _mm512_dpbusd_epi32(*lane, items, query);
                }
            }
        }
        let mut sums = [[0; PANEL]; Q];
        for (sums, lanes) in sums.iter_mut().zip(lanes) {
            for (out, lane) in sums.as_chunks_mut::<16>().0.iter_mut().zip(lanes) {
                // SAFETY: 64 bytes are written to an array of 16 numbers of 4 bytes.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), lane) };
            }
        }
        finish(panel, queries, sums, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Random, dense::Matrix, scan::panels::Panels};

    #[test]
    fn every_form_gives_the_same_bits() {
        let mut random = Random::new(5);
        for rank in [1, 3, 4, 7, 64, 128, 131, 1_000] {
            #[expect(clippy::cast_possible_truncation, reason = "a random number")]
            let mut draw = |rows: usize| {
                let data = (0..rows * rank).map(|_| (random.normal() * random.normal().exp()) as f32).collect();
                Matrix::from_vec(rows, rank, data).expect("the length")
            };
            let (items, queries) = (draw(150), draw(4));
            let order: Vec<u32> = (0..150).collect();
            let panels = Panels::new(&items, &order).expect("finite items");
            let rounded: Vec<Rounded> =
                (0..4).map(|row| Rounded::new(queries.row(row)).expect("a finite query")).collect();
            for panel in 0..panels.len() {
                let bounds = |kernel: Kernel| {
                    let mut out = [[0.0; PANEL]; 4];
                    let [a, b, c, d] = &mut out;
                    let queries = [&rounded[0], &rounded[1], &rounded[2], &rounded[3]];
                    kernel.bounds(panels.panel(panel), queries, [a, b, c, d]);
                    let mut single = [0.0; PANEL];
                    kernel.bounds(panels.panel(panel), [&rounded[2]], [&mut single]);
                    assert_eq!(single, out[2], "alone and beside others");
                    out
                };
                let expected = bounds(Kernel::Portable);
                for kernel in Kernel::available() {
                    assert_eq!(bounds(kernel), expected, "{kernel:?} rank {rank} panel {panel}");
                }
            }
        }
    }

    #[test]
    fn the_extremes_of_bytes_do_not_saturate() {
        let items = Matrix::from_vec(2, 64, [1.0, -1.0].into_iter().flat_map(|x| [x; 64]).collect()).expect("shape");
        let panels = Panels::new(&items, &[0, 1]).expect("finite items");
        for sign in [1.0, -1.0] {
            let query = Rounded::new(&[sign; 64]).expect("a finite query");
            for kernel in Kernel::available() {
                let mut out = [0.0; PANEL];
                kernel.bounds(panels.panel(0), [&query], [&mut out]);
                assert!((out[0] - 64.0 * sign).abs() < 0.01 && (out[1] + 64.0 * sign).abs() < 0.01, "{kernel:?}");
            }
        }
    }
}
