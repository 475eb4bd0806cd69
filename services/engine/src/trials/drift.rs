//! Drift between a training and a serving window: of scores (histograms or samples) and of the popularity of
//! items (counts).

use super::{COUNTS, InvalidInput, ensure, real, real_len, special};

/// Bins or items at the most.
pub const BINS: usize = 50_000_000;

/// Half a count is added to each bin before logarithms are taken, so that an empty bin is rare instead of
/// impossible (Krichevsky and Trofimov 1981).
const SMOOTHING: f64 = 0.5;

/// How far apart two distributions over the same bins are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// The population stability index, `Σ (q - p) ln(q / p)` over smoothed shares: 0 at least, without bound. For
    /// two samples of one distribution about `(bins - 1) (1 / n + 1 / m)` (Yurdakul 2018).
    pub stability_index: f64,
    /// The Jensen-Shannon divergence in bits (Lin 1991), over shares as counted: 0 to 1.
    pub jensen_shannon: f64,
    /// The usual reading of the index.
    pub shift: Shift,
}

/// The reading of a stability index that credit scoring made usual (Siddiqi 2006). It is a rule of thumb for
/// some ten bins and thousands of observations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shift {
    /// Below 0.1.
    Little,
    /// Below 0.25.
    Some,
    /// 0.25 or more.
    Great,
}

/// Compares counts over the same bins. Time O(bins).
///
/// # Errors
/// No bins, more than [`BINS`], another number of them, or a side without any count.
pub fn divergence(before: &[u64], after: &[u64]) -> Result<Divergence, InvalidInput> {
    ensure((1..=BINS).contains(&before.len()), "the number of bins", before.len(), "1 to 50 million")?;
    ensure(before.len() == after.len(), "the number of bins after", after.len(), "that before")?;
    let (n, m) = (total("before", before)?, total("after", after)?);
    let smoothed = |count: u64, total: f64| (real(count) + SMOOTHING) / (total + SMOOTHING * real_len(before.len()));
    let (mut index, mut bits) = (0.0, 0.0);
    for (p, q) in before.iter().zip(after) {
        let (a, b) = (smoothed(*p, n), smoothed(*q, m));
        index += (b - a) * (b / a).ln();
        let (a, b) = (real(*p) / n, real(*q) / m);
        let middle = 0.5 * (a + b);
        let part = |share: f64| if share > 0.0 { 0.5 * share * (share / middle).log2() } else { 0.0 };
        bits += part(a) + part(b);
    }
    let shift = match index {
        index if index < 0.1 => Shift::Little,
        index if index < 0.25 => Shift::Some,
        _ => Shift::Great,
    };
    Ok(Divergence { stability_index: index, jensen_shannon: f64::clamp(bits, 0.0, 1.0), shift })
}

fn total(side: &str, counts: &[u64]) -> Result<f64, InvalidInput> {
    let total = counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count)).filter(|sum| *sum < COUNTS);
    let total = total.ok_or_else(|| InvalidInput::new(format!("the sum of counts {side}"), "2^53 or more", "less"))?;
    ensure(total > 0, format!("the sum of counts {side}"), total, "above 0")?;
    Ok(real(total))
}

/// Compares the popularity of items, by their counts before and after: items are put into `bins` groups of about
/// equal weight by their popularity before (the most popular first), so that the index tells how far attention moved
/// between head and tail; unseen items are with the last. The Jensen-Shannon divergence is over single items, and
/// above 0 by about `items / (4 n ln 2) + items / (4 m ln 2)` for two samples of one distribution.
///
/// # Errors
/// As [`divergence`], and for no bins.
pub fn popularity(before: &[u64], after: &[u64], bins: usize) -> Result<Divergence, InvalidInput> {
    ensure((1..=10_000).contains(&bins), "the number of groups", bins, "1 to 10000")?;
    let single = divergence(before, after)?;
    let all = total("before", before)?;
    let mut order: Vec<usize> = (0..before.len()).collect();
    order.sort_by_key(|item| (std::cmp::Reverse(before[*item]), *item));
    let mut groups = vec![(0, 0); bins];
    let mut passed = 0;
    for item in order {
        let group = &mut groups[place(real(passed) / all, bins)];
        *group = (group.0 + before[item], group.1 + after[item]);
        passed += before[item];
    }
    // One item may be as heavy as several groups, which then stay empty.
    groups.retain(|(before, after)| before + after > 0);
    let (before, after): (Vec<u64>, Vec<u64>) = groups.into_iter().unzip();
    Ok(Divergence { jensen_shannon: single.jensen_shannon, ..divergence(&before, &after)? })
}

/// The bin of a share: below `bins`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the number of bins")]
fn place(share: f64, bins: usize) -> usize {
    ((share * real_len(bins)) as usize).min(bins - 1)
}

/// The inner edges of `bins` bins with equal shares of a sample: ascending, each once, so that there may be fewer.
/// Values that are not finite are passed over. Time O(n log n).
///
/// # Errors
/// No bins or more than 10000, or no finite value.
pub fn quantile_edges(sample: &[f64], bins: usize) -> Result<Vec<f64>, InvalidInput> {
    ensure((1..=10_000).contains(&bins), "the number of bins", bins, "1 to 10000")?;
    let sorted = sorted(sample);
    ensure(!sorted.is_empty(), "the number of finite values", 0, "1 at least")?;
    let mut edges: Vec<f64> = (1..bins).map(|bin| sorted[bin * sorted.len() / bins]).collect();
    edges.dedup();
    Ok(edges)
}

/// How much of a sample lies in each of the bins between edges: bin k holds values from edge k - 1 (included) to edge k
/// (excluded). Values that are not finite are passed over.
pub fn binned(sample: &[f64], edges: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; edges.len() + 1];
    for value in sample.iter().filter(|value| value.is_finite()) {
        counts[edges.partition_point(|edge| edge <= value)] += 1;
    }
    counts
}

fn sorted(sample: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = sample.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// A two-sample test of Kolmogorov and Smirnov.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KolmogorovSmirnov {
    /// The greatest distance of the two distribution functions: 0 to 1.
    pub distance: f64,
    /// The chance of such a distance in samples of one distribution, in the limit of large samples (some dozens will
    /// do): Kolmogorov's tail at `distance · √(n m / (n + m))`. With ties it is too large, never too small.
    pub p_value: f64,
}

/// Compares two samples. Values that are not finite are passed over. Time O(n log n).
///
/// # Errors
/// A sample without a finite value.
pub fn kolmogorov_smirnov(before: &[f64], after: &[f64]) -> Result<KolmogorovSmirnov, InvalidInput> {
    let (a, b) = (sorted(before), sorted(after));
    let some = !a.is_empty() && !b.is_empty();
    ensure(some, "the number of finite values of a sample", 0, "1 at least")?;
    let (mut i, mut j, mut distance) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].iter().take_while(|x| **x <= value).count();
        j += b[j..].iter().take_while(|x| **x <= value).count();
        distance = distance.max((real_len(i) / real_len(a.len()) - real_len(j) / real_len(b.len())).abs());
    }
    Ok(tested(distance, real_len(a.len()), real_len(b.len())))
}

fn tested(distance: f64, n: f64, m: f64) -> KolmogorovSmirnov {
    KolmogorovSmirnov { distance, p_value: special::kolmogorov_tail(distance * (n * m / (n + m)).sqrt()) }
}

/// Counts of a stream of numbers in bins of one width, mergeable.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    low: f64,
    width: f64,
    /// Below the range, the bins, and from its end on.
    counts: Vec<u64>,
}

impl Histogram {
    /// `bins` bins over [low, high), and one on each side for what is beyond.
    ///
    /// # Errors
    /// Ends that are not finite or not ascending, or not 1 to 100000 bins.
    pub fn new(low: f64, high: f64, bins: usize) -> Result<Self, InvalidInput> {
        let ascending = low.is_finite() && high.is_finite() && low < high && (high - low).is_finite();
        ensure(ascending, "the range", format!("{low} to {high}"), "ascending and finite")?;
        ensure((1..=100_000).contains(&bins), "the number of bins", bins, "1 to 100000")?;
        Ok(Self { low, width: (high - low) / real_len(bins), counts: vec![0; bins + 2] })
    }

    /// From what was kept: the ends of the range and [`Self::counts`].
    ///
    /// # Errors
    /// As [`Self::new`], for two counts fewer than those given; or counts that sum to 2^53 or more.
    pub fn from_counts(low: f64, high: f64, counts: Vec<u64>) -> Result<Self, InvalidInput> {
        let empty = Self::new(low, high, counts.len().saturating_sub(2))?;
        if counts.iter().any(|count| *count > 0) {
            total("kept", &counts)?;
        }
        Ok(Self { counts, ..empty })
    }

    /// Takes in one value; one that is no number is passed over, and false is answered.
    pub fn push(&mut self, value: f64) -> bool {
        if value.is_nan() {
            return false;
        }
        let inner = self.counts.len() - 2;
        let at = (value - self.low) / self.width;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 at least; it saturates")]
        let bin = if at < 0.0 { 0 } else { (at as usize).min(inner) + 1 };
        self.counts[bin] += 1;
        true
    }

    /// Adds another one's counts.
    ///
    /// # Errors
    /// Other bins.
    pub fn merge(&mut self, other: &Self) -> Result<(), InvalidInput> {
        self.comparable(other)?;
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        Ok(())
    }

    /// Counts below the range, in each bin, and from its end on.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value at a quantile, within the width of a bin while it is in the range; beyond, the range's end. None
    /// of nothing, or for no quantile.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&quantile) {
            return None;
        }
        let rank = (quantile * real(count)).clamp(0.5, real(count));
        let mut before = 0.0;
        for (bin, count) in self.counts.iter().enumerate() {
            let inside = real(*count);
            if before + inside >= rank {
                let last = self.counts.len() - 1;
                let part = if bin == 0 || bin == last { 0.0 } else { (rank - before) / inside };
                return Some(self.low + self.width * (real_len(bin.saturating_sub(1)) + part));
            }
            before += inside;
        }
        None
    }

    /// Compares the shares of the bins of two histograms.
    ///
    /// # Errors
    /// Other bins, or one of nothing.
    pub fn divergence(&self, after: &Self) -> Result<Divergence, InvalidInput> {
        self.comparable(after)?;
        divergence(&self.counts, &after.counts)
    }

    /// Kolmogorov and Smirnov's test at the edges of the bins: the distance is at most that of the samples, and less by
    /// no more than the greatest share of one bin; so the p-value is never too small.
    ///
    /// # Errors
    /// Other bins, or one of nothing.
    pub fn kolmogorov_smirnov(&self, after: &Self) -> Result<KolmogorovSmirnov, InvalidInput> {
        self.comparable(after)?;
        let (n, m) = (total("before", &self.counts)?, total("after", &after.counts)?);
        let (mut a, mut b, mut distance) = (0, 0, 0.0_f64);
        for (before, after) in self.counts.iter().zip(&after.counts) {
            a += before;
            b += after;
            distance = distance.max((real(a) / n - real(b) / m).abs());
        }
        Ok(tested(distance, n, m))
    }

    fn comparable(&self, other: &Self) -> Result<(), InvalidInput> {
        let same = self.low == other.low && self.width == other.width && self.counts.len() == other.counts.len();
        let shape = format!("{} of width {} from {}", other.counts.len(), other.width, other.low);
        ensure(same, "the shape of bins", shape, "that of the other histogram")
    }
}

#[cfg(test)]
mod tests;
