//! What other regions take over while this one is short of pods.

use crate::{
    decision::Spill,
    learn::Moment,
    observation::{Observation, Phase},
    policy::Policy,
};

/// Round trips that a call costs which goes elsewhere: to there, and once more should the session be unknown there.
const TRIPS: u64 = 2;

/// The shares of the coming calls that other regions take: as many as there are no places for here, to the nearest
/// region first, and to none that is no quicker than waiting for a pod.
pub(crate) fn spill(policy: &Policy, seen: &Observation, moment: Moment) -> Vec<Spill> {
    let calls = seen.calls();
    let mut short = calls.saturating_sub(seen.ready().saturating_mul(policy.calls_per_pod));
    let (mut shares, mut regions) = (Vec::new(), Vec::new());
    if short == 0 {
        return shares;
    }
    let wait = wait_ms(seen, moment);
    regions.extend(seen.regions.iter().filter(|one| one.spare_calls > 0));
    regions.sort_by(|one, other| one.round_trip_ms.cmp(&other.round_trip_ms).then(one.name.cmp(&other.name)));
    for region in regions {
        let taken = short.min(region.spare_calls);
        if taken == 0 || region.round_trip_ms.saturating_mul(TRIPS) >= wait {
            break;
        }
        short -= taken;
        let permille = u64::from(taken) * 1_000 / u64::from(calls);
        let permille = u32::try_from(permille).expect("1000 at the most");
        if permille > 0 {
            shares.push(Spill { region: region.name.clone(), permille });
        }
    }
    shares
}

/// How long it is until another pod is ready here: what is left for the oldest that starts, or all of it.
fn wait_ms(seen: &Observation, moment: Moment) -> u64 {
    let starting = seen.pods.iter().filter(|pod| pod.phase == Phase::Starting);
    let left = |created: u64| moment.lead_ms.saturating_sub(moment.now_ms.saturating_sub(created));
    starting.map(|pod| left(pod.created_ms)).filter(|left| *left > 0).min().unwrap_or(moment.lead_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Load, Pod, Region};

    fn region(name: &str, spare_calls: u32, round_trip_ms: u64) -> Region {
        Region { name: name.into(), spare_calls, round_trip_ms }
    }

    fn seen(created_ms: Option<u64>) -> Observation {
        let starting = |created_ms| Pod {
            id: "a".into(),
            phase: Phase::Starting,
            created_ms,
            sessions: 0,
            in_flight: 0,
            calls_end_ms: None,
            restore_cost: 0,
        };
        Observation {
            loads: vec![Load { queued: 10, ..Load::default() }],
            pods: created_ms.map(starting).into_iter().collect(),
            regions: vec![region("far", 20, 3_000), region("west", 6, 80), region("east", 3, 80), region("full", 0, 1)],
            ..Observation::default()
        }
    }

    fn shares(seen: &Observation) -> Vec<(String, u32)> {
        let moment = Moment { now_ms: 100_000, lead_ms: 8_000 };
        spill(&Policy::default(), seen, moment).into_iter().map(|one| (one.region, one.permille)).collect()
    }

    #[test]
    fn the_nearest_take_what_there_is_no_place_for() {
        let told = shares(&seen(None));
        assert_eq!(told, [("east".into(), 300), ("west".into(), 600), ("far".into(), 100)]);
    }

    #[test]
    fn no_region_is_asked_that_is_slower_than_the_pod_that_starts() {
        // Ready in 4 s: two round trips of 3 s are too many.
        assert_eq!(shares(&seen(Some(96_000))).len(), 2);
        assert_eq!(shares(&seen(Some(92_100))), [], "100 ms are left");
    }
}
