//! What the cut to the strongest links keeps: lists by all weights beside lists by the links that serve.

use rayon::prelude::*;

use crate::{ItemGraph, best, blend::add_links, scan::Audit};

/// Histories that one thread scores at once.
const BLOCK: usize = 16;
/// With which probability the recall may be outside of its interval.
const ERROR: f64 = 0.05;

/// How lists by the links that serve compare with lists by all weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CutKept {
    /// Listeners compared.
    pub listeners: u64,
    /// Mean share of the exact list that is found, in [0, 1].
    pub recall: f64,
    /// The true share is above this and below [`CutKept::high`] with a probability of 95 %.
    pub low: f64,
    /// See [`CutKept::low`].
    pub high: f64,
    /// The exact scores of what is found, over those of the exact lists: 1 when nothing is lost.
    pub mass: f64,
}

/// What adds the scores of histories of (item, weight) to as many rows of all items.
pub type Add<'a> = dyn Fn(&[Vec<(u32, f32)>], &mut [f32]) + Sync + 'a;

/// A list with its exact scores, best first.
type Scored = Vec<(u32, f32)>;

/// Compares the lists of `length` new items for histories of (item, weight): exact by `add`, which adds their scores by
/// all weights to rows of zeros, histories × items, and found by the links. None for fewer than two listeners. Time
/// that of `add` and O(histories × items); memory O(threads × items). The bits do not depend on the number of threads.
///
/// # Panics
/// When an item is not of the catalogue.
pub fn kept(histories: &[Vec<(u32, f32)>], length: usize, links: &ItemGraph, add: &Add<'_>) -> Option<CutKept> {
    let items = links.item_count();
    let compare = |histories: &[Vec<(u32, f32)>]| {
        let (mut exact, mut found) = (vec![0.0; histories.len() * items], vec![0.0; histories.len() * items]);
        add(histories, &mut exact);
        add_links(links, histories, 1.0, &mut found);
        let rows = exact.chunks_exact(items.max(1)).zip(found.chunks_exact(items.max(1)));
        let lists = rows.zip(histories).map(|((exact, found), history)| {
            let by_exact = |list: Scored| {
                let mut list: Scored = list.into_iter().map(|(item, _)| (item, exact[item as usize])).collect();
                list.sort_by(|a, b| b.1.total_cmp(&a.1));
                list
            };
            (by_exact(new(found, history, length)), new(exact, history, length))
        });
        lists.collect::<Vec<(Scored, Scored)>>()
    };
    let lists: Vec<Vec<(Scored, Scored)>> = histories.par_chunks(BLOCK).map(compare).collect();
    let (mut audit, mut sums) = (Audit::new(1.0), [0.0_f64; 2]);
    for (found, exact) in lists.iter().flatten() {
        audit.compare(found, exact);
        for (sum, list) in sums.iter_mut().zip([found, exact]) {
            *sum += list.iter().map(|(_, score)| f64::from(*score)).sum::<f64>();
        }
    }
    let recall = audit.recall(ERROR)?;
    let mass = if sums[1] > 0.0 { sums[0] / sums[1] } else { 1.0 };
    Some(CutKept { listeners: recall.queries, recall: recall.mean, low: recall.low, high: recall.high, mass })
}

/// The best items that a history does not have, of those that score.
fn new(scores: &[f32], history: &[(u32, f32)], length: usize) -> Scored {
    let mut known: Vec<u32> = history.iter().map(|(item, _)| *item).collect();
    known.sort_unstable();
    let new = (0..).zip(scores).filter(|(item, score)| **score > 0.0 && known.binary_search(item).is_err());
    let list = best(new.map(|(item, score)| (item, f64::from(*score))).collect(), length);
    list.into_iter().map(|(item, _)| (item, scores[item as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEMS: u32 = 60;

    fn weight(from: u32, to: u32) -> f32 {
        if from == to { 0.0 } else { ((from * 31 + to * 17) % 59 + 1) as f32 / 59.0 }
    }

    fn graph(links: usize) -> ItemGraph {
        let row = |from: u32| {
            let mut row: Vec<(u32, f32)> =
                (0..ITEMS).filter(|to| *to != from).map(|to| (to, weight(from, to))).collect();
            row.sort_by(|a, b| b.1.total_cmp(&a.1));
            row.truncate(links);
            row.sort_by_key(|(to, _)| *to);
            row
        };
        ItemGraph::from_links(&(0..ITEMS).map(row).collect::<Vec<_>>()).expect("links")
    }

    fn compared(links: usize) -> CutKept {
        let histories: Vec<Vec<(u32, f32)>> =
            (0..50).map(|user| (0..6).map(|n| ((user * 7 + n * 11) % ITEMS, 1.0 + n as f32)).collect()).collect();
        let all = graph(ITEMS as usize);
        let add = |histories: &[Vec<(u32, f32)>], out: &mut [f32]| add_links(&all, histories, 1.0, out);
        kept(&histories, 10, &graph(links), &add).expect("listeners")
    }

    #[test]
    fn without_a_cut_everything_is_kept_and_a_harder_cut_keeps_less() {
        let whole = compared(ITEMS as usize);
        assert_eq!((whole.listeners, whole.recall, whole.mass), (50, 1.0, 1.0));
        let (mild, hard) = (compared(30), compared(3));
        assert!(hard.recall < mild.recall && mild.recall < 1.0, "{mild:?} {hard:?}");
        assert!(hard.mass < mild.mass && mild.mass < 1.0, "{mild:?} {hard:?}");
        assert!(mild.mass > mild.recall, "what is lost is at the end of the lists: {mild:?}");
        assert!(mild.low <= mild.recall && mild.recall <= mild.high);
    }

    #[test]
    fn one_listener_tells_nothing() {
        let graph = graph(3);
        assert_eq!(kept(&[vec![(1, 1.0)]], 10, &graph, &|_, _| {}), None);
    }
}
