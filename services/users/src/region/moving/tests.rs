use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::*;

const LAPSE: Duration = Duration::from_secs(10);
/// When the world of [`Case`] begins, in milliseconds since the Unix epoch.
const WALL: u64 = 1_700_000_000_000;

#[test]
fn a_home_is_written_as_one_value_and_what_is_damaged_is_told() {
    let us = HomeState::first("us");
    assert_eq!(us.to_string(), "us");
    let moving = us.begun("eu", 7);
    assert_eq!(moving.to_string(), "us epoch=1 fence=0 to=eu since=7");
    let settled = moving.arrived(Hlc(5));
    assert_eq!(settled.to_string(), "eu epoch=2 fence=5");
    for text in ["", "us ", " us", "us epoch=1", "us epoch=x fence=0", "us fence=0 epoch=1", "us epoch=1 fence=0 to=eu"]
    {
        let refused = text.parse::<HomeState>().expect_err("damaged");
        assert!(refused.contains(&text.escape_debug().to_string()), "{refused}");
    }
}

#[test]
fn a_move_that_nobody_goes_on_with_is_stale_after_ten_minutes() {
    let moving = HomeState::first("us").begun("eu", WALL);
    assert!(!moving.is_stale(WALL + STALE_MS) && moving.is_stale(WALL + STALE_MS + 1));
    let renewed = moving.renewed(WALL + STALE_MS);
    assert!(!renewed.is_stale(WALL + STALE_MS + 1));
    assert_eq!((renewed.epoch, &renewed.region), (moving.epoch, &moving.region), "it is the same move");
    assert!(!moving.is_stale(0), "a clock that is behind");
    assert!(!HomeState::first("us").is_stale(u64::MAX));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin(usize),
    Renew,
    Arrive(u64),
    Back,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3_usize).prop_map(Step::Begin),
        Just(Step::Renew),
        (0..1_000_u64).prop_map(Step::Arrive),
        Just(Step::Back)
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn no_state_comes_twice_and_each_is_read_as_it_was_written(steps in steps()) {
        let regions = ["us", "eu", "ap"];
        let mut state = HomeState::first("us");
        let mut before = vec![state.clone()];
        for (step, now_ms) in steps.into_iter().zip(WALL..) {
            let next = match (step, &state.moving) {
                (Step::Begin(to), None) if regions[to] != state.region => state.begun(regions[to], now_ms),
                (Step::Renew, Some(_)) => state.renewed(now_ms),
                (Step::Arrive(fence), Some(_)) => state.arrived(Hlc(fence)),
                (Step::Back, Some(_)) => state.back(),
                _ => continue,
            };
            prop_assert_eq!(next.to_string().parse::<HomeState>(), Ok(next.clone()));
            // A conditional write of one who saw an earlier state is refused for ever.
            prop_assert!(!before.contains(&next), "{next} came before");
            prop_assert!(next.epoch >= state.epoch && next.fence >= state.fence);
            prop_assert!(next.epoch > state.epoch || next.region == state.region);
            before.push(next.clone());
            state = next;
        }
    }
}

/// What a planted fault leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// The old home lets the user go without waiting for the leases.
    NoWait,
    /// A lease that has lapsed is renewed without a look at the epoch.
    NoEpoch,
    /// The new home does not take note of the fence.
    NoFence,
    /// A lease knows no latest time, so that a machine that slept goes on as if it had not.
    NoLatest,
}

/// One write in the old home beside a move, all in milliseconds after each other.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// When the home was read, the write got its time, the lease was looked at, and the write was sent.
    read: u64,
    drawn: u64,
    checked: u64,
    sent: u64,
    /// For how long the machine slept before the write got its time: its steady clock stood still.
    slept: u64,
    /// When the move was seen in the old home, how long after the user was let go it ended, and how long after that the
    /// new home wrote.
    seen: u64,
    ended: u64,
    next: u64,
    /// By how much clocks are ahead: of the writer, of the process that lets the user go, of the new home.
    skews: (u64, u64, u64),
}

fn cases() -> impl Strategy<Value = Case> {
    let writer = (0..40_000_u64, 0..30_000_u64, 0..30_000_u64, prop_oneof![0..20_u64, 0..3_600_000_u64]);
    let slept = prop_oneof![Just(0), 0..3_600_000_u64];
    let mover = (0..40_000_u64, 0..3_000_u64, 0..5_000_u64, 0..5_000_u64);
    // Within a region less than the grace, between regions up to a minute.
    let skews = (0..5_000_u64, 0..5_000_u64, 0..60_000_u64);
    (writer, slept, mover, skews).prop_map(
        |((read, drawn, checked, sent), slept, (begun, seen, ended, next), skews)| {
            let drawn = read + drawn + slept;
            let (checked, seen) = (drawn + checked, begun + seen);
            let (writer, releaser, new) = skews;
            // The regions before are a minute ahead at the most.
            let skews = (60_000 + writer, 60_000 + releaser, new);
            Case { read, drawn, checked, sent: checked + sent, slept, seen, ended, next, skews }
        },
    )
}

/// What becomes of the case; whether all that must hold does.
fn holds(case: Case, planted: Planted) -> Result<(), TestCaseError> {
    let zero = Instant::now();
    let at = |ms: u64| zero + Duration::from_millis(ms);
    // The steady clock of the writer's machine.
    let steady = |ms: u64| at(if ms >= case.drawn { ms - case.slept } else { ms });
    let hlc = |ms: u64, ahead: u64| Hlc::from_ms(WALL + ms + ahead);
    let (before, moving) = (HomeState::first("us"), HomeState::first("us").begun("eu", WALL));
    // Between the two, some see it and some do not: the worst is that the writer does not.
    let state = |ms: u64| if ms > case.seen { &moving } else { &before };

    let waited = if planted == Planted::NoWait { Duration::ZERO } else { left(at(case.seen), at(case.seen), LAPSE) };
    let released = case.seen + u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let fence = hlc(released, case.skews.1);
    let arrived = moving.arrived(fence);
    let next = released + case.ended + case.next;
    let observed = if planted == Planted::NoFence { Hlc::default() } else { arrived.fence };
    let written_after = Hlc(hlc(next, case.skews.2).0.max(observed.0 + 1));

    let (drawn, read) = (hlc(case.drawn, case.skews.0), hlc(case.read, case.skews.0));
    if state(case.read).moving.is_some() {
        return Ok(());
    }
    let mut lease = Lease::new(steady(case.read), read, LAPSE);
    let asked = if planted == Planted::NoLatest { read } else { drawn };
    if !lease.covers(steady(case.checked), asked) {
        let now = state(case.checked);
        let is_same = now.moving.is_none() && now.epoch == before.epoch;
        if !(is_same || planted == Planted::NoEpoch) {
            return Ok(());
        }
        lease = Lease::new(steady(case.checked), hlc(case.checked, case.skews.0), LAPSE);
        prop_assert!(lease.covers(steady(case.checked), drawn), "a look after the write got its time is enough");
    }
    prop_assert!(drawn < written_after, "a write of the old home is earlier than those of the new one");
    let is_paused = case.slept > 0 || steady(case.sent) > lease.until + GRACE;
    prop_assert!(is_paused || case.sent <= released, "who was not paused writes before the user is let go");
    Ok(())
}

fn search(planted: Planted) -> Result<(), TestError<Case>> {
    let config = Config { cases: 20_000, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
        .run(&cases(), |case| holds(case, planted))
}

#[test]
fn no_write_of_the_old_home_comes_after_the_move_or_wins_over_one_of_the_new() {
    search(Planted::Nothing).expect("holds");
}

#[test]
fn each_part_of_a_move_is_needed() {
    for planted in [Planted::NoWait, Planted::NoEpoch, Planted::NoFence, Planted::NoLatest] {
        let found = search(planted);
        assert!(matches!(found, Err(TestError::Fail(..))), "{planted:?} is not found");
    }
}

#[test]
fn a_lease_ends_when_what_it_rests_on_may_be_over() {
    let (seen, lapse) = (Instant::now(), Duration::from_secs(10));
    let at = Hlc::from_ms(1_000);
    let lease = Lease::new(seen, at, lapse);
    let early = seen + Duration::from_secs(3);
    assert!(lease.covers(early, at), "it was seen three seconds ago");
    assert!(!lease.within(early).covers(early, at), "who takes over begins then");
    assert!(lease.within(seen + 2 * lapse).covers(early, at), "what lasts longer takes nothing away");
    assert!(!lease.within(seen + 2 * lapse).covers(seen + lapse, at), "and adds nothing");
}
