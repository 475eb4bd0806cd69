//! Two recipes side by side on one draw.

use echotune_engine::trials::{Interval, sequence::Moments, special::normal_quantile};
use echotune_model::{ErrorKind, Fault, ItemKind, Measure};

use super::{
    Serving,
    draw::Part,
    judge::{KINDS, judge},
};
use crate::model::{Depth, Model, Training};

/// The level of intervals: 1 − 0.05.
const ALPHA: f64 = 0.05;

/// A model of the part by a recipe. Time as of a whole fit.
///
/// # Errors
/// There is no fit that takes as little memory as is allowed.
pub(super) fn fitted(part: &Part, serving: &Serving) -> Result<Model, Fault> {
    let release = serving.clone().into();
    let fitted = Training { release, ..part.known.clone() }.fit(Depth::Whole);
    fitted.map_err(|cause| Fault::new(ErrorKind::FailedPrecondition, cause.to_string()))
}

/// Mean NDCG@10 over listeners, and then over the kinds of which enough are judged.
///
/// # Errors
/// No kind has `least` listeners to judge.
pub(super) fn quality(model: &Model, part: &Part, least: usize, seed: u64) -> Result<f64, Fault> {
    let gains = judge(model, part, seed);
    let most = gains.iter().map(Vec::len).max().unwrap_or(0);
    let means: Vec<f64> = gains.iter().filter(|all| all.len() >= least.max(1)).map(|all| mean(all)).collect();
    if means.is_empty() {
        return Err(too_few(most, least));
    }
    #[expect(clippy::cast_precision_loss, reason = "two kinds")]
    Ok(means.iter().sum::<f64>() / means.len() as f64)
}

pub(super) fn too_few(found: usize, least: usize) -> Fault {
    let message = format!(
        "{found} listeners have enough in their histories to judge a recipe by, and {least} are needed: five artists or \
         tracks each, and not private; record or import more, or lower models.min_listeners (100 at least)"
    );
    Fault::new(ErrorKind::FailedPrecondition, message)
}

#[expect(clippy::cast_precision_loss, reason = "few listeners")]
fn mean(gains: &[(usize, f64)]) -> f64 {
    gains.iter().map(|(_, gain)| gain).sum::<f64>() / gains.len().max(1) as f64
}

/// The name of what is measured of lists of a kind.
pub(super) fn metric(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Artist => "ndcg@10 of artists",
        ItemKind::Track => "ndcg@10 of tracks",
    }
}

/// How a candidate compares with what serves on the same listeners and the same held-out items, by each kind of
/// which at least `least` listeners are judged. Intervals are of the mean of the paired differences, normal.
///
/// # Errors
/// There is no such kind.
pub(super) fn compare(
    candidate: &Model,
    serving: &Model,
    part: &Part,
    least: usize,
    seed: u64,
) -> Result<Vec<Measure>, Fault> {
    let (ours, theirs) = (judge(candidate, part, seed), judge(serving, part, seed));
    let most = ours.iter().map(Vec::len).max().unwrap_or(0);
    let enough = KINDS.into_iter().zip(ours.iter().zip(&theirs)).filter(|(_, (ours, _))| ours.len() >= least.max(2));
    let measures: Vec<Measure> = enough.map(|(kind, (ours, theirs))| measure(kind, ours, theirs)).collect();
    if measures.is_empty() { Err(too_few(most, least)) } else { Ok(measures) }
}

fn measure(kind: ItemKind, ours: &[(usize, f64)], theirs: &[(usize, f64)]) -> Measure {
    let mut differences = Moments::default();
    for ((_, ours), (_, theirs)) in ours.iter().zip(theirs) {
        differences.push(ours - theirs);
    }
    let (candidate, serving) = (mean(ours), mean(theirs));
    let Interval { low, high, .. } = interval(&differences);
    let share = |difference: f64| difference / serving.max(1e-9);
    let listeners = ours.len() as u64;
    Measure { metric: metric(kind).to_owned(), candidate, serving, low: share(low), high: share(high), listeners }
}

/// The 95 % interval of a mean, for samples of a hundred and more.
fn interval(seen: &Moments) -> Interval {
    #[expect(clippy::cast_precision_loss, reason = "few listeners")]
    let error = normal_quantile(1.0 - ALPHA / 2.0) * (seen.variance() / seen.count().max(1) as f64).sqrt();
    Interval { estimate: seen.mean(), low: seen.mean() - error, high: seen.mean() + error }
}

/// What the gates hold to their bounds: the measures as intervals of shares.
pub(super) fn intervals(measures: &[Measure]) -> Vec<(String, Interval)> {
    let interval = |one: &Measure| Interval {
        estimate: (one.candidate - one.serving) / one.serving.max(1e-9),
        low: one.low,
        high: one.high,
    };
    measures.iter().map(|one| (one.metric.clone(), interval(one))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_as_a_share_of_what_serves_with_its_interval() {
        let theirs: Vec<(usize, f64)> = (0..400).map(|n| (n, 0.5)).collect();
        // Better by 0.1 on average, 0.2 or nothing: the standard error of 400 is 0.005.
        let ours: Vec<(usize, f64)> = (0..400).map(|n| (n, if n % 2 == 0 { 0.7 } else { 0.5 })).collect();
        let one = measure(ItemKind::Artist, &ours, &theirs);
        assert_eq!((one.metric.as_str(), one.listeners), ("ndcg@10 of artists", 400));
        assert!((one.candidate - 0.6).abs() < 1e-9 && (one.serving - 0.5).abs() < 1e-9);
        let error = 1.96 * 0.1 / 20.0 / 0.5;
        assert!((one.low - (0.2 - error)).abs() < 1e-3 && (one.high - (0.2 + error)).abs() < 1e-3, "{one:?}");
        let same = measure(ItemKind::Artist, &theirs, &theirs);
        assert_eq!((same.low, same.high), (0.0, 0.0));
    }
}
