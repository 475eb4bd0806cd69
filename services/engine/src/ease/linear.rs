use rayon::prelude::*;

use super::{
    EaseError, Gram, check, check_regularisation,
    gram::{Source, Sums},
    inverse::{invert, mirror},
    loaded, single, strongest,
};
use crate::{Interactions, ItemGraph, dense::Matrix};

/// The largest head: 4 GiB of f32.
const LARGEST: usize = 32_768;
/// Rows filled or cut by one thread before it asks for more.
const BLOCK: usize = 32;

/// How EASE is regularised and on how many items it is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EaseOptions {
    /// Items at the most, those of the largest sums of squared weights: `4 · head²` bytes. At most 32,768.
    pub head: usize,
    /// λ, in users of weight 1 per item; more than 0.
    pub lambda: f32,
    /// Dropout `p`, 0 to less than 1, which adds `p / (1 − p)` of an item's degree to its λ, so that what
    /// many know is regularised more (Steck 2020, "Autoencoders that don't overfit towards the Identity",
    /// section 3). 0 is plain EASE.
    pub dropout: f32,
    /// Exponent on the degree of the item that is linked to, by which its links are divided: larger favours
    /// rare items. 0 is plain EASE; -2 to 2.
    pub target: f32,
}

impl Default for EaseOptions {
    fn default() -> Self {
        Self { head: 20_000, lambda: 200.0, dropout: 0.0, target: 0.0 }
    }
}

/// EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data"): the item weights of least
/// squared error with a zero diagonal, `B = I − P · diag(1 / diag P)` with `P = (XᵀX + Λ)⁻¹`, of the most
/// popular items. Weights may be negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Ease {
    items: usize,
    /// Items of the rows, ascending.
    head: Vec<u32>,
    weights: Matrix,
}

impl Ease {
    /// Fits the model. Time O(Σ |row|² + n³) for n items of the head: n³ operations, half of them
    /// additions. Memory: 4 n² bytes, and 1,024 n numbers at the side.
    ///
    /// # Errors
    /// An option or a weight out of range; items that depend on each other, with too small a λ.
    pub fn fit(interactions: &Interactions, options: EaseOptions) -> Result<Self, EaseError> {
        Self::of(&Source::of(interactions)?, options)
    }

    /// Fits the model to sums that were kept. It is the same to the bit as that of the users they are of.
    ///
    /// # Errors
    /// As for [`Ease::fit`].
    pub fn fit_gram(gram: &Gram, options: EaseOptions) -> Result<Self, EaseError> {
        Self::of(&gram.into(), options)
    }

    fn of(source: &Source<'_>, options: EaseOptions) -> Result<Self, EaseError> {
        let EaseOptions { head, lambda, dropout, target } = options;
        check_regularisation(lambda, dropout)?;
        check("target", target, (-2.0..=2.0).contains(&target), "-2 to 2")?;
        #[expect(clippy::cast_precision_loss, reason = "only printed")]
        check("head", head as f32, head <= LARGEST, "at most 32768 items")?;
        let degrees = source.diagonal();
        let head = most_popular(&degrees, head);
        let scale: Vec<f64> =
            head.iter().map(|item| loaded(degrees[*item as usize], lambda, dropout).sqrt().recip()).collect();
        let n = head.len();
        let mut weights = correlations(source, &head, &scale);
        invert(weights.as_mut_slice(), n).map_err(|fault| EaseError::Dependent { item: head[fault.row], lambda })?;
        mirror(weights.as_mut_slice(), n);
        let favour = head.iter().map(|item| degrees[*item as usize].max(1.0).powf(-f64::from(target)));
        // P = D N D with D = diag(scale), and −N is what there is: B_ij = D_i (−N_ij) / (D_j N_jj).
        let divisors: Vec<f32> =
            (0..n).zip(favour).map(|(j, favour)| single(-favour / (scale[j] * f64::from(weights.row(j)[j])))).collect();
        weights.as_mut_slice().par_chunks_mut(n.max(1)).enumerate().for_each(|(item, row)| {
            let scale = single(scale[item]);
            row.iter_mut().zip(&divisors).for_each(|(weight, divisor)| *weight *= scale * divisor);
            row[item] = 0.0;
        });
        Ok(Self { items: source.items(), head, weights })
    }

    /// Number of items of the catalogue.
    pub const fn item_count(&self) -> usize {
        self.items
    }

    /// The items that the model knows, ascending.
    pub fn head(&self) -> &[u32] {
        &self.head
    }

    /// All weights, head × head: `B[j][i]` is what a unit of the `j`-th item of the head adds to the score
    /// of the `i`-th.
    pub const fn weights(&self) -> &Matrix {
        &self.weights
    }

    /// All weights of an item to those of the head; none when it is not of the head.
    pub fn row(&self, item: u32) -> impl Iterator<Item = (u32, f32)> {
        let row = self.head.binary_search(&item).map_or(&[][..], |at| self.weights.row(at));
        self.head.iter().copied().zip(row.iter().copied())
    }

    /// Scores of all items of the catalogue for a history of (item, weight), into `scores`: 0 beyond the
    /// head. Time O(history × head).
    pub fn score_into(&self, history: &[(u32, f32)], scores: &mut Vec<f32>) {
        scores.clear();
        scores.resize(self.items, 0.0);
        for (item, amount) in history {
            for (other, weight) in self.row(*item) {
                scores[other as usize] += amount * weight;
            }
        }
    }

    /// Adds `weight` times the scores of histories of (item, weight) to the rows of `out`, histories × items.
    /// Time O(entries of the histories × head).
    pub fn add_scores(&self, histories: &[Vec<(u32, f32)>], weight: f32, out: &mut [f32]) {
        for (history, row) in histories.iter().zip(out.chunks_exact_mut(self.items.max(1))) {
            for (item, amount) in history {
                self.row(*item).for_each(|(other, link)| row[other as usize] += weight * amount * link);
            }
        }
    }

    /// The graph of the catalogue, each row cut to its `neighbours` strongest links by absolute weight.
    /// Items beyond the head have none. Time O(head²).
    pub fn graph(&self, neighbours: usize) -> ItemGraph {
        let rows: Vec<Vec<(u32, f32)>> = (0..self.head.len())
            .into_par_iter()
            .with_min_len(BLOCK)
            .map_init(Vec::new, |kept, row| {
                let links = self.head.iter().copied().zip(self.weights.row(row).iter().copied());
                strongest(links, neighbours, kept);
                kept.as_slice().to_vec()
            })
            .collect();
        let mut of_all = vec![Vec::new(); self.items];
        for (item, row) in self.head.iter().zip(rows) {
            of_all[*item as usize] = row;
        }
        ItemGraph::from_links(&of_all).expect("ascending items of the catalogue and finite weights")
    }
}

/// The `count` items of the largest sums, ascending; of equals the first. Those that nobody knows are none.
fn most_popular(degrees: &[f64], count: usize) -> Vec<u32> {
    let mut items: Vec<u32> = (0..).zip(degrees).filter(|(_, degree)| **degree > 0.0).map(|(item, _)| item).collect();
    if items.len() > count {
        let degree = |item: &u32| degrees[*item as usize];
        items.select_nth_unstable_by(count, |a, b| degree(b).total_cmp(&degree(a)).then(a.cmp(b)));
        items.truncate(count);
        items.sort_unstable();
    }
    items
}

/// The lower triangle of `D (XᵀX + Λ) D` for the head, its diagonal 1.
fn correlations(source: &Source<'_>, head: &[u32], scale: &[f64]) -> Matrix {
    let (n, none) = (head.len(), u32::MAX);
    let mut places = vec![none; source.items()];
    for (place, item) in (0..).zip(head) {
        places[*item as usize] = place;
    }
    let mut matrix = Matrix::zeros(n, n);
    matrix.as_mut_slice().par_chunks_mut((n * BLOCK).max(1)).enumerate().for_each_init(
        || Sums::new(source.items()),
        |sums, (block, rows)| {
            for (place, row) in (block * BLOCK..).zip(rows.chunks_exact_mut(n)) {
                for (other, sum) in source.below(head[place] as usize, sums) {
                    let at = places[other as usize];
                    if at != none {
                        row[at as usize] = single(sum * scale[place] * scale[at as usize]);
                    }
                }
                row[place] = 1.0;
            }
        },
    );
    matrix
}
