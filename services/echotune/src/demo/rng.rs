/// Steele, Lea and Flood's SplitMix64 (2014): small, and the same everywhere for one seed.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// An independent stream of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self(mixed.next() ^ stream)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(super) const fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..`bound`; 0 when there is nothing to choose from.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    pub(super) const fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Roughly normal with mean 0 and deviation 1 (Irwin and Hall).
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// A place in a table of cumulative weights, chosen by weight.
    pub(super) fn weighted(&mut self, cumulative: &[f64]) -> usize {
        let at = self.unit() * cumulative.last().copied().unwrap_or(0.0);
        cumulative.partition_point(|sum| *sum <= at).min(cumulative.len().saturating_sub(1))
    }
}

/// Running sums of weights.
pub(super) fn cumulative(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

/// Divides a total among shares by weight, at least one for each while there is enough.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
pub(super) fn divide(total: usize, weights: &[f64]) -> Vec<usize> {
    let rest = total.saturating_sub(weights.len()) as f64;
    let sums = cumulative(weights.iter().copied());
    let all = sums.last().copied().unwrap_or(1.0);
    let mut before = 0;
    let mut shares = Vec::with_capacity(weights.len());
    for (index, sum) in sums.iter().enumerate() {
        let until = (rest * sum / all).round() as usize;
        shares.push(until - before + usize::from(index < total));
        before = until;
    }
    shares
}
