//! What a number of pods costs, by Erlang's formula and how far off the load may be.

use libm::sqrt;

use crate::{
    number::{down, up},
    queue,
};

/// Where the load may lie, in upper halves of the interval, and how likely it is there.
const POINTS: [(f64, f64); 4] = [(0.0, 0.6), (0.5, 0.25), (1.0, 0.12), (1.6, 0.03)];
/// Where the load lies when demand jumps, in standard deviations, and how likely that is before more pods can be ready.
const JUMPS: [(f64, f64); 3] = [(1.0, 0.012), (2.0, 0.004), (3.5, 0.001)];
/// Numbers of pods that are compared at a time.
const COMPARED: u32 = 16;
/// Places up to which Erlang's recursion is cheap enough for all of these.
const EXACT: u32 = 160;
/// What varies less than that part of calls by chance is taken to vary so much.
const STEADY: f64 = 0.05;

/// What a number of pods is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlook {
    /// Busy places, and how far above that they are in one case of twenty.
    pub(crate) load: f64,
    pub(crate) above: f64,
    /// By how much demand jumps, in places: a standard deviation.
    pub(crate) jump: f64,
    /// The variance of busy places in parts of their mean: 1 for calls by chance, and less as more of them are known.
    pub(crate) spread: f64,
    /// Calls that come in a second.
    pub(crate) rate: f64,
    /// What one call takes, and what it may wait, in s.
    pub(crate) service: f64,
    pub(crate) limit: f64,
    /// What a call that waits longer costs, in pod-seconds.
    pub(crate) price: f64,
    /// Places of a pod.
    pub(crate) by_pod: u32,
    /// Pods that are there, and what each further one costs besides its time, in pods: it is started, and then held.
    pub(crate) there: u32,
    pub(crate) start: f64,
}

impl Outlook {
    /// The number of pods that costs the least, each second: as many pod-seconds, and the price of the calls that
    /// wait too long. Never fewer than the load keeps busy, so that every call is made at last.
    pub(crate) fn pods(&self, most: u32) -> u32 {
        let by_pod = f64::from(self.by_pod);
        let highest = self.load + (POINTS[POINTS.len() - 1].0 * self.above).max(JUMPS[JUMPS.len() - 1].0 * self.jump);
        let mut low = up(self.load / by_pod).max(1).min(most.max(1));
        let mut high = up((highest + 4.0 * sqrt(highest)) / by_pod + 1.0).clamp(low, most.max(1));
        // The cost falls and then rises: halving the stride around the best finds it.
        while high - low > COMPARED {
            let stride = (high - low).div_ceil(COMPARED);
            let best = self.cheapest(low, high, stride);
            (low, high) = (best.saturating_sub(stride).max(low), (best + stride).min(high));
        }
        self.cheapest(low, high, 1)
    }

    /// So many places are to be busy, of which so many are known to be.
    pub(crate) fn known(self, load: f64, known: f64) -> Self {
        let spread = if load > 0.0 { (1.0 - known / load).clamp(STEADY, 1.0) } else { 1.0 };
        Self { load, spread, ..self }
    }

    fn cheapest(&self, low: u32, high: u32, stride: u32) -> u32 {
        let mut costs = [0.0; COMPARED as usize + 2];
        let points = POINTS.into_iter().map(|(above, chance)| (above * self.above, chance));
        let jumps = JUMPS.into_iter().map(|(above, chance)| (above * self.jump, chance));
        for (above, chance) in points.chain(jumps.filter(|_| self.jump > 0.0)) {
            let more = if self.load > 0.0 { 1.0 + above / self.load } else { 1.0 };
            let weight = chance * self.price * self.rate * more;
            // Hayward's approximation (A. A. Fredericks, "Congestion in Blocking Systems", BSTJ 1980): traffic whose
            // variance is `spread` times its mean meets what both divided by it meet.
            let load = self.load * more / self.spread;
            let mut blocked = (0, 1.0);
            for (cost, pods) in costs.iter_mut().zip((low..=high).step_by(stride as usize)) {
                let places = f64::from(pods.saturating_mul(self.by_pod)) / self.spread;
                *cost += weight * self.slow(down(places), load, &mut blocked);
            }
        }
        let mut best = (low, f64::INFINITY);
        for (cost, pods) in costs.iter().zip((low..=high).step_by(stride as usize)) {
            let cost = cost + f64::from(pods) + self.start * f64::from(pods.saturating_sub(self.there));
            if cost < best.1 {
                best = (pods, cost);
            }
        }
        best.0
    }

    /// As [`queue::slow`], with the recursion taken up where the number of places before left it.
    fn slow(&self, places: u32, load: f64, (done, blocked): &mut (u32, f64)) -> f64 {
        let spare = f64::from(places) - load;
        if spare <= 0.0 || load <= 0.0 {
            return if load <= 0.0 { 0.0 } else { 1.0 };
        }
        if places > EXACT {
            return queue::slow(places, load, self.service, self.limit);
        }
        while *done < places {
            *done += 1;
            *blocked = load * *blocked / (f64::from(*done) + load * *blocked);
        }
        let delayed = *blocked / (1.0 - (load / f64::from(places)) * (1.0 - *blocked));
        delayed * libm::exp(-spare * self.limit / self.service)
    }
}

#[cfg(test)]
#[path = "outlook_tests.rs"]
mod tests;
