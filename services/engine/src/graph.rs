use std::ops::Range;

use rayon::prelude::*;

use crate::{Array, FileError, FileWriter, Interactions, ModelFile, ShapeError};

/// How a graph is normalised and cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GraphOptions {
    /// Neighbours kept per item at the most.
    pub neighbours: usize,
    /// Exponent on the degree of a user: 1 makes each user count once, whatever the history's length.
    pub user: f32,
    /// Exponent on the degree of the item that links.
    pub source: f32,
    /// Exponent on the degree of the item that is linked to: smaller favours popular items.
    pub target: f32,
}

impl Default for GraphOptions {
    /// What ranked best on the validation parts of HetRec 2011 Last.fm (see `echotune-eval`).
    fn default() -> Self {
        Self { neighbours: 256, user: 0.5, source: 1.0, target: 0.25 }
    }
}

/// The linear item graph: normalised co-listening `W = D_I^-s Rᵀ D_U^-u R D_I^-t`, without its
/// diagonal, each row cut to its strongest neighbours.
///
/// With exponents ½, 1 and ½ this is the linear filter of Shen et al., "How Powerful is Graph
/// Convolution for Recommendation?" (CIKM 2021), section 4.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemGraph {
    /// Where rows begin, and the end of the last: one more than there are items, or none at all.
    offsets: Array<u64>,
    /// Per row ascending.
    neighbours: Array<u32>,
    weights: Array<f32>,
    heaviest: f32,
}

/// Items fitted by one thread before it asks for more.
const BLOCK: usize = 64;

/// The links of one item: (neighbour, weight), ascending by neighbour.
type Links = Box<[(u32, f32)]>;

/// Sums of one thread, used again for each row.
struct Sums {
    dense: Vec<f32>,
    /// Room for every item and one more; the first `count` are those summed.
    touched: Vec<u32>,
    count: usize,
    row: Vec<(u32, f32)>,
}

impl ItemGraph {
    /// Fits the graph. Time O(Σ |row|²), memory O(items × neighbours). The result does not depend on
    /// the number of threads: each row is summed by one thread in the order of its users, and of equal
    /// links those of the first items are kept. It does depend on how users and items are numbered.
    pub fn fit(interactions: &Interactions, options: GraphOptions) -> Self {
        let users_of = interactions.transposed();
        let degrees = interactions.item_degrees();
        let power = |exponent: f32| degrees.iter().map(|degree| falling(*degree as usize, exponent)).collect();
        let (source, target): (Vec<f32>, Vec<f32>) = (power(options.source), power(options.target));
        let user: Vec<f32> =
            (0..interactions.user_count()).map(|user| falling(interactions.row(user).len(), options.user)).collect();
        let items = interactions.item_count();
        let blocks: Vec<Vec<Links>> = (0..items.div_ceil(BLOCK))
            .into_par_iter()
            .map_init(
                || Sums { dense: vec![0.0; items], touched: vec![0; items + 1], count: 0, row: Vec::new() },
                |sums, block| {
                    let rows = block * BLOCK..items.min((block + 1) * BLOCK);
                    rows.map(|item| {
                        co_listened(interactions, users_of.row(item), &user, sums);
                        let scale = source[item];
                        let Sums { dense, touched, count, row } = &mut *sums;
                        let sum_of = |other: &u32| (*other, std::mem::take(&mut dense[*other as usize]));
                        let linked = touched[..std::mem::take(count)]
                            .iter()
                            .map(sum_of)
                            .filter(|(other, _)| *other as usize != item);
                        row.clear();
                        row.extend(linked.map(|(other, sum)| (other, sum * scale * target[other as usize])));
                        cut(row, options.neighbours);
                        // Only what is kept: the room for everything touched serves the next row.
                        Box::from(row.as_slice())
                    })
                    .collect()
                },
            )
            .collect();
        Self::from_rows(blocks.iter().flatten().map(|row| &**row))
    }

    /// From the links of each item, as (item, weight) ascending by item.
    ///
    /// # Errors
    /// A row that is not ascending, a link to an item beyond the rows, or a weight that is no number.
    pub fn from_links(rows: &[Vec<(u32, f32)>]) -> Result<Self, ShapeError> {
        for (item, row) in rows.iter().enumerate() {
            let ascending = row.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let known = row.iter().all(|(other, weight)| (*other as usize) < rows.len() && weight.is_finite());
            if !ascending || !known {
                let expected = format!("ascending items below {} with finite weights", rows.len());
                return Err(ShapeError { part: "links", found: format!("row {item}"), expected });
            }
        }
        Ok(Self::from_rows(rows.iter().map(Vec::as_slice)))
    }

    fn from_rows<'r>(rows: impl Iterator<Item = &'r [(u32, f32)]> + Clone) -> Self {
        // Room for exactly what comes: rows and arrays are the largest that a fit holds at one time.
        let links = rows.clone().map(<[_]>::len).sum();
        let (mut neighbours, mut weights) = (Vec::with_capacity(links), Vec::with_capacity(links));
        let mut offsets = vec![0];
        for row in rows {
            neighbours.extend(row.iter().map(|(other, _)| *other));
            weights.extend(row.iter().map(|(_, weight)| *weight));
            offsets.push(neighbours.len() as u64);
        }
        let heaviest = weights.iter().copied().fold(0.0, f32::max);
        Self { offsets: offsets.into(), neighbours: neighbours.into(), weights: weights.into(), heaviest }
    }

    /// Adds the graph to a file, as the sections `graph.offsets`, `graph.neighbours` and `graph.weights`.
    ///
    /// # Errors
    /// The file has such sections already.
    pub fn write<'a>(&'a self, file: FileWriter<'a>) -> Result<FileWriter<'a>, FileError> {
        self.write_as("graph", file)
    }

    /// [`ItemGraph::write`] under another name than `graph`, of at most 13 bytes, for a file of several graphs.
    ///
    /// # Errors
    /// The file has such sections already; the name is too long.
    pub fn write_as<'a>(&'a self, name: &str, file: FileWriter<'a>) -> Result<FileWriter<'a>, FileError> {
        let links = (self.neighbours.len(), 1);
        file.section(&format!("{name}.offsets"), (self.offsets.len(), 1), &self.offsets)?
            .section(&format!("{name}.neighbours"), links, &self.neighbours)?
            .section(&format!("{name}.weights"), links, &self.weights)
    }

    /// The graph of a file, without copying it. Time O(links): whatever the file holds, reading rows of the
    /// graph is safe afterwards.
    ///
    /// # Errors
    /// Sections that are not there, of another type, or no graph.
    pub fn read(file: &ModelFile) -> Result<Self, FileError> {
        Self::read_as("graph", file)
    }

    /// The graph that [`ItemGraph::write_as`] wrote under a name, as [`ItemGraph::read`] reads it.
    ///
    /// # Errors
    /// As there.
    pub fn read_as(name: &str, file: &ModelFile) -> Result<Self, FileError> {
        let (_, offsets) = file.array::<u64>(&format!("{name}.offsets"))?;
        let (_, neighbours) = file.array::<u32>(&format!("{name}.neighbours"))?;
        let (_, weights) = file.array::<f32>(&format!("{name}.weights"))?;
        check(&offsets, &neighbours, &weights)?;
        let heaviest = weights.iter().copied().fold(0.0, f32::max);
        Ok(Self { offsets, neighbours, weights, heaviest })
    }

    /// Whether the links are lent by a file, and not in memory of their own.
    pub const fn is_lent(&self) -> bool {
        self.neighbours.is_shared() && self.weights.is_shared()
    }

    /// Number of items the graph was fitted on; later items have no neighbours yet.
    pub fn item_count(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The largest weight; 0 without links.
    pub const fn heaviest(&self) -> f32 {
        self.heaviest
    }

    /// The neighbours of an item with their weights, ascending by item.
    pub fn row(&self, item: u32) -> impl ExactSizeIterator<Item = (u32, f32)> {
        let range = self.range(item).unwrap_or(0..0);
        self.neighbours[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }

    /// The part of `target`'s score that one history item contributes per unit of its weight.
    pub fn weight(&self, item: u32, target: u32) -> f32 {
        let Some(range) = self.range(item) else { return 0.0 };
        match self.neighbours[range.clone()].binary_search(&target) {
            Ok(at) => self.weights[range.start + at],
            Err(_) => 0.0,
        }
    }

    /// Where the links of an item are; None for an item that the graph does not know.
    fn range(&self, item: u32) -> Option<Range<usize>> {
        let ends = self.offsets.get(item as usize..)?.first_chunk::<2>()?;
        let [from, to] = ends.map(|end| usize::try_from(end).expect("rows are within memory"));
        Some(from..to)
    }
}

/// That rows are ascending, within each other and of finite weights.
fn check(offsets: &[u64], neighbours: &[u32], weights: &[f32]) -> Result<(), ShapeError> {
    let items = offsets.len().saturating_sub(1);
    let wrong = |part, found: String, expected: &str| Err(ShapeError { part, found, expected: expected.to_owned() });
    if weights.len() != neighbours.len() {
        return wrong("weights", weights.len().to_string(), &format!("{} of them", neighbours.len()));
    }
    let whole = offsets.first().is_none_or(|first| *first == 0)
        && offsets.last().copied().unwrap_or(0) == neighbours.len() as u64;
    if !whole || !offsets.is_sorted() {
        return wrong("offsets", "not of these links".to_owned(), "ascending from 0 to the number of links");
    }
    for (item, ends) in offsets.windows(2).enumerate() {
        let [from, to] = [ends[0], ends[1]].map(|end| usize::try_from(end).expect("within the links"));
        let (row, weights) = (&neighbours[from..to], &weights[from..to]);
        let ascending = row.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || row.last().is_some_and(|last| *last as usize >= items) {
            return wrong("links", format!("row {item}"), &format!("ascending items below {items}"));
        }
        if !weights.iter().all(|weight| weight.is_finite()) {
            return wrong("weights", format!("no number in row {item}"), "finite numbers");
        }
    }
    Ok(())
}

/// Sums the weights of the users that know an item over everything they know.
fn co_listened(interactions: &Interactions, users: &[u32], weight: &[f32], sums: &mut Sums) {
    for user in users {
        let weight = weight[*user as usize];
        for other in interactions.row(*user as usize) {
            let sum = &mut sums.dense[*other as usize];
            // Without a branch, which could not be foreseen: each is written down, and stays if it is the first.
            sums.touched[sums.count] = *other;
            sums.count += usize::from((*sum == 0.0) & (weight > 0.0));
            *sum += weight;
        }
    }
}

/// Keeps the strongest, ascending by item.
fn cut(row: &mut Vec<(u32, f32)>, neighbours: usize) {
    if row.len() > neighbours {
        row.select_nth_unstable_by(neighbours, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        row.truncate(neighbours);
    }
    row.sort_unstable_by_key(|(other, _)| *other);
}

#[expect(clippy::cast_precision_loss, reason = "degrees are far below 2^24")]
fn falling(degree: usize, exponent: f32) -> f32 {
    (degree.max(1) as f32).powf(-exponent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_equal_the_dense_product() {
        let rows = [vec![0, 1, 2], vec![1, 2], vec![2, 3], vec![3]];
        let options = GraphOptions { neighbours: 4, user: 1.0, source: 0.5, target: 0.25 };
        let graph = ItemGraph::fit(&Interactions::from_rows(rows.clone(), 4), options);
        let degree = |item: u32| rows.iter().filter(|row| row.contains(&item)).count() as f32;
        for a in 0..4_u32 {
            for b in 0..4_u32 {
                let together: f32 = rows
                    .iter()
                    .filter(|row| row.contains(&a) && row.contains(&b))
                    .map(|row| 1.0 / row.len() as f32)
                    .sum();
                let expected = if a == b { 0.0 } else { together / (degree(a).sqrt() * degree(b).powf(0.25)) };
                assert!((graph.weight(a, b) - expected).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    fn fit_with(threads: usize, interactions: &Interactions) -> ItemGraph {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| ItemGraph::fit(interactions, GraphOptions { neighbours: 7, ..GraphOptions::default() }))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_cut_keeps_the_strongest_and_threads_change_nothing(
            rows in proptest::collection::vec(proptest::collection::vec(0..300_u32, 0..40), 1..60),
        ) {
            let interactions = Interactions::from_rows(rows, 300);
            let whole = ItemGraph::fit(&interactions, GraphOptions { neighbours: 300, ..GraphOptions::default() });
            let one = fit_with(1, &interactions);
            prop_assert_eq!(&one, &fit_with(4, &interactions));
            for item in 0..300 {
                let weakest = one.row(item).map(|(_, weight)| weight).fold(f32::INFINITY, f32::min);
                let stronger = whole.row(item).filter(|(_, weight)| *weight > weakest).count();
                prop_assert_eq!(one.row(item).len(), whole.row(item).len().min(7));
                prop_assert!(stronger < 7);
                prop_assert!(one.row(item).all(|(other, weight)| weight == whole.weight(item, other)));
            }
        }
    }
}
