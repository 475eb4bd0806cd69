//! Whether one region at a time writes for a user, by the rules of homes (`Rules`, `HomeState`, `Lease`) as processes of
//! three regions follow them. What is agreed on by most copies of the world is a host that compares and sets; what a
//! region has of it is a copy that comes late. How a process asks is written here as in `Homes`, whose store is CQL.

mod process;
mod register;
mod run;

use self::run::run;
use crate::first;

/// Rules that are left out, to see that they are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Who began a write goes on with it whatever became of the home.
    Epoch,
    /// Who takes over does so at once.
    Lapse,
    /// Who is left lets the user go at once.
    Wait,
}

/// Seeds that are run.
const SEEDS: u64 = 100;

#[test]
fn one_region_at_a_time_writes_for_a_user() {
    let found = first(SEEDS, |seed| run(seed, None));
    if let Some((seed, fault)) = found {
        panic!("seed {seed} of homes: {fault}");
    }
}

#[test]
fn each_rule_of_homes_is_needed() {
    for without in [Without::Epoch, Without::Lapse, Without::Wait] {
        let found = first(SEEDS, |seed| run(seed, Some(without)));
        assert!(found.is_some(), "nothing is found without {without:?}");
    }
}
