//! The blend as it is measured: with the terms that the data is enough for beside it.

use rayon::prelude::*;

use super::{
    FitError, Fold, LinearScorer, Progress, Scorer, Settings, Training,
    search::{self, Axis, Rows, Search},
};
use crate::{
    Interactions, ItemGraph, LinearModel,
    blend::{Blend, BlendOptions, add_links, links_unit},
    dense::Matrix,
    terms::{
        OptionError,
        content::{self, ContentOptions},
        sequence::{Recency, SequenceOptions, transitions},
        social::{Social, SocialOptions},
    },
};

/// Of listens by their age and of what follows what.
const SEQUENCE: [Axis; 6] = [
    ("transitions", &[0.0, 0.1, 0.25, 0.5, 1.0, 2.0]),
    ("transitions_target", &[0.0, 0.25, 0.5]),
    ("half_life_days", &[0.0, 7.0, 30.0, 90.0]),
    ("fade_floor", &[0.0, 0.2, 0.5]),
    ("half_life_days", &[0.0, 3.0, 7.0, 14.0, 30.0, 60.0, 90.0]),
    ("transitions", &[0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0]),
];
/// Of friends.
const FRIENDS: [Axis; 5] = [
    ("friends", &[0.0, 0.05, 0.1, 0.2, 0.4]),
    ("friends_count", &[0.0, 0.5, 1.0]),
    ("friends_history", &[0.0, 0.5, 1.0]),
    ("friends_target", &[0.0, 0.25, 0.5]),
    ("friends", &[0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6]),
];

/// Of items that few know.
const CONTENT: [Axis; 1] = [("content", &[0.0, 0.1, 0.25, 0.5, 1.0])];

/// Largest time that is in seconds; later ones are in milliseconds.
const SECONDS: i64 = 100_000_000_000;
const DAY_MS: f64 = 86_400_000.0;

impl From<OptionError> for FitError {
    fn from(cause: OptionError) -> Self {
        Self::Failed(cause.to_string())
    }
}

/// The settings of the terms beside a blend of these settings, as far as the data is enough for them: first what
/// follows what and how listens fade, then content, then friends.
pub(super) fn choose(
    fold: &Fold<'_>,
    at: usize,
    seed: u64,
    settings: Settings,
    progress: Progress<'_>,
) -> Result<Settings, FitError> {
    let Training { times, social, tags, .. } = &fold.training;
    if (times.is_none() && social.is_empty() && tags.is_empty()) || fold.judged().is_empty() {
        return Ok(settings);
    }
    let mut search = Search::new(fold, at, seed, progress);
    let training = fold.training.clone();
    let fitted = |settings: &Settings| -> Result<ItemGraph, FitError> {
        compiled(&training, search::options(settings, seed), Options::of(settings), &|_| {})
    };
    let (mut settings, mut graph) = (settings.clone(), fitted(&settings)?);
    if training.times.is_some() {
        settings = choose_sequence(&mut search, &training, &graph, settings)?;
        if Options::of(&settings).sequence.weight > 0.0 {
            graph = fitted(&settings)?;
        }
    }
    if !training.tags.is_empty() {
        settings = choose_content(&mut search, &training, &graph, settings)?;
        graph = with_content(&training, graph, Options::of(&settings).content)?;
    }
    if !training.social.is_empty() {
        settings = choose_friends(&mut search, &training, &graph, settings)?;
    }
    Ok(settings)
}

fn choose_sequence(
    search: &mut Search<'_, '_>,
    training: &Training<'_>,
    graph: &ItemGraph,
    settings: Settings,
) -> Result<Settings, FitError> {
    let start = Options::default();
    let start = [
        ("transitions", 0.0),
        ("transitions_target", f64::from(start.sequence.target)),
        ("half_life_days", 0.0),
        ("fade_floor", start.recency.floor.min(0.2)),
    ];
    let settings = start.into_iter().fold(settings, |settings, (name, value)| settings.with(name, value));
    let chosen = search.descend(&SEQUENCE, 0.5, settings, |search, settings| {
        let options = Options::of(settings);
        let all = histories(training, options.recency);
        let judged = search.fold.judged();
        let histories: Vec<Vec<(u32, f32)>> = judged.iter().map(|user| all.entries(*user).collect()).collect();
        let links = if options.sequence.weight > 0.0 { follows(training, options.sequence)? } else { None };
        let links = links.map(|links| (options.sequence.weight * links_unit(training.interactions, &links), links));
        let rows = search.rows_of(&histories, |histories, out| {
            add_links(graph, histories, 1.0, out);
            links.iter().for_each(|(weight, links)| add_links(links, histories, *weight, out));
        });
        Ok((search.quality(&rows), ()))
    })?;
    Ok(chosen.0)
}

fn choose_content(
    search: &mut Search<'_, '_>,
    training: &Training<'_>,
    graph: &ItemGraph,
    settings: Settings,
) -> Result<Settings, FitError> {
    let all = histories(training, Options::of(&settings).recency);
    let judged = search.fold.judged();
    let histories: Vec<Vec<(u32, f32)>> = judged.iter().map(|user| all.entries(*user).collect()).collect();
    let chosen = search.descend(&CONTENT, 0.1, settings.with("content", 0.0), |search, settings| {
        let graph = with_content(training, graph.clone(), Options::of(settings).content)?;
        let rows = search.rows_of(&histories, |histories, out| add_links(&graph, histories, 1.0, out));
        Ok((search.quality(&rows), ()))
    })?;
    Ok(chosen.0)
}

fn choose_friends(
    search: &mut Search<'_, '_>,
    training: &Training<'_>,
    graph: &ItemGraph,
    settings: Settings,
) -> Result<Settings, FitError> {
    let options = Options::of(&settings);
    let (all, plain) = (histories(training, options.recency), histories(training, Recency::NONE));
    let judged = search.fold.judged();
    let histories: Vec<Vec<(u32, f32)>> = judged.iter().map(|user| all.entries(*user).collect()).collect();
    let own = search.rows_of(&histories, |histories, out| add_links(graph, histories, 1.0, out));
    let default = SocialOptions::default();
    let start = [
        ("friends", 0.0),
        ("friends_count", default.friends),
        ("friends_history", default.history),
        ("friends_target", default.target),
    ];
    let settings = start.into_iter().fold(settings, |settings, (name, value)| settings.with(name, f64::from(value)));
    let items = plain.item_count().max(1);
    let chosen = search.descend(&FRIENDS, 0.5, settings, |search, settings| {
        let social = Social::fit(&plain, training.social, graph, Options::of(settings).social)?;
        let mut rows: Rows = own.clone();
        rows.par_chunks_mut(items).zip(&judged).for_each(|(row, user)| {
            social.add_scores(&plain, &training.social[*user], row);
        });
        Ok((search.quality(&rows), ()))
    })?;
    Ok(chosen.0)
}

/// What counts beside the blend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Options {
    social: SocialOptions,
    sequence: SequenceOptions,
    content: ContentOptions,
    /// With its half-life in days.
    recency: Recency,
}

impl Default for Options {
    fn default() -> Self {
        let (social, sequence) = (SocialOptions::default(), SequenceOptions::default());
        Self { social, sequence, content: ContentOptions::default(), recency: Recency::NONE }
    }
}

impl Options {
    /// Of settings; what is not named counts nothing.
    pub(super) fn of(settings: &Settings) -> Self {
        let Self { social, sequence, content, .. } = Self::default();
        Self {
            content: ContentOptions { weight: settings.get_f32("content", 0.0), ..content },
            social: SocialOptions {
                weight: settings.get_f32("friends", 0.0),
                friends: settings.get_f32("friends_count", social.friends),
                history: settings.get_f32("friends_history", social.history),
                target: settings.get_f32("friends_target", social.target),
            },
            sequence: SequenceOptions {
                weight: settings.get_f32("transitions", 0.0),
                target: settings.get_f32("transitions_target", sequence.target),
                ..sequence
            },
            recency: Recency { half_life: settings.get("half_life_days", 0.0), floor: settings.get("fade_floor", 0.2) },
        }
    }
}

/// Milliseconds in a unit of the times.
fn unit_ms(times: &[Vec<i64>]) -> f64 {
    let last = times.iter().flatten().copied().max().unwrap_or(0);
    if last < SECONDS { 1_000.0 } else { 1.0 }
}

/// What follows what, by the last times of what each listener knows.
fn follows(training: &Training<'_>, options: SequenceOptions) -> Result<Option<ItemGraph>, FitError> {
    let Some(times) = training.times else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds or seconds")]
    let gap = (SequenceOptions::GAP_MS as f64 / unit_ms(times)) as i64;
    let sequence = |(user, times): (usize, &Vec<i64>)| {
        let mut all: Vec<(u32, i64)> =
            training.interactions.row(user).iter().copied().zip(times.iter().copied()).collect();
        all.sort_by_key(|(_, time)| *time);
        all
    };
    let sequences: Vec<Vec<(u32, i64)>> = times.iter().enumerate().map(sequence).collect();
    let items = training.interactions.item_count();
    Ok(Some(transitions(&sequences, items, SequenceOptions { gap, ..options })?))
}

/// Histories weighted as serving does: by how much was played, and by how long ago.
fn histories(training: &Training<'_>, recency: Recency) -> Interactions {
    let Some(times) = training.times.filter(|_| recency != Recency::NONE) else {
        return training.interactions.reweighted(|_, _, weight| weight.ln_1p());
    };
    let day = DAY_MS / unit_ms(times);
    let newest: Vec<i64> = times.iter().map(|times| times.iter().copied().max().unwrap_or(0)).collect();
    training.interactions.reweighted(|user, item, weight| {
        let at = training.interactions.row(user).binary_search(&item).ok();
        let time = at.and_then(|at| times.get(user)?.get(at)).copied().unwrap_or(newest[user]);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ages need not be exact")]
        let factor = recency.factor(newest[user].saturating_sub(time) as f64 / day) as f32;
        weight.ln_1p() * factor
    })
}

/// The blend, compiled, and what friends play beside it.
struct Beside<'d> {
    own: LinearScorer,
    friends: Option<(Social, Interactions, &'d [Vec<u32>])>,
}

impl Scorer for Beside<'_> {
    fn score(&self, users: &[usize], scores: &mut [f32]) {
        self.own.score(users, scores);
        let Some((social, histories, friends)) = &self.friends else { return };
        for (user, row) in users.iter().zip(scores.chunks_exact_mut(histories.item_count().max(1))) {
            social.add_scores(histories, &friends[*user], row);
        }
    }
}

/// The blend, and what follows what if that counts.
fn blend(training: &Training<'_>, blend: BlendOptions, options: Options) -> Result<Blend, FitError> {
    let fitted = Blend::fit(training.interactions, Some(&training.tags), blend)?;
    let links = if options.sequence.weight > 0.0 { follows(training, options.sequence)? } else { None };
    match links {
        Some(links) => Ok(fitted.with_links(training.interactions, links, options.sequence.weight)?),
        None => Ok(fitted),
    }
}

/// The links that serve: those of the blend, and to items that few know.
fn compiled(
    training: &Training<'_>,
    blend: BlendOptions,
    options: Options,
    progress: Progress<'_>,
) -> Result<ItemGraph, FitError> {
    let fitted = self::blend(training, blend, options)?;
    progress(0.5);
    with_content(training, fitted.compile(&|_| {}), options.content)
}

/// A graph with links to items that few know, where there are tags.
fn with_content(training: &Training<'_>, graph: ItemGraph, options: ContentOptions) -> Result<ItemGraph, FitError> {
    if options.weight == 0.0 || training.tags.is_empty() {
        return Ok(graph);
    }
    let links = content::neighbours(&training.tags, &training.interactions.item_degrees(), options)?;
    let scale = content::scale(&graph, &links, training.interactions);
    Ok(content::added(&graph, &links, options.weight * scale)?)
}

/// Fits the blend and the terms beside it that the data is enough for.
pub(super) fn fit<'d>(
    training: &Training<'d>,
    blend: BlendOptions,
    options: Options,
    progress: Progress<'_>,
) -> Result<Box<dyn Scorer + 'd>, FitError> {
    let graph = compiled(training, blend, options, progress)?;
    let friends = if options.social.weight > 0.0 && !training.social.is_empty() {
        let histories = histories(training, Recency::NONE);
        let social = Social::fit(&histories, training.social, &graph, options.social)?;
        Some((social, histories, training.social))
    } else {
        None
    };
    let none = || Matrix::zeros(graph.item_count(), 0);
    let (from, to) = (none(), none());
    let own =
        LinearScorer { model: LinearModel::new(graph, from, to)?, histories: histories(training, options.recency) };
    progress(1.0);
    Ok(Box::new(Beside { own, friends }))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Dataset,
            events::tests::events,
            measure, rank,
            split::{random, temporal},
        },
        *,
    };
    use crate::Random;

    fn gain(fold: &Fold<'_>, options: Options) -> f64 {
        let scorer = fit(&fold.training, BlendOptions::default(), options, &|_| {}).expect("fitted");
        measure(fold, &[5], &rank(fold, 5, scorer.as_ref(), &|_| {})).ndcg[0]
    }

    /// What each pair of friends plays is theirs alone, but for what everybody plays.
    fn pairs_of_friends() -> Dataset {
        let mut random_items = Random::new(3);
        let mut own = |user: u32| -> Vec<(u32, u32)> {
            let theirs = (0..20).filter(|_| random_items.below(3) > 0).map(|n| (user, 20 + user / 2 * 20 + n));
            (0..10).map(|item| (user, item)).chain(theirs.collect::<Vec<_>>()).collect()
        };
        let all: Vec<(u32, u32)> = (0..60).flat_map(&mut own).collect();
        let mut set = random(&events(&all), 1);
        set.set_social(&(0..30).map(|pair| (2 * pair, 2 * pair + 1)).collect::<Vec<_>>());
        set
    }

    #[test]
    fn friends_who_play_alike_are_given_weight_and_lists_are_better_by_them() {
        let set = pairs_of_friends();
        let settings = choose(&set.tuning(), 5, 1, Settings::default(), &|_| {}).expect("settings");
        assert!(settings.get("friends", 0.0) > 0.0, "{settings:?}");
        let fold = set.testing();
        let (with, without) = (gain(&fold, Options::of(&settings)), gain(&fold, Options::of(&Settings::default())));
        assert!(with > without, "{with} {without}");
    }

    #[test]
    fn a_row_is_the_listeners_own_and_that_of_the_friends() {
        let set = pairs_of_friends();
        let (fold, items) = (set.testing(), set.items.len());
        let row = |options: Options| {
            let scorer = fit(&fold.training, BlendOptions::default(), options, &|_| {}).expect("fitted");
            let mut scores = vec![0.0; 2 * items];
            scorer.score(&[4, 9], &mut scores);
            scores
        };
        let options = Options::default();
        let social = SocialOptions { weight: 0.0, ..options.social };
        let (both, own) = (row(options), row(Options { social, ..options }));
        for (user, friend, from) in [(4, 5, 0), (9, 8, items)] {
            assert_eq!(set.social[user], [friend]);
            let known = fold.training.interactions.row(friend as usize);
            for item in 0..items {
                let more = both[from + item] - own[from + item];
                let plays = known.contains(&u32::try_from(item).expect("few"));
                assert_eq!(more > 0.0, plays, "{user} {item} {more}");
            }
        }
    }

    #[test]
    fn without_times_and_friends_nothing_is_chosen() {
        let set = random(&events(&[(0, 0), (1, 0), (2, 0)]), 1);
        let given = Settings(vec![("lambda", 3.0)]);
        assert_eq!(choose(&set.tuning(), 5, 1, given.clone(), &|_| {}), Ok(given));
    }

    /// Listeners go through a round of items from anywhere, one a minute, and on through the next ones later.
    fn rounds(step: i64) -> Dataset {
        let given: Vec<(u32, u32, i64)> = (0..60_u32)
            .flat_map(|user| {
                (0..20_u32).map(move |n| (user, (user * 7 + n) % 50, i64::from(n) * step + i64::from(user % 3)))
            })
            .collect();
        let mut events = events(&given.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>());
        events.rows.iter_mut().zip(&given).for_each(|(row, given)| row.time = 1_700_000_000 + given.2);
        events.timed = true;
        temporal(&events).expect("a split")
    }

    #[test]
    fn sessions_and_fading_are_tried_where_there_are_times_and_a_session_ends_with_half_an_hour() {
        let set = rounds(60);
        let settings = choose(&set.tuning(), 5, 1, Settings::default(), &|_| {}).expect("settings");
        assert!(settings.0.iter().any(|(name, _)| *name == "half_life_days"), "{settings:?}");
        let sequence = SequenceOptions::default();
        let links = follows(&set.testing().training, sequence).expect("options").expect("times");
        assert!(links.weight(0, 1) > links.weight(0, 2) && links.weight(1, 0) == 0.0);
        let slow = rounds(3_600);
        let none = follows(&slow.testing().training, sequence).expect("options").expect("times");
        assert!((0..50).all(|item| none.row(item).len() == 0));
        let faded = histories(&set.testing().training, Recency { half_life: 60.0 / 86_400.0, floor: 0.0 });
        let amounts: Vec<f32> = faded.entries(0).map(|(_, amount)| amount).collect();
        assert!(amounts.windows(2).all(|pair| (pair[0] * 2.0 - pair[1]).abs() < 1e-4), "{amounts:?}");
    }
}
