//! Each checker passes what a correct system does under faults, and catches the system with a bug planted in it.

use std::collections::BTreeMap;

use super::*;
use crate::random::Random;

/// What a seed makes happen.
struct Draw(Random);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    fn region(&mut self) -> Region {
        Region::ALL[usize::try_from(self.below(3)).expect("less than 3")]
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(10) {
            0 => Outcome::Failed,
            1 | 2 => Outcome::Unknown,
            _ => Outcome::Ok,
        }
    }
}

fn entry(region: Region, (began, ended): (u64, u64), outcome: Outcome, op: Op) -> Entry {
    Entry { region, began, ended, outcome, op }
}

fn judged(entries: Vec<Entry>) -> Verdict {
    History { entries, ..History::default() }.judge()
}

/// Runs a system with many seeds: as it should be it passes each time, and with the bug only these kinds are found,
/// with most of the seeds.
fn caught(system: impl Fn(&mut Draw, bool) -> Vec<Entry>, kinds: &[Kind]) {
    const SEEDS: u64 = 300;
    let mut found = 0;
    for seed in 0..SEEDS {
        let verdict = judged(system(&mut Draw(Random(seed)), false));
        assert!(verdict.passed(), "seed {seed}: {verdict}");
        let verdict = judged(system(&mut Draw(Random(seed)), true));
        assert!(verdict.counts.keys().all(|kind| kinds.contains(kind)), "seed {seed}: {verdict}");
        found += u64::from(!verdict.passed());
    }
    assert!(found > SEEDS / 2, "the bug was found with {found} of {SEEDS} seeds");
}

/// Listens that are in the writer's region when it is told so and elsewhere after a while. The bug: an answer before
/// a second broker has the record, which the first one takes with it.
fn listens(draw: &mut Draw, bug: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    // By element: when it is visible in each region.
    let mut visible: BTreeMap<u64, BTreeMap<Region, u64>> = BTreeMap::new();
    for element in 0..60 {
        let (region, began) = (draw.region(), element * 10);
        let (ended, outcome) = (began + 1 + draw.below(30), draw.outcome());
        let written = match outcome {
            Outcome::Ok => !(bug && draw.one_in(30)),
            Outcome::Unknown => draw.one_in(2),
            Outcome::Failed => false,
        };
        if written {
            let when = |draw: &mut Draw, at| if at == region { began } else { ended + draw.below(200) };
            visible.insert(element, Region::ALL.map(|at| (at, when(draw, at))).into());
        }
        entries.push(entry(region, (began, ended), outcome, Op::Add { set: "ann".into(), element }));
    }
    let mut read = |region, at: u64| {
        let seen = visible.iter().filter(|(_, when)| when[&region] <= at).map(|(element, _)| *element).collect();
        entries.push(entry(region, (at, at + 5), Outcome::Ok, Op::Read { set: "ann".into(), elements: seen }));
    };
    (0..30).for_each(|_| read(draw.region(), draw.below(700)));
    Region::ALL.into_iter().for_each(|region| read(region, 2_000));
    entries
}

#[test]
fn an_answer_before_the_copy_is_caught_as_lost() {
    caught(listens, &[Kind::Lost]);
}

/// Records of three keys and a consumer that is killed now and then and goes on at its last commit. The bug: to
/// commit before the effect.
fn consumption(draw: &mut Draw, bug: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    let (mut log, mut next) = (Vec::new(), [0_u64; 3]);
    for at in 0..60 {
        let (key, outcome) = (usize::try_from(draw.below(3)).expect("less than 3"), draw.outcome());
        let op = Op::Send { key: format!("user-{key}"), sequence: next[key] };
        if outcome == Outcome::Ok || outcome == Outcome::Unknown && draw.one_in(2) {
            log.push((key, next[key]));
        }
        next[key] += 1;
        entries.push(entry(Region::Us, (at, at), outcome, op));
    }
    let (mut position, mut committed, mut now) = (0, 0, 1_000);
    while position < log.len() {
        if bug {
            committed = position + 1;
        }
        if draw.one_in(12) {
            position = committed;
            continue;
        }
        let (key, sequence) = log[position];
        let op = Op::Deliver { consumer: "lists".into(), key: format!("user-{key}"), sequence };
        entries.push(entry(Region::Us, (now, now), Outcome::Ok, op));
        (position, now) = (position + 1, now + 1);
        if !bug && draw.one_in(4) {
            committed = position;
        }
    }
    entries
}

#[test]
fn a_commit_before_the_effect_is_caught_as_lost() {
    caught(consumption, &[Kind::Lost]);
}

#[test]
fn records_of_a_key_in_another_order_are_caught() {
    let at = |now, op| entry(Region::Us, (now, now), Outcome::Ok, op);
    let send = |sequence| at(sequence, Op::Send { key: "ann".into(), sequence });
    let deliver = |now, sequence| at(now, Op::Deliver { consumer: "lists".into(), key: "ann".into(), sequence });
    let with = |order: &[u64]| {
        let delivered = (10..).zip(order).map(|(now, sequence)| deliver(now, *sequence));
        judged((0..3).map(send).chain(delivered).collect())
    };
    let again = with(&[0, 1, 0, 1, 2]);
    assert!(again.passed() && again.redelivered == 2, "{again}");
    assert_eq!(with(&[0, 2, 1]).counts, [(Kind::Reordered, 1)].into());
    assert_eq!(with(&[0, 1]).counts, [(Kind::Lost, 1)].into());
    assert_eq!(with(&[0, 1, 2, 3]).counts, [(Kind::Phantom, 1)].into());
}

/// Two in two regions want each name. The bug: a region decides by itself.
fn handles(draw: &mut Draw, bug: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for number in 0..20 {
        let name = format!("name-{number}");
        let mut owner = None;
        for (region, claimant) in [(Region::Us, 2 * number), (Region::Eu, 2 * number + 1)] {
            let free = owner.is_none() || bug && draw.one_in(8);
            let unknown = draw.one_in(5);
            if free && !(unknown && draw.one_in(2)) {
                owner = Some(claimant);
            }
            let outcome = match (unknown, owner == Some(claimant)) {
                (true, _) => Outcome::Unknown,
                (false, true) => Outcome::Ok,
                (false, false) => Outcome::Failed,
            };
            entries.push(entry(region, (10, 20), outcome, Op::Claim { name: name.clone(), owner: claimant }));
        }
        entries.push(entry(Region::Ap, (100, 110), Outcome::Ok, Op::Owner { name, owner }));
    }
    entries
}

#[test]
fn a_name_that_each_region_gives_by_itself_is_caught() {
    caught(handles, &[Kind::TwoOwners]);
}

/// Steps that are tried again when their outcome is unknown. The bug: the second try does not ask what became of the
/// first.
fn steps(draw: &mut Draw, bug: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for step in 0..40 {
        let mut done = false;
        loop {
            let unknown = draw.one_in(6);
            let reached = !unknown || draw.one_in(2);
            if reached && (bug || !done) {
                entries.push(entry(Region::Us, (5, 5), Outcome::Ok, Op::Effect { run: "run".into(), step }));
            }
            done |= reached;
            let outcome = if unknown { Outcome::Unknown } else { Outcome::Ok };
            entries.push(entry(Region::Us, (1, 9), outcome, Op::Step { run: "run".into(), step }));
            if !unknown {
                break;
            }
        }
    }
    entries
}

#[test]
fn a_second_try_that_does_it_again_is_caught_as_duplicated() {
    caught(steps, &[Kind::Duplicated]);
}

/// Plays counted in the region where they happen. The bug: a try of unknown outcome is repeated as if it had failed.
fn plays(draw: &mut Draw, bug: bool) -> Vec<Entry> {
    let (mut entries, mut value) = (Vec::new(), 0);
    for at in 0..50 {
        let (outcome, by) = (draw.outcome(), 1 + draw.below(3));
        let reached = outcome == Outcome::Ok || outcome == Outcome::Unknown && draw.one_in(2);
        let twice = bug && outcome == Outcome::Unknown && reached;
        value += by * (u64::from(reached) + u64::from(twice));
        let outcome = if twice { Outcome::Ok } else { outcome };
        entries.push(entry(Region::Us, (at * 10, at * 10 + 5), outcome, Op::Count { counter: "plays".into(), by }));
    }
    entries.push(entry(Region::Us, (1_000, 1_001), Outcome::Ok, Op::Total { counter: "plays".into(), value }));
    entries
}

#[test]
fn a_counter_that_is_raised_twice_is_caught() {
    const SEEDS: u64 = 300;
    let mut found = 0;
    for seed in 0..SEEDS {
        let verdict = judged(plays(&mut Draw(Random(seed)), false));
        assert!(verdict.passed(), "seed {seed}: {verdict}");
        found += judged(plays(&mut Draw(Random(seed)), true)).count(Kind::Duplicated);
    }
    // What stays unknown may hide what was counted twice.
    assert!(found > SEEDS / 10, "the bug was found with {found} of {SEEDS} seeds");
    let at = |now, op| entry(Region::Us, (now, now), Outcome::Ok, op);
    let count = at(1, Op::Count { counter: "plays".into(), by: 2 });
    let total = |value| at(5, Op::Total { counter: "plays".into(), value });
    assert_eq!(judged(vec![count.clone(), total(1)]).counts, [(Kind::Lost, 1)].into());
    assert_eq!(judged(vec![count]).unchecked, 1);
}

/// Lists of three listeners that every region makes from the same writes, which arrive in other orders. The bug: the
/// last to arrive wins instead of the last to be written.
fn lists(draw: &mut Draw, bug: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for listener in 0..3 {
        let writes: Vec<u64> = (0..5).collect();
        for region in Region::ALL {
            let last_to_arrive = if region == Region::Us { 4 } else { draw.below(5) };
            let state = if bug { writes[usize::try_from(last_to_arrive).expect("less than 5")] } else { 4 };
            let op = |digest| Op::View { of: format!("list of {listener}"), digest };
            entries.push(entry(region, (10, 11), Outcome::Ok, op(draw.below(5))));
            entries.push(entry(region, (100, 101), Outcome::Ok, op(state)));
        }
    }
    entries
}

#[test]
fn lists_that_do_not_converge_are_caught() {
    caught(lists, &[Kind::Diverged]);
}

#[test]
fn what_is_late_in_a_region_is_told_apart_from_what_is_late_elsewhere() {
    let add = entry(Region::Us, (0, 10), Outcome::Ok, Op::Add { set: "ann".into(), element: 1 });
    let read = |region, began, elements: &[u64]| {
        let elements = elements.to_vec();
        entry(region, (began, began + 1), Outcome::Ok, Op::Read { set: "ann".into(), elements })
    };
    let elsewhere = judged(vec![add.clone(), read(Region::Eu, 20, &[]), read(Region::Eu, 30, &[1])]);
    assert!(elsewhere.passed() && elsewhere.behind == 1, "{elsewhere}");
    let here = judged(vec![add.clone(), read(Region::Us, 20, &[]), read(Region::Us, 30, &[1])]);
    assert_eq!(here.counts, [(Kind::Stale, 1)].into());
    let seen_and_gone =
        vec![add.clone(), read(Region::Eu, 11, &[1]), read(Region::Eu, 20, &[]), read(Region::Eu, 30, &[1])];
    assert_eq!(judged(seen_and_gone).counts, [(Kind::Stale, 1)].into());
    let twice = judged(vec![add.clone(), read(Region::Us, 20, &[1, 1])]);
    assert_eq!(twice.counts, [(Kind::Duplicated, 1)].into());
    assert_eq!(judged(vec![add.clone(), read(Region::Us, 20, &[1, 2])]).counts, [(Kind::Phantom, 1)].into());
    // What nobody looked for is not passed.
    let unread = judged(vec![add, read(Region::Us, 5, &[])]);
    assert!(!unread.passed() && unread.unchecked == 1 && unread.counts.is_empty(), "{unread}");
}

#[test]
fn a_history_is_read_as_it_was_written_and_bad_lines_are_named() {
    let header = Header { scenario: "kill-broker".into(), seed: 7, version: "0.1.0".into() };
    let history = History { header, entries: listens(&mut Draw(Random(7)), false) };
    let mut written = Vec::new();
    history.write(&mut written).expect("memory takes all");
    assert_eq!(History::read(written.as_slice()).expect("as written"), history);
    let text = String::from_utf8(written).expect("JSON");
    let told = |text: &str| History::read(text.as_bytes()).expect_err("refused").to_string();
    assert!(told(&text.replacen("\"op\":\"add\"", "\"op\":\"eat\"", 1)).starts_with("line 2 of the history: "));
    assert_eq!(told(""), "the history is empty");
    let backwards = text.lines().next().expect("a header").to_owned()
        + "\n{\"region\":\"us\",\"began\":2,\"ended\":1,\"outcome\":\"ok\",\"op\":\"view\",\"of\":\"x\",\"digest\":1}\n";
    assert_eq!(told(&backwards), "line 2 of the history: it ended at 1 and began at 2");
}

/// Accounts that are erased in every region before it is said so. The bug: one region is told and not waited for, and
/// is cut off.
fn erasing(draw: &mut Draw, bug: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for account in 0..20 {
        let of = format!("account-{account}");
        let forgets = bug && draw.one_in(10);
        let (began, outcome) = (account * 10, draw.outcome());
        let cut_off = draw.region();
        entries.push(entry(draw.region(), (began, began + 5), outcome, Op::Erase { of: of.clone() }));
        for region in Region::ALL {
            let kept = match outcome {
                Outcome::Ok => forgets && region == cut_off,
                Outcome::Unknown => draw.one_in(2),
                Outcome::Failed => true,
            };
            let early = Op::Remains { of: of.clone(), rows: draw.below(9) };
            entries.push(entry(region, (began + 1, began + 2), Outcome::Ok, early));
            let op = Op::Remains { of: of.clone(), rows: u64::from(kept) };
            entries.push(entry(region, (9_000, 9_001), Outcome::Ok, op));
        }
    }
    entries
}

#[test]
fn an_erasure_that_leaves_out_a_region_is_caught() {
    caught(erasing, &[Kind::Remains]);
    let erase = entry(Region::Us, (1, 2), Outcome::Ok, Op::Erase { of: "ann".into() });
    assert_eq!(judged(vec![erase]).unchecked, 1, "an erasure that nobody looked into is no pass");
}
