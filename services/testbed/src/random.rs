/// Numbers that a seed decides: SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 to below an end above 0; the bias is below end / 2^64.
    #[cfg(any(test, feature = "drive"))]
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Another row of numbers.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
