//! What follows what, and how old listens are.

use super::{OptionError, check_above_zero, check_exponent, check_weight};
use crate::ItemGraph;

/// How transitions are counted and normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceOptions {
    /// Weight of the links, when they and the other terms are brought to one size; 0 leaves them out.
    pub weight: f32,
    /// Links kept per item at the most.
    pub neighbours: usize,
    /// Time between two listens of one session at the most, in the unit of the times.
    pub gap: i64,
    /// How many places on a listen still counts as following; the n-th counts 1/n.
    pub reach: usize,
    /// Transitions that are added to those from an item, so that what was seen seldom says less; more than 0.
    pub shrink: f32,
    /// Exponent on the transitions to an item: larger favours what few go on to.
    pub target: f32,
}

impl SequenceOptions {
    /// A session ends with half an hour of silence, for times in milliseconds.
    pub const GAP_MS: i64 = 30 * 60 * 1_000;
}

impl Default for SequenceOptions {
    fn default() -> Self {
        Self { weight: 0.5, neighbours: 256, gap: Self::GAP_MS, reach: 10, shrink: 2.0, target: 0.25 }
    }
}

/// The links of what follows what: with `c_ji` the transitions from `j` to `i` within a session, each counted
/// one over its distance, `T[j][i] = c_ji / ((κ + Σ_k c_jk) · max(1, Σ_k c_ki)^t)`, each row cut to its
/// strongest. A first-order Markov chain over sessions (as in Rendle, Freudenthaler and Schmidt-Thieme,
/// "Factorizing Personalized Markov Chains", WWW 2010, section 4) that looks a few places on. `sequences` are
/// the listens of each listener as (item, time), oldest first; items at or beyond `items` are left out. Time
/// O(listens × reach × log).
///
/// # Errors
/// A κ that is not more than 0; an exponent that is not 0 to 2; a weight below 0 or no number.
pub fn transitions(
    sequences: &[Vec<(u32, i64)>],
    items: usize,
    options: SequenceOptions,
) -> Result<ItemGraph, OptionError> {
    let SequenceOptions { weight, neighbours, gap, reach, shrink, target } = options;
    check_weight("weight", weight)?;
    check_above_zero("shrink", shrink)?;
    check_exponent("target", target)?;
    let mut pairs: Vec<(u32, u32, u32)> = sequences.iter().flat_map(|all| following(all, items, gap, reach)).collect();
    // Distances among the keys, so that sums are in one order whatever that of the listeners.
    pairs.sort_unstable();
    let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); items];
    let mut to = vec![0.0_f32; items];
    for same in pairs.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (from, next, _) = same[0];
        let count = same.iter().map(|(_, _, distance)| share(*distance)).sum::<f32>();
        to[next as usize] += count;
        rows[from as usize].push((next, count));
    }
    let scale: Vec<f32> = to.iter().map(|count| count.max(1.0).powf(-target)).collect();
    for row in &mut rows {
        let all = shrink + row.iter().map(|(_, count)| count).sum::<f32>();
        row.iter_mut().for_each(|(next, count)| *count *= scale[*next as usize] / all);
        strongest(row, neighbours);
    }
    Ok(ItemGraph::from_links(&rows).expect("links ascend, within the catalogue, and are finite"))
}

/// The (from, to, distance) of a listener's listens that follow each other within a session.
fn following(all: &[(u32, i64)], items: usize, gap: i64, reach: usize) -> impl Iterator<Item = (u32, u32, u32)> {
    let known = move |item: u32| (item as usize) < items;
    (0..all.len()).flat_map(move |at| {
        let from = all[at].0;
        let session = all[at..].windows(2).take_while(move |pair| pair[1].1.saturating_sub(pair[0].1) <= gap);
        let next = session.map(|pair| pair[1].0).take(reach);
        let next = (1..).zip(next).map(move |(distance, to)| (from, to, distance));
        next.filter(move |(from, to, _)| from != to && known(*from) && known(*to))
    })
}

#[expect(clippy::cast_precision_loss, reason = "distances are small")]
fn share(distance: u32) -> f32 {
    (distance as f32).recip()
}

/// Keeps the strongest, ascending by item; of equals the first.
fn strongest(row: &mut Vec<(u32, f32)>, count: usize) {
    row.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    row.truncate(count);
    row.sort_unstable_by_key(|(item, _)| *item);
}

/// How a listen counts by its age.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recency {
    /// Age at which the part that fades counts one half, in the unit of the ages; 0 fades nothing.
    pub half_life: f64,
    /// The part that does not fade, 0 to 1.
    pub floor: f64,
}

impl Recency {
    /// Nothing fades.
    pub const NONE: Self = Self { half_life: 0.0, floor: 1.0 };

    /// The factor of a listen that is so much older than the listener's newest, `f + (1 - f) · 2^(-age / h)`:
    /// more than 0 and at most 1 for a floor within its range. An age below 0 counts as 0.
    pub fn factor(self, age: f64) -> f64 {
        if !(self.half_life > 0.0 && age > 0.0) {
            return 1.0;
        }
        let floor = self.floor.clamp(0.0, 1.0);
        floor + (1.0 - floor) * (-age / self.half_life).exp2()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn transitions_are_those_of_sessions_over_their_distance() {
        // A session 0 1 2, a pause, then 2 0; and another listener with 0 1.
        let minutes = |all: &[(u32, i64)]| all.iter().map(|(item, at)| (*item, at * MINUTE)).collect::<Vec<_>>();
        let sequences = [minutes(&[(0, 0), (1, 4), (2, 8), (2, 60), (0, 63)]), minutes(&[(0, 0), (1, 29), (2, 60)])];
        let options = SequenceOptions { reach: 2, shrink: 1.0, target: 0.0, ..SequenceOptions::default() };
        let graph = transitions(&sequences, 3, options).expect("options");
        // From 0: to 1 twice, to 2 once at a distance of 2; from 1: to 2; from 2: to 0.
        let expected = [(0, 1, 2.0 / 3.5), (0, 2, 0.5 / 3.5), (1, 2, 0.5), (2, 0, 0.5), (1, 0, 0.0), (2, 1, 0.0)];
        for (from, to, weight) in expected {
            assert!((graph.weight(from, to) - weight).abs() < 1e-6, "{from} {to} {}", graph.weight(from, to));
        }
        let favour = transitions(&sequences, 3, SequenceOptions { target: 1.0, ..options }).expect("options");
        assert!((favour.weight(0, 1) - 1.0 / 3.5).abs() < 1e-6);
        let near = transitions(&sequences, 3, SequenceOptions { reach: 1, ..options }).expect("options");
        assert_eq!(near.weight(0, 2), 0.0);
        let cut = transitions(&sequences, 3, SequenceOptions { neighbours: 1, ..options }).expect("options");
        assert_eq!(cut.row(0).map(|(item, _)| item).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_is_no_session_makes_no_links_and_options_are_checked() {
        let none = SequenceOptions::default();
        for sequences in [vec![], vec![vec![]], vec![vec![(0, 5)]], vec![vec![(1, i64::MIN), (0, i64::MAX)]]] {
            let graph = transitions(&sequences, 2, none).expect("options");
            assert!((0..2).all(|item| graph.row(item).len() == 0));
        }
        let beyond = transitions(&[vec![(0, 0), (9, 1), (1, 2)]], 2, none).expect("options");
        assert!(beyond.weight(0, 1) > 0.0);
        for shrink in [0.0, -1.0, f32::NAN] {
            assert!(transitions(&[], 2, SequenceOptions { shrink, ..none }).is_err());
        }
    }

    #[test]
    fn listens_fade_to_the_floor() {
        let recency = Recency { half_life: 10.0, floor: 0.2 };
        assert!((recency.factor(10.0) - 0.6).abs() < 1e-12 && (recency.factor(0.0) - 1.0).abs() < 1e-12);
        assert!((recency.factor(1e12) - 0.2).abs() < 1e-12 && (recency.factor(-5.0) - 1.0).abs() < 1e-12);
        for none in [Recency::NONE, Recency { half_life: f64::NAN, floor: 0.0 }] {
            assert!((none.factor(1e6) - 1.0).abs() < 1e-12);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_order_of_listeners_does_not_matter_and_rows_are_below_one(
            mut sequences in proptest::collection::vec(
                proptest::collection::vec((0..20_u32, 0..200_i64), 0..30), 0..12),
        ) {
            for sequence in &mut sequences {
                sequence.sort_by_key(|(_, at)| *at);
            }
            let options = SequenceOptions { gap: 15, target: 0.5, ..SequenceOptions::default() };
            let graph = transitions(&sequences, 20, options).expect("options");
            for item in 0..20 {
                let sum: f32 = graph.row(item).map(|(_, weight)| weight).sum();
                prop_assert!(sum < 1.0 && graph.row(item).all(|(other, weight)| other != item && weight > 0.0));
            }
            sequences.reverse();
            prop_assert_eq!(graph, transitions(&sequences, 20, options).expect("options"));
        }
    }
}
