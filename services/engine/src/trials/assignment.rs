//! Who gets which variant: a pure function of salts and the unit, so that every process answers the same
//! and nothing is stored. Layers after Tang et al., "Overlapping Experiment Infrastructure" (KDD 2010).

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::{InvalidInput, ensure};

/// Slots of a layer.
pub const SLOTS: u32 = 10_000;

/// Variants of one experiment at the most.
pub const VARIANTS: usize = 64;

/// Bytes of a salt or of a unit's id at the most.
pub const ID_BYTES: usize = 1_024;

/// How an experiment divides its units.
///
/// A unit is in the experiment when its slot in the layer is among those of the experiment. Experiments of one
/// layer with disjoint slots share no unit; layers with different salts are independent. Its variant hangs on
/// the experiment's own salt and the weights alone, so that giving the experiment more slots moves nobody
/// between variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    salt: Vec<u8>,
    layer: Vec<u8>,
    slots: Range<u32>,
    /// Sums of the weights up to and with each variant.
    sums: Vec<u64>,
}

/// The variant of a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assigned {
    /// By the order of the weights.
    pub variant: usize,
    /// The chance of this variant for a unit of the experiment: its weight over the sum of all.
    pub propensity: f64,
}

impl Split {
    /// An experiment of a layer with the slots `slots` out of [`SLOTS`], and a weight for each variant. A weight
    /// of 0 closes a variant.
    ///
    /// # Errors
    /// No salt or a salt over [`ID_BYTES`], slots beyond the layer or backwards, no variant or more than
    /// [`VARIANTS`], or no weight above 0.
    pub fn new(salt: &[u8], layer: &[u8], slots: Range<u32>, weights: &[u32]) -> Result<Self, InvalidInput> {
        for (what, salt) in [("the salt", salt), ("the layer's salt", layer)] {
            let fits = !salt.is_empty() && salt.len() <= ID_BYTES;
            ensure(fits, what, format!("{} bytes", salt.len()), "1 to 1024 bytes")?;
        }
        let within = slots.start <= slots.end && slots.end <= SLOTS;
        ensure(within, "the range of slots", format!("{slots:?}"), "a range within 0..10000")?;
        let sums: Vec<u64> = weights
            .iter()
            .scan(0, |sum, weight| {
                *sum += u64::from(*weight);
                Some(*sum)
            })
            .collect();
        let some = weights.len() <= VARIANTS && sums.last().is_some_and(|total| *total > 0);
        ensure(some, "the list of weights", format!("{weights:?}"), "1 to 64 weights, one above 0 at least")?;
        Ok(Self { salt: salt.to_vec(), layer: layer.to_vec(), slots, sums })
    }

    /// The slots of the layer that this experiment has.
    pub const fn slots(&self) -> &Range<u32> {
        &self.slots
    }

    /// Whether some unit may be in both: the same layer, and slots in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.layer == other.layer && self.slots.start.max(other.slots.start) < self.slots.end.min(other.slots.end)
    }

    /// The variant of a unit, by its id; none when it is not in the experiment. Ids over [`ID_BYTES`] are in
    /// none, for they are not ids.
    pub fn assign(&self, unit: &[u8]) -> Option<Assigned> {
        if unit.len() > ID_BYTES || !self.slots.contains(&slot(&self.layer, unit)) {
            return None;
        }
        let total = *self.sums.last().expect("a split has a variant");
        let at = scaled(position(b'v', &self.salt, unit), total);
        let variant = self.sums.partition_point(|sum| *sum <= at);
        let before = variant.checked_sub(1).map_or(0, |before| self.sums[before]);
        let propensity = super::real(self.sums[variant] - before) / super::real(total);
        Some(Assigned { variant, propensity })
    }
}

/// The slot of a unit in a layer: below [`SLOTS`].
pub fn slot(layer: &[u8], unit: &[u8]) -> u32 {
    u32::try_from(scaled(position(b's', layer, unit), u64::from(SLOTS))).expect("below the number of slots")
}

/// The first 8 bytes, big-endian, of SHA-256 (FIPS 180-4) over the purpose, the salt's length in 8 bytes
/// big-endian, the salt, and the unit: no two pairs of salt and unit are hashed alike.
fn position(purpose: u8, salt: &[u8], unit: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update([purpose]);
    hash.update((salt.len() as u64).to_be_bytes());
    hash.update(salt);
    hash.update(unit);
    let digest = hash.finalize();
    u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"))
}

/// `position · bound / 2^64`, rounded down, exactly: each value has a share of 1 / bound within 2^-64.
fn scaled(position: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(position) * u128::from(bound)) >> 64).expect("below the bound")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trials::srm;

    fn units(count: u32) -> impl Iterator<Item = [u8; 4]> {
        (0..count).map(u32::to_be_bytes)
    }

    #[test]
    fn a_unit_has_its_place_on_every_machine() {
        // SHA-256 computed by another implementation (Python's hashlib) over the documented bytes.
        let split = Split::new(b"exp-1", b"home", 0..SLOTS, &[1; 10]).expect("a split");
        let ids: [(&[u8], u32, usize); 4] =
            [(b"user-1", 4_741, 9), (b"user-2", 7_052, 0), (b"user-3", 349, 8), (b"", 3_407, 5)];
        for (unit, place, variant) in ids {
            assert_eq!(slot(b"home", unit), place);
            assert_eq!(split.assign(unit), Some(Assigned { variant, propensity: 0.1 }));
        }
    }

    #[test]
    fn variants_have_the_shares_of_their_weights_in_each_layer_and_are_independent_of_it() {
        let weights = [5, 0, 3, 2];
        let split = Split::new(b"exp", b"exp", 0..5_000, &weights).expect("a split");
        let mut counts = [0; 4];
        for assigned in units(100_000).filter_map(|unit| split.assign(&unit)) {
            counts[assigned.variant] += 1;
            assert_eq!(assigned.propensity, f64::from(weights[assigned.variant]) / 10.0);
        }
        let test = srm::chi_square(&counts, &weights).expect("counts");
        let inside = srm::chi_square(&[counts.iter().sum(), 100_000 - counts.iter().sum::<u64>()], &[1, 1]);
        assert!(test.p_value > 0.01 && inside.expect("counts").p_value > 0.01, "{counts:?}");
    }

    #[test]
    fn experiments_of_other_salts_do_not_see_each_other() {
        let a = Split::new(b"a", b"layer a", 0..SLOTS, &[1, 1]).expect("a split");
        let b = Split::new(b"b", b"layer b", 0..SLOTS, &[1, 1]).expect("a split");
        let mut counts = [0; 4];
        for unit in units(40_000) {
            let of = |split: &Split| split.assign(&unit).expect("everyone").variant;
            counts[2 * of(&a) + of(&b)] += 1;
        }
        assert!(srm::chi_square(&counts, &[1; 4]).expect("counts").p_value > 0.01, "{counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn more_traffic_moves_nobody_and_disjoint_slots_share_nobody(
            weights in proptest::collection::vec(1_u32..u32::MAX, 1..8),
            slots in 0..=SLOTS, more in 0..=SLOTS, salt in proptest::collection::vec(any::<u8>(), 1..40),
            ids in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..60),
        ) {
            let (few, many) = (slots.min(more), slots.max(more));
            let split = |range: Range<u32>| Split::new(&salt, b"layer", range, &weights).expect("a split");
            let (before, after, other) = (split(0..few), split(0..many), split(few..SLOTS));
            prop_assert!(!before.overlaps(&other));
            prop_assert_eq!(before.overlaps(&after), few > 0);
            for id in &ids {
                if let Some(assigned) = before.assign(id) {
                    prop_assert_eq!(after.assign(id), Some(assigned));
                    prop_assert!(assigned.propensity > 0.0);
                }
                prop_assert!(before.assign(id).is_none() || other.assign(id).is_none());
                prop_assert!(before.assign(id).is_some() || other.assign(id).is_some());
            }
        }
    }

    #[test]
    fn what_is_no_split_is_refused_with_its_name() {
        let new = |salt: &[u8], slots, weights: &[u32]| Split::new(salt, b"layer", slots, weights);
        assert!(new(b"", 0..1, &[1]).expect_err("refused").to_string().starts_with("the salt is 0 bytes"));
        #[expect(clippy::reversed_empty_ranges, reason = "that is refused")]
        let backwards = new(b"s", 2..1, &[1]);
        assert!(backwards.is_err() && new(b"s", 0..SLOTS + 1, &[1]).is_err());
        assert!(new(b"s", 0..1, &[]).is_err() && new(b"s", 0..1, &[0, 0]).is_err());
        assert!(new(b"s", 0..1, &[1; VARIANTS + 1]).is_err());
        let all = new(b"s", 0..SLOTS, &[1]).expect("a split");
        assert!(all.assign(&[0; ID_BYTES]).is_some() && all.assign(&[0; ID_BYTES + 1]).is_none());
    }
}
