//! What is tagged alike: links to items that few know yet.

use rayon::prelude::*;

use super::{OptionError, check_above_zero, check_weight};
use crate::{Interactions, ItemGraph, ShapeError};

/// The smallest share of its links that an item keeps: known to 9 κ listeners, it needs none.
const LEAST: f32 = 0.1;
/// Histories that sizes are measured on.
const SAMPLE: usize = 256;
/// Bearers of the commonest tag that is looked at.
const COMMONEST: usize = 20_000;

/// How tags make links.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContentOptions {
    /// Weight of the links, when the best new item by them is brought to the best item by the rest; 0 leaves them
    /// out.
    pub weight: f32,
    /// Items by which one is reached at the most.
    pub neighbours: usize,
    /// Listeners at which links count one half, κ; more than 0.
    pub listeners: f32,
}

impl Default for ContentOptions {
    fn default() -> Self {
        Self { weight: 0.2, neighbours: 64, listeners: 1.0 }
    }
}

/// Links to items that few know: with `n_i` the listeners of `i`, `C[j][i] = κ / (κ + n_i) · cos(j, i)` from the
/// items `j` whose tags are most like those of `i`, of those that somebody knows. The cosine is of tf-idf vectors,
/// `ln(1 + count) · ln(items / bearers)` (Salton and Buckley, "Term-weighting approaches in automatic text
/// retrieval", 1988). `features` are counts of tags, items × tags; whatever else describes items, such as their
/// artist, is one more tag. Tags that all or more than 20,000 items bear tell nothing. Time
/// O(Σ bearers of the tags of the items that few know).
///
/// # Errors
/// A κ that is not more than 0; a weight below 0 or no number.
pub fn neighbours(
    features: &Interactions,
    listeners: &[u32],
    options: ContentOptions,
) -> Result<ItemGraph, OptionError> {
    check_weight("weight", options.weight)?;
    check_above_zero("listeners", options.listeners)?;
    let items = features.user_count();
    let known = |item: usize| listeners.get(item).copied().unwrap_or(0);
    let share = |item: usize| shrunk(known(item), options.listeners);
    let vectors = weighted(features);
    let bearers = vectors.transposed();
    let new: Vec<usize> = (0..items).filter(|item| share(*item) >= LEAST && !vectors.row(*item).is_empty()).collect();
    let found: Vec<Vec<(u32, f32)>> = new
        .par_iter()
        .map_init(
            || vec![0.0_f32; items],
            |sums, item| {
                let mut near = alike(&vectors, &bearers, *item, sums);
                near.retain(|(other, _)| known(*other as usize) > 0);
                near.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                near.truncate(options.neighbours);
                // Common tags are shared by thousands: only what is kept is held.
                near.shrink_to_fit();
                near
            },
        )
        .collect();
    let mut rows = vec![Vec::new(); items];
    // Ascending by the item that is reached, as rows have to be.
    for (item, near) in new.into_iter().zip(found) {
        let to = u32::try_from(item).expect("items are numbered in 32 bits");
        near.into_iter().for_each(|(from, cosine)| rows[from as usize].push((to, share(item) * cosine)));
    }
    Ok(ItemGraph::from_links(&rows).expect("links ascend, within the catalogue, and are finite"))
}

/// A graph with the links of another, times `weight`, added; none are cut. Time O(links).
///
/// # Errors
/// Graphs of other items; a weight that is no number.
pub fn added(graph: &ItemGraph, more: &ItemGraph, weight: f32) -> Result<ItemGraph, ShapeError> {
    let items = graph.item_count();
    if more.item_count() != items {
        let (found, expected) = (more.item_count().to_string(), items.to_string());
        return Err(ShapeError { part: "links", found, expected });
    }
    let items = u32::try_from(items).expect("items are numbered in 32 bits");
    let row = |item: u32| {
        let more = more.row(item).map(|(other, link)| (other, weight * link));
        let mut row: Vec<(u32, f32)> = graph.row(item).chain(more).collect();
        row.sort_by_key(|(other, _)| *other);
        row.dedup_by(|next, first| {
            let same = next.0 == first.0;
            first.1 += if same { next.1 } else { 0.0 };
            same
        });
        row
    };
    ItemGraph::from_links(&(0..items).into_par_iter().map(row).collect::<Vec<_>>())
}

/// What links of content are weighted with to be of the size of a graph's: such that on average over some
/// histories the best score by either is the same. 0 where either has none.
pub fn scale(graph: &ItemGraph, links: &ItemGraph, interactions: &Interactions) -> f32 {
    let known = || (0..interactions.user_count()).filter(|user| !interactions.row(*user).is_empty());
    let step = known().count().div_ceil(SAMPLE).max(1);
    let mut sums = vec![0.0_f64; interactions.item_count()];
    let mut best = |graph: &ItemGraph, user: usize| {
        for item in interactions.row(user) {
            graph.row(*item).for_each(|(other, link)| sums[other as usize] += f64::from(link));
        }
        for item in interactions.row(user) {
            sums[*item as usize] = 0.0;
        }
        sums.iter_mut().fold(0.0_f64, |best, sum| best.max(std::mem::take(sum)))
    };
    let (mut own, mut theirs) = (0.0, 0.0);
    for user in known().step_by(step) {
        own += best(graph, user);
        theirs += best(links, user);
    }
    #[expect(clippy::cast_possible_truncation, reason = "a scale")]
    let scale = (own / theirs) as f32;
    if scale.is_finite() { scale } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "listeners need not be exact")]
fn shrunk(listeners: u32, kappa: f32) -> f32 {
    kappa / (kappa + listeners as f32)
}

/// The tf-idf vectors of the items, each of length 1.
fn weighted(features: &Interactions) -> Interactions {
    let items = features.user_count();
    let bearers = features.item_degrees();
    #[expect(clippy::cast_precision_loss, reason = "counts of items are below 2^24")]
    let rarity = |tag: u32| match bearers[tag as usize] as usize {
        0 | 1 => 0.0,
        many if many > COMMONEST => 0.0,
        many => (items as f32 / many as f32).ln().max(0.0),
    };
    let rows: Vec<Vec<(u32, f32)>> = (0..items)
        .map(|item| {
            let row = features.entries(item).map(|(tag, count)| (tag, count.ln_1p() * rarity(tag)));
            let row: Vec<(u32, f32)> = row.filter(|(_, weight)| *weight > 0.0).collect();
            let norm = row.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
            row.into_iter().map(|(tag, weight)| (tag, weight / norm)).collect()
        })
        .collect();
    Interactions::from_weighted(rows, features.item_count()).expect("tags of the catalogue with finite weights")
}

/// The items that share a tag with one, with their cosines. `sums` is of zeros, before and after.
fn alike(vectors: &Interactions, bearers: &Interactions, item: usize, sums: &mut [f32]) -> Vec<(u32, f32)> {
    let mut near = Vec::new();
    for (tag, weight) in vectors.entries(item) {
        for (other, theirs) in bearers.entries(tag as usize).filter(|(other, _)| *other as usize != item) {
            let sum = &mut sums[other as usize];
            if *sum == 0.0 {
                near.push(other);
            }
            *sum += weight * theirs;
        }
    }
    near.into_iter().map(|other| (other, std::mem::take(&mut sums[other as usize]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items 0 to 2 are jazz, 3 to 5 rock, and 6 is both; 2 and 5 are new.
    fn features() -> Interactions {
        let rows = [vec![(0, 3.0)], vec![(0, 1.0), (2, 1.0)], vec![(0, 2.0)], vec![(1, 3.0)], vec![(1, 1.0), (2, 2.0)]];
        let more = [vec![(1, 1.0)], vec![(0, 1.0), (1, 1.0)]];
        Interactions::from_weighted(rows.into_iter().chain(more), 3).expect("weights")
    }

    const LISTENERS: [u32; 7] = [5, 9, 0, 8, 200, 1, 0];

    #[test]
    fn links_are_shrunken_cosines_to_what_few_know() {
        let options = ContentOptions { weight: 1.0, neighbours: 5, listeners: 2.0 };
        let graph = neighbours(&features(), &LISTENERS, options).expect("options");
        assert!((graph.weight(0, 2) - 1.0).abs() < 1e-6, "{}", graph.weight(0, 2));
        assert!((graph.weight(3, 5) - 2.0 / 3.0).abs() < 1e-6);
        assert!(graph.weight(0, 2) > graph.weight(1, 2) && graph.weight(1, 2) > 0.0);
        assert_eq!((graph.weight(3, 2), graph.weight(0, 4)), (0.0, 0.0));
        // Nobody knows 2 and 6, so that they lead nowhere.
        assert!(graph.row(2).len() == 0 && graph.row(6).len() == 0);
        let half = (0.5_f32).sqrt();
        assert!((graph.weight(0, 6) - half).abs() < 1e-6);
        let cut = neighbours(&features(), &LISTENERS, ContentOptions { neighbours: 1, ..options }).expect("options");
        assert_eq!((0..7).filter(|item| cut.weight(*item, 2) > 0.0).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn links_are_added_to_a_graph_at_its_size() {
        let known = Interactions::from_rows([vec![0_u32, 1, 3], vec![0, 1, 4], vec![3, 4, 5]], 7);
        let graph = ItemGraph::fit(&known, crate::GraphOptions::default());
        let links = neighbours(&features(), &LISTENERS, ContentOptions::default()).expect("options");
        let scale = scale(&graph, &links, &known);
        assert!(scale > 0.0);
        let both = added(&graph, &links, scale).expect("of the same items");
        for from in 0..7 {
            for to in 0..7 {
                let expected = graph.weight(from, to) + scale * links.weight(from, to);
                assert!((both.weight(from, to) - expected).abs() < 1e-6, "{from} {to}");
            }
        }
        let none = ItemGraph::from_links(&vec![Vec::new(); 7]).expect("no links");
        assert_eq!(super::scale(&graph, &none, &known), 0.0);
        assert!(added(&graph, &ItemGraph::default(), 1.0).is_err() && added(&graph, &links, f32::NAN).is_err());
    }

    #[test]
    fn nothing_known_makes_no_faults_and_options_are_checked() {
        let none = ContentOptions::default();
        for (rows, tags) in [(vec![], 0), (vec![vec![]; 3], 2), (vec![vec![(0, 1.0)]], 1), (vec![vec![(0, 1.0)]; 4], 1)]
        {
            let features = Interactions::from_weighted(rows, tags).expect("weights");
            let graph = neighbours(&features, &[], none).expect("options");
            assert!((0..features.user_count() as u32).all(|item| graph.row(item).len() == 0));
        }
        for listeners in [0.0, -1.0, f32::NAN] {
            assert!(neighbours(&features(), &LISTENERS, ContentOptions { listeners, ..none }).is_err());
        }
    }

    #[test]
    fn threads_change_nothing() {
        let rows = (0..200_u32).map(|item| (0..40_u32).filter(move |tag| (item * 13 + tag * 7) % 17 < 3));
        let features = Interactions::from_rows(rows, 40);
        let listeners: Vec<u32> = (0..200).map(|item| item % 5).collect();
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| neighbours(&features, &listeners, ContentOptions::default()).expect("options"))
        };
        let one = fit(1);
        assert_eq!(one, fit(4));
        assert!((0..200).any(|item| one.row(item).len() > 0));
    }
}
