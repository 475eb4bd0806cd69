//! What a fit may allocate, and what the cut to the strongest links keeps of it.

use std::collections::HashSet;

use echotune_api::CutAudit;
use echotune_engine::{
    GraphOptions, Interactions, ItemGraph, Random,
    blend::Blend,
    budget::{FitPlan, FitSize, FitTooLarge},
    cut,
};
use echotune_model::ItemKind;
use serde::{Deserialize, Serialize};

use super::{Beside, Depth, FEW};
use crate::shelf::History;

/// Listeners whose lists are compared with and without the cut after each fit.
const SAMPLE: usize = 256;
/// Length of these lists.
const LENGTH: usize = 20;
/// Of the sample.
const SEED: u64 = 1;

/// What the cut keeps of lists of 20 of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CutFigure {
    /// Tracks, not artists.
    pub(crate) tracks: bool,
    /// Of those who asked lately, not of a sample of all.
    pub(crate) requests: bool,
    pub(crate) listeners: u64,
    pub(crate) recall: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) mass: f64,
}

impl From<&CutFigure> for CutAudit {
    fn from(figure: &CutFigure) -> Self {
        let CutFigure { tracks, requests, listeners, recall, low, high, mass } = *figure;
        let kind = if tracks { ItemKind::Track } else { ItemKind::Artist };
        Self { kind, requests, listeners, recall, low, high, mass }
    }
}

/// What is fitted of one kind within so many bytes, for so many listeners with a history.
pub(super) fn planned<'h>(
    items: usize,
    histories: impl Iterator<Item = &'h History>,
    beside: &Beside<'_>,
    depth: Depth,
    allowed: u64,
) -> Result<FitPlan, FitTooLarge> {
    let (mut users, mut listeners, mut pairs) = (0_u64, 0, 0);
    for history in histories {
        users += 1;
        listeners += usize::from(!history.is_empty());
        pairs += history.len() as u64;
    }
    let size = FitSize {
        users,
        items: items as u64,
        pairs,
        features: beside.taggings.len().max(beside.features.len()) as u64,
        steps: if beside.kind == ItemKind::Track { pairs * beside.recipe.sequence.reach as u64 } else { 0 },
        threads: rayon::current_num_threads() as u64,
    };
    if depth == Depth::Quick || listeners < FEW {
        return size.plan_graph(GraphOptions::default().neighbours, allowed);
    }
    size.plan(beside.recipe.blend, allowed)
}

/// What a graph holds, once it is fitted.
pub(super) fn held(graph: &ItemGraph) -> u64 {
    let items = u32::try_from(graph.item_count()).expect("items are numbered in 32 bits");
    (0..items).map(|item| 8 * graph.row(item).len() as u64 + 20).sum()
}

/// Compares lists by the blend with those by the links it was cut to: for a sample of all, and for those who asked
/// lately, by their places among the listeners. `histories` are weighted as they are served.
pub(super) fn audited(
    beside: &Beside<'_>,
    (blend, links): (&Blend, &ItemGraph),
    histories: &Interactions,
) -> Vec<CutFigure> {
    let tracks = beside.kind == ItemKind::Track;
    let of = |user: usize| histories.entries(user).collect::<Vec<(u32, f32)>>();
    let audit = |requests: bool, users: Vec<usize>| {
        let lists: Vec<Vec<(u32, f32)>> = users.into_iter().map(of).filter(|history| !history.is_empty()).collect();
        let kept = cut::kept(&lists, LENGTH, links, &|histories, out| blend.add_scores(histories, out))?;
        let cut::CutKept { listeners, recall, low, high, mass } = kept;
        tracing::info!(tracks, requests, listeners, recall, low, high, mass, "what the cut keeps of lists of 20");
        Some(CutFigure { tracks, requests, listeners, recall, low, high, mass })
    };
    let asked = beside.asked.iter().map(|user| *user as usize).collect();
    [audit(false, sample(histories)), audit(true, asked)].into_iter().flatten().collect()
}

/// Some of those with a history, chosen by a fixed seed, ascending.
fn sample(histories: &Interactions) -> Vec<usize> {
    let known: Vec<usize> = (0..histories.user_count()).filter(|user| !histories.row(*user).is_empty()).collect();
    if known.len() <= SAMPLE {
        return known;
    }
    let (mut random, mut chosen) = (Random::new(SEED), HashSet::new());
    while chosen.len() < SAMPLE {
        chosen.insert(known[random.below(known.len())]);
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}
