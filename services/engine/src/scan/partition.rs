use std::{
    borrow::Borrow,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use rayon::prelude::*;

use super::{
    Extra, Request, Scan, ScanError,
    kernel::Kernel,
    means::{assign, assign_second, means},
    panels::{NOBODY, PANEL, Panels},
    pass::{Added, Catalogue, Pass, check},
    top::Top,
};
use crate::dense::{Matrix, dot};

/// How a catalogue is parted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartitionOptions {
    /// Number of clusters; 0 for 4 √items.
    pub clusters: usize,
    /// Rounds of k-means.
    pub rounds: usize,
    /// Items per cluster that the means are found on.
    pub sample: usize,
    /// How much the second cluster of an item makes up for what the first one misses (λ of SOAR); none for one
    /// cluster for each item, which takes half the memory.
    pub second: Option<f32>,
    /// Seed of the sample.
    pub seed: u64,
}

impl Default for PartitionOptions {
    fn default() -> Self {
        Self { clusters: 0, rounds: 6, sample: 32, second: Some(1.0), seed: 1 }
    }
}

/// Retrieval that looks at a part of the items: they lie in clusters (an inverted file: Sivic and Zisserman,
/// ICCV 2003; Jégou, Douze, Schmid, TPAMI 2011, section 4), and those clusters are scanned whose means have
/// the largest inner products with the query, each as [`Scan`] does it. An item may lie in two clusters, so that it is
/// found by either ([`PartitionOptions::second`]). The answer is exact for the items looked at. The same seed gives the
/// same partition for any number of threads.
#[derive(Debug, Clone)]
pub struct Partition<M = Matrix> {
    factors: M,
    means: Scan,
    panels: Panels,
    /// First panel of each cluster, and the end.
    starts: Vec<usize>,
    /// Items of each cluster.
    sizes: Vec<usize>,
    /// The clusters of each item; twice the same for one that is in no second.
    homes: Vec<[u32; 2]>,
    /// At least the largest norm in each panel and those of its cluster that follow.
    largest: Vec<f32>,
    kernel: Kernel,
}

impl<M: Borrow<Matrix> + Sync> Partition<M> {
    /// Of factors, items × rank. Time O(items × clusters × rank).
    ///
    /// # Errors
    /// As [`Scan::new`].
    pub fn new(factors: M, options: PartitionOptions) -> Result<Self, ScanError> {
        let matrix: &Matrix = factors.borrow();
        let norms = super::exact::norms(matrix)?;
        let means = means(matrix, options);
        let mut clusters = vec![Vec::new(); means.rows()];
        for (item, cluster) in (0..).zip(assign(matrix, &means)) {
            clusters[cluster as usize].push(item);
        }
        clusters.retain(|items: &Vec<u32>| !items.is_empty());
        let means = of_members(matrix, &clusters);
        let mut homes = vec![[0; 2]; matrix.rows()];
        for (cluster, items) in (0..).zip(&clusters) {
            items.iter().for_each(|item| homes[*item as usize] = [cluster; 2]);
        }
        if let Some(lambda) = options.second.filter(|_| clusters.len() > 1) {
            let first: Vec<u32> = homes.iter().map(|[first, _]| *first).collect();
            for (item, second) in (0..).zip(assign_second(matrix, &means, &first, lambda)) {
                homes[item as usize][1] = second;
                clusters[second as usize].push(item);
            }
        }
        let (mut order, mut starts) = (Vec::with_capacity(matrix.rows()), vec![0]);
        for items in &mut clusters {
            items.sort_unstable_by(|a, b| norms[*b as usize].total_cmp(&norms[*a as usize]).then(a.cmp(b)));
            order.extend_from_slice(items);
            order.resize(order.len().next_multiple_of(PANEL), NOBODY);
            starts.push(order.len() / PANEL);
        }
        let panels = Panels::new(matrix, &order)?;
        let mut largest: Vec<f32> = (0..panels.len()).map(|panel| panels.largest(panel)).collect();
        for cluster in starts.windows(2) {
            super::exact::falling(&mut largest[cluster[0]..cluster[1]]);
        }
        let sizes = clusters.iter().map(Vec::len).collect();
        let (means, kernel) = (Scan::new(means)?, Kernel::detected());
        Ok(Self { factors, means, panels, starts, sizes, homes, largest, kernel })
    }

    /// The factors it was made of.
    pub fn factors(&self) -> &Matrix {
        self.factors.borrow()
    }

    /// Number of clusters.
    pub const fn clusters(&self) -> usize {
        self.sizes.len()
    }

    /// The answer to one request, best first, from clusters of `effort` items at least, where an item counts in each
    /// of its clusters: more is slower and misses less, and twice all items make it exact. It goes on past `effort`
    /// while exclusion leaves fewer than were asked for. Items with sparse addends are all looked at; dense ones do
    /// not guide the choice of clusters. Time O(effort × rank + sparse addends × rank).
    ///
    /// # Errors
    /// As [`Scan::best`].
    pub fn best(&self, request: &Request<'_>, effort: usize) -> Result<Vec<(u32, f32)>, ScanError> {
        let rounded = check(request, self.factors().rows(), self.factors().columns())?;
        let count = request.count.min(self.factors().rows());
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut top = Top::new(count);
        let (added, special) = match request.extra {
            Extra::None => (Added::None, Vec::new()),
            Extra::Dense(extra) => (Added::Dense(extra), Vec::new()),
            Extra::Sparse(extra) => (Added::None, super::pass::summed(extra)),
        };
        for (item, extra) in &special {
            if !(request.excluded)(*item) {
                top.offer(*item, dot(request.query, self.factors().row(*item as usize)) + extra);
            }
        }
        let seen = Seen::new(self);
        let taken = |item: u32| {
            special.binary_search_by_key(&item, |(item, _)| *item).is_ok()
                || seen.before(item)
                || (request.excluded)(item)
        };
        let pass = Pass { request: Request { count, excluded: &taken, ..*request }, rounded, added };
        self.look(&pass, &seen, effort, &mut top)?;
        Ok(top.into_sorted())
    }

    /// The answers to many requests, each as [`Partition::best`] gives it.
    ///
    /// # Errors
    /// As [`Partition::best`], for the first request that has one.
    pub fn best_of_each(&self, requests: &[Request<'_>], effort: usize) -> Result<Vec<Vec<(u32, f32)>>, ScanError> {
        requests.par_iter().map(|request| self.best(request, effort)).collect()
    }

    /// Scans the clusters of the best means until the effort is spent and the answer is full.
    fn look(&self, pass: &Pass<'_>, seen: &Seen<'_>, effort: usize, top: &mut Top) -> Result<(), ScanError> {
        let catalogue = Catalogue { panels: &self.panels, factors: self.factors(), kernel: self.kernel };
        let mean_size = self.sizes.iter().sum::<usize>().div_ceil(self.clusters());
        let (mut spent, mut done, mut asked) = (0, 0, effort.div_ceil(mean_size).max(4));
        while done < self.clusters() {
            let ranked = self.means.best(&Request::new(pass.request.query, asked))?;
            for (cluster, _) in &ranked[done..] {
                if spent >= effort && top.len() == pass.request.count {
                    return Ok(());
                }
                let cluster = *cluster as usize;
                seen.enter(cluster);
                for panel in self.starts[cluster]..self.starts[cluster + 1] {
                    if !catalogue.skips(panel, self.largest[panel], pass, top.threshold()) {
                        catalogue.visit(panel, [pass], [&mut *top], [f32::NEG_INFINITY]);
                    }
                }
                spent += self.sizes[cluster];
            }
            done = ranked.len();
            asked = asked.saturating_mul(4);
        }
        Ok(())
    }
}

/// Which clusters were looked at, so that an item of two of them is offered once.
struct Seen<'p> {
    homes: &'p [[u32; 2]],
    /// By cluster. Atomic since exclusions are asked through a shared reference; one thread writes.
    done: Vec<AtomicBool>,
    current: AtomicUsize,
}

impl<'p> Seen<'p> {
    fn new<M>(partition: &'p Partition<M>) -> Self {
        let done = partition.sizes.iter().map(|_| AtomicBool::new(false)).collect();
        Self { homes: &partition.homes, done, current: AtomicUsize::new(usize::MAX) }
    }

    /// Begins with a cluster, after the one before it.
    fn enter(&self, cluster: usize) {
        if let Some(done) = self.done.get(self.current.swap(cluster, Relaxed)) {
            done.store(true, Relaxed);
        }
    }

    /// Whether the item was there in a cluster looked at before.
    fn before(&self, item: u32) -> bool {
        self.homes[item as usize].iter().any(|home| self.done[*home as usize].load(Relaxed))
    }
}

/// The mean of the members of each cluster.
fn of_members(factors: &Matrix, clusters: &[Vec<u32>]) -> Matrix {
    let mut means = Matrix::zeros(clusters.len(), factors.columns());
    if factors.columns() > 0 {
        let rows = means.as_mut_slice().par_chunks_mut(factors.columns());
        rows.zip(clusters).for_each(|(mean, items)| super::means::mean(factors, items, mean));
    }
    means
}
