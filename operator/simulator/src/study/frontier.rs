//! What the best of a family costs: no other of it is both cheaper and kinder.

use super::{
    Policy,
    statistics::{Interval, interval},
};
use crate::sim::Measures;

/// One policy over all seeds.
#[derive(Debug, Clone)]
pub struct Point {
    /// Which.
    pub policy: Policy,
    /// Slow calls in percent, by seed.
    pub slow: Vec<f64>,
    /// Pod-hours, by seed.
    pub hours: Vec<f64>,
}

/// The policies of one family.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What was swept.
    pub name: Policy,
    /// Each that was replayed.
    pub points: Vec<Point>,
}

#[expect(clippy::cast_precision_loss, reason = "numbers of seeds")]
fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

impl Point {
    /// Of what was measured under each seed.
    pub fn new(policy: Policy, measured: &[Measures]) -> Self {
        let figures: Vec<_> = measured.iter().map(Measures::figures).collect();
        Self {
            policy,
            slow: figures.iter().map(|one| one.slow_percent).collect(),
            hours: figures.iter().map(|one| one.pod_hours).collect(),
        }
    }

    /// Means over seeds: pod-hours and slow calls in percent.
    pub fn means(&self) -> (f64, f64) {
        (mean(&self.hours), mean(&self.slow))
    }
}

/// Points that no other of their family beats in both means, from the cheapest on. Which those are is judged by
/// means, so that no seed picks its own luck.
pub fn pareto(points: &[Point]) -> Vec<&Point> {
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by(|one, other| {
        let ((hours, slow), (hours_2, slow_2)) = (one.means(), other.means());
        hours.total_cmp(&hours_2).then(slow.total_cmp(&slow_2))
    });
    let mut best = f64::INFINITY;
    sorted.retain(|point| {
        let slow = point.means().1;
        let better = slow < best;
        best = best.min(slow);
        better
    });
    sorted
}

/// A point against the frontier of another family, in percent, seed by seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Pod-hours against those that the frontier takes for as many slow calls; none where it does not reach that.
    pub hours: Option<Interval>,
    /// Slow calls against those of the frontier for as many pod-hours; none where it does not reach that, or has none.
    pub slow: Option<Interval>,
}

/// Compares a point with a frontier, straight between its points on logarithmic scales.
pub fn against(point: &Point, frontier: &[&Point]) -> Comparison {
    let mut hours = Vec::new();
    let mut slow = Vec::new();
    for seed in 0..point.hours.len() {
        let curve: Vec<(f64, f64)> = frontier.iter().map(|one| (one.hours[seed], one.slow[seed])).collect();
        let turned: Vec<(f64, f64)> = curve.iter().map(|(hours, slow)| (*slow, *hours)).collect();
        // Of nothing there is no part.
        let percent = |own: f64, theirs: f64| (theirs > 0.0).then(|| 100.0 * (own / theirs - 1.0));
        hours.extend(between(&turned, point.slow[seed]).and_then(|theirs| percent(point.hours[seed], theirs)));
        slow.extend(between(&curve, point.hours[seed]).and_then(|theirs| percent(point.slow[seed], theirs)));
    }
    // A frontier that only some seeds reach says nothing of all.
    let of_all = |found: &[f64]| (found.len() == point.hours.len()).then(|| interval(found)).flatten();
    Comparison { hours: of_all(&hours), slow: of_all(&slow) }
}

/// The second coordinate of a curve where its first is `at`.
fn between(curve: &[(f64, f64)], at: f64) -> Option<f64> {
    let positive = |(x, y): (f64, f64)| x > 0.0 && y > 0.0;
    curve.windows(2).find_map(|pair| {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        if !(x0.min(x1)..=x0.max(x1)).contains(&at) {
            return None;
        }
        if x0 == x1 {
            return Some(y0.min(y1));
        }
        if positive(pair[0]) && positive(pair[1]) {
            let along = (at / x0).ln() / (x1 / x0).ln();
            return Some(y0 * (y1 / y0).powf(along));
        }
        Some(y0 + (y1 - y0) * (at - x0) / (x1 - x0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(hours: f64, slow: f64) -> Point {
        let policy = "hpa".parse().unwrap();
        Point { policy, slow: vec![slow, slow * 1.01], hours: vec![hours, hours * 1.01] }
    }

    #[test]
    fn what_another_beats_is_not_on_the_frontier() {
        let points = [point(10.0, 8.0), point(20.0, 9.0), point(40.0, 2.0), point(30.0, 4.0), point(50.0, 2.5)];
        let hours: Vec<f64> = pareto(&points).iter().map(|point| point.hours[0]).collect();
        assert_eq!(hours, [10.0, 30.0, 40.0]);
    }

    #[test]
    fn a_point_is_compared_where_the_frontier_is() {
        let points = [point(10.0, 8.0), point(40.0, 2.0)];
        let frontier = pareto(&points);
        // On logarithmic scales (20, 4) lies between them.
        let found = against(&point(18.0, 4.0), &frontier);
        assert!((found.hours.unwrap().mean + 10.0).abs() < 0.1, "{found:?}");
        let found = against(&point(20.0, 2.0), &frontier);
        assert!((found.slow.unwrap().mean + 50.0).abs() < 0.1, "{found:?}");
        assert_eq!(against(&point(5.0, 1.0), &frontier), Comparison { hours: None, slow: None });
        // A frontier without a slow call at as many pod-hours: none of a hundred parts of nothing.
        let points = [point(10.0, 8.0), point(40.0, 0.0)];
        let found = against(&point(40.0, 0.0), &pareto(&points));
        assert!(found.hours.is_some_and(|hours| hours.mean.abs() < 1e-9) && found.slow.is_none(), "{found:?}");
    }
}
