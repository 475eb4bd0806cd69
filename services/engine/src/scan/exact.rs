use std::borrow::Borrow;

use rayon::prelude::*;

use super::{
    Extra, LARGEST_RANK, Request, ScanError,
    kernel::Kernel,
    panels::{PANEL, Panels, Rounded},
    pass::{Added, Catalogue, Pass, check},
    top::{Reached, Top},
};
use crate::dense::Matrix;

/// Panels of one task of a scan: 16,384 items.
const TASK: usize = 256;

/// From this many tasks on one request is shared among threads; below, handing out costs more than it saves.
const SHARED: usize = 8;

/// Requests of one task of a batch: the items of a panel are read once for all of them.
const TILE: usize = 32;

/// Exact retrieval: the answer has the items, the order and the bits of scoring every item with
/// [`crate::dense::dot`] and sorting by score, equal scores by item number; for any number of threads.
///
/// It holds the factors (`Matrix`, or what lends one, such as an `Arc` or a reference) and beside them
/// rank + 20 bytes for each item.
#[derive(Debug, Clone)]
pub struct Scan<M = Matrix> {
    factors: M,
    panels: Panels,
    /// Place of each item in the panels.
    places: Vec<u32>,
    /// At least the largest norm in each panel and all that follow.
    largest: Vec<f32>,
    kernel: Kernel,
}

impl<M: Borrow<Matrix> + Sync> Scan<M> {
    /// Of factors, items × rank. Time O(items × (rank + log items)).
    ///
    /// # Errors
    /// An element that is no number, an item longer than 1e18, or more than [`LARGEST_RANK`] columns.
    pub fn new(factors: M) -> Result<Self, ScanError> {
        let matrix: &Matrix = factors.borrow();
        let norms = norms(matrix)?;
        // The longest first, so that what comes after is soon too short to matter.
        let mut order: Vec<u32> = (0..).take(norms.len()).collect();
        let by_norm = |a: &u32, b: &u32| norms[*b as usize].total_cmp(&norms[*a as usize]).then(a.cmp(b));
        order.par_sort_unstable_by(by_norm);
        let panels = Panels::new(matrix, &order)?;
        let mut places = vec![0; norms.len()];
        (0..).zip(&order).for_each(|(place, item)| places[*item as usize] = place);
        let mut largest: Vec<f32> = (0..panels.len()).map(|panel| panels.largest(panel)).collect();
        falling(&mut largest);
        Ok(Self { factors, panels, places, largest, kernel: Kernel::detected() })
    }

    /// The factors it was made of.
    pub fn factors(&self) -> &Matrix {
        self.factors.borrow()
    }

    /// The answer to one request, best first: items with their scores `query · item + extra`, in f32. Time
    /// O(items × rank) bytes read at the most, less where norms fall.
    ///
    /// # Errors
    /// A query that is not of the rank, holds what is no number or is longer than 1e18; an addend for an item
    /// beyond the catalogue or out of range.
    pub fn best(&self, request: &Request<'_>) -> Result<Vec<(u32, f32)>, ScanError> {
        let rounded = check(request, self.factors().rows(), self.factors().columns())?;
        Ok(match self.plain(request, &rounded) {
            Some(answer) => answer,
            None => self.one(&self.pass(*request, rounded)).into_sorted(),
        })
    }

    /// The answers to many requests, each as [`Scan::best`] gives it. Items are read once for 32 requests.
    ///
    /// # Errors
    /// As [`Scan::best`], for the first request that has one.
    pub fn best_of_each(&self, requests: &[Request<'_>]) -> Result<Vec<Vec<(u32, f32)>>, ScanError> {
        let tiles: Result<Vec<_>, ScanError> = requests.par_chunks(TILE).map(|tile| self.tile(tile)).collect();
        Ok(tiles?.into_iter().flatten().collect())
    }

    fn pass<'r>(&self, request: Request<'r>, rounded: Rounded) -> Pass<'r> {
        let added = Added::new(request.extra, &self.places, self.panels.len());
        let count = request.count.min(self.places.len());
        Pass { request: Request { count, ..request }, rounded, added }
    }

    /// Answers that need no scan: for nothing, and for a query of zeros, whose scores are the addends.
    fn plain(&self, request: &Request<'_>, rounded: &Rounded) -> Option<Vec<(u32, f32)>> {
        if request.count == 0 || self.places.is_empty() {
            return Some(Vec::new());
        }
        if rounded.norm_of_exact > 0.0 {
            return None;
        }
        let pass = self.pass(*request, rounded.clone());
        let mut top = Top::new(pass.request.count);
        if matches!(request.extra, Extra::None) {
            // The first that are allowed will do.
            let allowed = (0..).take(self.places.len()).filter(|item| !(request.excluded)(*item));
            allowed.take(pass.request.count).for_each(|item| top.offer(item, 0.0));
            return Some(top.into_sorted());
        }
        for panel in 0..self.panels.len() {
            let items = self.panels.items(panel);
            let added = pass.added.of(panel, items).unwrap_or([0.0; PANEL]);
            for (item, score) in items.iter().zip(added).filter(|(item, _)| (**item as usize) < self.places.len()) {
                if score >= top.threshold() && !(request.excluded)(*item) {
                    top.offer(*item, score);
                }
            }
        }
        Some(top.into_sorted())
    }

    fn catalogue(&self) -> Catalogue<'_> {
        Catalogue { panels: &self.panels, factors: self.factors(), kernel: self.kernel }
    }

    fn one(&self, pass: &Pass<'_>) -> Top {
        let reached = Reached::new();
        let tasks = self.panels.len().div_ceil(TASK);
        if tasks < SHARED {
            return self.part(0, self.panels.len(), pass, &reached);
        }
        let parts = (0..tasks).into_par_iter().map(|task| {
            let from = task * TASK;
            self.part(from, self.panels.len().min(from + TASK), pass, &reached)
        });
        parts.reduce(|| Top::new(pass.request.count), Top::join)
    }

    /// The best of some panels that reach what others have reached.
    fn part(&self, from: usize, to: usize, pass: &Pass<'_>, reached: &Reached) -> Top {
        let catalogue = self.catalogue();
        let mut top = Top::new(pass.request.count);
        for panel in from..to {
            let least = reached.raise(top.threshold());
            if !catalogue.skips(panel, self.largest[panel], pass, least) {
                catalogue.visit(panel, [pass], [&mut top], [least]);
            } else if matches!(pass.added, Added::None) {
                // All that follow are shorter.
                break;
            }
        }
        top
    }

    fn tile(&self, requests: &[Request<'_>]) -> Result<Vec<Vec<(u32, f32)>>, ScanError> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut slots = Vec::with_capacity(requests.len());
        for (place, request) in requests.iter().enumerate() {
            let rounded = check(request, self.factors().rows(), self.factors().columns())?;
            let plain = self.plain(request, &rounded);
            if plain.is_none() {
                let pass = self.pass(*request, rounded);
                slots.push(Slot { place, top: Top::new(pass.request.count), pass });
            }
            answers.push(plain.unwrap_or_default());
        }
        self.scan(&mut slots);
        for slot in slots {
            answers[slot.place] = slot.top.into_sorted();
        }
        Ok(answers)
    }

    /// Every panel for all slots before the next, four at once.
    fn scan(&self, slots: &mut [Slot<'_>]) {
        let catalogue = self.catalogue();
        for (panel, largest) in self.largest.iter().enumerate() {
            for four in slots.chunks_mut(4) {
                let wanted = |slot: &Slot<'_>| !catalogue.skips(panel, *largest, &slot.pass, slot.top.threshold());
                match four {
                    [a, b, c, d] if wanted(a) && wanted(b) && wanted(c) && wanted(d) => {
                        let tops = [&mut a.top, &mut b.top, &mut c.top, &mut d.top];
                        let reached = [f32::NEG_INFINITY; 4];
                        catalogue.visit(panel, [&a.pass, &b.pass, &c.pass, &d.pass], tops, reached);
                    }
                    some => {
                        for slot in some.iter_mut().filter(|slot| wanted(slot)) {
                            catalogue.visit(panel, [&slot.pass], [&mut slot.top], [f32::NEG_INFINITY]);
                        }
                    }
                }
            }
        }
    }
}

/// A request of a tile.
struct Slot<'r> {
    /// Its place among the requests.
    place: usize,
    pass: Pass<'r>,
    top: Top,
}

/// The squared norm of each item, in f64, where squares neither vanish nor overflow.
pub(super) fn norms(factors: &Matrix) -> Result<Vec<f64>, ScanError> {
    let (rows, columns) = (factors.rows(), factors.columns());
    if columns > LARGEST_RANK || rows >= u32::MAX as usize {
        return Err(ScanError::Shape { rows, columns });
    }
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    Ok((0..rows).into_par_iter().map(|row| factors.row(row).iter().map(square).sum()).collect())
}

/// Each number becomes the largest of itself and all that follow.
pub(super) fn falling(numbers: &mut [f32]) {
    for at in (1..numbers.len()).rev() {
        numbers[at - 1] = numbers[at - 1].max(numbers[at]);
    }
}
