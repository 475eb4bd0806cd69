use echotune_engine::{Interactions, Random};

/// Items that are played by the same listeners.
const SCENE: usize = 200;
/// Scenes of a listener at the most.
const TASTES: usize = 6;
/// How steeply popularity falls, of scenes and of items within one.
const STEEP: f64 = 2.5;
/// Standard deviation of the logarithm of how much somebody plays.
const SPREAD: f64 = 1.0;
/// Listens of one listener at the most, beside the mean.
const MOST: f64 = 50.0;

/// Who knows what, and how many listens there are. A listener has some scenes, of which some are everybody's, and
/// plays mostly within them; how much is log-normal. A listener's listens depend on the seed and the listener
/// alone. Time O(listens × log listens of one).
pub(super) fn listens(listeners: u32, items: u32, listens: u64, seed: u64) -> (Interactions, u64) {
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    let mean = listens as f64 / f64::from(listeners);
    let mut total = 0;
    let rows = (0..listeners).map(|listener| {
        let mut random = Random::new(Random::new(seed ^ u64::from(listener) << 24).bits());
        let row = row(&mut random, mean, items as usize);
        total += row.len() as u64;
        row
    });
    let known = Interactions::from_rows(rows, items as usize);
    (known, total)
}

/// The items that one listener plays, one for each listen.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count within bounds")]
fn row(random: &mut Random, mean: f64, items: usize) -> Vec<u32> {
    let amount = mean * (SPREAD * random.normal() - SPREAD * SPREAD / 2.0).exp();
    let count = amount.min(mean * MOST).round().max(1.0) as usize;
    let scenes = items.div_ceil(SCENE);
    let tastes: Vec<usize> = (0..=random.below(TASTES)).map(|_| skewed(random, scenes)).collect();
    let mut listen = || {
        let scene = tastes[random.below(tastes.len())] * SCENE;
        let item = scene + skewed(random, SCENE.min(items - scene));
        u32::try_from(item).expect("items are numbered in 32 bits")
    };
    (0..count).map(|_| listen()).collect()
}

/// One of so many; the first are the likeliest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "below many")]
fn skewed(random: &mut Random, many: usize) -> usize {
    ((random.unit().powf(STEEP) * many as f64) as usize).min(many.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_are_as_many_as_asked_and_a_few_are_played_by_many() {
        let (known, total) = listens(4_000, 1_000, 200_000, 3);
        assert!((180_000..220_000).contains(&total), "{total}");
        assert_eq!((known.user_count(), known.item_count()), (4_000, 1_000));
        let mut degrees = known.item_degrees();
        degrees.sort_unstable();
        assert!(degrees[999] > 20 * degrees[500].max(1), "{} {}", degrees[999], degrees[500]);
        assert_eq!(listens(4_000, 1_000, 200_000, 3), (known.clone(), total));
        assert_ne!(listens(4_000, 1_000, 200_000, 4).0, known);
    }

    #[test]
    fn one_listener_and_one_item_are_enough() {
        let (known, total) = listens(1, 1, 1, 1);
        assert_eq!((known.len(), total), (1, 1));
    }
}
