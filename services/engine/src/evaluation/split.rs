use std::{collections::HashSet, sync::Arc};

use thiserror::Error;

use super::{Dataset, Event, Events, Names, dataset::Parts, events::merged};
use crate::Random;

/// Why data cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitError {
    /// Rows lack times.
    #[error("a split by time needs a time in every row: `user item weight time`")]
    NoTimes,
    /// A part is empty.
    #[error("the {part} part is empty: {rows} rows are too few, or too many share one time")]
    Empty {
        /// Which part.
        part: &'static str,
        /// Rows there were.
        rows: usize,
    },
}

/// How one file becomes three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// [`random`].
    Random,
    /// [`temporal`].
    Temporal,
    /// [`new_items`].
    NewItems,
}

/// Of each listener a tenth of the pairs at random for test, another for validation, the rest for training
/// (rounded, so that five pairs are the fewest that are held out from). The same seed makes the same split;
/// the order of rows does not matter beyond the numbering of names.
pub fn random(events: &Events, seed: u64) -> Dataset {
    let mut random = Random::new(seed);
    let pairs = merged(events.rows.clone());
    let mut parts = Parts { train: Vec::new(), validation: Vec::new(), test: Vec::new(), whole: Vec::new() };
    for row in pairs.chunk_by(|a, b| a.user == b.user) {
        let mut row = row.to_vec();
        random.shuffle(&mut row);
        let tenth = (row.len() + 5) / 10;
        parts.test.extend(row.drain(row.len() - tenth..));
        parts.whole.extend(&row);
        parts.validation.extend(row.drain(row.len() - tenth..));
        parts.train.extend(row);
    }
    Dataset::from_parts(parts, false, events.timed, names(&events.users), names(&events.items))
}

/// A given test part, and of each listener a tenth of the training pairs at random for validation; the chosen
/// model is fitted again on all of them. Test pairs that are in training are dropped: they cannot be ranked.
/// Listeners of the test part alone are judged too.
pub fn carved(events: &Events, test: &[Event], seed: u64) -> Dataset {
    let mut random = Random::new(seed);
    let whole = merged(events.rows.clone());
    let known: HashSet<(u32, u32)> = whole.iter().map(|row| (row.user, row.item)).collect();
    let test = test.iter().filter(|row| !known.contains(&(row.user, row.item))).copied().collect();
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for row in whole.chunk_by(|a, b| a.user == b.user) {
        let mut row = row.to_vec();
        random.shuffle(&mut row);
        validation.extend(row.drain(row.len() - (row.len() + 5) / 10..));
        train.extend(row);
    }
    let parts = Parts { train, validation, test, whole };
    let dataset = Dataset::from_parts(parts, true, events.timed, names(&events.users), names(&events.items));
    Dataset { judge_unknown: true, ..dataset }
}

/// Cut at two moments for all listeners: the last tenth of the events is test, the tenth before it validation,
/// and no event of training is later than one held out (a global temporal split: Meng et al., "Exploring Data
/// Splitting Strategies for the Evaluation of Recommendation Models", `RecSys` 2020; Ji et al., "A Critical
/// Study on Data Leakage in Recommender System Offline Evaluation", TOIS 2023). Relevant are items that are new
/// to the listener. Events of one moment stay together.
///
/// # Errors
/// A row without a time; parts that would be empty.
pub fn temporal(events: &Events) -> Result<Dataset, SplitError> {
    if !events.timed {
        return Err(SplitError::NoTimes);
    }
    let mut rows = events.rows.clone();
    rows.sort_by_key(|row| row.time);
    let tenth = rows.len().div_ceil(10);
    let before = |at: usize| {
        let moment = rows.get(at).map_or(i64::MAX, |row| row.time);
        rows.partition_point(|row| row.time < moment)
    };
    let last = before(rows.len() - tenth);
    let middle = before(last.saturating_sub(tenth));
    let new = |known: &[Event], later: &[Event]| -> Vec<Event> {
        let known: HashSet<(u32, u32)> = known.iter().map(|row| (row.user, row.item)).collect();
        later.iter().filter(|row| !known.contains(&(row.user, row.item))).copied().collect()
    };
    let parts = Parts {
        train: rows[..middle].to_vec(),
        validation: new(&rows[..middle], &rows[middle..last]),
        test: new(&rows[..last], &rows[last..]),
        whole: rows[..last].to_vec(),
    };
    for (part, found) in [("training", &parts.train), ("validation", &parts.validation), ("test", &parts.test)] {
        if found.is_empty() {
            return Err(SplitError::Empty { part, rows: rows.len() });
        }
    }
    let mut dataset = Dataset::from_parts(parts, true, true, names(&events.users), names(&events.items));
    dataset.strict_tags = true;
    Ok(dataset)
}

/// Of the items a tenth at random is new at the test and another at validation: nobody knows them in training, and
/// they alone are ranked. The same seed makes the same split. What listeners say of an item that they know is held
/// out with it, so that only the words of others describe it.
pub fn new_items(events: &Events, seed: u64) -> Dataset {
    let items = events.items.len();
    let mut order: Vec<usize> = (0..items).collect();
    Random::new(seed).shuffle(&mut order);
    let tenth = (items + 5) / 10;
    let drawn = |from: usize| {
        let mut new = vec![false; items];
        order.iter().skip(from).take(tenth).for_each(|item| new[*item] = true);
        new
    };
    let new = [drawn(tenth), drawn(0)];
    let mut parts = Parts { train: Vec::new(), validation: Vec::new(), test: Vec::new(), whole: Vec::new() };
    for row in &events.rows {
        let [validation, test] = [0, 1].map(|part: usize| new[part][row.item as usize]);
        if test {
            parts.test.push(*row);
            continue;
        }
        parts.whole.push(*row);
        if validation { parts.validation.push(*row) } else { parts.train.push(*row) }
    }
    let dataset = Dataset::from_parts(parts, true, events.timed, names(&events.users), names(&events.items));
    Dataset { new_items: Some(new), ..dataset }
}

fn names(names: &Names) -> Arc<Names> {
    Arc::new(names.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::events::tests::events, *};
    use crate::{
        Interactions,
        evaluation::{EachUser, rank},
    };

    fn pairs(matrix: &Interactions) -> Vec<(usize, u32)> {
        (0..matrix.user_count()).flat_map(|user| matrix.row(user).iter().map(move |item| (user, *item))).collect()
    }

    fn sorted(parts: &[&Interactions]) -> Vec<(usize, u32)> {
        let mut all: Vec<_> = parts.iter().flat_map(|part| pairs(part)).collect();
        all.sort_unstable();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_random_split_keeps_every_pair_once_and_a_tenth_of_each_listener_is_held_out_twice(
            given in proptest::collection::vec((0..12_u32, 0..60_u32), 1..400), seed in 0..1_000_u64,
        ) {
            let events = events(&given);
            let set = random(&events, seed);
            let mut all: Vec<_> = given.iter().map(|(user, item)| (*user as usize, *item)).collect();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(sorted(&[&set.train, &set.validation, &set.test]), all);
            prop_assert_eq!(sorted(&[&set.train, &set.validation]), pairs(&set.whole));
            for user in 0..set.train.user_count() {
                let (test, rest) = (set.test.row(user).len(), set.whole.row(user).len());
                prop_assert_eq!(test, (test + rest + 5) / 10);
                prop_assert_eq!(test, set.validation.row(user).len());
            }
        }

        #[test]
        fn nothing_before_the_cut_of_a_temporal_split_is_held_out_and_what_is_held_out_is_new(
            given in proptest::collection::vec((0..12_u32, 0..30_u32, 0..500_i64), 60..400),
        ) {
            let mut events = events(&given.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>());
            events.rows.iter_mut().zip(&given).for_each(|(row, given)| row.time = given.2);
            events.timed = true;
            if let Ok(set) = temporal(&events) {
                let latest = |[train, whole]: &[Vec<Vec<i64>>; 2]| {
                    [train, whole].map(|times| times.iter().flatten().copied().max().expect("not empty"))
                };
                let [train, whole] = latest(set.times.as_ref().expect("timed"));
                let earliest = |matrix: &Interactions| {
                    let of = |(user, item): (usize, u32)| {
                        let same = |row: &&Event| (row.user as usize, row.item) == (user, item);
                        events.rows.iter().filter(same).map(|row| row.time).min().expect("an event")
                    };
                    pairs(matrix).into_iter().map(of).min().expect("not empty")
                };
                prop_assert!(earliest(&set.validation) > train);
                prop_assert!(earliest(&set.test) > whole);
                prop_assert!(pairs(&set.test).iter().all(|pair| !pairs(&set.whole).contains(pair)));
            }
        }
    }

    #[test]
    fn a_seed_is_a_split() {
        let events = events(&(0..50).map(|item| (0, item)).collect::<Vec<_>>());
        let (one, again, other) = (random(&events, 1), random(&events, 1), random(&events, 2));
        assert_eq!((one.train.len(), one.validation.len(), one.test.len()), (40, 5, 5));
        assert_eq!((&one.test, &one.validation), (&again.test, &again.validation));
        assert_ne!(one.test, other.test);
    }

    #[test]
    fn a_temporal_split_cuts_at_the_last_and_the_second_last_tenth() {
        // Listener 1 comes in the last tenth alone; item 5 is played again there and is not new.
        let mut given: Vec<(u32, u32)> = (0..28).map(|item| (0, item)).collect();
        given.extend([(0, 5), (1, 28)]);
        let mut events = events(&given);
        (0..).zip(&mut events.rows).for_each(|(time, row)| row.time = time);
        assert_eq!(temporal(&events).expect_err("no times"), SplitError::NoTimes);
        events.timed = true;
        let set = temporal(&events).expect("a split");
        assert_eq!(
            (pairs(&set.validation), pairs(&set.test)),
            (vec![(0, 24), (0, 25), (0, 26)], vec![(0, 27), (1, 28)])
        );
        assert_eq!((set.train.len(), set.whole.len(), set.unknown_users()), (24, 27, 1));
        assert_eq!(set.testing().judged(), [0]);
        events.rows.iter_mut().for_each(|row| row.time = 1);
        assert_eq!(temporal(&events).expect_err("one time"), SplitError::Empty { part: "training", rows: 30 });
    }

    #[test]
    fn new_items_are_known_to_nobody_and_ranked_alone() {
        let given: Vec<(u32, u32)> = (0..30).flat_map(|user| (0..40).map(move |item| (user, item))).collect();
        let set = new_items(&events(&given), 7);
        let [validation, test] = set.new_items.as_ref().expect("new items");
        let count = |new: &[bool]| new.iter().filter(|one| **one).count();
        assert_eq!((count(validation), count(test)), (4, 4));
        assert!(validation.iter().zip(test).all(|(one, other)| !(*one && *other)));
        assert_eq!(sorted(&[&set.whole, &set.test]), sorted(&[&set.train, &set.validation, &set.test]));
        for (fold, new) in [(set.tuning(), validation), (set.testing(), test)] {
            assert!(pairs(fold.training.interactions).iter().all(|(_, item)| !new[*item as usize]));
            assert!(pairs(fold.held).iter().all(|(_, item)| new[*item as usize]));
            let scorer = EachUser(|_, scores: &mut Vec<f32>| *scores = vec![1.0; 40]);
            let lists = rank(&fold, 10, &scorer, &|_| {});
            assert!(lists.iter().flatten().all(|list| list.len() == 4 && list.iter().all(|item| new[*item as usize])));
        }
        assert_ne!(new_items(&events(&given), 8).new_items, set.new_items);
    }

    #[test]
    fn a_given_test_part_stays_and_validation_is_carved_from_training() {
        let train = events(&(0..20).map(|item| (0, item)).collect::<Vec<_>>());
        let test = [Event { user: 0, item: 3, weight: 1.0, time: 0 }];
        let set = carved(&train, &test, 1);
        assert_eq!((set.train.len(), set.validation.len(), set.whole.len(), set.test.len()), (18, 2, 20, 0));
        let mut stranger = train.clone();
        stranger.users.number("stranger").expect("few");
        let late = [Event { user: 1, item: 3, weight: 1.0, time: 0 }];
        let judged = carved(&stranger, &late, 1);
        assert_eq!((judged.unknown_users(), judged.testing().judged()), (1, vec![1]));
        assert_eq!(set.testing().training.interactions, &set.whole);
        assert_eq!(set.tuning().training.interactions, &set.train);
    }
}
