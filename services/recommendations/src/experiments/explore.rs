//! Linear Thompson sampling among what would come after a list.

use std::sync::Arc;

use echotune_engine::trials::{
    InvalidInput,
    bandit::{Arms, Exploration, Posterior, choose},
};

use crate::store::{FEATURES, Learnt, ONE};

/// Weight of the prior, in items shown.
const PRECISION: f64 = 1.0;
/// Standard deviation of a reward of 0 or 1 at the most.
const SCALE: f64 = 0.5;
/// The chance that is dealt evenly to all candidates, so that what anyone would have chosen can be estimated.
const EVEN: f64 = 0.1;
/// Draws from which the chances are counted.
const DRAWS: usize = 200;

/// What was learnt as a posterior. The reward of an explored item that was shown is 1 if it was liked or
/// played, else 0.
pub(super) fn posterior(learnt: &Learnt) -> Result<Posterior, InvalidInput> {
    #[expect(clippy::cast_precision_loss, reason = "rounded once")]
    let real = |sum: u64, one: u64| sum as f64 / one as f64;
    let one = u64::from(ONE);
    let products: Vec<f64> = learnt.products.iter().flatten().map(|sum| real(*sum, one * one)).collect();
    Posterior::from_sums(PRECISION, &products, learnt.rewards.iter().map(|sum| real(*sum, one)).collect())
}

/// Chooses what is explored in one list.
pub(crate) struct Explorer {
    pub(super) posterior: Arc<Posterior>,
    pub(super) seed: u64,
}

/// A candidate that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chosen {
    /// Its place among the candidates.
    pub(crate) place: usize,
    /// The chance with which it was chosen, given those before it.
    pub(crate) propensity: f64,
}

impl Explorer {
    /// Chooses `count` of the candidates, or all there are, one after the other. Time O(count · candidates ·
    /// draws).
    pub(crate) fn choose(&self, candidates: &[[u32; FEATURES]], count: usize) -> Vec<Chosen> {
        let real = |features: &[u32; FEATURES]| features.map(|x| f64::from(x) / f64::from(ONE)).to_vec();
        let (mut left, mut arms): (Vec<usize>, Vec<Vec<f64>>) = candidates.iter().map(real).enumerate().unzip();
        let mut chosen = Vec::with_capacity(count);
        for slot in 0..count.min(candidates.len()) as u64 {
            #[expect(clippy::cast_precision_loss, reason = "few candidates")]
            let exploration = Exploration { scale: SCALE, floor: EVEN / arms.len() as f64, draws: DRAWS };
            let seed = self.seed.wrapping_add(slot);
            let choice = choose(Arms::Shared(&self.posterior, &arms), &exploration, seed)
                .expect("features are between 0 and 1, as many as the posterior has");
            chosen.push(Chosen { place: left.remove(choice.arm), propensity: choice.propensity });
            arms.remove(choice.arm);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_is_chosen_more_often_and_nothing_is_without_a_chance() {
        let (liked, other) = ([ONE, 0, 0, ONE, 0], [ONE, 0, ONE, 0, 0]);
        let mut learnt = Learnt::default();
        for _ in 0..200 {
            learnt.shown(&liked, true);
            learnt.accepted(&liked, true);
            learnt.shown(&other, true);
        }
        let posterior = Arc::new(posterior(&learnt).expect("learnt"));
        let mut first = [0; 2];
        for seed in 0..200 {
            let explorer = Explorer { posterior: Arc::clone(&posterior), seed: seed * 1_000 };
            let chosen = explorer.choose(&[other, liked, other], 2);
            assert_eq!(chosen.len(), 2);
            assert!(chosen[0].place != chosen[1].place);
            assert!(chosen.iter().all(|one| one.propensity >= EVEN / 3.0 && one.propensity <= 1.0));
            first[usize::from(chosen[0].place == 1)] += 1;
        }
        assert!(first[1] > 170, "{first:?}");
        // Taken away, nothing is left of it.
        let mut left = learnt;
        left.without(&learnt);
        assert_eq!(left, Learnt::default());
    }
}
