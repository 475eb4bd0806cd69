//! Numbers that a seed decides, the same on every machine.

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of a seed for one purpose within one service, which no other purpose or service shares: two policies
    /// then meet the same calls.
    pub const fn of(seed: u64, service: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed ^ 0x5851_f42d_4c95_7f2d);
        let by_seed = mixed.bits();
        let mut mixed = Self(by_seed ^ service.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let by_service = mixed.bits();
        let mut mixed = Self(by_service ^ purpose.wrapping_mul(0xd605_bbb5_8c8a_bc17));
        Self(mixed.bits())
    }

    /// 64 uniform bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // By multiplication (Lemire 2019), without its rejection: the bias is below bound / 2^64.
        ((self.bits() as u128 * bound as u128) >> 64) as u64
    }

    /// Uniform in [0, 1), 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub const fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Poisson with a mean: by intervals of an exponential below 30, and in halves above.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 30.0 {
            return self.poisson(mean / 2.0) + self.poisson(mean / 2.0);
        }
        let (mut count, mut left) = (0, mean - self.exponential());
        while left > 0.0 {
            count += 1;
            left -= self.exponential();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn poisson_numbers_have_their_mean_as_variance() {
        let mut random = Random::new(5);
        for mean in [0.7, 12.0, 400.0] {
            let numbers: Vec<f64> = (0..20_000).map(|_| random.poisson(mean) as f64).collect();
            let average = numbers.iter().sum::<f64>() / 20_000.0;
            let variance = numbers.iter().map(|number| (number - average).powi(2)).sum::<f64>() / 20_000.0;
            assert!((average / mean - 1.0).abs() < 0.05, "mean {average} of {mean}");
            assert!((variance / mean - 1.0).abs() < 0.08, "variance {variance} of {mean}");
        }
    }
}
