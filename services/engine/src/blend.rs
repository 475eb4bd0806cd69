//! The model that serves: a linear mix of the graph filter and EASE, cut to the strongest links.

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    GraphOptions, Interactions, ItemGraph, ShapeError,
    compile::{CompileOptions, compile, strongest},
    dense::Matrix,
    ease::{Ease, EaseError, EaseOptions},
    filter::{FilterOptions, GraphFilter},
};

/// Histories that the sizes of the terms are measured on.
const SAMPLE: usize = 256;
/// Products of a pair and an item at the most for which the filter is computed whole: some ten seconds' work.
const WHOLE: usize = 50_000_000_000;
/// Listeners of the smallest tag that counts.
const TAGGED: usize = 2;

/// What is mixed, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlendOptions {
    /// The graph filter.
    pub filter: FilterOptions,
    /// Weight of the filter, when both terms are brought to one size.
    pub filter_weight: f32,
    /// EASE. Its head is cut to the items that at least two listeners know.
    pub ease: EaseOptions,
    /// Weight of EASE; 0 leaves it out.
    pub ease_weight: f32,
    /// Weight of a tag as a listener of EASE beside people; 0 leaves tags out.
    pub tags: f32,
    /// Links kept per item at the most.
    pub links: usize,
    /// Products of a pair and an item at the most for which the filter is computed whole; beyond them, co-listening
    /// stands for it.
    pub whole: usize,
}

impl Default for BlendOptions {
    /// By the validation parts of HetRec 2011 Last.fm; EASE's head by what a laptop has to spare.
    fn default() -> Self {
        let whole = FilterOptions::default();
        Self {
            filter: FilterOptions { user: 0.5, source: 1.0, target: 0.25, low_pass: 0.0, sharpening: 0.0, ..whole },
            filter_weight: 0.35,
            ease: EaseOptions { head: 4096, lambda: 100.0, dropout: 0.5, target: 0.2 },
            ease_weight: 1.0,
            tags: 3.0,
            links: 256,
            whole: WHOLE,
        }
    }
}

/// Rows of the filter: computed whole where that is a matter of seconds, else co-listening alone.
enum Filter {
    Whole(Box<GraphFilter>),
    Cut(ItemGraph),
}

impl Filter {
    fn fit(interactions: &Interactions, options: &BlendOptions) -> Self {
        let FilterOptions { user, source, target, .. } = options.filter;
        if interactions.len().saturating_mul(interactions.item_count()) <= options.whole {
            return Self::Whole(Box::new(GraphFilter::fit(interactions, options.filter)));
        }
        Self::Cut(ItemGraph::fit(interactions, GraphOptions { neighbours: options.links, user, source, target }))
    }

    fn add_scores(&self, histories: &[Vec<(u32, f32)>], weight: f32, out: &mut [f32]) {
        match self {
            Self::Whole(filter) => filter.add_scores(histories, weight, out),
            Self::Cut(graph) => add_links(graph, histories, weight, out),
        }
    }
}

/// Adds `weight · xᵀ W` of a graph to the rows of `out`, histories × items.
pub(crate) fn add_links(graph: &ItemGraph, histories: &[Vec<(u32, f32)>], weight: f32, out: &mut [f32]) {
    for (history, row) in histories.iter().zip(out.chunks_exact_mut(graph.item_count().max(1))) {
        for (item, amount) in history {
            graph.row(*item).for_each(|(other, link)| row[other as usize] += weight * amount * link);
        }
    }
}

/// The fitted terms of a blend.
pub struct Blend {
    items: usize,
    options: BlendOptions,
    filter: Filter,
    ease: Option<Ease>,
    /// What brings the scores of each term to a root mean square of 1.
    units: [f32; 2],
    /// Links of further terms, each with its weight.
    more: Vec<(ItemGraph, f32)>,
}

impl Blend {
    /// Fits the terms on who knows what, users × items, and on how often items bear tags, items × tags, if
    /// known; the weights of histories do not count. Time as of [`GraphFilter::fit`] and [`Ease::fit`].
    ///
    /// # Errors
    /// Options out of range.
    pub fn fit(
        interactions: &Interactions,
        tags: Option<&Interactions>,
        options: BlendOptions,
    ) -> Result<Self, EaseError> {
        let items = interactions.item_count();
        let filter = Filter::fit(interactions, &options);
        let ease = if options.ease_weight == 0.0 { None } else { fit_ease(interactions, tags, &options)? };
        let mut blend = Self { items, options, filter, ease, units: [1.0; 2], more: Vec::new() };
        let sample = sample(interactions);
        blend.units = [
            unit(items, &sample, |histories, out| blend.filter.add_scores(histories, 1.0, out)),
            unit(items, &sample, |histories, out| blend.add_ease(histories, 1.0, out)),
        ];
        Ok(blend)
    }

    /// With one more term, a graph of the catalogue, which counts `weight` beside EASE when both are brought to
    /// one size on the histories that the blend was fitted on. Time O(links of 256 histories).
    ///
    /// # Errors
    /// A graph of other items; a weight that is no number.
    pub fn with_links(
        mut self,
        interactions: &Interactions,
        links: ItemGraph,
        weight: f32,
    ) -> Result<Self, ShapeError> {
        if links.item_count() != self.items {
            let (found, expected) = (links.item_count().to_string(), self.items.to_string());
            return Err(ShapeError { part: "links", found, expected });
        }
        if !weight.is_finite() {
            let expected = "a finite number".to_owned();
            return Err(ShapeError { part: "weight", found: weight.to_string(), expected });
        }
        let unit = links_unit(interactions, &links);
        self.more.push((links, weight * unit));
        Ok(self)
    }

    fn add_ease(&self, histories: &[Vec<(u32, f32)>], weight: f32, out: &mut [f32]) {
        if let Some(ease) = &self.ease {
            ease.add_scores(histories, weight, out);
        }
    }

    /// Adds `xᵀ W` for histories `x` of (item, weight) to the rows of `out`, histories × items, by the terms
    /// as they are and not cut.
    ///
    /// # Panics
    /// When the shapes do not fit, or an item is not of the catalogue.
    pub fn add_scores(&self, histories: &[Vec<(u32, f32)>], out: &mut [f32]) {
        self.filter.add_scores(histories, self.options.filter_weight * self.units[0], out);
        self.add_ease(histories, self.options.ease_weight * self.units[1], out);
        self.more.iter().for_each(|(links, weight)| add_links(links, histories, *weight, out));
    }

    /// The blend as it serves: the strongest links of each item. Time O(items × (pairs + items)), or
    /// O(items²) where the filter is not computed whole.
    pub fn compile(&self, progress: &(dyn Fn(usize) + Sync)) -> ItemGraph {
        if let Filter::Cut(graph) = &self.filter {
            return self.merged(graph, progress);
        }
        let add = |range: Range<usize>, out: &mut [f32]| {
            let items = range.map(|item| u32::try_from(item).expect("items are numbered in 32 bits"));
            let histories: Vec<Vec<(u32, f32)>> = items.map(|item| vec![(item, 1.0)]).collect();
            self.add_scores(&histories, out);
        };
        let options = CompileOptions { links: self.options.links };
        compile(self.items, Matrix::zeros(self.items, 0), options, &add, progress).into_sparse()
    }

    /// The links of a cut filter with those of the other terms added. Time O(links + head²).
    fn merged(&self, graph: &ItemGraph, progress: &(dyn Fn(usize) + Sync)) -> ItemGraph {
        let weights = [self.options.filter_weight * self.units[0], self.options.ease_weight * self.units[1]];
        // Room for the links of a row, used again for the next.
        let row = |(sums, linked): &mut (Vec<f32>, Vec<u32>), item: u32| {
            let ease = self.ease.iter().flat_map(|ease| ease.row(item).map(|(other, link)| (other, weights[1] * link)));
            let more =
                self.more.iter().flat_map(|(links, weight)| links.row(item).map(move |(o, link)| (o, weight * link)));
            for (other, link) in graph.row(item).map(|(other, link)| (other, weights[0] * link)).chain(ease).chain(more)
            {
                sums[other as usize] += link;
                linked.push(other);
            }
            linked.sort_unstable();
            linked.dedup();
            let links: Vec<f32> = linked.iter().map(|other| std::mem::take(&mut sums[*other as usize])).collect();
            let own = linked.binary_search(&item).unwrap_or(linked.len());
            let kept = strongest(&links, own, self.options.links).into_iter();
            let kept = kept.map(|(at, link)| (linked[at as usize], link)).filter(|(other, _)| *other != item).collect();
            linked.clear();
            progress(1);
            kept
        };
        let items = u32::try_from(self.items).expect("items are numbered in 32 bits");
        let room = || (vec![0.0; self.items], Vec::new());
        let rows: Vec<Vec<(u32, f32)>> = (0..items).into_par_iter().map_init(room, row).collect();
        ItemGraph::from_links(&rows).expect("links ascend, within the catalogue, and are finite")
    }
}

/// What brings a term's scores of the sample to a root mean square of 1.
pub(crate) fn unit(
    items: usize,
    sample: &[Vec<(u32, f32)>],
    add: impl Fn(&[Vec<(u32, f32)>], &mut [f32]) + Sync,
) -> f32 {
    let squares = |histories: &[Vec<(u32, f32)>]| {
        let mut out = vec![0.0; histories.len() * items];
        add(histories, &mut out);
        out.iter().map(|score| f64::from(*score).powi(2)).sum::<f64>()
    };
    let parts: Vec<f64> = sample.par_chunks(16).map(squares).collect();
    unit_of(parts.iter().sum(), sample.len() * items)
}

/// The same for a graph, on histories that are spread over all.
pub(crate) fn links_unit(interactions: &Interactions, links: &ItemGraph) -> f32 {
    let add = |histories: &[Vec<(u32, f32)>], out: &mut [f32]| add_links(links, histories, 1.0, out);
    unit(links.item_count(), &sample(interactions), add)
}

/// One over the root mean square of so many scores; 0 when all are 0.
pub(crate) fn unit_of(squares: f64, scores: usize) -> f32 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a scale")]
    let unit = (squares / scores.max(1) as f64).sqrt().recip() as f32;
    if unit.is_finite() { unit } else { 0.0 }
}

/// EASE with tags as listeners, on a head of items that at least two know; none when these are fewer than two.
pub(crate) fn fit_ease(
    interactions: &Interactions,
    tags: Option<&Interactions>,
    options: &BlendOptions,
) -> Result<Option<Ease>, EaseError> {
    let known = interactions.item_degrees().into_iter().filter(|degree| *degree > 1).count();
    let head = options.ease.head.min(known);
    if head < 2 {
        return Ok(None);
    }
    Ease::fit(&stacked(interactions, tags, options.tags), EaseOptions { head, ..options.ease }).map(Some)
}

/// Some histories, evenly spread.
pub(crate) fn sample(interactions: &Interactions) -> Vec<Vec<(u32, f32)>> {
    let known = (0..interactions.user_count()).filter(|user| !interactions.row(*user).is_empty());
    let known: Vec<usize> = known.collect();
    let step = known.len().div_ceil(SAMPLE).max(1);
    let of = |user: &usize| interactions.row(*user).iter().map(|item| (*item, 1.0)).collect();
    known.iter().step_by(step).map(of).collect()
}

/// Who knows what, and below it a row for each tag: a tag that many items bear says less of each (as in
/// collective EASE, Jeunen, Van Balen and Goethals, "Closed-Form Models for Collaborative Filtering with
/// Side-Information", `RecSys` 2020, section 3.1).
fn stacked(interactions: &Interactions, tags: Option<&Interactions>, weight: f32) -> Interactions {
    let people = (0..interactions.user_count())
        .map(|user| interactions.row(user).iter().map(|item| (*item, 1.0)).collect::<Vec<_>>());
    let bearers = tags.filter(|_| weight > 0.0).map(Interactions::transposed);
    let tags = bearers.iter().flat_map(|bearers| {
        (0..bearers.user_count()).filter(|tag| bearers.row(*tag).len() >= TAGGED).map(|tag| {
            #[expect(clippy::cast_precision_loss, reason = "counts of items are below 2^24")]
            let scale = weight / (bearers.row(tag).len() as f32).sqrt();
            bearers.entries(tag).map(|(item, taggers)| (item, scale * taggers.ln_1p())).collect()
        })
    });
    Interactions::from_weighted(people.chain(tags), interactions.item_count())
        .expect("items of the catalogue with finite weights")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn some() -> Interactions {
        let mut random = Random::new(5);
        let mut knows = |user: u32, item: u32| random.below(if item % 4 == user % 4 { 2 } else { 9 }) == 0;
        let rows: Vec<Vec<u32>> = (0..60).map(|user| (0..40).filter(|item| knows(user, *item)).collect()).collect();
        Interactions::from_rows(rows, 40)
    }

    #[test]
    fn what_serves_without_a_cut_is_the_blend() {
        let known = some();
        let tags = Interactions::from_rows((0..40).map(|item| [item % 4_u32]), 4);
        let options = BlendOptions { links: 40, ..BlendOptions::default() };
        let blend = Blend::fit(&known, Some(&tags), options).expect("fitted");
        let graph = blend.compile(&|_| {});
        for user in 0..60 {
            let history: Vec<(u32, f32)> = known.row(user).iter().map(|item| (*item, 1.5)).collect();
            let mut scores = vec![0.0; 40];
            blend.add_scores(std::slice::from_ref(&history), &mut scores);
            for target in (0..40_u32).filter(|target| !known.row(user).contains(target)) {
                let served: f32 = history.iter().map(|(item, amount)| amount * graph.weight(*item, target)).sum();
                assert!((served - scores[target as usize]).abs() < 1e-4, "{user} {target}");
            }
        }
        assert!((0..40).all(|item| graph.weight(item, item) == 0.0));
    }

    #[test]
    fn co_listening_that_stands_for_the_filter_is_mixed_as_the_filter_is() {
        let known = some();
        let options = BlendOptions { links: 40, ..BlendOptions::default() };
        let mut blend = Blend::fit(&known, None, options).expect("fitted");
        let graph = GraphOptions { neighbours: 40, user: 0.75, source: 0.5, target: 0.25 };
        blend.filter = Filter::Cut(ItemGraph::fit(&known, graph));
        let more = ItemGraph::fit(&known, GraphOptions { neighbours: 3, user: 0.0, source: 0.0, target: 0.0 });
        let blend = blend.with_links(&known, more, 0.5).expect("of the same items");
        let graph = blend.compile(&|_| {});
        for item in 0..40_u32 {
            let mut scores = vec![0.0; 40];
            blend.add_scores(&[vec![(item, 1.0)]], &mut scores);
            for target in (0..40_u32).filter(|target| *target != item) {
                assert!((graph.weight(item, target) - scores[target as usize]).abs() < 1e-5, "{item} {target}");
            }
        }
    }

    #[test]
    fn links_of_a_further_term_count_by_their_weight_and_must_be_of_the_catalogue() {
        let known = some();
        let more = || ItemGraph::fit(&known, GraphOptions { neighbours: 5, user: 1.0, source: 0.0, target: 0.0 });
        let options = BlendOptions { links: 40, ..BlendOptions::default() };
        let fit = || Blend::fit(&known, None, options).expect("fitted");
        let (plain, with) = (fit(), fit().with_links(&known, more(), 2.0).expect("of the same items"));
        let history = vec![(3, 1.0), (8, 2.0)];
        let scores = |blend: &Blend| {
            let mut out = vec![0.0; 40];
            blend.add_scores(std::slice::from_ref(&history), &mut out);
            out
        };
        let ((before, after), graph) = ((scores(&plain), scores(&with)), with.compile(&|_| {}));
        let unit = with.more[0].1;
        for target in (0..40_u32).filter(|target| ![3, 8].contains(target)) {
            let own: f32 = history.iter().map(|(item, amount)| amount * more().weight(*item, target)).sum();
            let served: f32 = history.iter().map(|(item, amount)| amount * graph.weight(*item, target)).sum();
            assert!((after[target as usize] - before[target as usize] - unit * own).abs() < 1e-4, "{target}");
            assert!((served - after[target as usize]).abs() < 1e-4, "{target}");
        }
        let other = ItemGraph::fit(&Interactions::from_rows([[0_u32, 1]], 2), GraphOptions::default());
        assert!(fit().with_links(&known, other, 1.0).is_err());
        assert!(fit().with_links(&known, more(), f32::NAN).is_err());
    }

    #[test]
    fn both_terms_and_tags_count_and_threads_change_nothing() {
        let known = some();
        let tags = Interactions::from_rows((0..40).map(|item| [item % 3_u32]), 3);
        let fit = |options, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| Blend::fit(&known, Some(&tags), options).expect("fitted").compile(&|_| {}))
        };
        let options = BlendOptions::default();
        let whole = fit(options, 1);
        assert_eq!(whole, fit(options, 3));
        for other in [
            BlendOptions { filter_weight: 0.0, ..options },
            BlendOptions { ease_weight: 0.0, ..options },
            BlendOptions { tags: 0.0, ..options },
        ] {
            assert_ne!(whole, fit(other, 2));
        }
    }

    #[test]
    fn nothing_one_item_and_equal_rows_make_a_model_without_faults() {
        let rows: [Vec<Vec<u32>>; 4] = [vec![], vec![vec![]], vec![vec![0]; 5], vec![vec![0, 1, 2]; 5]];
        for (rows, items) in rows.into_iter().zip([0, 3, 1, 3]) {
            let known = Interactions::from_rows(rows, items);
            let graph = Blend::fit(&known, None, BlendOptions::default()).expect("fitted").compile(&|_| {});
            assert_eq!(graph.item_count(), items);
            assert!((0..items as u32).all(|item| graph.row(item).all(|(_, weight)| weight.is_finite())));
        }
    }
}
