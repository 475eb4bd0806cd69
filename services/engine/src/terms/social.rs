//! What friends play.

use super::{OptionError, check_exponent, check_weight, falling};
use crate::{Array, FileError, FileWriter, Interactions, ItemGraph, ModelFile, ShapeError, blend::unit_of};

/// Listeners that the sizes of the terms are measured on.
const SAMPLE: usize = 256;

/// How friends count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SocialOptions {
    /// Weight of friends, when their term and the listener's own are brought to one size; 0 leaves them out.
    pub weight: f32,
    /// Exponent on the number of friends: 0 sums them, 1 takes their mean.
    pub friends: f32,
    /// Exponent on the length of a friend's history as a vector: 1 makes every friend count the same.
    pub history: f32,
    /// Exponent on the degree of the item: larger favours what few know.
    pub target: f32,
}

impl Default for SocialOptions {
    /// By the validation parts of HetRec 2011 Last.fm.
    fn default() -> Self {
        Self { weight: 0.1, friends: 0.5, history: 1.0, target: 0.25 }
    }
}

/// The term of friends: a listener with the friends `F`, of those that have a history, gets, for an item `i` of
/// degree `d`, `w · |F|^-a · d^-t · Σ_f y_fi / ‖y_f‖^h` with the histories `y` of the friends. The part of a friend
/// is one addend of it. That friends' listens tell what somebody will like is what social recommenders rest on (Ma et
/// al., "Recommender Systems with Social Regularization", WSDM 2011).
#[derive(Debug, Clone, PartialEq)]
pub struct Social {
    options: SocialOptions,
    /// `w`, with what brings the term to the size of the listeners' own.
    weight: f64,
    /// `d^-t` by item.
    items: Array<f32>,
}

/// What a file holds of the term beside `d^-t`: `w`, and the options in the order of their fields.
pub type SocialScales = [f64; 5];

impl Social {
    /// Fits the term to histories, users × items, weighted as they are served; to the friends of each user; and
    /// to the graph that scores the users' own histories. Users without friends who have a history do not count,
    /// unless nobody has any: then the size is that of the term if listeners were friends of those beside them. Time
    /// O(pairs + 256 × (links of a history + listens of the friends + items)).
    ///
    /// # Errors
    /// A weight that is not 0 to 1,000,000; an exponent that is not 0 to 2.
    pub fn fit(
        histories: &Interactions,
        friends: &[Vec<u32>],
        graph: &ItemGraph,
        options: SocialOptions,
    ) -> Result<Self, OptionError> {
        let SocialOptions { weight, friends: circle, history, target } = options;
        check_weight("weight", weight)?;
        [("friends", circle), ("history", history), ("target", target)]
            .into_iter()
            .try_for_each(|(option, value)| check_exponent(option, value))?;
        let items: Vec<f32> =
            histories.item_degrees().into_iter().map(|degree| falling(degree as usize, target)).collect();
        let mut social = Self { options, weight: 1.0, items: items.into() };
        let pairs = sample(histories, friends);
        let (mut own, mut theirs) = (0.0, 0.0);
        let mut scores = vec![0.0_f64; histories.item_count()];
        for (user, friends) in &pairs {
            for (item, amount) in histories.entries(*user) {
                for (other, link) in graph.row(item) {
                    scores[other as usize] += f64::from(amount * link);
                }
            }
            own += squares(&mut scores);
            social.each(histories, friends, |item, part| scores[item as usize] += part);
            theirs += squares(&mut scores);
        }
        let all = pairs.len() * histories.item_count();
        // Where nothing links to anything yet, friends are all there is, and their size is no matter.
        let size = Some(f64::from(unit_of(own, all))).filter(|unit| *unit > 0.0).unwrap_or(1.0);
        social.weight = f64::from(weight) * f64::from(unit_of(theirs, all)) / size;
        Ok(social)
    }

    /// What a file holds of the term, to be lent to [`Social::write_as`].
    pub fn scales(&self) -> SocialScales {
        let SocialOptions { weight, friends, history, target } = self.options;
        let [weight, friends, history, target] = [weight, friends, history, target].map(f64::from);
        [self.weight, weight, friends, history, target]
    }

    /// Adds the term to a file, as the sections `NAME.social` with its [`Social::scales`] and `NAME.social_items`,
    /// for a name of at most 11 bytes.
    ///
    /// # Errors
    /// The file has such sections already; the name is too long.
    pub fn write_as<'a>(
        &'a self,
        name: &str,
        scales: &'a SocialScales,
        file: FileWriter<'a>,
    ) -> Result<FileWriter<'a>, FileError> {
        file.section(&format!("{name}.social"), (scales.len(), 1), scales)?.section(
            &format!("{name}.social_items"),
            (self.items.len(), 1),
            &self.items,
        )
    }

    /// The term that [`Social::write_as`] wrote for so many items, without copying it. None when the file has no
    /// such term. Time O(items).
    ///
    /// # Errors
    /// Sections of another type or length, or with numbers that no fit leaves.
    pub fn read_as(name: &str, items: usize, file: &ModelFile) -> Result<Option<Self>, FileError> {
        let section = format!("{name}.social");
        if !file.sections().any(|known| known == section) {
            return Ok(None);
        }
        let (_, scales) = file.array::<f64>(&section)?;
        let (_, by_item) = file.array::<f32>(&format!("{name}.social_items"))?;
        let wrong = |found: String, expected: String| ShapeError { part: "social", found, expected };
        let scales =
            SocialScales::try_from(&*scales).map_err(|_| wrong(scales.len().to_string(), "5 numbers".to_owned()))?;
        if by_item.len() != items {
            return Err(wrong(by_item.len().to_string(), format!("{items} items")).into());
        }
        let right = |number: f64| number.is_finite() && number >= 0.0;
        if !scales.into_iter().chain(by_item.iter().copied().map(f64::from)).all(right) {
            return Err(wrong("no number".to_owned(), "finite numbers of 0 and more".to_owned()).into());
        }
        #[expect(clippy::cast_possible_truncation, reason = "they were of single precision")]
        let [weight, friends, history, target] = [1, 2, 3, 4].map(|at: usize| scales[at] as f32);
        let options = SocialOptions { weight, friends, history, target };
        Ok(Some(Self { options, weight: scales[0], items: by_item }))
    }

    /// What the history of a friend is weighted with, for a listener with so many friends that have one, when the
    /// history's length as a vector is `norm`. 0 for a friend without a history.
    pub fn weight(&self, friends: usize, norm: f64) -> f64 {
        if norm.is_nan() || norm <= 0.0 {
            return 0.0;
        }
        let SocialOptions { friends: circle, history, .. } = self.options;
        self.weight * f64::from(falling(friends, circle)) * norm.powf(-f64::from(history))
    }

    /// What each item is weighted with; 1 for an item that the fit did not know.
    pub fn item(&self, item: u32) -> f64 {
        self.items.get(item as usize).copied().map_or(1.0, f64::from)
    }

    /// Adds the term of a listener with these friends, users of `histories`, to the scores of all items. Time
    /// O(listens of the friends).
    ///
    /// # Panics
    /// When a friend or an item is beyond the histories or the scores.
    pub fn add_scores(&self, histories: &Interactions, friends: &[u32], scores: &mut [f32]) {
        #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
        self.each(histories, friends, |item, part| scores[item as usize] += part as f32);
    }

    fn each(&self, histories: &Interactions, friends: &[u32], mut add: impl FnMut(u32, f64)) {
        let known = || friends.iter().map(|friend| histories.entries(*friend as usize)).filter(|row| row.len() > 0);
        let count = known().count();
        for history in known() {
            let norm = history.clone().map(|(_, amount)| f64::from(amount).powi(2)).sum::<f64>().sqrt();
            let weight = self.weight(count, norm);
            history.for_each(|(item, amount)| add(item, weight * f64::from(amount) * self.item(item)));
        }
    }
}

/// Listeners with a history and friends, evenly spread.
fn sample(histories: &Interactions, friends: &[Vec<u32>]) -> Vec<(usize, Vec<u32>)> {
    let known = |user: &usize| !histories.row(*user).is_empty();
    let spread = |users: Vec<usize>| users.len().div_ceil(SAMPLE).max(1);
    let has_history = |friend: &u32| !histories.row(*friend as usize).is_empty();
    let social = |user: &usize| friends.get(*user).is_some_and(|friends| friends.iter().any(has_history));
    let users: Vec<usize> = (0..histories.user_count()).filter(known).collect();
    let befriended: Vec<usize> = users.iter().copied().filter(social).collect();
    if befriended.is_empty() {
        let number = |user: usize| u32::try_from(user).expect("at most 2^32 users");
        let beside = users.iter().zip(users.iter().skip(1)).map(|(user, next)| (*user, vec![number(*next)]));
        let step = spread(users.clone());
        return beside.step_by(step).collect();
    }
    let step = spread(befriended.clone());
    befriended.into_iter().step_by(step).map(|user| (user, friends[user].clone())).collect()
}

/// The sum of squares of scores, which are 0 afterwards.
fn squares(scores: &mut [f64]) -> f64 {
    scores.iter_mut().map(|score| std::mem::take(score).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{Catalogue, GraphOptions};

    fn graph(histories: &Interactions) -> ItemGraph {
        ItemGraph::fit(histories, GraphOptions::default())
    }

    #[test]
    fn the_term_is_that_of_the_formula() {
        let rows =
            [vec![(0, 1.0), (1, 2.0)], vec![(1, 1.0), (2, 3.0)], vec![(2, 0.5), (3, 1.5)], vec![], vec![(4, 1.0)]];
        let histories = Interactions::from_weighted(rows.clone(), 5).expect("weights");
        let friends = [vec![1, 2, 3], vec![0], vec![0], vec![0], vec![]];
        let options = SocialOptions { weight: 0.7, friends: 0.5, history: 1.0, target: 0.25 };
        let social = Social::fit(&histories, &friends, &graph(&histories), options).expect("options");
        let mut scores = vec![0.0; 5];
        social.add_scores(&histories, &friends[0], &mut scores);
        let degree = [1.0, 2.0, 2.0, 1.0, 1.0_f64];
        for (item, score) in scores.iter().enumerate() {
            let part = |user: usize| {
                let norm = rows[user].iter().map(|(_, y)| f64::from(y * y)).sum::<f64>().sqrt();
                let amount = rows[user].iter().find(|(known, _)| *known as usize == item).map_or(0.0, |(_, y)| *y);
                f64::from(amount) / norm
            };
            // Two friends have a history.
            let expected = social.weight * 2_f64.powf(-0.5) * degree[item].powf(-0.25) * (part(1) + part(2));
            assert!((f64::from(*score) - expected).abs() < 1e-6, "{item}");
        }
        assert!(scores[1] > 0.0 && scores[4] == 0.0);
    }

    #[test]
    fn a_file_has_the_term_to_the_bit_and_numbers_that_are_none_are_refused() {
        let histories = Interactions::from_rows([vec![0_u32, 1], vec![1, 2], vec![0, 2]], 3);
        let friends = [vec![1], vec![0, 2], vec![]];
        let social = Social::fit(&histories, &friends, &graph(&histories), SocialOptions::default()).expect("options");
        let read = |social: &Social, scales: &SocialScales, name: &str, items: usize| {
            let file = FileWriter::new("social", "1", Catalogue::of(["a", "b", "c"])).expect("room");
            let bytes = social.write_as("artists", scales, file).expect("room").to_bytes();
            Social::read_as(name, items, &ModelFile::open(Arc::new(bytes)).expect("a file"))
        };
        assert_eq!(read(&social, &social.scales(), "artists", 3), Ok(Some(social.clone())));
        assert_eq!(read(&social, &social.scales(), "tracks", 3), Ok(None));
        assert!(matches!(read(&social, &social.scales(), "artists", 4), Err(FileError::Shape(_))));
        for wrong in [f64::NAN, -1.0] {
            let scales = SocialScales::from([wrong, 0.1, 0.5, 1.0, 0.25]);
            assert!(matches!(read(&social, &scales, "artists", 3), Err(FileError::Shape(_))));
        }
    }

    #[test]
    fn at_a_weight_of_one_both_terms_have_one_size() {
        let rows = (0..50_u32).map(|user| (0..60_u32).filter(move |item| (item * 7 + user * 3) % 11 < 3));
        let histories =
            Interactions::from_rows(rows, 60).reweighted(|user, item, _| (1 + (user as u32 + item) % 4) as f32);
        let friends: Vec<Vec<u32>> = (0..50).map(|user| vec![(user + 1) % 50, (user + 7) % 50]).collect();
        let graph = graph(&histories);
        let options = SocialOptions { weight: 1.0, ..SocialOptions::default() };
        let social = Social::fit(&histories, &friends, &graph, options).expect("options");
        let (mut own, mut theirs) = (0.0, 0.0);
        for (user, friends) in friends.iter().enumerate() {
            let mut scores = vec![0.0_f32; 60];
            social.add_scores(&histories, friends, &mut scores);
            theirs += scores.iter().map(|score| f64::from(score * score)).sum::<f64>();
            scores.fill(0.0);
            for (item, amount) in histories.entries(user) {
                graph.row(item).for_each(|(other, link)| scores[other as usize] += amount * link);
            }
            own += scores.iter().map(|score| f64::from(score * score)).sum::<f64>();
        }
        assert!((own / theirs - 1.0).abs() < 1e-4, "{own} {theirs}");
    }

    #[test]
    fn where_nobody_has_friends_with_a_history_the_first_friendship_counts_before_another_fit() {
        let histories = Interactions::from_rows([vec![0_u32, 1], vec![1, 2], vec![]], 3);
        for friends in [vec![], vec![vec![]; 3], vec![vec![2], vec![], vec![0]]] {
            let social = Social::fit(&histories, &friends, &graph(&histories), SocialOptions::default());
            assert!(social.expect("options").weight(1, 2.0) > 0.0, "{friends:?}");
        }
    }

    #[test]
    fn an_option_that_is_none_is_named() {
        let histories = Interactions::from_rows([[0_u32]], 1);
        for wrong in [f32::NAN, -1.0, f32::INFINITY] {
            let options = SocialOptions { target: wrong, ..SocialOptions::default() };
            let refused = Social::fit(&histories, &[], &graph(&histories), options).expect_err("refused");
            assert_eq!(refused.option, "target");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parts_sum_to_the_term_and_whatever_is_given_makes_numbers(
            rows in proptest::collection::vec(proptest::collection::vec((0..30_u32, 0.0..9.0_f32), 0..12), 0..20),
            pairs in proptest::collection::vec((0..20_usize, 0..20_u32), 0..60),
            exponents in proptest::array::uniform3(0.0..1.5_f32),
        ) {
            let histories = Interactions::from_weighted(rows, 30).expect("weights");
            let users = histories.user_count();
            let mut friends = vec![Vec::new(); users];
            for (user, friend) in pairs.into_iter().filter(|(user, friend)| *user < users && (*friend as usize) < users) {
                if !friends[user].contains(&friend) {
                    friends[user].push(friend);
                }
            }
            let [circle, history, target] = exponents;
            let options = SocialOptions { weight: 0.3, friends: circle, history, target };
            let social = Social::fit(&histories, &friends, &graph(&histories), options).expect("options");
            for friends in friends {
                let mut scores = vec![0.0_f32; 30];
                social.add_scores(&histories, &friends, &mut scores);
                prop_assert!(scores.iter().all(|score| score.is_finite() && *score >= 0.0));
                let count = friends.iter().filter(|friend| !histories.row(**friend as usize).is_empty()).count();
                for (item, score) in (0..30_u32).zip(scores) {
                    let part = |friend: &u32| {
                        let row = histories.entries(*friend as usize);
                        let norm = row.clone().map(|(_, y)| f64::from(y).powi(2)).sum::<f64>().sqrt();
                        let amount = row.filter(|(known, _)| *known == item).map(|(_, y)| f64::from(y)).sum::<f64>();
                        social.weight(count, norm) * amount * social.item(item)
                    };
                    let sum: f64 = friends.iter().map(part).sum();
                    prop_assert!((sum - f64::from(score)).abs() < 1e-5 * sum.max(1.0), "{item}");
                }
            }
        }
    }
}
