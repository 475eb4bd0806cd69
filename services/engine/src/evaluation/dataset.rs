use std::{collections::HashSet, sync::Arc};

use super::{Event, Names, events::merged};
use crate::Interactions;

/// A listener gave an item a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tagging {
    /// Number of the listener; `u32::MAX` for one that is in no interaction.
    pub user: u32,
    /// Number of the item.
    pub item: u32,
    /// Number of the tag.
    pub tag: u32,
}

/// Interactions in three parts, and what is known besides. All matrices are users × items.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Weighted, as in the file.
    pub train: Interactions,
    /// Held out to choose hyper-parameters.
    pub validation: Interactions,
    /// Held out to the end.
    pub test: Interactions,
    /// Training and validation together.
    pub whole: Interactions,
    /// Whether the chosen model is fitted again on `whole` before it is tested.
    pub refit: bool,
    /// Whether listeners without a history are judged too: as is done where a test part is given, so that means
    /// are over the same listeners as those published.
    pub judge_unknown: bool,
    /// Beside each pair of `train` and of `whole` its last time, by listener in the order of the row.
    pub times: Option<[Vec<Vec<i64>>; 2]>,
    /// Friends of each listener, ascending; as the file has them, both ways.
    pub social: Vec<Vec<u32>>,
    /// Every tagging read, those of held-out pairs too: models see [`Training::tags`] only.
    pub taggings: Vec<Tagging>,
    /// Whether taggings count only for pairs in the training part, as their times are not known.
    pub strict_tags: bool,
    /// Where items are held out whole: those that validation and those that the test is about.
    pub new_items: Option<[Vec<bool>; 2]>,
    /// Names of listeners, by row.
    pub users: Arc<Names>,
    /// Names of items, by column.
    pub items: Arc<Names>,
    /// Names of tags.
    pub tags: Arc<Names>,
}

/// What a model may see when it is fitted.
#[derive(Debug, Clone)]
pub struct Training<'d> {
    /// Histories, users × items, weighted as in the file.
    pub interactions: &'d Interactions,
    /// Beside each pair of `interactions` its last time.
    pub times: Option<&'d [Vec<i64>]>,
    /// Friends of each listener, ascending; empty when nothing is known of friends.
    pub social: &'d [Vec<u32>],
    /// How often each item has each tag, items × tags, without the taggings of held-out pairs by their own
    /// listener.
    pub tags: Interactions,
}

/// One task: fit on `training`, rank without `known`, find `held`.
#[derive(Debug, Clone)]
pub struct Fold<'d> {
    /// What the model is fitted on, and the histories it scores from.
    pub training: Training<'d>,
    /// What is not ranked for a listener.
    pub known: &'d Interactions,
    /// What is to be found.
    pub held: &'d Interactions,
    /// Whether listeners without a history are judged.
    pub judge_unknown: bool,
    /// The items that are ranked; all when None.
    pub only: Option<&'d [bool]>,
    /// The listeners that are judged, ascending; all when None.
    pub sample: Option<Vec<usize>>,
}

/// Rows of the three parts; `whole` is what is known before the test.
pub(super) struct Parts {
    pub(super) train: Vec<Event>,
    pub(super) validation: Vec<Event>,
    pub(super) test: Vec<Event>,
    pub(super) whole: Vec<Event>,
}

impl Dataset {
    /// Without friends and tags.
    pub(super) fn from_parts(parts: Parts, refit: bool, timed: bool, users: Arc<Names>, items: Arc<Names>) -> Self {
        let (train, train_times) = matrix(parts.train, users.len(), items.len());
        let (whole, whole_times) = matrix(parts.whole, users.len(), items.len());
        Self {
            train,
            validation: matrix(parts.validation, users.len(), items.len()).0,
            test: matrix(parts.test, users.len(), items.len()).0,
            whole,
            refit,
            judge_unknown: false,
            times: timed.then_some([train_times, whole_times]),
            social: Vec::new(),
            taggings: Vec::new(),
            strict_tags: false,
            new_items: None,
            users,
            items,
            tags: Arc::default(),
        }
    }

    /// The task on which hyper-parameters are chosen: fitted on the training part, judged by validation.
    pub fn tuning(&self) -> Fold<'_> {
        let times = self.times.as_ref().map(|[train, _]| train.as_slice());
        let training = Training { interactions: &self.train, times, social: &self.social, tags: self.item_tags(false) };
        let (judge_unknown, only) = (self.judge_unknown, self.only(0));
        Fold { training, known: &self.train, held: &self.validation, judge_unknown, only, sample: None }
    }

    /// The task that is reported. Items of training and validation are both left out of the ranking, as in
    /// `RecBole` (Zhao et al., CIKM 2021).
    pub fn testing(&self) -> Fold<'_> {
        let (interactions, at) = if self.refit { (&self.whole, 1) } else { (&self.train, 0) };
        let times = self.times.as_ref().map(|times| times[at].as_slice());
        let training = Training { interactions, times, social: &self.social, tags: self.item_tags(self.refit) };
        let (judge_unknown, only) = (self.judge_unknown, self.only(1));
        Fold { training, known: &self.whole, held: &self.test, judge_unknown, only, sample: None }
    }

    fn only(&self, at: usize) -> Option<&[bool]> {
        self.new_items.as_ref().map(|new| new[at].as_slice())
    }

    /// Listeners that have test items and no history.
    pub fn unknown_users(&self) -> usize {
        let history = if self.refit { &self.whole } else { &self.train };
        (0..self.test.user_count())
            .filter(|user| !self.test.row(*user).is_empty() && history.row(*user).is_empty())
            .count()
    }

    /// Counts of tags by item, from the taggings that give nothing away: what a listener says of an item is
    /// held out together with the pair.
    fn item_tags(&self, refit: bool) -> Interactions {
        let has = |matrix: &Interactions, one: &Tagging| {
            let user = one.user as usize;
            user < matrix.user_count() && matrix.row(user).binary_search(&one.item).is_ok()
        };
        let shown = |one: &&Tagging| {
            let trained = has(if refit { &self.whole } else { &self.train }, one);
            let held = has(&self.test, one) || (!refit && has(&self.validation, one));
            trained || !(held || self.strict_tags)
        };
        let mut rows = vec![Vec::new(); self.items.len()];
        for one in self.taggings.iter().filter(shown) {
            if let Some(row) = rows.get_mut(one.item as usize) {
                row.push((one.tag, 1.0_f32));
            }
        }
        Interactions::from_weighted(rows, self.tags.len()).expect("tags are numbered by their names; counts are 1")
    }

    /// Friends from (listener, listener) pairs: each of both is the other's friend. Pairs that name a
    /// listener beyond the data, or one twice, are left out.
    pub fn set_social(&mut self, pairs: &[(u32, u32)]) {
        let users = self.users.len();
        let mut social = vec![HashSet::new(); users];
        for &(one, other) in pairs {
            if one != other && (one as usize) < users && (other as usize) < users {
                social[one as usize].insert(other);
                social[other as usize].insert(one);
            }
        }
        let sorted = |friends: HashSet<u32>| {
            let mut friends: Vec<u32> = friends.into_iter().collect();
            friends.sort_unstable();
            friends
        };
        self.social = social.into_iter().map(sorted).collect();
    }
}

fn matrix(rows: Vec<Event>, users: usize, items: usize) -> (Interactions, Vec<Vec<i64>>) {
    let mut pairs = vec![Vec::new(); users];
    let mut times = vec![Vec::new(); users];
    for row in merged(rows) {
        pairs[row.user as usize].push((row.item, row.weight));
        times[row.user as usize].push(row.time);
    }
    let matrix =
        Interactions::from_weighted(pairs, items).expect("items are numbered by their names; weights are above 0");
    (matrix, times)
}

#[cfg(test)]
mod tests {
    use super::{super::events::tests::events, *};
    use crate::evaluation::{carved, random};

    /// Each listener tags all its items, the tag being the listener; a stranger tags item 0 with 9.
    fn tagged(mut set: Dataset) -> Dataset {
        let mut tags = Names::default();
        (0..10).for_each(|tag| assert!(tags.number(&tag.to_string()).is_some()));
        set.tags = Arc::new(tags);
        let all = [&set.train, &set.validation, &set.test];
        let of = |matrix: &Interactions| -> Vec<Tagging> {
            let users = 0..u32::try_from(matrix.user_count()).expect("few");
            let row =
                |user: u32| matrix.row(user as usize).iter().map(move |item| Tagging { user, item: *item, tag: user });
            users.flat_map(row).collect()
        };
        set.taggings = all.into_iter().flat_map(of).collect();
        set.taggings.push(Tagging { user: u32::MAX, item: 0, tag: 9 });
        set
    }

    #[test]
    fn what_a_listener_says_of_a_held_out_item_is_held_out_and_the_words_of_others_stay() {
        let pairs: Vec<(u32, u32)> = (0..3).flat_map(|user| (0..20).map(move |item| (user, item))).collect();
        let set = tagged(random(&events(&pairs), 3));
        for fold in [set.tuning(), set.testing()] {
            for user in 0..3_u32 {
                for item in 0..20_u32 {
                    let said = fold.training.tags.row(item as usize).contains(&user);
                    assert_eq!(said, set.train.row(user as usize).contains(&item), "{user} {item}");
                }
            }
            assert!(fold.training.tags.row(0).contains(&9));
        }
    }

    #[test]
    fn a_model_fitted_again_sees_the_tags_of_validation_but_not_of_the_test() {
        let train = events(&(0..20).map(|item| (0, item)).collect::<Vec<_>>());
        let mut set = tagged(carved(&train, &[], 1));
        let said = |fold: Fold<'_>| (0..20).filter(|item| fold.training.tags.row(*item).contains(&0)).count();
        assert_eq!((said(set.tuning()), said(set.testing())), (18, 20));
        // A tagging of a pair that is in no part: kept, unless its time may be later than the cut.
        set.taggings.push(Tagging { user: 0, item: 19, tag: 8 });
        set.taggings.push(Tagging { user: u32::MAX, item: 19, tag: 7 });
        assert!(set.testing().training.tags.row(19).contains(&7));
        set.strict_tags = true;
        let shown = set.testing().training.tags;
        assert!(shown.row(19).contains(&8) && !shown.row(19).contains(&7) && !shown.row(0).contains(&9));
    }

    #[test]
    fn friends_are_friends_both_ways() {
        let mut set = random(&events(&[(0, 0), (1, 0), (2, 0)]), 1);
        set.set_social(&[(2, 0), (0, 1), (1, 0), (1, 1), (7, 1)]);
        assert_eq!(set.social, [vec![1, 2], vec![0], vec![0]]);
    }
}
