use crate::Random;

/// Measures live what an index misses: a fixed share of the requests, chosen by their trace, is answered by
/// the exact scan too, and the part of the exact answer that the index found is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// A trace is chosen when its hash is below this.
    below: u64,
    queries: u64,
    sum: f64,
    squares: f64,
}

/// What the audits so far tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recall {
    /// Requests compared.
    pub queries: u64,
    /// Mean recall of a request, in [0, 1].
    pub mean: f64,
    /// Below this only with half the probability that was allowed.
    pub low: f64,
    /// Above this only with half the probability that was allowed.
    pub high: f64,
}

impl Audit {
    /// Of a share of the requests, in [0, 1]; beyond it the nearest bound, and none for no number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 64 bits, for it saturates")]
    pub fn new(share: f64) -> Self {
        let below = if share >= 1.0 { u64::MAX } else { (share.max(0.0) * 2.0_f64.powi(64)) as u64 };
        Self { below, queries: 0, sum: 0.0, squares: 0.0 }
    }

    /// Whether a request is to be compared: the same for one trace at any time and in any process.
    pub const fn chooses(&self, trace: u128) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
        let halves = (trace >> 64) as u64 ^ (trace as u64).rotate_left(32);
        let hash = Random::new(halves).bits();
        hash < self.below || self.below == u64::MAX
    }

    /// Compares the answer of the index with the exact one, both with their scores. Of items with equal
    /// scores at the end any is right. An empty exact answer tells nothing.
    #[expect(clippy::cast_precision_loss, reason = "answers are short")]
    pub fn compare(&mut self, found: &[(u32, f32)], exact: &[(u32, f32)]) {
        let Some((_, least)) = exact.last() else { return };
        let right = found.iter().filter(|(_, score)| score >= least).count().min(exact.len());
        let recall = right as f64 / exact.len() as f64;
        self.queries += 1;
        self.sum += recall;
        self.squares += recall * recall;
    }

    /// Adds what another audit of the same share has seen.
    pub fn add(&mut self, other: &Self) {
        self.queries += other.queries;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The mean recall and an interval that holds the true one with probability `1 − error`: the empirical
    /// Bernstein bound (Maurer and Pontil, COLT 2009, theorem 4), on each side with half of `error` (within
    /// [1e-12, 1]). It supposes that requests are independent, not their items, and one look at the end.
    /// None before the second request.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 requests")]
    pub fn recall(&self, error: f64) -> Option<Recall> {
        if self.queries < 2 {
            return None;
        }
        let count = self.queries as f64;
        let mean = self.sum / count;
        let variance = ((self.squares - self.sum * mean) / (count - 1.0)).max(0.0);
        let error = if error.is_nan() { 1e-12 } else { error.clamp(1e-12, 1.0) };
        let log = (4.0 / error).ln();
        let width = (2.0 * variance * log / count).sqrt() + 7.0 * log / (3.0 * (count - 1.0));
        Some(Recall { queries: self.queries, mean, low: (mean - width).max(0.0), high: (mean + width).min(1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_chosen_in_the_share_asked_for_and_always_alike() {
        for share in [0.0, 0.001, 0.25, 1.0, f64::NAN, 7.0] {
            let audit = Audit::new(share);
            let chosen = (0..200_000_u128).filter(|trace| audit.chooses(trace << 70 | trace)).count();
            let expected = if share.is_nan() { 0.0 } else { share.min(1.0) * 200_000.0 };
            assert!((chosen as f64 - expected).abs() <= 5.0 * expected.sqrt(), "{share}: {chosen}");
            assert_eq!(audit.chooses(77), Audit::new(share).chooses(77));
        }
    }

    #[test]
    fn recall_counts_what_was_found_and_ties_at_the_end_are_right() {
        let mut audit = Audit::new(1.0);
        let exact = [(1, 3.0), (2, 2.0), (3, 1.0), (4, 1.0)];
        audit.compare(&[(1, 3.0), (2, 2.0), (3, 1.0), (9, 1.0)], &exact);
        audit.compare(&[], &[]);
        assert_eq!(audit.recall(0.05), None);
        audit.compare(&[(1, 3.0), (8, 0.5)], &exact);
        let mut other = Audit::new(1.0);
        other.compare(&exact, &exact);
        audit.add(&other);
        let recall = audit.recall(0.05).expect("three requests");
        assert_eq!((recall.queries, recall.mean), (3, 0.75));
        assert!(recall.low == 0.0 && recall.high == 1.0, "three requests tell little: {recall:?}");
    }

    #[test]
    fn the_interval_holds_the_true_recall_as_often_as_it_says() {
        let mut random = Random::new(9);
        let exact: Vec<(u32, f32)> = (0..10).map(|item| (item, 1.0)).collect();
        let mut outside = 0;
        for _ in 0..200 {
            let mut audit = Audit::new(1.0);
            for _ in 0..2_000 {
                let found = (0..10).map(|item| (item, if random.unit() < 0.97 { 1.0 } else { 0.0 }));
                audit.compare(&found.collect::<Vec<_>>(), &exact);
            }
            let recall = audit.recall(0.05).expect("many requests");
            assert!(recall.high - recall.low < 0.03, "{recall:?}");
            outside += usize::from(!(recall.low..=recall.high).contains(&0.97));
        }
        assert!(outside <= 10, "{outside} of 200");
    }
}
