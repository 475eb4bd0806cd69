//! How likely a call waits too long: Erlang's delay formula (A. K. Erlang, 1917), by which a fixed reserve of 30 % is
//! far too much for many pods and too little for few.

use libm::{erfc, exp, sqrt};

/// Places up to which the formula is computed as it stands; beyond, by its limit for many.
const EXACT: u32 = 40;

/// The chance that a call finds all `places` taken, when `load` of them are busy on average: Erlang C. 1 from
/// `load = places` on.
///
/// Up to 40 places by the recursion over Erlang B, `B(c) = aB(c−1) / (c + aB(c−1))`; beyond by the limit of Halfin
/// and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers" (Operations Research 1981).
pub(crate) fn delayed(places: u32, load: f64) -> f64 {
    let c = f64::from(places);
    if load >= c {
        return 1.0;
    }
    if load <= 0.0 {
        return 0.0;
    }
    if places > EXACT {
        let beta = (c - load) / sqrt(load);
        let density = exp(-0.5 * beta * beta) / sqrt(2.0 * std::f64::consts::PI);
        let below = 0.5 * erfc(-beta / std::f64::consts::SQRT_2);
        return density / (density + beta * below);
    }
    let blocked = (1..=places).fold(1.0, |blocked, n| load * blocked / (f64::from(n) + load * blocked));
    blocked / (1.0 - (load / c) * (1.0 - blocked))
}

/// The chance that a call waits longer than `limit`, for calls of `service` on average (both in seconds): those that
/// are delayed wait exponentially long, with a mean of `service / (places − load)`.
pub(crate) fn slow(places: u32, load: f64, service: f64, limit: f64) -> f64 {
    let spare = f64::from(places) - load;
    if spare <= 0.0 { 1.0 } else { delayed(places, load) * exp(-spare * limit / service) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn worked_examples_of_the_formula() {
        // One place: C = a. Two places: C = a² / (2 + a). Three, by hand for a = 2: (8/6 · 3) / (1 + 2 + 2 + 8/6 · 3).
        assert!((delayed(1, 0.3) - 0.3).abs() < 1e-12);
        assert!((delayed(2, 1.0) - 1.0 / 3.0).abs() < 1e-12);
        assert!((delayed(3, 2.0) - 4.0 / 9.0).abs() < 1e-12);
        // One place, load ½, calls of 1 s: P(W > 1 s) = ½ e^(−½).
        assert!((slow(1, 0.5, 1.0, 1.0) - 0.303_265_329_856).abs() < 1e-9);
    }

    #[test]
    fn the_limit_joins_the_formula() {
        let exact = |places: u32, load: f64| {
            let b = (1..=places).fold(1.0, |b, n| load * b / (f64::from(n) + load * b));
            b / (1.0 - load / f64::from(places) * (1.0 - b))
        };
        for (places, load) in [(41, 30.0), (41, 38.0), (100, 80.0), (400, 380.0)] {
            let (told, truth) = (delayed(places, load), exact(places, load));
            assert!((told - truth).abs() < 0.02 + 0.1 * truth, "{places} places, {load}: {told} for {truth}");
        }
    }

    proptest! {
        #[test]
        fn more_places_delay_less_and_more_load_delays_more(places in 1_u32..200, load in 0.01..200_f64) {
            let here = delayed(places, load);
            prop_assert!((0.0..=1.0).contains(&here));
            if places != EXACT {
                prop_assert!(delayed(places + 1, load) <= here);
            }
            prop_assert!(delayed(places, load * 1.01) >= here);
        }
    }
}
